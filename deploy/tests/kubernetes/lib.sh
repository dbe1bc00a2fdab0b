# What kubernetes.sh, helm.sh and sidecar.sh share; sourced after ../lib.sh. Installs what is pinned and sets `python` and `kubectl`.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # used by, and set by, who sources this
here=$repo/deploy/tests/kubernetes
sh "$here/install.sh"
tools=$(cd "$repo/target/kubernetes" && pwd)
python=$tools/venv/bin/python
kubectl=$tools/bin/kubectl
if [ ! -x "$kubectl" ]; then
    need kubectl "https://kubernetes.io/docs/tasks/tools"
    kubectl=kubectl
fi

# schemas FILE: the manifests are what three versions of Kubernetes take, to the last field. Definitions that are not of Kubernetes
# itself (ServiceMonitor) have no schema here.
schemas() {
    local version said
    for version in 1.35 1.36 1.37; do
        said=$("$tools/venv/bin/kubernetes-validate" --strict --quiet -k "$version" "$1" 2>&1) || fail "$said"
        said=$(printf '%s\n' "$said" | grep -v "Couldn't find schema for kind ServiceMonitor" || true)
        [ -z "$said" ] || fail "$said"
    done
}

# taken FILE FOLDER: doorward check takes the configuration in the manifests, with new secrets, and has nothing to say against it.
taken() {
    local said
    "$python" "$here/manifests.py" config "$1" "$2"
    said=$("$doorward" check -c "$2/doorward.toml" 2>&1 >/dev/null) || fail "$said"
    [ -z "$said" ] || fail "$said"
}
