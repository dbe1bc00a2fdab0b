#!/usr/bin/env bash
# Draws src/manual/dashboard.png: the dashboard's panels as Chromium and uPlot draw them, with what a real Prometheus has after minutes of mixed traffic.
# In make test: no, because it sends traffic for SECONDS_OF_TRAFFIC (default 240) seconds, and what comes out is a picture for people
source "$(dirname "$0")/lib.sh"
need node "sh .ci/deps test"
need npm "sh .ci/deps test"
picture=${1:-$repo/src/manual/dashboard.png}
seconds=${SECONDS_OF_TRAFFIC:-240}
audit=$work/audit
source "$repo/deploy/tests/monitoring/stack.sh"
export here
# shellcheck disable=SC2016 # expanded by the inner shell
sh "$repo/.ci/pinned" "$repo/target/monitoring-picture" "$here/package.json" "$here/package-lock.json" -- sh -euc '
    rm -rf node_modules
    cp "$here/package.json" "$here/package-lock.json" .
    npm ci --silent --no-audit --no-fund --ignore-scripts'
# Modules are looked for beside the script.
cp "$here/draw.mjs" "$repo/target/monitoring-picture/"

python3 "$here/load.py" "$gateway" "$token" "$seconds"
panels scraped
node "$repo/target/monitoring-picture/draw.mjs" "http://127.0.0.1:$prometheus" "$repo/deploy/grafana/doorward.json" "$seconds" "$picture"
say "$picture, $(($(wc -c <"$picture") / 1024)) KiB"
