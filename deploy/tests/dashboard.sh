#!/usr/bin/env bash
# Every panel of the Grafana dashboard asks what a real Prometheus, that scraped a gateway under known traffic, answers with the expected number.
# In make test: yes
source "$(dirname "$0")/lib.sh"
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

start python3 "$here/agent.py" "$agent"
wait_for 10 curl -sf "http://127.0.0.1:$agent/"
# A full disk, as far as the audit log is concerned: every record is lost, and counted.
start "$doorward" run -c "$work/doorward.toml" >/dev/full 2>"$work/log"
wait_for 10 curl -sf "http://127.0.0.1:$probes/readyz"
wait_for 10 sh -c "curl -sf http://127.0.0.1:$probes/metrics | grep -qF 'upstream_addresses{standing=\"unhealthy\",upstream=\"ill\"} 1'"

# The configuration that is shipped, with the address, and the interval of somebody in a hurry.
cp "$repo"/deploy/prometheus/*.yml "$work/"
sed -i "s/doorward:9091/127.0.0.1:$probes/; s/_interval: 15s/_interval: 1s/" "$work/prometheus.yml"
start prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" --web.listen-address="127.0.0.1:$prometheus" \
    --log.level=warn
panels() { python3 "$here/panels.py" "http://127.0.0.1:$prometheus" "$@"; }
# Counters are seen at 0 before anything is counted.
panels scraped

start python3 "$here/traffic.py" "$gateway" "$probes" "$token" "$work/sent"
wait_for 30 sh -c "test -e '$work/sent' || ! kill -0 $pid"
[ -e "$work/sent" ] || fail "the traffic stopped"
# A reload that is taken, then one that is not. Each file is replaced whole, so each counts once.
{ cat "$work/doorward.toml"; echo "# another"; } >"$work/next" && mv "$work/next" "$work/doorward.toml"
wait_for 10 sh -c "curl -sf http://127.0.0.1:$probes/metrics | grep -qF 'doorward_config_generation 2'"
echo "[server" >"$work/next" && mv "$work/next" "$work/doorward.toml"
wait_for 10 sh -c "curl -sf http://127.0.0.1:$probes/metrics | grep -qF 'doorward_config_last_reload_successful 0'"

panels scraped
panels compare "$repo/deploy/grafana/doorward.json" "$repo/deploy/grafana/expected.json"
panels rules DoorwardReloadFailing DoorwardUpstreamDown DoorwardLogLinesLost DoorwardConnectionsRefused
