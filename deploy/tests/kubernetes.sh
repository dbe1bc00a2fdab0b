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
