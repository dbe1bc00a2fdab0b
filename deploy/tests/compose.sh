#!/usr/bin/env bash
# compose.yaml runs for real under podman-compose: a signed caller reaches the agent, nothing else does, Prometheus scrapes the gateway.
# In make test: no, because it needs root, podman and the image (deploy/tests/image.sh makes it), and installs packages into containers
#
# Run here: gateway, agent and Prometheus, the last with Debian's binary under the name of the image that compose.yaml asks for.
# Not run: Grafana, which no package here has; deploy/tests/lint.sh reads its part.
DOORWARD_BINARY=${DOORWARD_BINARY:-none}
source "$(dirname "$0")/lib.sh"
need podman "apt-get install podman runc netavark aardvark-dns iptables"
need buildah "apt-get install buildah"
need prometheus "apt-get install prometheus"
[ "$(id -u)" = 0 ] || fail "needs root"
export DOORWARD_IMAGE=${DOORWARD_IMAGE:-localhost/doorward:test}
podman image exists "$DOORWARD_IMAGE" || bash "$repo/deploy/tests/image.sh" || fail "no image to run"
base=$(sed -n 's/^ARG RUST_IMAGE=//p' "$repo/deploy/Dockerfile")

export CONTAINERS_CONF="$work/containers.conf" BUILDAH_ISOLATION=chroot
cat >"$CONTAINERS_CONF" <<'END'
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
[network]
network_backend = "netavark"
END
# Without systemd nobody runs health checks by themselves, which podman calls an error three times for each container.
podman() { command podman --log-level=fatal "$@"; }
export here="$repo/deploy/tests/lint" project="doorward-test-$$"
tools=$repo/target/deploy-compose
# shellcheck disable=SC2016 # expanded by the inner shell
sh "$repo/.ci/pinned" "$tools" "$here/compose.txt" -- sh -euc '
    rm -rf venv
    python3 -m venv venv
    venv/bin/pip install --quiet --disable-pip-version-check --no-deps -r "$here/compose.txt"'
compose() { (cd "$work/deploy" && "$tools/venv/bin/podman-compose" --in-pod false --project-name "$project" -f compose.yaml "$@") </dev/null; }
cleanup() {
    compose down --volumes --timeout 0 >/dev/null 2>&1 || true
    [ -z "${mounted:-}" ] || buildah rm "$mounted" >/dev/null
}

# What stands under the names of images that cannot be pulled.
image_of() { sed -n "s|^    image: \(docker.io/.*$1:.*\)|\1|p" "$repo/deploy/compose.yaml"; }
python=$(image_of python) prometheus=$(image_of prometheus)
if ! podman image exists "$python"; then
    mounted=$(buildah from --pull-never "$base")
    buildah run "$mounted" -- sh -euc 'apt-get update -qq && apt-get install -y -qq --no-install-recommends python3 wget' >"$work/apt.log" 2>&1 || fail "$(tail "$work/apt.log")"
    buildah commit --quiet "$mounted" "$python" >/dev/null
    buildah rm "$mounted" >/dev/null
    mounted=
fi
if ! podman image exists "$prometheus"; then
    mounted=$(buildah from --pull-never "$python")
    buildah copy --quiet "$mounted" "$(command -v prometheus)" /bin/prometheus >/dev/null
    buildah run "$mounted" -- sh -euc 'mkdir /prometheus && chown 65534:65534 /prometheus'
    buildah config --user 65534 --entrypoint '["/bin/prometheus"]' --volume /prometheus "$mounted"
    buildah commit --quiet "$mounted" "$prometheus" >/dev/null
    buildah rm "$mounted" >/dev/null
    mounted=
fi

# A copy: secrets are made beside the file.
chmod 755 "$work"
cp -R "$repo/deploy" "$work/deploy"
sh "$work/deploy/compose/secrets.sh" >/dev/null
cp "$work/deploy/compose/secrets/identity" "$work/before"
[ -z "$(sh "$work/deploy/compose/secrets.sh")" ] || fail "secrets.sh makes secrets that are there"
cmp -s "$work/before" "$work/deploy/compose/secrets/identity" || fail "secrets.sh overwrites"
DOORWARD_PORT=$(free_port) PROMETHEUS_PORT=$(free_port)
export DOORWARD_PORT PROMETHEUS_PORT
compose up --detach --no-build doorward agent prometheus >"$work/up.log" 2>&1 || fail "$(tail -n 20 "$work/up.log")"

container() { podman ps --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=$1" --format '{{.Names}}'; }
for service in doorward agent prometheus; do
    name=$(container "$service")
    [ -n "$name" ] || fail "$service does not run: $(tail -n 20 "$work/up.log")"
    wait_for 30 podman healthcheck run "$name"
    [ "$(podman inspect --format '{{.HostConfig.ReadonlyRootfs}}{{.EffectiveCaps}}' "$name")" = "true[]" ] || fail "$service has a root to write to, or capabilities"
done
say "gateway, agent and Prometheus run with a read-only root and no capability, and pass their healthchecks"

key=$(sed -n 's/^embed_keys = \["\([^"]*\)".*/\1/p' "$work/deploy/compose/doorward.toml")
origin=$(sed -n 's/^origins = \["\([^"]*\)".*/\1/p' "$work/deploy/compose/doorward.toml")
ask() { curl -s --max-time 20 "http://127.0.0.1:$DOORWARD_PORT/api/sdk/chat" -H "Authorization: Bearer $key" -H "Origin: $origin" -d "$1"; }
token=$(podman exec "$(container doorward)" /usr/bin/doorward token mint --format jwt --secret-file /run/secrets/identity --subject ann --subject-claim user_id)
answer=$(ask "{\"user_id\": \"ann\", \"user_token\": \"$token\", \"message\": \"hi\"}")
[ "$answer" = "Hello ann (verified)" ] || fail "answered: $answer"
ask '{"user_id": "ann", "message": "hi"}' | grep -q '"reason":"token_missing"' || fail "an id that nobody signed passed"
say "through the published port: a signed caller is greeted by name, an id that nobody signed is denied"

# The agent: by its address, from everybody but the gateway.
agent=$(podman inspect --format "{{(index .NetworkSettings.Networks \"${project}_agent\").IPAddress}}" "$(container agent)")
knock="import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"
knocks() { podman run --rm --network "$1" "$python" python3 -c "$knock" "$2" "$3" 2>/dev/null; }
knocks "container:$(container doorward)" "$agent" 3000 || fail "the gateway cannot reach the agent"
for network in front:8080 monitoring:9091; do
    port=${network#*:} network=${project}_${network%:*}
    knocks "$network" doorward "$port" || fail "nothing can be reached on network $network"
    for name in "$agent" agent; do
        if knocks "$network" "$name" 3000; then fail "the agent answers on network $network, as $name"; fi
    done
done
[ -z "$(podman port "$(container agent)")" ] || fail "the agent has a published port"
if podman exec "$(container agent)" python3 -c "import socket; socket.create_connection(('$(podman network inspect --format '{{(index .Subnets 0).Gateway}}' "${project}_front")', $DOORWARD_PORT), 3)" 2>/dev/null; then
    fail "the agent reaches out"
fi
say "the agent is reached from the gateway's network alone, by name or address, and reaches nobody"

query() { curl -s --max-time 5 "http://127.0.0.1:$PROMETHEUS_PORT/api/v1/query" --data-urlencode "query=$1"; }
scraped() { query 'sum(doorward_requests_total{outcome="forwarded",level="verified"})' | grep -q '"1"\]'; }
wait_for 60 scraped
query 'doorward_requests_total{reason="token_missing"}' | grep -q '"1"\]' || fail "Prometheus does not know of the denial"
say "Prometheus scraped the gateway: one request forwarded, one denied"

name=$(container doorward)
podman stop --time 30 "$name" >/dev/null
[ "$(podman inspect --format '{{.State.ExitCode}}' "$name")" = 0 ] || fail "stopped with $(podman inspect --format '{{.State.ExitCode}}' "$name")"
say "stop: exit code 0"
