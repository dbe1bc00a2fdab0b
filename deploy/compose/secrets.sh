#!/bin/sh
# Makes the secrets of ../compose.yaml in secrets/ beside this file: each once, none is overwritten. Files that the containers'
# users can read, in a folder that other users of this machine cannot enter.
set -eu
umask 022
folder=$(cd "$(dirname "$0")" && pwd)/secrets
mkdir -p "$folder"
chmod 700 "$folder"
for name in assertion identity grafana; do
    if [ ! -s "$folder/$name" ]; then
        head -c 32 /dev/urandom | od -An -v -t x1 | tr -d ' \n' >"$folder/$name"
        echo "made $folder/$name"
    fi
done
