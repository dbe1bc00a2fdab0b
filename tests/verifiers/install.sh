#!/bin/sh
# Installs the third-party verifiers under target/verifiers: a Python venv and a node_modules. Runs again only when what
# is pinned has changed. Needs python3 with venv, node and npm; touches nothing outside target/.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=${1:-$here/../../target/verifiers}
mkdir -p "$root"
root=$(cd "$root" && pwd)

for tool in python3 node npm; do
  command -v "$tool" >/dev/null 2>&1 || {
    echo "$0: $tool is missing; install it first (Debian: apt install python3-venv nodejs npm)" >&2
    exit 1
  }
done

# Two test binaries may get here at once.
lock=$root/.lock
tries=0
until mkdir "$lock" 2>/dev/null; do
  tries=$((tries + 1))
  if [ "$tries" -gt 300 ]; then
    echo "$0: $lock has been there for five minutes; remove it if no other install is running" >&2
    exit 1
  fi
  sleep 1
done
trap 'rmdir "$lock"' EXIT INT TERM

stamp=$(cat "$here/requirements.txt" "$here/package-lock.json" | cksum)
if [ "$(cat "$root/.stamp" 2>/dev/null || true)" != "$stamp" ]; then
  rm -rf "$root/.stamp" "$root/venv" "$root/node"
  python3 -m venv "$root/venv"
  "$root/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt"
  mkdir -p "$root/node"
  cp "$here/package.json" "$here/package-lock.json" "$root/node/"
  (cd "$root/node" && npm ci --silent --no-audit --no-fund --ignore-scripts)
  echo "$stamp" >"$root/.stamp"
fi
# Module resolution starts at the script's own place, so the scripts live beside node_modules.
for script in "$here"/*.mjs "$here/../../deploy/examples/node/verify.mjs"; do
  cmp -s "$script" "$root/node/$(basename "$script")" || cp "$script" "$root/node/"
done
