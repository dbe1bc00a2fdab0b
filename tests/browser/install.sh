#!/bin/sh
# Installs what builds and drives the page's script under target/browser: a node_modules. Runs again only when what is pinned
# has changed. Needs node and npm; touches nothing outside target/. The browser itself is the system's (.ci/deps test).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=${1:-$here/../../target/browser}
mkdir -p "$root"
root=$(cd "$root" && pwd)

for tool in node npm; do
  command -v "$tool" >/dev/null 2>&1 || {
    echo "$0: $tool is missing; install it first (Debian: apt install nodejs npm)" >&2
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

stamp=$(cat "$here/package.json" "$here/package-lock.json" | cksum)
if [ "$(cat "$root/.stamp" 2>/dev/null || true)" != "$stamp" ]; then
  rm -rf "$root/.stamp" "$root/node_modules"
  cp "$here/package.json" "$here/package-lock.json" "$root/"
  (cd "$root" && npm ci --silent --no-audit --no-fund --ignore-scripts)
  echo "$stamp" >"$root/.stamp"
fi
