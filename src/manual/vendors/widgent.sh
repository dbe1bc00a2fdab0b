# widgent.sh: the host's server mints, the page sends the token, an expired one goes on as nobody
. ./common.sh
for_user="{\"productId\": \"prod_1\", \"verificationSecret\": \"$WIDGENT_VERIFICATION_SECRET\", \"userId\": \"user_123\"}"
chat() { ask "$1" "$GATEWAY/v1/chat" -H "$PAGE" -H 'X-Service-Key: pk_0123456789abcdef' -d "{\"productId\": \"prod_1\", \"token\": \"$token\"}"; }

ask 'mint from a page' "$GATEWAY/v1/auth/user-token" -H "$PAGE" -d "$for_user"
ask 'mint with a wrong secret' "$GATEWAY/v1/auth/user-token" -d '{"productId": "prod_1", "verificationSecret": "guessed", "userId": "user_123"}'
ask 'mint from the host' "$GATEWAY/v1/auth/user-token" -d "$for_user"
token=$(member token)
chat 'chat'
later "$GATEWAY/v1/chat" -H "$PAGE" -H 'X-Service-Key: pk_0123456789abcdef' -d "{\"productId\": \"prod_1\", \"token\": \"$token\"}"
chat 'chat, later'
ask 'mint again' "$GATEWAY/v1/auth/user-token" -d "$for_user"
token=$(member token)
chat 'chat again'
token=$(printf '%s' "$token" | sed 's/\.[^.]*$/.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/')
chat 'chat with a forged token'
token=
chat 'chat, signed out'
