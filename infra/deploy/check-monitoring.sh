#!/usr/bin/env bash
# Checks alerts and dashboard: the rules and their tests pass, every query parses, and every metric that they use is in
# the documentation of metrics or comes from the gateway or Prometheus. A test of the program compares that
# documentation with /metrics.
#
# Needs promtool (Debian: prometheus), haproxy, curl and jq. Exit code 0: fine, 1: a finding, 2: something is missing.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
for program in promtool haproxy curl jq; do
  command -v "$program" >/dev/null || { echo "$program is missing" >&2; exit 2; }
done
work=$(mktemp -d)
gateway=
trap '[[ -z $gateway ]] || kill "$gateway" 2>/dev/null || true; rm -rf "$work"' EXIT

promtool check config "$here/prometheus/prometheus.yml" >/dev/null
promtool test rules "$here/prometheus/alerts.test.yml" >/dev/null

# The dashboard's queries as rules, so that promtool parses them.
queries() {
  # shellcheck disable=SC2016  # Grafana's variable, not the shell's
  jq -r '.. | .targets? // empty | .[].expr' "$here"/grafana/dashboards/*.json | sed 's/\$__rate_interval/1m/g'
}
queries | jq -R '{record: "checked", expr: .}' | jq -s '{groups: [{name: "dashboard", rules: .}]}' >"$work/rules.json"
promtool check rules --lint=none "$work/rules.json" >/dev/null

# The metrics that exist: those of the documentation, with the suffixes of histograms, `up`, and the metrics of HAProxy.
existing() {
  sed -n '/^## Metrics/,/^## Alerts/p' "$root/docs/operations/monitoring.md" | grep '^| `' |
    cut -d'|' -f2 | grep -oE '[a-z_]+' | while read -r name; do
      printf '%s\n' "$name" "${name}_sum" "${name}_count" "${name}_bucket"
    done
  echo up
  curl -s "http://127.0.0.1:$1/metrics" | awk '/^# TYPE/ { print $3 }'
}
port=$((20000 + RANDOM % 12000))
GATEWAY_ADDR=127.0.0.1:$((port + 1)) GATEWAY_METRICS_ADDR=127.0.0.1:$port \
  COMMAND_API_1=127.0.0.1:1 COMMAND_API_2=127.0.0.1:1 QUERY_API_1=127.0.0.1:1 QUERY_API_2=127.0.0.1:1 \
  haproxy -db -f "$here/gateway/haproxy.cfg" >"$work/gateway.log" 2>&1 &
gateway=$!
for _ in {1..100}; do
  curl -s -o /dev/null "http://127.0.0.1:$port/metrics" && break
  sleep 0.05
done
existing "$port" | sort -u >"$work/existing"

# The metrics that alerts and dashboard use, recognized by their prefixes.
used() {
  { queries; awk '/alert:/ { rule = 1 } rule' "$here/prometheus/alerts.yml" | sed -n '/expr:/,/for:\|labels:/p'; } |
    grep -oE '\b(up|(chat|process|haproxy)_[a-z_]+)\b' | sort -u
}
missing=$(used | comm -23 - "$work/existing")
if [[ -n $missing ]]; then
  echo "FINDING: these metrics do not exist: $missing" >&2
  exit 1
fi
alerts=$(grep -c 'alert:' "$here/prometheus/alerts.yml")
echo "$(queries | wc -l) queries and $alerts alerts use $(used | wc -l) metrics, all of which exist"
