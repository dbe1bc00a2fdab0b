#!/usr/bin/env bash
# Every panel of the Grafana dashboard asks what a real Prometheus, that scraped a gateway under known traffic, answers with the expected number.
# In make test: yes
source "$(dirname "$0")/lib.sh"
# A full disk, as far as the audit log is concerned: every record is lost, and counted.
audit=/dev/full
source "$repo/deploy/tests/monitoring/stack.sh"

start python3 "$here/traffic.py" "$gateway" "$probes" "$token" "$work/sent"
sender=$pid
sent_or_ended() { [ -e "$work/sent" ] || ! kill -0 "$sender" 2>/dev/null; }
wait_for 30 sent_or_ended
[ -e "$work/sent" ] || fail "the traffic stopped"
# A reload that is taken, then one that is not. The file is replaced whole, so each counts once.
{ cat "$work/doorward.toml"; echo "# another"; } >"$work/next"
mv "$work/next" "$work/doorward.toml"
wait_for 10 shows 'doorward_config_generation 2'
echo "[server" >"$work/next"
mv "$work/next" "$work/doorward.toml"
wait_for 10 shows 'doorward_config_last_reload_successful 0'

panels scraped
panels compare "$repo/deploy/grafana/doorward.json" "$repo/deploy/grafana/expected.json"
panels rules DoorwardReloadFailing DoorwardUpstreamDown DoorwardLogLinesLost DoorwardConnectionsRefused
