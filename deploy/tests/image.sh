#!/usr/bin/env bash
# The image is built for real by buildah, is small, has no shell, runs as nobody on a read-only root, heals, drains.
# In make test: no, because it builds a release binary in a container (five minutes), needs root, buildah, podman and debootstrap
#
# It leaves the image as localhost/doorward:test ($DOORWARD_IMAGE). With DOORWARD_IMAGE_FROM_BINARY=1 the same image is put
# together around the binary that $DOORWARD_BINARY names, in seconds: for whoever wants the image and not its build.
#
# No registry is asked. Where the base image is not there, one is made under the name that the Dockerfile asks for, from Debian's
# packages and this machine's Rust; the real one differs from it in what is not used here.
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
    build localhost/doorward-runtime:test --pull=never --layers --target runtime
    mounted=$(buildah from --pull-never localhost/doorward-runtime:test)
    buildah copy --quiet "$mounted" "$doorward" /usr/bin/doorward >/dev/null
    buildah commit --quiet --format docker --timestamp "$(git -C "$repo" log -1 --format=%ct)" "$mounted" "$image" >/dev/null
    buildah rm "$mounted" >/dev/null
    mounted=
    say "put together around $doorward"
else
    build "$image" --pull=never --layers
    say "built by buildah $(buildah --version | cut -d' ' -f3) from $base"
fi
