# What the backends' scripts in deploy/tests share; sourced by each after lib.sh.
# shellcheck shell=bash source=deploy/tests/lib.sh
# shellcheck disable=SC2154 # repo, work and doorward are lib.sh's
backends=$repo/deploy/backends

# installed NAME: the virtual environment that NAME/requirements.txt pins, made where it is missing. The files name every package.
installed() {
    local root=$repo/target/backends/$1 pins=$backends/$1/requirements.txt
    # shellcheck disable=SC2016 # expanded by the inner shell
    sh "$repo/.ci/pinned" "$root" "$pins" -- sh -euc '
        rm -rf venv
        python3 -m venv venv
        venv/bin/pip install --quiet --disable-pip-version-check --no-deps -r "$0"' "$pins" >&2
    printf '%s' "$root/venv"
}

# moved NAME/FILE SED...: copies a shipped file into $work under its own name, changed by the sed expressions (ports), and says where.
moved() {
    local from=$backends/$1 to
    to=$work/$(basename "$1")
    shift
    sed "$(printf '%s\n' "$@")" "$from" >"$to"
    printf '%s' "$to"
}

# ask ARGUMENTS: calls with curl; the answer is in `status`, `reason` (the gateway's code, or nothing) and `body`.
ask() {
    status=$(curl -s -m 30 -D "$work/head" -o "$work/body" -w '%{http_code}' "$@") || fail "curl $*: no answer"
    reason=$(sed -n 's/^x-doorward-reason: \([a-z_]*\).*/\1/Ip' "$work/head")
    body=$(cat "$work/body")
}

# expect WHAT STATUS TEXT: compares the last answer; TEXT stands in the reason or the body.
expect() {
    case "$status $reason $body" in
    "$2 "*"$3"*) ;;
    *) fail "$1: wanted $2 with '$3', got $status $reason $body" ;;
    esac
}

# never WHAT TEXT: TEXT does not stand in the last answer.
never() {
    case "$body" in
    *"$2"*) fail "$1: '$2' in $body" ;;
    esac
}

# gateway CONFIGURATION ADMIN_PORT: checks it, starts it, waits until it is ready. Its log is in $work/gateway-PORT.log.
gateway() {
    "$doorward" check -c "$1" >"$work/check" 2>&1 || fail "$(cat "$work/check")"
    grep -q ' 0 warnings' "$work/check" || fail "$(cat "$work/check")"
    start "$doorward" run -c "$1" >"$work/gateway-$2.log" 2>&1
    wait_for 10 curl -sf "http://127.0.0.1:$2/readyz"
}

# snippet NAME: the Python that the backend's page tells clients to copy.
# shellcheck disable=SC2016 # back-quotes, and no variable
snippet() { sed -n '/^```python$/,/^```$/{/^```/!p}' "$repo/src/manual/backends/$1.md"; }
