# common.sh: what the vendors' scripts share
GATEWAY=http://127.0.0.1:8080
PAGE='Origin: https://app.example.com'

# ask STEP ARGUMENTS: calls with curl and prints the status, then the reason of a refusal or else the answer, its tokens cut.
ask() {
  step=$1
  shift
  answer=$(curl -s -w '%{http_code}' "$@")
  body=$(printf '%s' "${answer%???}")
  reason=$(member reason)
  printf '%-36s %s %s\n' "$step" "${answer#"${answer%???}"}" "${reason:-$(printf '%s' "$body" | sed 's/"eyJ[^"]*"/"eyJ…"/g')}"
}

# member NAME: a text member of the last answer.
member() { printf '%s' "$body" | sed -n 's/.*"'"$1"'":"\([^"]*\)".*/\1/p'; }

# later ARGUMENTS: repeats a call until it is answered otherwise than the last time.
later() { while [ "$(curl -s "$@")" = "$body" ]; do sleep 1; done; }
