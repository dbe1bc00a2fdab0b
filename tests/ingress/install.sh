#!/bin/sh
# Installs the ingresses of requirements.txt under target/ingress, a Python venv of about 350 MB. Runs again only when what is
# pinned has changed. Needs python3 with venv; touches nothing outside target/.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=${1:-$here/../../target/ingress}
mkdir -p "$root"
root=$(cd "$root" && pwd)

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

stamp=$(cksum <"$here/requirements.txt")
if [ "$(cat "$root/.stamp" 2>/dev/null || true)" != "$stamp" ]; then
  rm -rf "$root/.stamp" "$root/venv"
  python3 -m venv "$root/venv"
  "$root/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt"
  echo "$stamp" >"$root/.stamp"
fi
