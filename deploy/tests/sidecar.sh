#!/usr/bin/env bash
# The rendered sidecar overlay as real Pods of podman: verified and signed through the Service's port, no way around, secrets swapped, nothing lost at a stop.
# In make test: no, because it needs root, podman and iptables, and a Pod takes as long to stop as it would in a cluster (half a minute)
#
# Not shown: the NetworkPolicy, which no plugin enforces here; kubernetes.sh looks at its text. What is changed about the rendered Pod
# for podman's sake stands in sidecar/pod.py. The Service is what kube-proxy makes of one: a rule of iptables to a Pod's address.
source "$(dirname "$0")/lib.sh"
need podman "apt-get install podman buildah runc catatonit netavark aardvark-dns"
need buildah "apt-get install buildah"
need iptables "apt-get install iptables"
[ "$(id -u)" = 0 ] || fail "needs root: networks of podman, a rule of iptables"
source "$repo/deploy/tests/kubernetes/lib.sh"
pod_py=$repo/deploy/tests/sidecar/pod.py
export CONTAINERS_CONF=$repo/deploy/tests/sidecar/containers.conf
# Without systemd's log podman complains of each container.
podman() { command podman --log-level=error "$@"; }

network=doorward-$$ service=198.18.77.$((RANDOM % 200 + 1))
rule=(OUTPUT -d "$service/32" -p tcp --dport 80 -m comment --comment "doorward-test-$$" -j DNAT --to-destination)
endpoint="" pods=() built=()
cleanup() {
    [ -z "$endpoint" ] || iptables -w -t nat -D "${rule[@]}" "$endpoint"
    for name in "${pods[@]}"; do podman pod rm --force --time 0 "$name" >/dev/null; done
    podman network rm --force "$network" >/dev/null
    for name in "${built[@]}"; do buildah rm "$name" >/dev/null 2>&1; done
    podman rmi --force localhost/agent:sidecar localhost/python:sidecar >/dev/null
}

# ---- images
# tree FOLDER PROGRAM...: the programs and the libraries that they are linked with.
tree() {
    local root=$1 file
    shift
    mkdir -p "$root"
    for file in "$@" $(ldd "$@" | sed -nE 's,^[[:space:]](.* => )?(/[^ ]+) \(0x.*,\2,p' | sort -u); do
        mkdir -p "$root$(dirname "$file")"
        cp -L "$file" "$root$file"
    done
}
# commit ROOT IMAGE FLAGS...: an image of nothing but a folder.
commit() {
    local root=$1 image=$2 container
    shift 2
    chmod 755 "$root"
    container=$(buildah from scratch)
    built+=("$container")
    buildah copy --quiet "$container" "$root" / >/dev/null
    buildah config --env PATH=/usr/bin "$@" "$container"
    buildah commit --quiet "$container" "$image" >/dev/null
    buildah rm "$container" >/dev/null
    rm -rf "$root"
}
# The gateway's: $DOORWARD_IMAGE where that names one, else what image.sh puts together around the binary that is there.
if [ -n "${DOORWARD_IMAGE:-}" ]; then
    podman image exists "$DOORWARD_IMAGE" || fail "there is no image $DOORWARD_IMAGE"
else
    DOORWARD_IMAGE=localhost/doorward:test
    DOORWARD_IMAGE_FROM_BINARY=1 DOORWARD_BINARY=$doorward bash "$repo/deploy/tests/image.sh" >"$work/image.log" 2>&1 || fail "$(cat "$work/image.log")"
fi
# The agent's: this machine's Python in the place of the real image's, and on it the example's Dockerfile with an agent that answers
# slowly where it is asked to.
interpreter=$(readlink -f /usr/bin/python3)
standard=$("$interpreter" -I -c 'import sysconfig; print(sysconfig.get_paths()["stdlib"])')
mapfile -t modules < <(find "$standard/lib-dynload" -name '*.so')
tree "$work/python" "$interpreter" "${modules[@]}"
cp -R "$standard/." "$work/python$standard/"
[ "$interpreter" = /usr/bin/python3 ] || ln -s "$(basename "$interpreter")" "$work/python/usr/bin/python3"
commit "$work/python" localhost/python:sidecar
install -D -m 600 -t "$work/context" "$repo/deploy/tests/sidecar/agent.py" "$repo/deploy/examples/python/verify.py"
buildah build --quiet --pull=never --format docker --build-arg PYTHON_IMAGE=localhost/python:sidecar \
    -f "$repo/deploy/kubernetes/example/Dockerfile" -t localhost/agent:sidecar "$work/context" >/dev/null

# ---- manifests: the overlay with these images, as anybody would write it
cat >"$work/kustomization.yaml" <<END
resources: [$(realpath --relative-to="$work" "$repo/deploy/kubernetes/overlays/sidecar")]
images:
  - { name: registry.example.com/doorward, newName: ${DOORWARD_IMAGE%:*}, newTag: "${DOORWARD_IMAGE##*:}" }
  - { name: registry.example.com/agent, newName: localhost/agent, newTag: sidecar }
END
"$kubectl" kustomize "$work" >"$work/sidecar.yaml"
mkdir "$work/unguarded"
cat >"$work/unguarded/kustomization.yaml" <<END
resources: [$(realpath --relative-to="$work/unguarded" "$repo/deploy/kubernetes/example")]
images: [{ name: agent, newName: localhost/agent, newTag: sidecar }]
END
"$kubectl" kustomize "$work/unguarded" >"$work/unguarded.yaml"
fact() { "$python" "$pod_py" fact "${rendered:-$work/sidecar.yaml}" "$1"; }

# The Secret and the ConfigMap, as files that are then published to a Pod's volumes.
mkdir "$work/secret" "$work/next" "$work/config"
"$doorward" key new >"$work/secret/assertion" 2>/dev/null
"$doorward" secret new >"$work/secret/identity" 2>/dev/null
"$doorward" secret new >"$work/next/identity" 2>/dev/null
cp "$work/secret/assertion" "$work/next/"
cp "$repo/deploy/kubernetes/overlays/sidecar/doorward.toml" "$work/config/"
chmod 755 "$work"

# ---- the kubelet's part
# run_pod NAME RENDERED: its volumes, then the Pod. `address` becomes its address.
run_pod() {
    local volumes=$work/volumes/$1
    "$python" "$pod_py" make "$2" "$1" "$volumes" >"$work/pod-$1.yaml"
    "$python" "$pod_py" swap "$volumes/doorward-config" "$work/config/doorward.toml"
    "$python" "$pod_py" swap "$volumes/doorward-secrets" "${secret:-$work/secret}/assertion" "${secret:-$work/secret}/identity"
    "$python" "$pod_py" swap "$volumes/assertion-key" "$work/secret/assertion"
    pods+=("$1")
    podman kube play --network "$network" "$work/pod-$1.yaml" >"$work/$1.play" 2>&1 || fail "$(cat "$work/$1.play"; podman inspect --format "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}" "$1-doorward-check"; podman logs "$1-doorward-check" 2>&1)"
    address=$(podman inspect --format "{{(index .NetworkSettings.Networks \"$network\").IPAddress}}" "$(podman pod inspect --format '{{.InfraContainerID}}' "$1")")
}
probe() { curl -sf -o /dev/null --max-time 2 "http://$1:$(fact "probe:$2" | sed 's,/.*,,')$(fact "probe:$2" | sed 's,^[0-9]*,,')"; }
# The readiness of both containers, asked as the kubelet asks.
ready() {
    probe "$2" readiness || return 1
    mapfile -t command < <(fact exec:agent | "$python" -c 'import json, sys; print("\n".join(json.load(sys.stdin)))')
    podman exec "$1-agent" "${command[@]}"
}
# lead_to ADDRESS: the Service leads there. Connections that are there stay where they are.
lead_to() {
    iptables -w -t nat -I "${rule[@]}" "$1:$(fact port)"
    [ -z "$endpoint" ] || iptables -w -t nat -D "${rule[@]}" "$endpoint"
    endpoint=$1:$(fact port)
}

podman network create "$network" >/dev/null

# ---- around an agent that nobody guards there is a way: the look below can see one
elsewhere() {
    podman run --rm --network "$network" --entrypoint python3 localhost/agent:sidecar -c 'import socket, sys
for port in sys.argv[2:]:
    try: print(port, socket.create_connection((sys.argv[1], int(port)), 2) and "open")
    except OSError as why: print(port, why.strerror)' "$@"
}
rendered=$work/unguarded.yaml
run_pod unguarded "$rendered"
unset rendered
wait_for 20 curl -s -o /dev/null --max-time 1 -d '{}' "http://$address:3000/chat"
[ "$(elsewhere "$address" 3000)" = "3000 open" ] || fail "the unguarded agent cannot be reached, so nothing below would mean anything"
say "the example without the overlay: its port is open to this machine and to another Pod"
podman pod rm --force --time 0 unguarded >/dev/null
pods=()

# ---- the overlay
run_pod agent-1 "$work/sidecar.yaml"
first=$address
wait_for 20 probe "$first" startup
wait_for 20 ready agent-1 "$first"
[ "$(podman inspect --format '{{.State.ExitCode}}' agent-1-doorward-check)" = 0 ] || fail "$(podman logs agent-1-doorward-check 2>&1)"
said=$(podman logs agent-1-doorward-check 2>&1)
[[ $said == *fingerprint* ]] || fail "doorward check said: $said"
say "doorward check passed as init container, then the probes that the manifest names answer as ready"
podman exec agent-1-agent python3 -c 'print(open("/proc/self/status").read())' >"$work/status"
for line in '^Uid:[[:space:]]65532[[:space:]]' '^CapEff:.*0000000000000000$'; do
    grep -q "$line" "$work/status" || fail "the agent's container: $(cat "$work/status")"
done
[ "$(podman inspect --format '{{.HostConfig.ReadonlyRootfs}} {{.EffectiveCaps}} {{.Config.User}}' agent-1-doorward)" = "true [] 65532:65532" ] ||
    fail "the gateway's container: $(podman inspect --format '{{.HostConfig.ReadonlyRootfs}} {{.EffectiveCaps}} {{.Config.User}}' agent-1-doorward)"
say "both run as 65532 without capabilities, the gateway on a read-only root"

# What doorward check refuses does not begin to run.
cp -R "$work/secret" "$work/short"
printf 'too short' >"$work/short/identity"
if (secret=$work/short run_pod agent-0 "$work/sidecar.yaml") >"$work/refused" 2>&1; then fail "a Pod with a secret of nine bytes was played"; fi
pods+=(agent-0)
[ "$(podman inspect --format '{{.State.ExitCode}}' agent-0-doorward-check) $(podman inspect --format '{{.State.Running}}' agent-0-doorward)" = "2 false" ] ||
    fail "with a secret of nine bytes: $(cat "$work/refused")"
grep -q 'secret_unusable' "$work/refused" || fail "no reason: $(cat "$work/refused")"
say "with a secret of nine bytes the init container ends with 2 and its reason, and the gateway is not started"

# mint SECRET_FILE: a token for user_123, as the host's backend signs it.
mint() {
    "$doorward" token mint --format jwt --secret-file "$1" --subject user_123 --claim iss=https://support.example.com --expires-in 30m
}
# ask TOKEN FLAGS...: one request through the Service's port; the answer's status and text.
ask() {
    local token=$1
    shift
    curl -s --max-time 10 -w '%{http_code}' -H 'Authorization: Bearer pk_live_Zk3Tn8Qw5Rb1Yc7M' -H 'Origin: https://support.example.com' \
        ${token:+-H "X-User-Token: $token"} -d '{"message": "hi"}' "$@" "http://$service/chat" | tr '\n' ' '
}
lead_to "$first"
old=$(mint "$work/secret/identity") new=$(mint "$work/next/identity")
answer=$(ask "$old")
[ "$answer" = "Hello user_123 (verified) from agent-1 200" ] || fail "answered: $answer; $(podman logs agent-1-doorward 2>&1 | tail -n 3)"
say "through the Service's port: $answer (the agent checked the signature)"
answer=$(ask "$old" -H 'X-Identity-Subject: root')
[ "$answer" = "Hello user_123 (verified) from agent-1 200" ] || fail "a header of the client's: $answer"
answer=$(ask "" -H 'X-User-Id: user_123')
[[ $answer == *token_missing*401 ]] || fail "an id that nobody signed: $answer"
say "an id that nobody signed: 401 token_missing; the client's own X-Identity-Subject: gone"

# ---- no way around
look() { { for port in 3000 9090 8080 9091; do timeout 3 bash -c "exec 3<>/dev/tcp/$first/$port" 2>/dev/null && printf '%s open\n' "$port" || printf '%s Connection refused\n' "$port"; done; }; }
expected=$(printf '3000 Connection refused\n9090 Connection refused\n8080 open\n9091 open')
[ "$(look)" = "$expected" ] || fail "from this machine: $(look)"
[ "$(elsewhere "$first" 3000 9090 8080 9091)" = "$expected" ] || fail "from another Pod: $(elsewhere "$first" 3000 9090 8080 9091)"
answer=$(podman exec agent-1-agent python3 -c 'import urllib.request
try: urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:3000/chat", b"{}", {"X-Identity-Subject": "root", "X-Identity-Level": "verified"}))
except urllib.error.HTTPError as why: print(why.code, why.read().decode())')
[[ $answer == "401 refused"* ]] || fail "the agent believes what nobody signed: $answer"
say "agent and admin listener are refused from this machine and from another Pod, 8080 and 9091 open; inside the Pod an unsigned request is 401"

# ---- rotation: the kubelet swaps ..data, nothing is restarted
process() { podman inspect --format '{{.State.Pid}} {{.State.StartedAt}} {{.RestartCount}}' agent-1-doorward; }
before=$(process)
swapped() { [[ $(ask "$1") == *"$2" ]]; }
swapped "$new" 401 || fail "the next secret's token before its time: $(ask "$new")"
"$python" "$pod_py" swap "$work/volumes/agent-1/doorward-secrets" "$work/next/assertion" "$work/next/identity"
began=$(date +%s%N)
wait_for 10 swapped "$new" 200
took=$((($(date +%s%N) - began) / 1000000))
answer=$(ask "$old")
[[ $answer == *token_signature_invalid* ]] || fail "the old secret's token after the swap: $answer"
[ "$(process)" = "$before" ] || fail "the gateway was restarted: $before, now $(process)"
say "..data swapped: $took ms later the new secret's token is good and the old one's token_signature_invalid, in the same process"
reloads() { curl -s "http://$first:9091/metrics" | sed -n "s/^doorward_reloads_total{result=\"$1\"} //p"; }
sed 's/^preset = .*/preset = "nonesuch"/' "$work/config/doorward.toml" >"$work/doorward.toml"
"$python" "$pod_py" swap "$work/volumes/agent-1/doorward-config" "$work/doorward.toml"
counted() { [ "$(reloads refused)" -ge 1 ]; }
wait_for 10 counted
swapped "$new" 200 || fail "a ConfigMap that is refused: $(ask "$new")"
"$python" "$pod_py" swap "$work/volumes/agent-1/doorward-config" "$work/config/doorward.toml"
say "a broken ConfigMap is refused and counted, the last good one stays in force"

# ---- a stop: the next Pod is ready, this one is deleted while both kinds of clients are at it
cp "$work/next/identity" "$work/secret/identity"
run_pod agent-2 "$work/sidecar.yaml"
second=$address
wait_for 20 ready agent-2 "$second"
mint "$work/secret/identity" >"$work/token"
slow=12
start "$python" "$repo/deploy/tests/sidecar/clients.py" "$service" "$work/token" "$work/stop" "$slow" >"$work/clients.json"
clients=$pid
wait_for 10 test -e "$work/stop.slow"

gone() { [ "$(podman inspect --format '{{.State.Status}}' "$1")" = exited ]; }
began=$SECONDS
for container in doorward agent; do
    # What the kubelet does to each container of a Pod that is deleted.
    signal=$(podman inspect --format '{{.Config.StopSignal}}' "agent-1-$container")
    start bash -c "sleep $(fact "sleep:$container"); exec podman --log-level=error kill --signal $signal agent-1-$container >/dev/null"
done
# Readiness falls; word of it gets around and the Service leads to the other Pod, a second later than it might.
unready() { ! probe "$first" readiness; }
wait_for 3 unready
sleep 1
lead_to "$second"
wait_for "$(fact grace)" gone agent-1-doorward
drained=$((SECONDS - began))
code=$(podman inspect --format '{{.State.ExitCode}}' agent-1-doorward)
[ "$code" = 0 ] || fail "the gateway ended with $code: $(podman logs agent-1-doorward 2>&1 | tail -n 5)"
touch "$work/stop"
wait "$clients"
wait_for "$(($(fact grace) - drained))" gone agent-1-agent
ended=$((SECONDS - began))
[ "$ended" -le "$(fact grace)" ] || fail "the Pod took $ended s"
"$python" - "$work/clients.json" "$slow" <<'PY' || fail "$(cat "$work/clients.json")"
import json, sys
came = json.load(open(sys.argv[1]))
if came["lost"] or came["slow"] != {"agent-1": 4} or min(came["answered"].get(pod, 0) for pod in ["agent-1", "agent-2"]) < 50:
    sys.exit(1)
print(f"ok: a Pod stopped under load: {sum(came['answered'].values())} requests, {came['answered']['agent-1']} by the old Pod and "
      f"{came['answered']['agent-2']} by the new; 4 of {sys.argv[2]} s were under way and got their answers from the old one; none lost")
PY
say "the gateway drained in $drained s and ended with 0, the agent heard of it $(fact sleep:agent) s after; the Pod was gone in $ended s of $(fact grace)"
