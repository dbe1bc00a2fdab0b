#!/usr/bin/env bash
# The host-side examples in Python, Node, PHP, Ruby and Go sign what `doorward token mint` signs, and a live gateway accepts what each signs.
# In make test: yes
source "$(dirname "$0")/lib.sh"
need python3 "apt-get install python3"
need node "apt-get install nodejs"
need php "apt-get install php-cli"
need ruby "apt-get install ruby"
need go "apt-get install golang-go"
need curl "apt-get install curl"
host=$repo/deploy/examples/host
GOCACHE=$repo/target/examples/go-cache GOPROXY=off go build -o "$work/sign-go" "$host/sign.go"

gateway=$(free_port) upstream=$(free_port)
HOST_HMAC=$("$doorward" secret new 2>"$work/said") HOST_KARTA=$("$doorward" secret new 2>"$work/said") HOST_JWT=$("$doorward" secret new 2>"$work/said")
DOORWARD_ASSERTION_KEY=$("$doorward" key new 2>"$work/said")
export HOST_HMAC HOST_KARTA HOST_JWT DOORWARD_ASSERTION_KEY
cat >"$work/doorward.toml" <<TOML
[server]
listen = "127.0.0.1:$gateway"
admin = "127.0.0.1:0"

[upstream]
address = "127.0.0.1:$upstream"

[assertion]
audience = "agent"
keys = [{ id = "a1", env = "DOORWARD_ASSERTION_KEY" }]

[[tenant]]
id = "hmac"
embed_keys = ["pk_hmac_0123456789abcdef"]
origins = ["https://app.example.com"]
secrets = [{ id = "s1", env = "HOST_HMAC", format = "hmac" }]

[[tenant]]
id = "karta-v2"
embed_keys = ["pk_karta-v2_0123456789abcdef"]
origins = ["https://app.example.com"]
secrets = [{ id = "s2", env = "HOST_KARTA", format = "karta-v2" }]

[[tenant]]
id = "jwt"
embed_keys = ["pk_jwt_0123456789abcdef"]
origins = ["https://app.example.com"]
secrets = [{ id = "s3", env = "HOST_JWT", format = "jwt" }]
TOML
start "$doorward" run -c "$work/doorward.toml" >"$work/audit.log" 2>&1
wait_for 30 curl -s -o "$work/answer" "http://127.0.0.1:$gateway/"
python3 -B "$repo/deploy/tests/signers.py" "$gateway" "$upstream" "$host" "$work/sign-go"

# The command of the README as printed.
ln -s "$doorward" "$work/doorward"
command=$(awk '/^```sh / { block++; next } /^```$/ && block == 2 { exit } block == 2' "$repo/deploy/examples/README.md")
said=$(cd "$repo/deploy/examples" && PATH=$work:$PATH PYTHONDONTWRITEBYTECODE=1 bash -euo pipefail -c "$command" 2>&1) || fail "$command: $said"
case $said in *user_123*) say "the README's command signs a token that is good" ;; *) fail "$command: $said" ;; esac
