#!/bin/sh
# Lets another binary, or another configuration, follow the running gateway without a lost connection:
#
#   deploy/upgrade.sh /usr/local/bin/doorward /etc/doorward/doorward.toml /var/log/doorward.log
#
# Needs [server] upgrade_socket in the configuration, and the user that the running process has. When the new process does not
# get ready, the running one goes on, and this script says why and fails.
set -eu

if [ $# -ne 3 ]; then
    echo "usage: $0 BINARY CONFIGURATION LOG" >&2
    exit 2
fi
binary=$1 configuration=$2 log=$3

"$binary" check -c "$configuration"

touch "$log"
before=$(wc -c <"$log")
said() { tail -c "+$((before + 1))" "$log"; }

nohup "$binary" run -c "$configuration" --upgrade >>"$log" 2>&1 </dev/null &
pid=$!
waited=0
while [ $waited -lt 1200 ]; do
    if said | grep -q ' serving '; then
        echo "process $pid serves; the one before it drains and ends"
        exit 0
    fi
    if ! kill -0 "$pid" 2>/dev/null; then
        said >&2
        echo "the new process ended; the running one goes on" >&2
        exit 1
    fi
    sleep 0.1
    waited=$((waited + 1))
done
kill "$pid"
echo "the new process did not get ready within two minutes; the running one goes on" >&2
exit 1
