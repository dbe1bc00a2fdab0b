#!/bin/sh
# Installs what builds and drives the page's script under target/browser: a node_modules. Runs again only when what is pinned
# has changed. Needs node and npm; touches nothing outside target/. The browser itself is the system's (.ci/deps test).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=${1:-$here/../../target/browser}
export here
# shellcheck disable=SC2016 # expanded by the inner shell
sh "$here/../../.ci/pinned" "$root" "$here/package.json" "$here/package-lock.json" -- sh -euc '
    rm -rf node_modules
    cp "$here/package.json" "$here/package-lock.json" .
    npm ci --silent --no-audit --no-fund --ignore-scripts'
