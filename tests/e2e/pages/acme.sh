# What the pages on operating a tenant begin with: an agent, a gateway with one tenant in a directory of its own, and `ask`.
mkdir -p secrets tenants
doorward secret new 2>/dev/null >secrets/assertion
doorward secret new 2>/dev/null >secrets/acme-1
doorward secret new 2>/dev/null >secrets/session-1
: >revocations
cat >doorward.toml <<'TOML'
tenants = "tenants"
revocations = "revocations"

[server]
listen = "127.0.0.1:8080"
admin = "127.0.0.1:9090"

[upstream]
address = "127.0.0.1:3000"

[assertion]
audience = "agent"
keys = [{ id = "a1", file = "secrets/assertion" }]

[session]
keys = [{ id = "n1", file = "secrets/session-1" }]
TOML
cat >tenants/acme.toml <<'TOML'
id = "acme"
preset = "halo"
mode = "enforce"
embed_keys = ["ab_live_0123456789abcdef"]
origins = ["https://app.example.com"]
secrets = [{ id = "s1", file = "secrets/acme-1" }]
TOML
DOORWARD_ASSERTION_KEY=$(cat secrets/assertion) python3 deploy/examples/python/agent.py 3000 >agent.log &
doorward run -c doorward.toml >audit.jsonl 2>gateway.log &

# ask MEMBERS: a page's call to the chat, with these members in its body beside the message.
ask() {
    curl -s http://127.0.0.1:8080/api/sdk/chat -H 'Authorization: Bearer ab_live_0123456789abcdef' \
        -H 'Origin: https://app.example.com' -d "{\"message\": \"hi\", $1}"
}

# signed SECRET: the members that the host's page sends for user_123, signed with this file.
signed() {
    printf '"user_id": "user_123", "user_token": "%s"' \
        "$(doorward token mint --format jwt --secret-file "$1" --subject user_123 --subject-claim user_id 2>/dev/null)"
}
