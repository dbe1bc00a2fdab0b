# What the scripts of this folder share; sourced by each. Sets `repo`, `doorward` (the binary: $DOORWARD_BINARY, or one that was
# built) and `work` (a directory of the script's own, gone when it ends, as are the processes that `start` began).
# shellcheck shell=bash
set -euo pipefail
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
started=()

finish() {
    status=$?
    trap - EXIT
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${started[@]}"; do wait "$pid" 2>/dev/null || true; done
    # A script's own clean-up, where it has some.
    if declare -F cleanup >/dev/null; then cleanup || true; fi
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

# say TEXT: one line of what was shown.
say() { printf 'ok: %s\n' "$*"; }

# fail TEXT: says why and ends the script.
fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# need PROGRAM HINT: ends where a program is missing, and says how to get it.
need() { command -v "$1" >/dev/null 2>&1 || fail "$1 is missing: $2"; }

# start COMMAND...: in the background, until the script ends. Its process id is in `pid`.
start() {
    "$@" &
    pid=$!
    started+=("$pid")
}

# wait_for SECONDS COMMAND...: polls until the command succeeds.
wait_for() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || fail "waited in vain for: $*"
        sleep 0.1
    done
}

# free_port: a TCP port that nobody listens on now.
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

doorward=${DOORWARD_BINARY:-}
if [ -z "$doorward" ]; then
    for candidate in "$repo/target/release/doorward" "$repo/target/debug/doorward"; do
        if [ -x "$candidate" ]; then
            doorward=$candidate
            break
        fi
    done
fi
[ -n "$doorward" ] || fail "no binary: cargo build, or set DOORWARD_BINARY"
export doorward
