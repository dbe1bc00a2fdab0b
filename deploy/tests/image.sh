#!/usr/bin/env bash
# The image is built for real by buildah, is small, has no shell, runs as nobody on a read-only root, heals, drains.
# In make test: no, because it builds a release binary in a container (six minutes), needs root, buildah, podman and debootstrap
#
# It leaves the image as localhost/doorward:test ($DOORWARD_IMAGE). With DOORWARD_IMAGE_FROM_BINARY=1 the same image is put
# together around the binary that $DOORWARD_BINARY names, in seconds: for whoever wants the image and not its build.
#
# No registry is asked. Where the base image is not there, one is made under the name that the Dockerfile asks for, from Debian's
# packages and this machine's Rust; the real one differs from it in what is not used here.
# No binary is needed: unless the image is to be put together around one.
DOORWARD_BINARY=${DOORWARD_BINARY:-none}
source "$(dirname "$0")/lib.sh"
image=${DOORWARD_IMAGE:-localhost/doorward:test}
base=$(sed -n 's/^ARG RUST_IMAGE=//p' "$repo/deploy/Dockerfile")
need buildah "apt-get install buildah"
need podman "apt-get install podman runc catatonit"
need debootstrap "apt-get install debootstrap"
[ "$(id -u)" = 0 ] || fail "needs root: buildah's chroot isolation"

# runc, because crun refuses hybrid cgroups; Debian's limits are higher than some machines allow.
export CONTAINERS_CONF="$work/containers.conf"
cat >"$CONTAINERS_CONF" <<'END'
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
END
export BUILDAH_ISOLATION=chroot
# Without systemd nobody runs health checks by themselves, which podman calls an error three times for each container.
podman() { command podman --log-level=fatal "$@"; }
container=
cleanup() {
    [ -z "$container" ] || podman rm --force --time 0 "$container" >/dev/null
    [ -z "${mounted:-}" ] || buildah rm "$mounted" >/dev/null
}

# The base image: Debian with a C compiler, and the Rust of this machine where rust's image has it.
stand_in() {
    local root
    debootstrap --variant=minbase --include=ca-certificates,gcc,g++,make bookworm "$work/base" http://deb.debian.org/debian >"$work/debootstrap.log" ||
        fail "debootstrap: $(tail -n 3 "$work/debootstrap.log")"
    # Whoever this machine trusts on its way to crates.io.
    cp /etc/ssl/certs/ca-certificates.crt "$work/base/etc/ssl/certs/ca-certificates.crt"
    root="$work/base/usr/local/rust"
    mkdir -p "$root" "$work/base/usr/local/cargo"
    cp -a "$(rustc --print sysroot)/bin" "$(rustc --print sysroot)/lib" "$root/"
    mounted=$(buildah from scratch)
    buildah copy --quiet "$mounted" "$work/base" / >/dev/null
    buildah config --env CARGO_HOME=/usr/local/cargo --env PATH=/usr/local/cargo/bin:/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$mounted"
    buildah commit --quiet "$mounted" "$base" >/dev/null
    buildah rm "$mounted" >/dev/null
    mounted=
    rm -rf "$work/base"
}
buildah inspect --type image "$base" >/dev/null 2>&1 || stand_in

build() { DOORWARD_IMAGE_TOOL=buildah "$repo/deploy/image.sh" "$@" >"$work/build.log" 2>&1 || fail "$(tail -n 40 "$work/build.log")"; }
if [ "${DOORWARD_IMAGE_FROM_BINARY:-}" = 1 ]; then
    [ -x "$doorward" ] || fail "DOORWARD_BINARY names the binary to put in"
    build localhost/doorward-runtime:test --pull=never --layers --target runtime
    mounted=$(buildah from --pull-never localhost/doorward-runtime:test)
    buildah copy --quiet "$mounted" "$doorward" /usr/bin/doorward >/dev/null
    buildah commit --quiet --format docker --timestamp "$(git -C "$repo" log -1 --format=%ct)" "$mounted" "$image" >/dev/null
    buildah rm "$mounted" >/dev/null
    mounted=
    say "put together around $doorward"
    exit 0
else
    build "$image" --pull=never --layers
    say "built by buildah $(buildah --version | cut -d' ' -f3) from $base"
fi

# Two builds that share nothing: buildah writes a random id into an image's head, so layers are compared.
layers() {
    build localhost/doorward-runtime:again --pull=never --no-cache --target runtime
    podman image inspect --format '{{.RootFS.Layers}}' localhost/doorward-runtime:again
    podman rmi --force localhost/doorward-runtime:again >/dev/null
}
[ "$(layers)" = "$(layers)" ] || fail "two builds have other layers"
say "everything but the binary, built twice without a cache: the same layers (deploy/tests/release.sh compares the binary)"

# ---- what is in it
inspect() { podman image inspect --format "$1" "$image"; }
size=$(inspect '{{.Size}}')
[ "$size" -le 40000000 ] || fail "$size bytes, at most 40000000"
say "$((size / 1000)) kB, at most 40000"
user=$(inspect '{{.User}}')
[ "$user" = 65532:65532 ] || fail "the user is $user"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$repo/Cargo.toml" | head -n 1)
for label in title=doorward licenses=Apache-2.0 "version=$version" "revision=$(git -C "$repo" rev-parse HEAD)"; do
    found=$(inspect "{{index .Labels \"org.opencontainers.image.${label%%=*}\"}}")
    # A checkout with changes says so.
    [ "${found%-dirty}" = "${label#*=}" ] || fail "label ${label%%=*} is $found"
done
inspect '{{.HealthCheck.Test}}' | grep -q 'CMD /usr/bin/doorward health' || fail "no HEALTHCHECK by the binary"
say "user $user, labels, HEALTHCHECK by the binary"

tree=$(podman image mount "$image")
find "$tree" -type f -perm /111 -printf '/%P\n' | sort >"$work/executables"
grep -vE '^/(usr/bin/doorward|lib.*\.so(\.[0-9]+)*)$' "$work/executables" && fail "more can be executed than the binary and its libraries"
find "$tree" ! -type l \( -perm /6000 -o -perm /022 \) -printf '/%P\n' >"$work/loose"
find "$tree" ! -user root -printf '/%P\n' >>"$work/loose"
[ ! -s "$work/loose" ] || fail "setuid, writable by others, or not root's: $(cat "$work/loose")"
podman image unmount "$image" >/dev/null
say "nothing to execute but the binary and its libraries: no shell; nothing setuid, nothing to write to"

# ---- how it runs
mkdir "$work/etc"
chmod 755 "$work" "$work/etc"
listen=$(free_port) probes=$(free_port) admin=$(free_port) backend=$(free_port)
cat >"$work/etc/doorward.toml" <<END
[server]
listen = "127.0.0.1:$listen"
admin = "127.0.0.1:$admin"
probes = "127.0.0.1:$probes"
drain_delay = "200ms"

[upstream]
address = "localhost:$backend"

[assertion]
audience = "agent"
keys = [{ id = "a1", file = "assertion" }]

[[tenant]]
id = "acme"
preset = "halo"
embed_keys = ["ab_live_0123456789abcdef"]
origins = ["https://app.example.com"]
secrets = [{ id = "s1", file = "identity" }]
END
run() { podman run --network host --read-only --read-only-tmpfs=false --cap-drop all --security-opt no-new-privileges -v "$work/etc:/etc/doorward:ro" "$@"; }
run --rm "$image" secret new >"$work/etc/identity" 2>/dev/null
run --rm "$image" key new >"$work/etc/assertion" 2>/dev/null
chmod 644 "$work"/etc/*
token=$(run --rm "$image" token mint --format jwt --secret-file /etc/doorward/identity --subject ann --subject-claim user_id)
run --rm "$image" check | grep -q '^ok: 1 tenant, 0 warnings' || fail "check complains"

DOORWARD_ASSERTION_KEY=$(cat "$work/etc/assertion")
export DOORWARD_ASSERTION_KEY
start python3 -B "$repo/deploy/examples/python/agent.py" "$backend" >"$work/agent.log"
container=$(run --detach "$image")
healthy() { podman exec "$container" /usr/bin/doorward health "$@"; }
wait_for 20 healthy --ready
ask() {
    curl -s --max-time 20 "http://127.0.0.1:$listen/api/sdk/chat" -H 'Authorization: Bearer ab_live_0123456789abcdef' \
        -H 'Origin: https://app.example.com' -d "$1"
}
wait_for 10 ask "{\"user_id\": \"ann\", \"user_token\": \"$token\", \"message\": \"hi\"}"
answer=$(ask "{\"user_id\": \"ann\", \"user_token\": \"$token\", \"message\": \"hi\"}")
[ "$answer" = "Hello ann (verified)" ] || fail "answered: $answer"
ask '{"user_id": "ann", "message": "hi"}' | grep -q '"reason":"token_missing"' || fail "an id that nobody signed passed"
say "read-only root, no capability, no new privileges: a signed caller is verified, an unsigned id denied"
if podman exec "$container" /bin/sh -c true 2>/dev/null; then fail "there is a shell"; fi
process=$(podman inspect --format '{{.State.Pid}}' "$container")
[ "$(awk '/^Uid:/ { print $2 }' "/proc/$process/status") $(awk '/^CapEff:/ { print $2 }' "/proc/$process/status")" = "65532 0000000000000000" ] ||
    fail "the process is not 65532 without capabilities: $(grep -E '^(Uid|Cap)' "/proc/$process/status")"

podman healthcheck run "$container" >/dev/null || fail "the image's own HEALTHCHECK fails"
kill -STOP "$process"
status=0
podman healthcheck run "$container" >/dev/null 2>&1 || status=$?
kill -CONT "$process"
[ "$status" = 1 ] || fail "the HEALTHCHECK of a process that stands still: $status"
wait_for 10 healthy
status=0
podman exec "$container" /usr/bin/doorward health -c /nowhere 2>/dev/null || status=$?
[ "$status" = 2 ] || fail "health without a configuration: $status"
say "HEALTHCHECK passes, fails while the process stands still, passes again; exit codes 0, 1, 2"

# ---- how it ends: the agent holds an answer back until the gateway drains
kill "$pid"
wait "$pid" 2>/dev/null || true
cat >"$work/slow.py" <<'END'
import http.server, os, sys, time
work = sys.argv[2]
class Slow(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        open(f"{work}/asked", "w").close()
        while not os.path.exists(f"{work}/go"):
            time.sleep(0.02)
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"late\n")
    def log_request(self, *_):
        pass
http.server.ThreadingHTTPServer.allow_reuse_address = True
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Slow).serve_forever()
END
start python3 "$work/slow.py" "$backend" "$work"
wait_for 10 bash -c "exec 3<>/dev/tcp/127.0.0.1/$backend"
start ask '{"message": "hi"}' >"$work/late"
wait_for 10 test -e "$work/asked"
podman kill --signal TERM "$container" >/dev/null
draining() { [ "$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$probes/readyz")" = 503 ]; }
wait_for 10 draining
touch "$work/go"
code=$(podman wait "$container")
wait "$pid" || fail "the request in flight was lost"
[ "$(cat "$work/late")" = late ] || fail "the request in flight got: $(cat "$work/late")"
[ "$code" = 0 ] || fail "exit code $code"
say "SIGTERM: not ready at once, the request in flight is answered, exit code 0"
