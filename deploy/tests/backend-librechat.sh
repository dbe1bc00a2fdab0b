#!/usr/bin/env bash
# The gateway takes what LibreChat sends to a custom endpoint, as its documentation says, and refuses what it sends without a user.
# In make test: yes
# LibreChat itself is not run: it is no package of npm, and wants MongoDB. What is run is the shipped doorward.toml.
# shellcheck source=deploy/tests/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=deploy/backends/shared.sh
source "$repo/deploy/backends/shared.sh"
need curl "apt-get install curl"
need node "apt-get install nodejs"

# The OpenID provider's key and key set.
mkdir "$work/idp"
node - "$work" <<'NODE'
const { createPublicKey, generateKeyPairSync } = require("node:crypto");
const { writeFileSync } = require("node:fs");
const work = process.argv[2];
for (const kid of ["2026", "other"]) {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const pem = privateKey.export({ type: "pkcs8", format: "pem" });
  writeFileSync(`${work}/${kid}.pem`, pem);
  if (kid === "other") continue; // a key that the provider does not publish
  const jwk = { ...createPublicKey(pem).export({ format: "jwk" }), kid, alg: "RS256", use: "sig" };
  writeFileSync(`${work}/idp/jwks.json`, JSON.stringify({ keys: [jwk] }));
}
NODE
idp=$(free_port) port=$(free_port) admin=$(free_port) agent=$(free_port)
start python3 -m http.server "$idp" --bind 127.0.0.1 --directory "$work/idp" >"$work/idp.log" 2>&1
wait_for 10 curl -sf "http://127.0.0.1:$idp/jwks.json"

DOORWARD_ASSERTION_KEY=$("$doorward" key new 2>/dev/null)
export DOORWARD_ASSERTION_KEY PYTHONDONTWRITEBYTECODE=1
start python3 "$repo/deploy/examples/python/agent.py" "$agent" >"$work/agent.log" 2>&1
gateway "$(moved librechat/doorward.toml "s/:8080/:$port/" "s/:9090/:$admin/" "s/:3000/:$agent/" \
    "s|https://login.example.com/.well-known|http://127.0.0.1:$idp|")" "$admin"
wait_for 10 curl -s "http://127.0.0.1:$agent/"

# mint PEM AUDIENCE MORE...: an ID token as the provider signs it.
mint() {
    "$doorward" token mint --format jwt --algorithm RS256 --secret-file "$work/$1.pem" --kid "$1" --subject 248289761001 \
        --claim iss=https://login.example.com/ --claim "aud=$2" --claim email=ann@example.com "${@:3}"
}
# chat TOKEN MEMBERS CURL_ARGUMENTS...: a call of the custom endpoint in librechat.yaml.
chat() {
    ask "http://127.0.0.1:$port/v1/chat/completions" -H 'Authorization: Bearer pk_live_0123456789abcdef' -H "X-User-Token: $1" \
        -H 'Content-Type: application/json' -d "{\"model\": \"support-agent\", \"stream\": true, \"messages\": []$2}" "${@:3}"
}
good=$(mint 2026 librechat)

chat "$good" ''
expect 'an ID token' 200 'Hello 248289761001 (verified)'
say "the ID token of whoever is chatting names them to the model server"

chat "$good" '' -H 'X-Identity-Subject: victim' -H 'X-Identity-Level: stepped_up'
expect 'forged headers' 200 'Hello 248289761001 (verified)'
say "forged identity headers are gone"

# As it stands in librechat.yaml: LibreChat leaves the braces where it has no token that is good.
chat "$(sed -n 's/^ *X-User-Token: "\(.*\)"$/\1/p' "$backends/librechat/librechat.yaml")" ''
expect 'no ID token' 401 token_malformed
say "a placeholder that LibreChat could not fill is refused: $status $reason"

chat "$(mint 2026 another-application)" ''
expect 'another audience' 401 token_audience_unexpected
say "an ID token of another application of the same provider is refused: $status $reason"
chat "$(mint other librechat)" ''
expect 'another key' 401 token_key_unknown
say "one that the provider did not sign is refused: $status $reason"

chat "$good" ', "user": "6650f0c2a7d1"'
expect "LibreChat's own id" 403 subject_mismatch
say "LibreChat's own id of the user in the body, where dropParams is missing, is refused: $status $reason"
