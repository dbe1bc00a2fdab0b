# halo.sh: a token in every call, fetched anew when it expires; step-up by a claim
. ./common.sh
sign() { doorward token mint --format jwt --secret-env HALO_SECRET --subject user_123 --subject-claim user_id "$@"; }
post() { ask "$1" "$GATEWAY/api/sdk/$2" -H "$PAGE" -H 'Authorization: Bearer ab_live_0123456789abcdef' -d "$3"; }
body_of() { printf '{"user_id": "%s", "user_token": "%s"}' "$1" "$2"; }

post 'chat as nobody' chat '{"user_id": "anonymous"}'
post 'chat under an unsigned id' chat '{"user_id": "user_123"}'
token=$(sign --expires-in 5s)
post 'identify' users/identify "$(body_of user_123 "$token")"
post 'chat as another user' chat "$(body_of user_666 "$token")"
post 'chat' chat "$(body_of user_123 "$token")"
later "$GATEWAY/api/sdk/chat" -H "$PAGE" -H 'Authorization: Bearer ab_live_0123456789abcdef' -d "$(body_of user_123 "$token")"
post 'chat, later' chat "$(body_of user_123 "$token")"
token=$(sign --expires-in 5m)
post 'chat with a fetched token' chat "$(body_of user_123 "$token")"

post 'approve' approvals/7 "$(body_of user_123 "$token")"
token=$(sign --expires-in 5m --claim amr=mfa --stepped-up-now)
post 'approve, the user having confirmed' approvals/7 "$(body_of user_123 "$token")"
