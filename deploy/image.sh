#!/bin/sh
# Builds the image from this checkout, with the first of docker, podman and buildah that is there (or DOORWARD_IMAGE_TOOL):
#
#   deploy/image.sh [NAME:TAG [FLAG...]]        default: doorward:VERSION; flags go to the tool
#
# Times in it are those of the commit, or of SOURCE_DATE_EPOCH: the same sources on the same base give the same layers.
set -eu
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
# What is not in the commit is not that revision.
[ -z "$(git status --porcelain -- src Cargo.toml Cargo.lock deploy/Dockerfile deploy/auditable 2>/dev/null)" ] || revision=$revision-dirty
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH

name=${1:-doorward:$version}
[ $# -eq 0 ] || shift

tool=${DOORWARD_IMAGE_TOOL:-}
if [ -z "$tool" ]; then
    if docker info >/dev/null 2>&1; then
        tool=docker
    elif command -v podman >/dev/null 2>&1; then
        tool=podman
    elif command -v buildah >/dev/null 2>&1; then
        tool=buildah
    else
        echo "$0: needs docker, podman or buildah" >&2
        exit 1
    fi
fi

set -- -f deploy/Dockerfile -t "$name" "$@" .
labels="--label org.opencontainers.image.version=$version --label org.opencontainers.image.revision=$revision"
# Unquoted on purpose: words are flags.
# shellcheck disable=SC2086
case "$tool" in
docker) docker buildx build $labels --build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" --output type=docker,rewrite-timestamp=true "$@" ;;
podman | buildah)
    # Docker's format: OCI's has no HEALTHCHECK.
    "$tool" build --format docker --timestamp "$SOURCE_DATE_EPOCH" "$@"
    # Labels by themselves: in the build above they would be those of whichever build filled the cache.
    printf 'FROM %s\n' "$name" |
        "$tool" build --format docker --timestamp "$SOURCE_DATE_EPOCH" --pull=never --no-cache $labels -t "$name" -
    ;;
*)
    echo "$0: DOORWARD_IMAGE_TOOL is docker, podman or buildah" >&2
    exit 2
    ;;
esac
