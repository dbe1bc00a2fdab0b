#!/bin/sh
# Installs the ingresses of requirements.txt under target/ingress, a Python venv of about 350 MB. Runs again only when what is
# pinned has changed. Needs python3 with venv; touches nothing outside target/.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=${1:-$here/../../target/ingress}
export here
# shellcheck disable=SC2016 # expanded by the inner shell
sh "$here/../../.ci/pinned" "$root" "$here/requirements.txt" -- sh -euc '
    rm -rf venv
    python3 -m venv venv
    venv/bin/pip install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt"'
