# agentic-trust.sh: prove who it is once, then chat; both editions
. ./common.sh
post() { ask "$1" "$GATEWAY/$2" -H "$PAGE" -H "$key" -H "$session" -d "$3"; }

key='x-api-key: lum_pk_0123456789abcdef'
session='Authorization:' # curl sends no header without a value
hash=$(doorward token mint --format hmac --secret-env AGENTIC_TRUST_SECRET --subject user_123)
post 'verify' identity/verify "{\"userId\": \"user_123\", \"hmac\": \"$hash\"}"
session_token=$(member session_token)

post 'unchanged widget: chat' chat/messages '{"projectId": "proj_1"}'
post 'unchanged widget: name the user' chat/conversations '{"projectId": "proj_1", "endUserExternalId": "user_123"}'

session="Authorization: Bearer $session_token"
post 'with session_token: chat' chat/messages '{"projectId": "proj_1"}'
later "$GATEWAY/chat/messages" -H "$PAGE" -H "$key" -H "$session" -d '{"projectId": "proj_1"}'
post 'chat, later' chat/messages '{"projectId": "proj_1"}'
session='Authorization:'
post 'verify again' identity/verify "{\"userId\": \"user_123\", \"hmac\": \"$hash\"}"
session="Authorization: Bearer $(member session_token)"
post 'name the user' chat/conversations '{"projectId": "proj_1", "endUserExternalId": "user_123"}'
post 'name another user' chat/conversations '{"projectId": "proj_1", "endUserExternalId": "user_666"}'

key='x-api-key: lum_pk_fedcba9876543210'
session='Authorization:'
sign() { doorward token mint --format jwt --secret-env AGENTIC_TRUST_JWT_SECRET --subject user_123 --expires-in "$1"; }
post 'identify with an expired token' identity/identify "{\"token\": \"$(sign -1s)\"}"
post 'identify with a fetched one' identity/identify "{\"token\": \"$(sign 5m)\"}"
session="Authorization: Bearer $(member session_token)"
post 'chat' chat/messages '{"projectId": "proj_2"}'
