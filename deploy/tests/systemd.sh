#!/usr/bin/env bash
# The systemd units are correct and hardened: systemd-analyze verify is silent and rates the service's exposure at 2.0 or less.
# In make test: yes
source "$(dirname "$0")/lib.sh"
need systemd-analyze "apt-get install systemd"

# The unit names the installed binary; what is verified here is the unit.
sed "s|/usr/bin/doorward|$doorward|" "$repo/deploy/systemd/doorward.service" >"$work/doorward.service"
cp "$repo/deploy/systemd/doorward.socket" "$work/"
complaints=$(cd "$work" && systemd-analyze verify --man=no --recursive-errors=no ./doorward.service ./doorward.socket 2>&1) || fail "$complaints"
[ -z "$complaints" ] || fail "$complaints"
say "systemd-analyze verify has nothing to say"

score=$(systemd-analyze security --offline=yes --no-pager "$work/doorward.service" | sed -n 's/.*Overall exposure level for .*: \([0-9.]*\) .*/\1/p')
[ -n "$score" ] || fail "systemd-analyze security gave no score"
awk -v score="$score" 'BEGIN { exit !(score <= 2.0) }' || fail "exposure level $score, at most 2.0"
say "exposure level $score"
