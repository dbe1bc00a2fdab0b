#!/usr/bin/env bash
# The Kustomize overlays render to what Kubernetes takes, nothing leads around the gateway, and its configuration is one that it takes.
# In make test: yes
source "$(dirname "$0")/lib.sh"
source "$repo/deploy/tests/kubernetes/lib.sh"

# look MODE FILE: all that can be told from manifests.
look() {
    schemas "$2"
    "$python" "$here/manifests.py" hold "$1" "$2" >"$work/held" || fail "$(cat "$work/held")"
    taken "$2" "$work/config-$(basename "$2")"
}

for overlay in sidecar gateway; do
    "$kubectl" kustomize "$repo/deploy/kubernetes/overlays/$overlay" >"$work/$overlay.yaml"
    look "$overlay" "$work/$overlay.yaml"
    say "$overlay: rendered; kubernetes-validate --strict is silent for 1.35, 1.36 and 1.37; doorward check is silent"
    sed "s/^ok: /ok: $overlay: /" "$work/held"
    "$python" "$here/manifests.py" notice "$overlay" "$work/$overlay.yaml"
done
# A stranger to the validator; manifests.py compares it with the Service that it is about.
grep -q 'kind: ServiceMonitor' "$work/gateway.yaml"
printf 'spec: {}\napiVersion: v1\nkind: Service\nmetadata: {name: a, nmae: b}\n' >"$work/wrong.yaml"
if (schemas "$work/wrong.yaml") 2>/dev/null; then fail "a misspelt field is not noticed"; fi
say "a misspelt field is noticed; ServiceMonitor has no schema here and is compared with its Service instead"

# ---- the page src/manual/kubernetes.md: its commands, with a stand-in for the cluster (kubernetes/cluster.py)
mkdir "$work/bin" "$work/cluster"
export CLUSTER=$work/cluster KUBECTL=$kubectl HELM=$tools/venv/bin/helm DOORWARD=$doorward
export HELM_CACHE_HOME=$work/helm HELM_CONFIG_HOME=$work/helm HELM_DATA_HOME=$work/helm
for program in kubectl helm; do
    printf '#!/bin/sh\nexec "%s" "%s" %s "$@"\n' "$python" "$here/cluster.py" "$program" >"$work/bin/$program"
    chmod +x "$work/bin/$program"
done
ln -s "$doorward" "$work/bin/doorward"
PATH=$work/bin:$PATH
# The page's folder is the repository's root, and nothing may be written there.
ln -s "$repo/deploy" "$work/deploy"
cd "$work" || exit
{
    kubectl create secret generic doorward --from-literal=assertion="$(doorward key new)" --from-literal=identity="$(doorward secret new)"
    kubectl apply -k deploy/kubernetes/overlays/sidecar
    kubectl rollout status deployment/agent
} >"$work/page.log" 2>&1 || fail "$(cat "$work/page.log")"
AGENT=127.0.0.1:$(free_port)
export AGENT
kubectl get secret doorward -o jsonpath='{.data.assertion}' | base64 -d >assertion.key
DOORWARD_ASSERTION_KEY=$(cat assertion.key) start python3 "$repo/deploy/examples/python/agent.py" "${AGENT##*:}" >agent.log
PORT=$(free_port)
{
    kubectl port-forward service/agent "${PORT:-8080}:80" &
} >>forwarded.log 2>&1
started+=("$!")
wait_for 10 curl -s -o /dev/null "http://127.0.0.1:$PORT/"
ask() {
    kubectl get secret doorward -o jsonpath='{.data.identity}' | base64 -d >identity.key
    TOKEN=$(doorward token mint --format jwt --secret-file identity.key --subject user_123 --claim iss=https://support.example.com)
    KEY='Authorization: Bearer pk_live_Zk3Tn8Qw5Rb1Yc7M' PAGE='Origin: https://support.example.com'
    curl -s "http://127.0.0.1:${PORT:-8080}/chat" -H "$KEY" -H "$PAGE" -H "X-User-Token: $TOKEN" -d '{"message": "hi"}'
}
greets() { ask >answer && [ "$(cat answer)" = "Hello user_123 (verified)" ]; }
greets || fail "the page's request: $(cat answer)"
curl -s "http://127.0.0.1:$PORT/chat" -H "$KEY" -H "$PAGE" -H 'X-User-Id: user_123' -d '{}' >refused
grep -q token_missing refused || fail "without the token: $(cat refused)"
say "the page's sidecar: its commands give a Secret and manifests with which a gateway answers: $(cat answer)"
PORT=$(free_port)
{
    kubectl apply -k deploy/kubernetes/example
    kubectl apply -k deploy/kubernetes/overlays/gateway
    kubectl rollout status deployment/doorward
} >"$work/page.log" 2>&1 || fail "$(cat "$work/page.log")"
{
    kubectl port-forward service/doorward "${PORT:-8080}:80" &
} >>forwarded.log 2>&1
started+=("$!")
wait_for 10 curl -s -o /dev/null "http://127.0.0.1:$PORT/"
greets || fail "the page's request to the gateway: $(cat answer)"
{
    helm upgrade --install guard deploy/helm/doorward --set image.repository=registry.example.com/doorward --set existingSecret=doorward --set agent.podLabels.app=agent --set-file config=deploy/kubernetes/overlays/gateway/doorward.toml
    kubectl rollout status deployment/guard-doorward
    helm upgrade --install chat deploy/helm/doorward -f deploy/helm/doorward/ci/sidecar.yaml --set-file config=deploy/kubernetes/overlays/sidecar/doorward.toml
    kubectl rollout status deployment/chat-doorward
    kubectl patch secret doorward --type=merge -p "{\"stringData\": {\"identity-2\": \"$(doorward secret new)\"}}"
    kubectl apply -k deploy/kubernetes/overlays/sidecar
} >"$work/page.log" 2>&1 || fail "$(cat "$work/page.log")"
PORT=$(free_port)
{
    kubectl port-forward service/guard-doorward "$PORT:80" &
} >>forwarded.log 2>&1
started+=("$!")
wait_for 10 curl -s -o /dev/null "http://127.0.0.1:$PORT/"
greets || fail "the page's request to the chart's gateway: $(cat answer)"
if kubectl rollout status deployment/nobody >refused 2>&1; then fail "the stand-in knows what nobody applied"; fi
say "the page's gateway and chart: the same"

# The four steps of overlays/sidecar/agent/kustomization.yaml, for another agent: other names, another port, told by environment.
cp -R "$repo/deploy/kubernetes" "$work/own"
cd "$work/own/overlays/sidecar" || exit
cat >agent/mine.yaml <<'YAML'
apiVersion: apps/v1
kind: Deployment
metadata: { name: chat, namespace: bots, labels: { app.kubernetes.io/name: chat } }
spec:
  selector: { matchLabels: { app.kubernetes.io/name: chat } }
  template:
    metadata: { labels: { app.kubernetes.io/name: chat } }
    spec:
      containers:
        - name: web
          image: registry.example.com/chat:7
          env: [{ name: HOST, value: 0.0.0.0 }, { name: PORT, value: "8000" }]
          ports: [{ name: web, containerPort: 8000 }]
          livenessProbe: { httpGet: { path: /healthz, port: web } }
          resources: { requests: { cpu: "1", memory: 1Gi }, limits: { memory: 2Gi } }
          securityContext: &confined
            runAsNonRoot: true
            readOnlyRootFilesystem: true
            allowPrivilegeEscalation: false
            capabilities: { drop: [ALL] }
            seccompProfile: { type: RuntimeDefault }
---
apiVersion: v1
kind: Service
metadata: { name: chat, namespace: bots }
spec: { selector: { app.kubernetes.io/name: chat }, ports: [{ port: 8080, targetPort: web }] }
YAML
sed -i.old -e 's|../../../example|mine.yaml|' -e 's/name: agent }/name: chat }/' agent/kustomization.yaml
cat >agent/patch.yaml <<'YAML'
apiVersion: apps/v1
kind: Deployment
metadata: { name: any, labels: { doorward: sidecar } }
spec:
  template:
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 60
      containers:
        - name: web
          env: [{ name: HOST, value: 127.0.0.1 }]
          ports: null
          livenessProbe: { httpGet: null, exec: { command: [/app/healthy] } }
          lifecycle: { preStop: { sleep: { seconds: 28 } } }
YAML
sed -i.old 's/127.0.0.1:3000/127.0.0.1:8000/' doorward.toml
sed -i.old 's/app: agent/app.kubernetes.io\/name: chat/' networkpolicy.yaml
sed -i.old 's/^resources:/namespace: bots\n&/' kustomization.yaml
"$kubectl" kustomize . >"$work/own.yaml"
look sidecar "$work/own.yaml"
grep -q '^ok: .*: chat:8080 to 8080$' "$work/held" || fail "$(cat "$work/held")"
say "the sidecar's four steps for one's own agent give the same: $(sed -n 's/^ok: no Service.*: //p' "$work/held")"
