#!/usr/bin/env bash
# Takes the pictures of docs/images/ again.
#
#   scripts/screenshots.sh [BINARY [console]]      # BINARY: target/release/chat-api; console: only its pages
#
# docs-page.png   the reference that a running server has at /docs
# console-*.png   pages of the console of one process, after half a minute of traffic
# grafana.png     the first rows of the Grafana dashboard, after three minutes of traffic to two command APIs and two
#                 query APIs behind the gateway. Grafana is not needed: draw_dashboard.py draws the panels, with their
#                 own queries.
#
# Everything listens on loopback and, except for the pictures, writes to a temporary folder that is removed again. Needs
# python3 and curl; Chromium, HAProxy and Prometheus are installed where they are missing (apt-get, as root).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
binary=${1:-$root/target/release/chat-api}
command -v "$binary" >/dev/null || { echo "$binary is missing: cargo build --release" >&2; exit 2; }
packages=()
for program in chromium haproxy prometheus; do
  command -v "$program" >/dev/null || packages+=("$program")
done
if ((${#packages[@]})); then
  echo "installing ${packages[*]}"
  apt-get update -q >/dev/null
  DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -q --no-install-recommends "${packages[@]}" >/dev/null
fi

work=$(mktemp -d)
pids=()
clean_up() {
  trap - EXIT
  kill -TERM "${pids[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 1' INT TERM

# Starts a program in the background; its output goes to a file.
start() {
  "$@" >>"$work/log" 2>&1 &
  pids+=($!)
}

# screenshot URL FILE HEIGHT [WHEN]     # WHEN: --timeout=… for a page that loads for as long as it is open
screenshot() {
  timeout 60 chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
    --disable-background-networking --disable-component-update --disable-sync --hide-scrollbars \
    --user-data-dir="$work/profile" "${4:---virtual-time-budget=8000}" --window-size="1280,$3" \
    --screenshot="$work/$2" "$1" >"$work/chromium.log" 2>&1 || { cat "$work/chromium.log" >&2; exit 1; }
  mkdir -p "$root/docs/images"
  mv "$work/$2" "$root/docs/images/$2"
  echo "docs/images/$2: $(wc -c <"$root/docs/images/$2") bytes"
}

# The deployment starts without these environment variables of the caller.
unset DATABASE_URL EVENT_STORE_URL LISTEN_ADDR RATE_LIMIT REDIS_URL SEARCH_INDEX_DIR
export DATA_DIR=$work/data TRUSTED_PROXIES=127.0.0.1
port=$((20000 + RANDOM % 12000))
export GATEWAY_ADDR=127.0.0.1:$port GATEWAY_METRICS_ADDR=127.0.0.1:$((port + 1))
export COMMAND_API_1=127.0.0.1:$((port + 2)) COMMAND_API_2=127.0.0.1:$((port + 3))
export QUERY_API_1=127.0.0.1:$((port + 4)) QUERY_API_2=127.0.0.1:$((port + 5))
console=127.0.0.1:$((port + 8))
start "$binary" serve --data-dir "$work/console" --listen-addr "$console"
for _ in {1..200}; do
  curl -sf "http://$console/readyz" >/dev/null && break
  sleep 0.1
done
"$root/scripts/traffic.py" "http://$console" 30
screenshot "http://$console/console" console-overview.png 1130
for page in events projections; do
  screenshot "http://$console/console/$page" "console-$page.png" 860 --timeout=5000
done
# A message with a history: a word was changed, and then all of it.
send() {
  curl -sf -X "$1" -H 'Content-Type: application/json' -d "$3" "http://$console/api/v1/apps$2"
}
token=$(curl -sf "http://$console/api/v1/apps" | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["app_token"])')
chat=$(send POST "/$token/chats" '{}' | python3 -c 'import json, sys; print(json.load(sys.stdin)["chat_number"])')
messages=/$token/chats/$chat/messages
send POST "$messages" '{"body":"Is the printer on?","sender":{"id":"u-17","name":"Ana"}}' >/dev/null
send POST "$messages" '{"body":"Yes. I clean the vents every Friday.","sender":{"id":"u-9","name":"Ben"}}' >/dev/null
send PUT "$messages/2" '{"body":"Yes. I clean all vents every Friday."}' >/dev/null
send PUT "$messages/2" '{"body":"Please look at the fuse box on floor two"}' >/dev/null
screenshot "http://$console/console/apps/1/chats/$chat/messages/2" console-message.png 620
[[ ${2:-} != console ]] || exit 0

projector=127.0.0.1:$((port + 6)) prometheus=127.0.0.1:$((port + 7))
start "$binary" projector --listen-addr "$projector"
start "$binary" command-api --listen-addr "$COMMAND_API_1"
start "$binary" command-api --listen-addr "$COMMAND_API_2"
start "$binary" query-api --listen-addr "$QUERY_API_1"
start "$binary" query-api --listen-addr "$QUERY_API_2"
start haproxy -db -f "$root/infra/deploy/gateway/haproxy.cfg"
cat >"$work/prometheus.yml" <<END
global: { scrape_interval: 2s }
scrape_configs:
  - { job_name: command-api, static_configs: [targets: ["$COMMAND_API_1", "$COMMAND_API_2"]] }
  - { job_name: query-api, static_configs: [targets: ["$QUERY_API_1", "$QUERY_API_2"]] }
  - { job_name: projector, static_configs: [targets: ["$projector"]] }
  - { job_name: gateway, static_configs: [targets: ["$GATEWAY_METRICS_ADDR"]] }
END
start prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/prometheus" \
  --web.listen-address="$prometheus"

gateway=http://$GATEWAY_ADDR
is_ready() { curl -sf "$gateway/readyz" "http://$prometheus/-/ready" >/dev/null; }
for _ in {1..200}; do
  is_ready && break
  sleep 0.1
done
is_ready || { echo "the servers do not start:" >&2; tail -20 "$work/log" >&2; exit 1; }
# A page of 1304 pixels ends where a section ends.
screenshot "$gateway/docs" docs-page.png 1304

seconds=180
echo "sending traffic for $seconds seconds"
"$root/scripts/traffic.py" "$gateway" $((seconds + 15))
height=$("$root/scripts/draw_dashboard.py" "$root/infra/deploy/grafana/dashboards/chat-api.json" \
  "http://$prometheus" "$seconds" "$work/dashboard.html" "At a glance" Throughput Latency)
screenshot "file://$work/dashboard.html" grafana.png "$height"
