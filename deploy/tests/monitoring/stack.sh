# A gateway with three tenants, its backend, and a Prometheus with the configuration that is shipped: what dashboard.sh and
# dashboard-picture.sh start. Sourced after lib.sh. Sets `gateway`, `probes`, `agent` and `prometheus`, the ports, `token`, a good
# one of the tenant acme, and `panels`. The gateway's audit log goes to `$audit`.
# shellcheck shell=bash disable=SC2034,SC2154
need prometheus "apt-get install prometheus, or sh .ci/deps test"
need python3 "sh .ci/deps test"
here=$repo/deploy/tests/monitoring
cleanup() { [ "$status" = 0 ] || tail -n 20 "$work/log" >&2; }

gateway=$(free_port) admin=$(free_port) probes=$(free_port) tls=$(free_port) agent=$(free_port) prometheus=$(free_port) nobody=$(free_port)
cp "$here/chat.pem" "$here/chat.key" "$work/"
for secret in s1 s2 beta; do "$doorward" secret new >"$work/$secret" 2>/dev/null; done
"$doorward" key new --algorithm EdDSA --id a1 --out "$work/a1.pem" >/dev/null 2>&1
sed "s/@gateway@/$gateway/; s/@admin@/$admin/; s/@probes@/$probes/; s/@tls@/$tls/; s/@agent@/$agent/; s/@0@/$nobody/" \
    "$here/doorward.toml" >"$work/doorward.toml"
token=$("$doorward" token mint --format jwt --secret-file "$work/s1" --subject ann --subject-claim user_id)

# shows LINE: whether /metrics has it.
shows() { curl -sf "http://127.0.0.1:$probes/metrics" | grep -qF "$1"; }
panels() { python3 "$here/panels.py" "http://127.0.0.1:$prometheus" "$@"; }

start python3 "$here/agent.py" "$agent"
wait_for 10 curl -sf "http://127.0.0.1:$agent/"
start "$doorward" run -c "$work/doorward.toml" >"$audit" 2>"$work/log"
wait_for 10 curl -sf "http://127.0.0.1:$probes/readyz"
wait_for 10 shows 'upstream_addresses{standing="unhealthy",upstream="ill"} 1'

# The configuration that is shipped, with the address, and the interval of somebody in a hurry.
cp "$repo"/deploy/prometheus/*.yml "$work/"
sed -i "s/doorward:9091/127.0.0.1:$probes/; s/_interval: 15s/_interval: 1s/" "$work/prometheus.yml"
start prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" --web.listen-address="127.0.0.1:$prometheus" \
    --log.level=warn 2>"$work/prometheus.log"
# Counters are seen at 0 before anything is counted.
panels scraped
