#!/bin/sh
# Installs the third-party verifiers under target/verifiers: a Python venv and a node_modules. Runs again only when what
# is pinned has changed. Needs python3 with venv, node and npm; touches nothing outside target/.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=${1:-$here/../../target/verifiers}
export here
# shellcheck disable=SC2016 # expanded by the inner shell
sh "$here/../../.ci/pinned" "$root" "$here/requirements.txt" "$here/package-lock.json" -- sh -euc '
    rm -rf venv node
    python3 -m venv venv
    venv/bin/pip install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt"
    mkdir node
    cp "$here/package.json" "$here/package-lock.json" node/
    cd node
    npm ci --silent --no-audit --no-fund --ignore-scripts'
# Module resolution starts at the script's own place, so the scripts live beside node_modules.
for script in "$here"/*.mjs "$here/../../deploy/examples/node/verify.mjs"; do
  cmp -s "$script" "$root/node/$(basename "$script")" || cp "$script" "$root/node/"
done
