#!/usr/bin/env bash
# FastAPI, Express, net/http and axum behind the real gateway: each reads level, subject and claims, and refuses what went around it or was changed.
# In make test: yes
source "$(dirname "$0")/lib.sh"
need python3 "apt-get install python3 python3-venv"
need npm "apt-get install nodejs npm"
need go "apt-get install golang-go"
need cargo "https://rustup.rs"
need curl "apt-get install curl"
examples=$repo/deploy/examples
built=$repo/target/examples
export examples

# What the examples pin, once.
# shellcheck disable=SC2016 # expanded by the inner shell
sh "$repo/.ci/pinned" "$built/python" "$examples/python/requirements.txt" -- sh -euc '
    python3 -m venv --clear venv
    venv/bin/pip install --quiet --disable-pip-version-check --no-deps -r "$examples/python/requirements.txt"'
# shellcheck disable=SC2016
sh "$repo/.ci/pinned" "$built/node" "$examples/node/package-lock.json" -- sh -euc '
    cp "$examples/node/package.json" "$examples/node/package-lock.json" .
    npm ci --silent --no-audit --no-fund --ignore-scripts'
cargo build --quiet --locked --manifest-path "$examples/rust/Cargo.toml" --target-dir "$built/rust"
(cd "$examples/go" && GOCACHE=$built/go-cache GOPROXY=off go build -o "$work/agent-go" .)
# Module resolution starts at the script's own place, so the scripts stand beside node_modules.
mkdir "$work/node"
cp "$examples"/node/*.mjs "$examples/node/package.json" "$work/node/"
ln -s "$built/node/node_modules" "$work/node/node_modules"

DOORWARD_ASSERTION_KEY=$("$doorward" key new 2>"$work/said")
ACME_IDENTITY_SECRET=$("$doorward" secret new 2>"$work/said")
export DOORWARD_ASSERTION_KEY ACME_IDENTITY_SECRET

# behind NAME PORT: starts a gateway before the backend at this port, and asks through both and around the gateway.
behind() {
    local name=$1 backend=$2 gateway tap
    gateway=$(free_port) tap=$(free_port)
    cat >"$work/$name.toml" <<TOML
[server]
listen = "127.0.0.1:$gateway"
admin = "127.0.0.1:0"

[upstream]
address = "127.0.0.1:$tap"
headers = { X-User-Email = "claim:email" }

[assertion]
audience = "agent"
keys = [{ id = "a1", env = "DOORWARD_ASSERTION_KEY" }]

[[tenant]]
id = "acme"
embed_keys = ["pk_live_0123456789abcdef"]
origins = ["https://app.example.com"]
missing_origin = "allow"
unsigned_id = "claimed"
secrets = [{ id = "s1", env = "ACME_IDENTITY_SECRET", format = "jwt" }]
places = { asserted_id = ["body:user_id"], body_paths = ["/chat"] }
claims = { step_up = [{ claim = "amr", values = ["mfa"] }] }
TOML
    start "$doorward" run -c "$work/$name.toml" >"$work/$name.log" 2>&1
    wait_for 30 curl -s -o "$work/answer" "http://127.0.0.1:$gateway/"
    wait_for 30 curl -s -o "$work/answer" "http://127.0.0.1:$backend/"
    python3 -B "$repo/deploy/tests/backends.py" "$name" "$gateway" "$tap" "$backend" || fail "$name: $(tail -n 3 "$work/$name-agent.log")"
}

ports=()
for _ in 1 2 3 4; do ports+=("$(free_port)"); done
start env PYTHONDONTWRITEBYTECODE=1 "$built/python/venv/bin/uvicorn" fastapi_middleware:app --app-dir "$examples/python" \
    --port "${ports[0]}" --no-proxy-headers --log-level warning >"$work/FastAPI-agent.log" 2>&1
start node "$work/node/express.mjs" "${ports[1]}" >"$work/Express-agent.log" 2>&1
start "$work/agent-go" "127.0.0.1:${ports[2]}" >"$work/net-http-agent.log" 2>&1
start "$built/rust/debug/agent" "127.0.0.1:${ports[3]}" >"$work/axum-agent.log" 2>&1
behind FastAPI "${ports[0]}"
behind Express "${ports[1]}"
behind net-http "${ports[2]}"
behind axum "${ports[3]}"

# WebSockets in FastAPI: a handshake is a request like any other to the middleware.
(cd "$examples/python" && "$built/python/venv/bin/python" -B - ../vectors.json <<'PY') || fail "FastAPI: WebSocket handshakes"
import asyncio, base64, json, sys

from fastapi_middleware import Doorward

vectors = json.load(open(sys.argv[1]))
vector = next(vector for vector in vectors["requests"] if vector["name"] == "nobody")
key = base64.b64decode(vectors["key_base64"])
headers = [(name.encode(), value.encode()) for name, value in vector["headers"]]
reached, sent = [], []


async def application(scope, receive, send):
    reached.append(scope["state"]["identity"]["level"])


async def send(message):
    sent.append(message)


def handshake(headers):
    middleware = Doorward(application, key_id="a1", key=key, audience="agent", now=vector["now"])
    scope = {"type": "websocket", "path": "/chat", "raw_path": vector["path"].encode(), "query_string": b"", "headers": headers}
    asyncio.run(middleware(scope, None, send))


handshake(headers)
assert (reached, sent) == (["anonymous"], []), (reached, sent)
handshake(headers + [(b"x-identity-subject", b"victim")])
handshake([])
assert reached == ["anonymous"] and [message["type"] for message in sent] == ["websocket.close"] * 2, (reached, sent)
PY
say "FastAPI: a WebSocket handshake that the gateway signed reaches the application; two others are closed"
