# karta.sh: exchange an identity for a session, call, renew on 401, step up
. ./common.sh
MINT="$GATEWAY/v1/embed/session-tokens"
AGENT="$GATEWAY/org/agent/v1"
embed_key='"embed_key": "pk_live_0123456789abcdef"'
user='"user_id": "user_123"'

mint() { ask "$1" "$MINT" -H "$PAGE" -d "{$embed_key$2}" && session="Authorization: Bearer $(member token)"; }
call() { ask "$1" "$AGENT/$2" -H "$PAGE" -H "$session" -d "{\"metadata\": {$3}}"; }

mint 'mint for nobody'
call 'call' responses
mint 'mint for an id that nobody signed' ", $user"
call 'call' responses

hash=$(doorward token mint --format hmac --secret-env KARTA_SECRET --subject user_123)
mint 'mint for a user' ", $user, \"identity_token\": \"$hash\""
call 'call for another user' responses '"user_id": "user_666"'
call 'call' responses "$user"
later "$AGENT/responses" -H "$PAGE" -H "$session" -d "{\"metadata\": {$user}}"
call 'call, later' responses "$user"
mint 'mint again' ", $user, \"identity_token\": \"$hash\""
call 'call again' responses "$user"

call 'approve' approvals/7
stepped_up=$(doorward token mint --format karta-v2 --secret-env KARTA_STEP_UP_SECRET --subject user_123 --stepped-up-now --aal mfa)
mint 'mint, the user having confirmed' ", $user, \"identity_token\": \"$stepped_up\""
call 'approve' approvals/7

mint 'mint with a hash of another id' ", \"user_id\": \"user_666\", \"identity_token\": \"$hash\""
