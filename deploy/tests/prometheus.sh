#!/usr/bin/env bash
# Prometheus takes the scrape configuration, the rules and the alerts, every alert's unit tests pass, and nothing refers to what is not there.
# In make test: yes
source "$(dirname "$0")/lib.sh"
need promtool "apt-get install prometheus, or sh .ci/deps test"
need python3 "sh .ci/deps test"
here=$repo/deploy/tests/monitoring
venv=$repo/target/monitoring/venv
export here
# shellcheck disable=SC2016 # expanded by the inner shell
sh "$repo/.ci/pinned" "$repo/target/monitoring" "$here/requirements.txt" -- sh -euc '
    rm -rf venv
    python3 -m venv venv
    venv/bin/pip install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt"'

cd "$repo/deploy/prometheus"
promtool check config --lint=all --lint-fatal prometheus.yml >"$work/said" 2>&1 || fail "$(cat "$work/said")"
promtool check rules --lint=all --lint-fatal rules.yml alerts.yml >"$work/said" 2>&1 || fail "$(cat "$work/said")"
counts=$(sed -n 's/.*SUCCESS: \([0-9]*\) rules found/\1/p' "$work/said" | paste -sd/ -)
say "promtool takes the configuration and its rules (recorded/alerts: $counts)"
promtool test rules tests/*.yml >"$work/said" 2>&1 || fail "$(cat "$work/said")"
say "$(grep -c SUCCESS "$work/said") files of unit tests pass, with $(cat tests/*.yml | grep -c alertname:) looks at alerts"
"$venv/bin/python" "$here/names.py" "$repo" "$doorward"
