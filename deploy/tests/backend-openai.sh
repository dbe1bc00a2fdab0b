#!/usr/bin/env bash
# An OpenAI-compatible server (LiteLLM's proxy) behind the gateway knows its user and streams; forged users and keys are refused.
# In make test: no, because its packages take 750 MB
# shellcheck source=deploy/tests/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=deploy/backends/shared.sh
source "$repo/deploy/backends/shared.sh"
need curl "apt-get install curl"
venv=$(installed openai)

DOORWARD_ASSERTION_KEY=$("$doorward" key new 2>/dev/null)
APP_IDENTITY_SECRET=$("$doorward" secret new 2>/dev/null)
OPEN_WEBUI_JWT_SECRET=$("$doorward" secret new 2>/dev/null)
export DOORWARD_ASSERTION_KEY APP_IDENTITY_SECRET OPEN_WEBUI_JWT_SECRET
port=$(free_port) admin=$(free_port) server=$(free_port)
config=$(moved openai/doorward.toml "s/:8080/:$port/" "s/:9090/:$admin/" "s/:4000/:$server/")

cd "$backends/openai" || fail "no such folder"
# LiteLLM does not start without a master key, which opens nothing here. Its map of prices is the package's own, not a fetched one.
LITELLM_MASTER_KEY=sk-$("$doorward" secret new 2>/dev/null)
export LITELLM_MASTER_KEY
LITELLM_LOCAL_MODEL_COST_MAP=True LITELLM_TELEMETRY=False PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$repo/deploy/examples/python \
    start "$venv/bin/litellm" --config litellm.yaml --host 127.0.0.1 --port "$server" >"$work/litellm.log" 2>&1
gateway "$config" "$admin"
wait_for 120 curl -sf "http://127.0.0.1:$server/health/liveliness"

url=http://127.0.0.1:$port/v1
key='Authorization: Bearer pk_live_0123456789abcdef'
json='Content-Type: application/json'
mint() { "$doorward" token mint --format jwt --subject "$2" --secret-env "$1" "${@:3}"; }
token=$(mint APP_IDENTITY_SECRET user_123)
chat() { # chat MODEL MEMBERS CURL_ARGUMENTS...
    ask "$url/chat/completions" -H "$key" -H "$json" -d "{\"model\": \"$1\", \"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]$2}" "${@:3}"
}

chat small-model '' -H "X-User-Token: $token"
expect 'a chat' 200 'Hello user_123, billed to user_123'
say "with a token LiteLLM knows user_123 and bills to user_123"

chat small-model ', "stream": true, "user": "user_123"' -H "X-User-Token: $token" -N
expect 'a stream' 200 'data: [DONE]'
grep -qi '^content-type: text/event-stream' "$work/head" || fail "a stream: $(cat "$work/head")"
[ "$(grep -c '^data: {' "$work/body")" -ge 2 ] || fail "a stream: $body"
say "its answer streams: $(grep -c '^data: {' "$work/body") events"

{
    printf 'import openai, sys\nEMBED_KEY, token = "pk_live_0123456789abcdef", sys.argv[1]\n'
    snippet openai | sed "s|https://llm.example.com|http://127.0.0.1:$port|"
    echo 'chunks = client.chat.completions.create(model="small-model", messages=[{"role": "user", "content": "hi"}], stream=True)'
    echo 'print("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))'
} >"$work/client.py"
answer=$("$venv/bin/python" "$work/client.py" "$token")
[ "$answer" = 'Hello user_123, billed to user_123' ] || fail "OpenAI's SDK: $answer"
say "OpenAI's own SDK works as the page says, with the embed key as api_key"

chat small-model '' -H "X-User-Token: $token" -H 'X-Litellm-End-User-Id: victim' -H 'X-Litellm-Customer-Id: victim' \
    -H 'X-Litellm-User-Id: victim' -H 'X-Identity-Subject: victim'
expect 'forged headers' 200 'Hello user_123, billed to user_123'
say "forged user headers are gone before LiteLLM sees the request"

chat small-model '' -H 'X-Litellm-End-User-Id: victim' -H 'Origin: https://app.example.com'
expect 'no token' 401 token_missing
say "a forged user header without a token is refused: $status $reason"

for members in ', "user": "victim"' ', "metadata": {"user_id": "victim"}' ', "safety_identifier": "victim"'; do
    chat small-model "$members" -H "X-User-Token: $token"
    expect "a body with $members" 403 subject_mismatch
done
say "another user in the body is refused, wherever LiteLLM would look: $status $reason"

chat large-model '' -H "X-User-Token: $token"
expect 'another model' 403 tenant_mismatch
say "a model that is not among the tenant's names is refused: $status $reason"

ask "http://127.0.0.1:$port/key/generate" -H "$key" -H "X-User-Token: $token" -H "$json" -d '{}'
expect 'its administration' 404 path_not_served
say "LiteLLM's administration is out of reach: $status $reason"

key='Authorization: Bearer pk_live_fedcba9876543210'
signed=$(mint OPEN_WEBUI_JWT_SECRET 129e337b --claim iss=open-webui --claim email=ann@example.com --claim role=user)
chat small-model '' -H "X-OpenWebUI-User-Jwt: $signed"
expect 'a token as Open WebUI signs it' 200 'Hello 129e337b'
chat small-model '' -H 'X-OpenWebUI-User-Id: victim' -H 'X-OpenWebUI-User-Email: victim@example.com'
expect "Open WebUI's unsigned headers" 403 origin_missing
say "Open WebUI's signed token passes; its unsigned headers prove nobody: $status $reason"

ask "http://127.0.0.1:$server/v1/chat/completions" -H "$json" -H 'X-Litellm-End-User-Id: victim' -H "Authorization: Bearer $LITELLM_MASTER_KEY" \
    -d '{"model": "small-model", "messages": []}'
expect 'around the gateway' 401 refused
say "around the gateway LiteLLM refuses everybody, its master key included: $status"
