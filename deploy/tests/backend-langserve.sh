#!/usr/bin/env bash
# A LangServe agent behind the gateway knows its user, streams to it, and believes neither a forged header nor an id in the body.
# In make test: yes
# shellcheck source=deploy/tests/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=deploy/backends/shared.sh
source "$repo/deploy/backends/shared.sh"
need curl "apt-get install curl"
venv=$(installed langserve)

DOORWARD_ASSERTION_KEY=$("$doorward" key new 2>/dev/null)
SUPPORT_IDENTITY_SECRET=$("$doorward" secret new 2>/dev/null)
export DOORWARD_ASSERTION_KEY SUPPORT_IDENTITY_SECRET
port=$(free_port) admin=$(free_port) agent=$(free_port)
config=$(moved langserve/doorward.toml "s/:8080/:$port/" "s/:9090/:$admin/" "s/:3000/:$agent/")

cd "$backends/langserve" || fail "no such folder"
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$repo/deploy/examples/python start "$venv/bin/uvicorn" app:app --host 127.0.0.1 --port "$agent" \
    --no-proxy-headers >"$work/agent.log" 2>&1
gateway "$config" "$admin"
# Its 401 to an unsigned request is how one sees that it is up.
wait_for 30 curl -s "http://127.0.0.1:$agent/"

url=http://127.0.0.1:$port/agents/support
key='X-Embed-Key: pk_live_0123456789abcdef'
page='Origin: https://app.example.com'
json='Content-Type: application/json'
minted=$("$doorward" token mint --format jwt --secret-env SUPPORT_IDENTITY_SECRET --subject user_123)
token="X-User-Token: $minted"

ask "$url/invoke" -H "$key" -H "$page" -H "$token" -H "$json" -d '{"input": "hi"}'
expect invoke 200 'Hello user_123, you said: hi'
say "with a token the agent greets user_123"

ask -N "$url/stream" -H "$key" -H "$page" -H "$token" -H "$json" -H 'Accept: text/event-stream' -d '{"input": "hi"}'
expect stream 200 'data: "user_123"'
grep -qi '^content-type: text/event-stream' "$work/head" || fail "stream: $(cat "$work/head")"
[ "$(grep -c '^event: data' "$work/body")" = 4 ] || fail "stream: $body"
say "its answer streams as server-sent events, word by word"

{
    printf 'import sys\nfrom langserve import RemoteRunnable\nEMBED_KEY, token = "pk_live_0123456789abcdef", sys.argv[1]\n'
    snippet langserve | sed "s|https://chat.example.com|http://127.0.0.1:$port|"
    echo 'print("|".join(agent.stream("hi")))'
} >"$work/client.py"
said=$("$venv/bin/python" "$work/client.py" "$minted")
[ "$said" = 'Hello |user_123|, you said: |hi' ] || fail "LangServe's client: $said"
say "LangServe's own client streams as the page says: $said"

ask "$url/invoke" -H "$key" -H "$page" -H "$token" -H "$json" -H 'X-Identity-Subject: victim' -H 'x-identity-claims: e30' \
    -d '{"input": "hi", "config": {"configurable": {"claims": {"role": "admin"}}}}'
expect 'forged headers' 200 'Hello user_123'
say "forged identity headers are gone before the agent sees the request"

ask "$url/invoke" -H "$key" -H "$page" -H "$json" -H 'X-Identity-Level: verified' -H 'X-Identity-Subject: victim' -d '{"input": "hi"}'
expect 'no token' 401 token_missing
say "a forged identity header without a token is refused: $status $reason"

ask "$url/invoke" -H "$key" -H "$page" -H "$token" -H "$json" -d '{"input": "hi", "config": {"configurable": {"user_id": "victim"}}}'
expect 'another id in the body' 403 subject_mismatch
say "another id in the body is refused: $status $reason"

ask "http://127.0.0.1:$port/agents/billing/invoke" -H "$key" -H "$page" -H "$token" -H "$json" -d '{"input": "hi"}'
expect 'another agent' 403 tenant_mismatch
say "an agent that is not among the tenant's names is refused: $status $reason"

for forged in 'X-Identity-Subject: victim' "$token"; do
    ask "http://127.0.0.1:$agent/agents/support/invoke" -H "$forged" -H "$json" -d '{"input": "hi"}'
    expect 'around the gateway' 401 refused
done
say "around the gateway the agent refuses everybody: $body"
