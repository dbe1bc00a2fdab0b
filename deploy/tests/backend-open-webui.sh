#!/usr/bin/env bash
# Open WebUI behind nginx and the gateway signs in whom the host vouches for; forged headers name nobody. Its models are behind a second gateway.
# In make test: no, because Open WebUI and LiteLLM take 3 GB
# shellcheck source=deploy/tests/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=deploy/backends/shared.sh
source "$repo/deploy/backends/shared.sh"
need curl "apt-get install curl"
PATH=$PATH:/usr/sbin
need nginx "apt-get install nginx"
chromium=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
need "${chromium:-chromium}" "apt-get install chromium, or set CHROMIUM"
webui_venv=$(installed open-webui)
litellm_venv=$(installed openai)

for name in DOORWARD_ASSERTION_KEY WEBUI_IDENTITY_SECRET APP_IDENTITY_SECRET OPEN_WEBUI_JWT_SECRET; do
    export "$name=$("$doorward" secret new 2>/dev/null)"
done
front=$(free_port) port=$(free_port) admin=$(free_port) webui=$(free_port) host=$(free_port)
models=$(free_port) models_admin=$(free_port) litellm=$(free_port)

# The model server and the gateway before it, as on the page about OpenAI-compatible servers.
LITELLM_MASTER_KEY=sk-$("$doorward" secret new 2>/dev/null) LITELLM_LOCAL_MODEL_COST_MAP=True LITELLM_TELEMETRY=False \
    PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$repo/deploy/examples/python:$backends/openai \
    start "$litellm_venv/bin/litellm" --config "$backends/openai/litellm.yaml" --host 127.0.0.1 --port "$litellm" >"$work/litellm.log" 2>&1
config=$(moved openai/doorward.toml "s/:8080/:$models/" "s/:9090/:$models_admin/" "s/:4000/:$litellm/")
mkdir "$work/models" "$work/data"
mv "$config" "$work/models/"
gateway "$work/models/doorward.toml" "$models_admin"
wait_for 120 curl -sf "http://127.0.0.1:$litellm/health/liveliness"

# Open WebUI with the shipped settings. Cookies without TLS, and no downloads, are the test's.
env=$(moved open-webui/open-webui.env 's/_COOKIE_SECURE=true/_COOKIE_SECURE=false/')
mapfile -t settings < <(grep '^[A-Z]' "$env")
start env "${settings[@]}" FORWARD_USER_INFO_HEADER_JWT_SECRET="$OPEN_WEBUI_JWT_SECRET" \
    OPENAI_API_BASE_URLS="http://127.0.0.1:$models/v1" OPENAI_API_KEYS=pk_live_fedcba9876543210 \
    DATA_DIR="$work/data" WEBUI_SECRET_KEY="$("$doorward" secret new 2>/dev/null)" \
    OFFLINE_MODE=true USE_SLIM_DOCKER=true RAG_EMBEDDING_ENGINE=openai ENABLE_OLLAMA_API=false \
    "$webui_venv/bin/open-webui" serve --host 127.0.0.1 --port "$webui" >"$work/webui.log" 2>&1

# The host's application, in few lines: its session cookie says who is signed in, and it signs a token for that user.
cat >"$work/host.py" <<'PYTHON'
import base64, hashlib, hmac, http.server, json, sys, time

USERS = {
    "ann": {"sub": "1", "email": "ann@example.com", "name": "Ann L\u00e9e", "groups": "support", "webui_role": "admin"},
    "ann-again": {"sub": "1", "email": "ann@example.com", "name": "Ann L\u00e9e", "webui_role": "admin", "amr": ["mfa"]},
    "bob": {"sub": "2", "email": "bob@example.com", "name": "Bob"},
}

def token(claims):
    b64 = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")
    now = int(time.time())
    signed = b64(b'{"alg":"HS256","typ":"JWT"}') + b"." + b64(json.dumps({**claims, "exp": now + 300, "auth_time": now}).encode())
    return (signed + b"." + b64(hmac.new(sys.argv[2].encode(), signed, hashlib.sha256).digest())).decode()

class Host(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/login":  # a login that takes everybody for ann
            self.send_response(302)
            self.send_header("Set-Cookie", "host_session=ann; Path=/; HttpOnly")
            self.send_header("Location", sys.argv[3])
            return self.end_headers()
        cookies = (self.headers["Cookie"] or "").split("; ")
        user = next((USERS.get(c.removeprefix("host_session=")) for c in cookies if c.startswith("host_session=")), None)
        self.send_response(204 if user else 401)
        if user:
            self.send_header("X-User-Token", token(user))
        self.end_headers()

    def log_request(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Host).serve_forever()
PYTHON
start python3 "$work/host.py" "$host" "$WEBUI_IDENTITY_SECRET" "http://127.0.0.1:$front/"

gateway "$(moved open-webui/doorward.toml "s/:8080/:$port/" "s/:9090/:$admin/" "s/:3000/:$webui/" \
    "s|\"https://chat.example.com\"|&, \"http://127.0.0.1:$front\"|")" "$admin"
nginx_conf=$(moved open-webui/nginx.conf "s/listen 8000/listen 127.0.0.1:$front/" "s/:8080/:$port/" "s/:5000/:$host/" \
    "s|https://app.example.com/login|http://127.0.0.1:$host/login|" "s|/run/nginx.pid|$work/nginx.pid|" \
    "s|access_log off;|access_log off; client_body_temp_path $work; proxy_temp_path $work;|")
start nginx -p "$work" -c "$nginx_conf" -g 'daemon off;' 2>"$work/nginx.log"
wait_for 120 curl -sf "http://127.0.0.1:$webui/health"
wait_for 10 curl -s "http://127.0.0.1:$host/"
wait_for 10 curl -s "http://127.0.0.1:$front/"

url=http://127.0.0.1:$front
json='Content-Type: application/json'
page='Origin: https://chat.example.com'
empty='{"email": "", "password": ""}'

ask "$url/"
expect 'nobody' 302 ''
say "nobody who is not signed in at the host sees Open WebUI"

ask "$url/" -H 'Cookie: host_session=ann'
expect 'the page' 200 '<title>Open WebUI</title>'
ask "$url/api/v1/auths/signin" -H 'Cookie: host_session=ann' -H "$page" -H "$json" -d "$empty" -c "$work/ann.jar"
expect 'signing in' 200 '"name":"Ann Lée"'
expect 'signing in' 200 '"email":"ann@example.com"'
expect 'signing in' 200 '"role":"admin"'
cookie="host_session=ann; token=$(awk '$6 == "token" { print $7 }' "$work/ann.jar")"
ask "$url/api/v1/auths/" -H "Cookie: $cookie" -H 'Authorization: Bearer from-its-page'
expect 'the session' 200 ann@example.com
say "who is signed in at the host is signed in at Open WebUI: Ann Lée, ann@example.com, admin, as her token says"

ask "$url/api/v1/auths/signin" -H 'Cookie: host_session=bob' -H "$page" -H "$json" -d '{"email": "ann@example.com", "password": "guess"}' \
    -H 'X-Webui-Email: ann@example.com' -H 'x-webui-role: admin' -H 'X-Webui-Name: Ann'
expect 'forged headers' 200 '"email":"bob@example.com"'
never 'forged headers' '"role":"admin"'
never 'forged headers' ann@
say "forged X-Webui-* headers beside a good token are gone: bob stays bob, and no administrator"

gate=http://127.0.0.1:$port
key='X-Embed-Key: pk_live_0123456789abcdef'
ask "$gate/api/v1/auths/signin" -H "$key" -H "$page" -H "$json" -H 'X-Webui-Email: ann@example.com' -d "$empty"
expect 'no token' 401 token_missing
say "a forged X-Webui-Email without a token is refused: $status $reason"
token=$(curl -s -D - -o /dev/null "http://127.0.0.1:$host/" -H 'Cookie: host_session=bob' | sed -n 's/^X-User-Token: \([^[:space:]]*\).*/\1/p')
ask "$gate/api/v1/auths/signin" -H "$key" -H "$page" -H "$json" -H "X-User-Token: $token" -H 'X_Webui_Email: ann@example.com' -d "$empty"
expect 'another spelling' 400 request_header_refused
say "another spelling of it is refused: $status $reason"

ask "$url/api/v1/auths/" -H "Cookie: ${cookie/host_session=ann/host_session=bob}"
expect "ann's cookie with bob's token" 401 'User mismatch'
say "ann's Open WebUI cookie is no good to bob: $status"

ask "$url/api/v1/auths/signup" -H 'Cookie: host_session=bob' -H "$page" -H "$json" \
    -d '{"name": "Eve", "email": "eve@example.com", "password": "correct horse"}'
expect 'signing up' 403 ''
say "nobody signs up beside the host: $status"

ask "$url/api/v1/functions/create" -H "Cookie: $cookie" -H "$page" -H "$json" -d '{}'
expect 'code on the server' 401 step_up_required
ask "$url/api/v1/functions/create" -H "Cookie: ${cookie/host_session=ann/host_session=ann-again}" -H "$page" -H "$json" -d '{}'
expect 'code on the server, confirmed' 422 ''
say "an administrator who was not asked again is refused (step_up_required), one who was reaches Open WebUI"

handshake=$(
    exec 3<>"/dev/tcp/127.0.0.1/$front"
    printf '%s\r\n' "GET /ws/socket.io/?EIO=4&transport=websocket HTTP/1.1" "Host: chat.example.com" "Cookie: $cookie" "$page" \
        'Upgrade: websocket' 'Connection: Upgrade' 'Sec-WebSocket-Version: 13' 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' '' >&3
    head -n 1 <&3
)
case "$handshake" in *' 101 '*) ;; *) fail "the WebSocket: $handshake" ;; esac
say "its WebSocket passes: ${handshake%$'\r'}"

# A real browser: it is sent to the host's login and back, and Open WebUI's page signs in by itself.
dom=$("$chromium" --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --no-proxy-server \
    --user-data-dir="$work/profile" --virtual-time-budget=30000 --dump-dom "$url/" 2>"$work/chromium.log")
case "$dom" in *'Ann Lée'*) ;; *) fail "the page in a browser does not name its user: $(tail -c 2000 <<<"$dom")" ;; esac
say "in Chromium, Open WebUI's page greets Ann Lée after the host's login and no other"

id=$(curl -s "$url/api/v1/auths/" -H "Cookie: $cookie" | sed -n 's/.*"id":"\([^"]*\)".*/\1/p')
ask -N "$url/api/chat/completions" -H "Cookie: $cookie" -H "$page" -H "$json" -H 'Accept: text/event-stream' \
    -d '{"model": "small-model", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
expect 'a chat' 200 '[DONE]'
said=$(sed -n 's/^data: .*"content":"\([^"]*\)".*/\1/p' "$work/body" | tr -d '\n')
[ "$said" = "Hello $id, billed to $id" ] || fail "a chat: $body"
say "a chat streams through both gateways; the model server knows the user by what Open WebUI signed: $said"

ask "http://127.0.0.1:$webui/api/v1/auths/signin" -H "$json" -H 'X-Webui-Email: ann@example.com' -d "$empty"
expect 'around the gateway' 200 ann@example.com
say "around the gateway Open WebUI believes anybody ($status): only the network keeps people off its port"
