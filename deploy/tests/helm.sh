#!/usr/bin/env bash
# The chart lints, refuses values that could not work and says why, and renders in both modes to what kubernetes.sh asks of the overlays.
# In make test: yes
source "$(dirname "$0")/lib.sh"
source "$repo/deploy/tests/kubernetes/lib.sh"
chart=$repo/deploy/helm/doorward
helm=$tools/venv/bin/helm
# Beside its home directory Helm reads these.
export HELM_CACHE_HOME=$work/helm HELM_CONFIG_HOME=$work/helm HELM_DATA_HOME=$work/helm

# render MODE ARGUMENTS...: the chart with that mode's values and configuration, and more.
render() {
    local mode=$1
    shift
    "$helm" template guard "$chart" -f "$chart/ci/$mode.yaml" --set-file "config=${config:-$repo/deploy/kubernetes/overlays/$mode/doorward.toml}" "$@"
}

for program in "$helm" "$tools/bin/helm4"; do
    [ -x "$program" ] || continue
    for mode in gateway sidecar; do
        said=$("$program" lint --strict "$chart" -f "$chart/ci/$mode.yaml" --set-file "config=$repo/deploy/kubernetes/overlays/$mode/doorward.toml" 2>&1) || fail "$said"
    done
    say "helm lint --strict: $("$program" version --short)"
done
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$repo/Cargo.toml" | head -n 1)
grep -qx "appVersion: $version" "$chart/Chart.yaml" || fail "Chart.yaml: appVersion is not Cargo.toml's $version"

for mode in gateway sidecar; do
    render "$mode" >"$work/$mode.yaml"
    schemas "$work/$mode.yaml"
    "$python" "$here/manifests.py" hold "$mode" "$work/$mode.yaml" >"$work/held" || fail "$(cat "$work/held")"
    taken "$work/$mode.yaml" "$work/config-$mode"
    say "$mode: rendered; kubernetes-validate --strict is silent for 1.35, 1.36 and 1.37; doorward check is silent; $(wc -l <"$work/held") properties hold"
    "$python" "$here/manifests.py" notice "$mode" "$work/$mode.yaml"
    if [ -x "$tools/bin/helm4" ]; then
        helm=$tools/bin/helm4 render "$mode" | diff - "$work/$mode.yaml" >"$work/diff" || fail "Helm 4 renders something else: $(cat "$work/diff")"
    fi
done

# has FILE PYTHON: an expression about the Deployment `d`, its Pod `p` and all documents `all` is true.
has() {
    "$python" - "$1" "$2" <<'PY' || fail "$(basename "$1"): not so: $2"
import sys, yaml
all_ = [d for d in yaml.safe_load_all(open(sys.argv[1])) if d]
d = next(d for d in all_ if d["kind"] == "Deployment")
names = {"all": all_, "kinds": {d["kind"] for d in all_}, "d": d, "p": d["spec"]["template"]["spec"], "pod": d["spec"]["template"]}
sys.exit(not eval(sys.argv[2], names))
PY
}

render gateway --set autoscaling.enabled=false,replicaCount=3,podDisruptionBudget.enabled=false,topologySpread.enabled=false \
    --set serviceMonitor.enabled=false,networkPolicy.enabled=false,agent.podLabels=null >"$work/least.yaml"
schemas "$work/least.yaml"
has "$work/least.yaml" 'kinds == {"ConfigMap", "Service", "Deployment"} and d["spec"]["replicas"] == 3 and "topologySpreadConstraints" not in p'
render sidecar --set-string image.tag=9 --set service.type=LoadBalancer,service.port=8443,priorityClassName=high,nodeSelector.disk=ssd,podLabels.team=chat \
    --set 'tolerations[0].operator=Exists,imagePullSecrets[0].name=pull,agent.container.lifecycle.postStart.exec.command[0]=/warm' \
    --set 'networkPolicy.clients[0].podSelector.matchLabels.app=ingress,agent.volumes[0].name=tmp,agent.volumes[0].emptyDir.medium=Memory' >"$work/most.yaml"
schemas "$work/most.yaml"
has "$work/most.yaml" 'p["containers"][0]["image"].endswith(":9") and p["nodeSelector"] == {"disk": "ssd"} and pod["metadata"]["labels"]["team"] == "chat"'
has "$work/most.yaml" 'set(p["containers"][1]["lifecycle"]) == {"preStop", "postStart"} and p["volumes"][-1]["name"] == "tmp"'
has "$work/most.yaml" 'next(d for d in all if d["kind"] == "NetworkPolicy")["spec"]["ingress"][0]["from"] == [{"podSelector": {"matchLabels": {"app": "ingress"}}}]'
say "every switch does what it says, and the results are what Kubernetes takes"

# What is reloaded rolls no Pod; what only a new process takes up does; how long a Pod may take to end follows the configuration.
toml=$repo/deploy/kubernetes/overlays/sidecar/doorward.toml
sed -e 's/id = "support"/id = "sales"/' -e 's/"enforce"/"monitor"/' "$toml" >"$work/reloaded.toml"
sed -e 's/threads = 2/threads = 3/' "$toml" >"$work/restarted.toml"
sed -e 's/grace = "25s"/grace = "2m"/' -e 's/drain_delay = "3s"/drain_delay = "1500ms"/' -e 's/:8080/:8443/' "$toml" >"$work/slow.toml"
for name in reloaded restarted slow; do config=$work/$name.toml render sidecar >"$work/$name.yaml"; done
pod() { "$python" -c 'import sys, yaml; print(next(d["spec"]["template"] for d in yaml.safe_load_all(open(sys.argv[1])) if d and d["kind"] == "Deployment"))' "$1"; }
[ "$(pod "$work/reloaded.yaml")" = "$(pod "$work/sidecar.yaml")" ] || fail "a changed tenant rolls the Pods"
[ "$(pod "$work/restarted.yaml")" != "$(pod "$work/sidecar.yaml")" ] || fail "changed threads do not roll the Pods"
has "$work/slow.yaml" 'p["terminationGracePeriodSeconds"] == 132 and p["containers"][1]["lifecycle"]["preStop"]["sleep"]["seconds"] == 122'
has "$work/slow.yaml" 'p["containers"][0]["ports"][0]["containerPort"] == 8443'
"$python" "$here/manifests.py" hold sidecar "$work/slow.yaml" >"$work/held" || fail "$(cat "$work/held")"
say "a changed tenant rolls no Pod, changed threads do; ports, preStop and terminationGracePeriodSeconds are the configuration's"

# refused MODE TEXT ARGUMENTS...: the chart is not rendered, and the reason has that text.
refused() {
    local mode=$1 text=$2 said
    shift 2
    if said=$(render "$mode" "$@" 2>&1 >/dev/null); then fail "rendered with $*${config:+ and $(cat "$config")}"; fi
    printf '%s' "$said" | grep -qF -- "$text" || fail "with $*: expected \"$text\", got: $said"
    refusals=$((${refusals:-0} + 1))
}
refused gateway "mode must be one of" --set mode=proxy
refused gateway "Additional property imge is not allowed" --set imge.repository=x
refused gateway "Additional property minReplica is not allowed" --set autoscaling.minReplica=2
refused gateway "image.tag: Invalid type. Expected: string" --set image.tag=7
refused gateway "image.repository: Does not match pattern" --set image.repository=example.com/doorward:7
refused gateway "service.port: Must be less than or equal to 65535" --set service.port=70000
refused gateway "image.repository: where you pushed the image" --set image.repository=
refused gateway "existingSecret: the name of a Secret" --set existingSecret=
config=/dev/null refused gateway "config: the text of doorward.toml"
refused gateway "agent.podLabels: in mode gateway" --set agent.podLabels=null
refused gateway "maxReplicas 1 is less than minReplicas 2" --set autoscaling.maxReplicas=1
refused gateway "chart requires kubeVersion: >=1.30.0-0" --kube-version 1.29.0
refused sidecar "agent.container: in mode sidecar your agent's container" --set agent.container=null
refused sidecar "agent.container.ports: leave it out" --set 'agent.container.ports[0].containerPort=3000'
refused sidecar "preStop: the chart sets it" --set agent.container.lifecycle.preStop.sleep.seconds=1
refused sidecar "agent.container.livenessProbe: only exec works" --set agent.container.livenessProbe.httpGet.path=/
# wrong MODE TEXT SED: the same, with the configuration changed.
wrong() {
    sed -e "$3" "$repo/deploy/kubernetes/overlays/$1/doorward.toml" >"$work/wrong.toml"
    config=$work/wrong.toml refused "$1" "$2"
}
wrong gateway 'config: not TOML' 's/^\[server\]/[server/'
wrong gateway 'server.listen must be reachable' 's/0.0.0.0:8080/127.0.0.1:8080/'
wrong gateway 'server.probes must be where the kubelet reaches it' '/^probes/d'
wrong gateway 'server.admin must stay on loopback' 's/127.0.0.1:9090/0.0.0.0:9090/'
wrong gateway 'need a port each' 's/:9091/:8080/'
wrong gateway '"8080" is no address with a port' 's/0.0.0.0:8080/8080/'
wrong gateway '"25" is no duration' 's/"25s"/25/'
wrong gateway 'nothing else runs in the Pod' 's/agent:80/127.0.0.1:3000/'
wrong sidecar 'is the agent on loopback' 's/127.0.0.1:3000/agent:80/'
wrong sidecar 'is a port of the gateway' 's/127.0.0.1:3000/127.0.0.1:9090/'
say "$refusals wrong values are refused, each with its reason"

# The notes are printed by an install only, so they are rendered as part of a copy.
cp -R "$chart" "$work/chart"
{ printf '{{ define "notes" }}' && cat "$chart/templates/NOTES.txt" && printf '{{ end }}'; } >"$work/chart/templates/_notes.tpl"
printf 'kind: Notes\ntext: {{ include "notes" . | quote }}\n' >"$work/chart/templates/notes.yaml"
rm "$work/chart/templates/NOTES.txt"
chart=$work/chart render gateway --namespace bots --show-only templates/notes.yaml >"$work/notes.yaml"
"$python" -c 'import sys, yaml; print(yaml.safe_load(open(sys.argv[1]))["text"])' "$work/notes.yaml" >"$work/notes"
for text in "create secret generic doorward" "rollout status deployment/guard-doorward" "port-forward service/guard-doorward 8080:80 &" \
    "Bearer pk_live_Zk3Tn8Qw5Rb1Yc7M' -H 'Origin: https://support.example.com'" "http://guard-doorward.bots:80"; do
    grep -qF -- "$text" "$work/notes" || fail "the notes do not say: $text; $(cat "$work/notes")"
done
say "the notes name the next commands"
