#!/usr/bin/env bash
# Checks gateway/haproxy.cfg with real processes: two command-apis, two query-apis and their projectors on one embedded
# event store behind HAProxy, all on loopback and in a temporary folder that is removed if all is fine.
#
#   infra/deploy/check-gateway.sh [BINARY]      # target/release/chat-api, or target/debug/chat-api if there is none
#
# Sends commands, queries and refused requests through the gateway. Then stops, kills and restarts each command-api and
# query-api while clients send traffic: a stop must not fail any request, a kill only the commands that were in flight
# in that process.
# Needs haproxy, curl, jq and sqlite3. Exit code 0: fine, 1: a finding, 2: something is missing.
# shellcheck disable=SC2031
set -euo pipefail

# A run that hangs is terminated after three minutes, and cleans up.
if [[ -z ${CHECK_GATEWAY_BOUNDED:-} ]]; then
  CHECK_GATEWAY_BOUNDED=1 exec timeout --kill-after=20 180 "$0" "$@"
fi

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
binary=${1:-}
if [[ -z $binary ]]; then
  binary=$root/target/release/chat-api
  [[ -x $binary ]] || binary=$root/target/debug/chat-api
fi
for program in "$binary" haproxy curl jq sqlite3; do
  command -v "$program" >/dev/null || { echo "$program is missing" >&2; exit 2; }
done

work=$(mktemp -d)
declare -A pids=()

clean_up() {
  local status=$?
  trap - EXIT
  rm -f "$work/sending"
  for name in "${!pids[@]}"; do kill -TERM "${pids[$name]}" 2>/dev/null || true; done
  for _ in {1..50}; do
    [[ -z $(jobs -rp) ]] && break
    sleep 0.1
  done
  for pid in $(jobs -rp); do kill -KILL "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  if ((status == 0)); then rm -rf "$work"; else echo "logs are in $work" >&2; fi
  exit "$status"
}
trap clean_up EXIT
trap 'exit 1' INT TERM

finding() {
  echo "FINDING: $*" >&2
  exit 1
}

# Waits up to ten seconds until a command succeeds.
until_true() {
  local deadline=$((SECONDS + 10))
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || finding "timed out: $*"
    sleep 0.05
  done
}

# Prints the first of eight consecutive free ports.
free_ports() {
  local base port taken
  for _ in {1..50}; do
    base=$((20000 + RANDOM % 12000)) taken=
    for port in $(seq "$base" $((base + 7))); do
      (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && taken=1
    done
    [[ -n $taken ]] || { echo "$base"; return; }
  done
  finding "no free ports"
}

# Ignores the caller's settings: engines, folders, limits.
unset ADMIN_LISTEN_ADDR DATA_DIR DATABASE_URL EVENT_STORE_URL HTTP_MEMORY LISTEN_ADDR MAX_CONNECTIONS \
  MAX_CONNECTIONS_PER_ADDRESS MAX_FOLLOWERS MAX_IN_FLIGHT RATE_LIMIT REDIS_URL SEARCH_INDEX_DIR
base=$(free_ports)
export ADMIN_TOKEN=check-gateway TRUSTED_PROXIES=127.0.0.1 LOG_FORMAT=json RUST_LOG=warn
export GATEWAY_ADDR=127.0.0.1:$base GATEWAY_METRICS_ADDR=127.0.0.1:$((base + 1))
export COMMAND_API_1=127.0.0.1:$((base + 2)) COMMAND_API_2=127.0.0.1:$((base + 3))
export QUERY_API_1=127.0.0.1:$((base + 4)) QUERY_API_2=127.0.0.1:$((base + 5))
declare -A address=(
  [command-api-1]=$COMMAND_API_1 [command-api-2]=$COMMAND_API_2
  [query-api-1]=$QUERY_API_1 [query-api-2]=$QUERY_API_2
  [projector-1]=127.0.0.1:$((base + 6)) [projector-2]=127.0.0.1:$((base + 7))
)
gateway=http://$GATEWAY_ADDR

# Each query-api has its own search folder with its own projector, as in production. Read model and event store are
# shared; for the read model, the second projector is on standby.
start() {
  local name=$1 role=${1%-[12]} number=${1##*-}
  "$binary" "$role" --data-dir "$work/data" --search-index-dir "$work/search-$number/index" \
    --listen-addr "${address[$name]}" 2>>"$work/$name.log" &
  pids[$name]=$!
}

# stop SIGNAL NAME
stop() {
  kill "-$1" "${pids[$2]}"
  wait "${pids[$2]}" 2>/dev/null || true
}

ready() { [[ $(curl -s -o /dev/null -w '%{http_code}' "http://${address[$1]}/readyz") == 200 ]]; }

# up NAME COUNT: the process is up in COUNT of the two backends that it belongs to.
up() {
  local metrics
  metrics=$(curl -sf "http://$GATEWAY_METRICS_ADDR/metrics") || return
  [[ $(grep -c "^haproxy_server_status{.*server=\"$1\",state=\"UP\"} 1" <<<"$metrics") == "$2" ]]
}
in_use() { up "$1" 2; }
gone() { up "$1" 0; }

for name in command-api-1 command-api-2 projector-1 projector-2 query-api-1 query-api-2; do start "$name"; done
haproxy -c -q -f "$here/gateway/haproxy.cfg" || finding "the configuration is not valid"
haproxy -db -f "$here/gateway/haproxy.cfg" >"$work/gateway.log" 2>&1 &
pids[gateway]=$!
for name in command-api-1 command-api-2 query-api-1 query-api-2; do
  until_true ready "$name"
  until_true in_use "$name"
done

# ---- requests -------------------------------------------------------------------------------------------------------

checks=0
# expect STATUS METHOD PATH [OPTION OF CURL…]: leaves the response in $work/head and $work/body.
expect() {
  local status=$1 method=$2 path=$3 got
  shift 3
  local request=(-X "$method")
  [[ $method == HEAD ]] && request=(--head)
  got=$(curl -s --max-time 20 -D "$work/head" -o "$work/body" -w '%{http_code}' "${request[@]}" "$@" "$gateway$path")
  [[ $got == "$status" ]] || finding "$method $path: $got instead of $status: $(head -c 500 "$work/body")"
  checks=$((checks + 1))
}
header() { grep -i "^$1:" "$work/head" | head -1 | cut -d: -f2- | tr -d '\r' | sed 's/^ *//'; }
body() { jq -r "$1" "$work/body"; }
# problem CODE: the response is a problem document with this code and the id of the request.
problem() {
  [[ $(header content-type) == application/problem+json ]] || finding "not a problem document: $(cat "$work/head")"
  [[ $(body .code) == "$1" ]] || finding "code $(body .code) instead of $1"
  [[ $(body .request_id) == "$(header x-request-id)" ]] || finding "the problem has the id of another request"
}
json=(-H 'Content-Type: application/json')
api=/api/v1/apps

for path in /livez /up /readyz /health; do
  expect 200 GET $path
  expect 200 HEAD $path
done
expect 404 GET /metrics && problem route_not_found
expect 404 GET /nowhere && problem route_not_found
expect 404 GET /api/v2/apps && problem route_not_found
expect 404 GET /api/v1/nowhere && problem route_not_found
expect 200 GET /docs
expect 404 GET / && problem route_not_found
expect 200 GET /docs/errors
expect 200 GET /docs/errors/overloaded
expect 200 GET /openapi.json

expect 201 POST $api "${json[@]}" -d '{"name":"first_app"}'
app=$(body .data.app_token)
[[ $(header location) == "$api/$app" ]] || finding "Location is $(header location)"
expect 200 PUT "$api/$app" "${json[@]}" -d '{"name":"renamed"}'
expect 201 POST "$api/$app/chats"
chat=$api/$app/chats/1
expect 201 POST "$chat/messages" "${json[@]}" -d '{"body":"The quick brown fox"}' -H 'X-Request-Id: mine-1'
[[ $(header x-request-id) == mine-1 ]] || finding "the id of the request is $(header x-request-id)"
expect 200 PUT "$chat/messages/1" "${json[@]}" -d '{"body":"The quick red fox"}'
expect 201 POST "$chat/messages" "${json[@]}" -d '{"body":"gone soon"}'
expect 204 DELETE "$chat/messages/2"
read_own=(-H "Consistency-Token: $(header consistency-token)" -H 'Prefer: wait=10')

# Both query-apis return the changes.
for _ in {1..4}; do
  expect 200 GET "$api/$app" "${read_own[@]}"
  [[ $(body .name) == renamed ]] || finding "the name of the app is $(body .name)"
  expect 200 HEAD "$api/$app" "${read_own[@]}"
  expect 200 GET "$api/$app/chats" "${read_own[@]}"
  expect 200 GET "$chat" "${read_own[@]}"
  [[ $(body .message_count) == 1 ]] || finding "message_count is $(body .message_count)"
  expect 304 GET "$chat" "${read_own[@]}" -H "If-None-Match: $(header etag)"
  expect 200 GET "$chat/messages?limit=1" "${read_own[@]}"
  expect 200 GET "$chat/messages/1/history" "${read_own[@]}"
  expect 410 GET "$chat/messages/2" "${read_own[@]}" && problem message_deleted
  for scope in "$chat" "$api/$app"; do
    expect 200 POST "$scope/messages/search" "${json[@]}" -d '{"query":"quic"}' "${read_own[@]}"
    [[ $(body .total) == 1 ]] || finding "the search found $(body .total)"
    expect 200 GET "$scope/messages/search?query=red" "${read_own[@]}"
    [[ $(body .total) == 1 ]] || finding "the search found $(body .total)"
  done
done
# Events are recorded with the address of the connection, not with an address from the client's headers.
expect 201 POST "$api/$app/chats" --interface 127.0.0.2 -H 'X-Forwarded-For: 192.0.2.1' -H 'Forwarded: for=192.0.2.1'
recorded=$(sqlite3 -readonly "$work/data/events.db" 'SELECT metadata FROM events ORDER BY position DESC LIMIT 1')
[[ $(jq -r .actor.address <<<"$recorded") == 127.0.0.2 ]] || finding "recorded: $recorded"
expect 401 GET $api && problem admin_token_missing
expect 200 GET $api -H "Authorization: Bearer $ADMIN_TOKEN"
expect 412 PUT "$chat/messages/1" "${json[@]}" -d '{"body":"late"}' -H 'If-Match: "7"' && problem precondition_failed
expect 405 DELETE "$chat/messages" && problem method_not_allowed
[[ $(header allow) == *POST* ]] || finding "Allow is $(header allow)"
expect 415 POST "$chat/messages" -H 'Content-Type: text/plain' -d 'x' && problem unsupported_media_type
expect 422 POST "$chat/messages" "${json[@]}" -d '{"body":" "}' && problem body_blank
printf '{"body":"%065536d"}' 0 >"$work/large"
expect 201 POST "$chat/messages" "${json[@]}" --data-binary "@$work/large"
printf '{"body":"%0600000d"}' 0 >"$work/too-large"
for expectation in 'Expect: 100-continue' 'Expect:'; do
  expect 413 POST "$chat/messages" "${json[@]}" --data-binary "@$work/too-large" -H "$expectation"
  problem payload_too_large
done

# counted ROLE PATTERN: the number of requests that match and that the processes of a role have answered.
counted() {
  for name in "$1-1" "$1-2"; do curl -s "http://${address[$name]}/metrics"; done |
    awk -v pattern="$2" '$0 ~ "^chat_http_requests_total" && $0 ~ pattern { sum += $2 } END { print sum + 0 }'
}
[[ $(counted query-api '"(PUT|DELETE)"') == 0 ]] || finding "a command reached a query-api"
[[ $(counted command-api '"GET",route="/api') == 0 ]] || finding "a query reached a command-api"
[[ $(counted query-api '"POST",route=".*search"') == 8 ]] || finding "not every search reached a query-api"
echo "requests: $checks got the expected response"

# ---- stops, kills and starts ---------------------------------------------------------------------------------------

# Four apps, so that probably both command-apis get some. Each has a writer and a reader with persistent connections,
# which write the body and the status of each response on one line.
touch "$work/sending"
senders=()
for number in 1 2 3 4; do
  expect 201 POST $api "${json[@]}" -d '{"name":"traffic"}'
  traffic[number]=$(body .data.app_token)
  expect 201 POST "$api/${traffic[number]}/chats"
  expect 201 POST "$api/${traffic[number]}/chats/1/messages" "${json[@]}" -d '{"body":"first"}'
  token=$(header consistency-token)
  expect 200 GET "$api/${traffic[number]}" -H "Consistency-Token: $token" -H 'Prefer: wait=10'
  url=$gateway$api/${traffic[number]}/chats/1/messages
  (while [[ -e $work/sending ]]; do
    curl -s --max-time 20 "${json[@]}" -d '{"body":"hello"}' -w '|%{http_code}\n' "$url#[1-20]" || true
  done >"$work/written-$number") &
  senders+=($!)
  (while [[ -e $work/sending ]]; do
    curl -s --max-time 20 -H "Consistency-Token: $token" -w '|%{http_code}\n' "$url?limit=1#[1-20]" || true
    curl -s --max-time 20 "${json[@]}" -d '{"query":"fir"}' -w '|%{http_code}\n' "$url/search#[1-5]" || true
  done >"$work/read-$number") &
  senders+=($!)
done

# Complete lines only: the last line may be partly written.
answers() { grep -hE '\|[0-9]{3}$' "$work/$1"-[1-4] || true; }
failures() { answers "$1" | grep -vE '\|20[01]$' || true; }
count_answers() { answers "$1" | wc -l; }
count_failures() { failures "$1" | wc -l; }
# Waits for 60 more responses of each kind, so that some of the requests were sent after the change.
more_traffic() {
  local written read
  written=$(($(count_answers written) + 60)) read=$(($(count_answers read) + 60))
  until_true eval "(( \$(count_answers written) > $written && \$(count_answers read) > $read ))"
}

more_traffic
for name in command-api-1 command-api-2 query-api-1 query-api-2; do
  for signal in TERM KILL; do
    before=$(count_failures written)
    stop "$signal" "$name"
    more_traffic
    start "$name"
    until_true ready "$name"
    until_true in_use "$name"
    more_traffic
    lost=$(($(count_failures written) - before))
    echo "$name, SIG$signal and start: $lost commands failed"
    # After SIGKILL at most one command in flight of each writer; after SIGTERM none.
    allowed=0
    [[ $signal == KILL && $name == command-* ]] && allowed=4
    ((lost <= allowed)) || finding "$lost commands failed: $(failures written | tail -3)"
    [[ $(count_failures read) == 0 ]] || finding "queries failed: $(failures read | tail -3)"
  done
done
rm "$work/sending"
wait "${senders[@]}"

failures written >"$work/unknown"
[[ $(grep -vc '"code":"outcome_unknown".*|503$' "$work/unknown" || true) == 0 ]] ||
  finding "a command failed, but not with outcome_unknown: $(grep -v outcome_unknown "$work/unknown" | head -3)"
for number in 1 2 3 4; do
  repeated=$(grep -oE '"message_number":[0-9]+' "$work/written-$number" | sort | uniq -c | awk '$1 > 1' | wc -l)
  [[ $repeated == 0 ]] || finding "a number was acknowledged twice"
  last=$(grep -oE '"message_number":[0-9]+' "$work/written-$number" | cut -d: -f2 | sort -n | tail -1)
  expect 201 POST "$api/${traffic[number]}/chats/1/messages" "${json[@]}" -d '{"body":"last"}'
  next=$(body .message_number)
  expect 200 GET "$api/${traffic[number]}/chats/1" -H "Consistency-Token: $(header consistency-token)" -H 'Prefer: wait=10'
  [[ $(body .message_count) == "$next" ]] || finding "the last number is $next, but message_count is $(body .message_count)"
  ((next > last)) || finding "message $next was created after $last was acknowledged"
done
echo "traffic: $(count_answers written) commands and $(count_answers read) queries, $(wc -l <"$work/unknown") outcomes unknown"

# ---- killed with a request in flight --------------------------------------------------------------------------------

# has_request NAME: this process has a request in flight.
has_request() {
  local side=queries metrics
  [[ $1 == command-* ]] && side=commands
  metrics=$(curl -sf "http://$GATEWAY_METRICS_ADDR/metrics") || return
  grep -q "^haproxy_server_current_sessions{proxy=\"$side\",server=\"$1\"} 1" <<<"$metrics"
}

# A process that is paused with SIGSTOP accepts requests and does not answer. One of the two gets the command and is
# killed with it; the other one goes on, and would answer if the gateway sent it the command again.
for name in command-api-1 command-api-2; do kill -STOP "${pids[$name]}"; done
(expect 503 POST "$api/$app/chats" && problem outcome_unknown && [[ $(header retry-after) == 1 ]]) &
sent=$!
either_has_request() { has_request command-api-1 || has_request command-api-2; }
until_true either_has_request
killed=command-api-1 other=command-api-2
has_request "$killed" || killed=command-api-2 other=command-api-1
stop KILL "$killed"
kill -CONT "${pids[$other]}"
wait "$sent" || finding "the command in flight was not answered with outcome_unknown"
start "$killed"
for name in command-api-1 command-api-2; do until_true in_use "$name"; done
expect 201 POST "$api/$app/chats"
[[ $(body .chat_number) == 3 ]] || finding "the command was sent twice: the next chat has number $(body .chat_number)"

# A query in flight in a killed process is answered by the other process.
kill -STOP "${pids[query-api-1]}"
asked=()
for number in 1 2; do
  # shellcheck disable=SC2030,SC2031  # each subshell has its own folder of responses
  (work=$work/asked-$number && mkdir -p "$work" && expect 200 GET "$api/$app") &
  asked+=($!)
done
until_true has_request query-api-1
stop KILL query-api-1
wait "${asked[@]}" || finding "the query in flight was not answered"
start query-api-1
until_true in_use query-api-1
echo "in flight: the command got outcome_unknown and was not retried, the query was retried on the other process"

# ---- no process is ready --------------------------------------------------------------------------------------------

for name in command-api-1 command-api-2; do stop TERM "$name"; done
for name in command-api-1 command-api-2; do until_true gone "$name"; done
expect 503 POST $api "${json[@]}" -d '{"name":"refused"}' && problem overloaded
[[ $(header retry-after) == 1 ]] || finding "Retry-After is missing"
expect 503 GET /readyz
[[ $(body '.parts[0].status') == down && $(body '.parts[1].status') == ok ]] || finding "readiness says $(cat "$work/body")"
expect 200 GET "$api/$app"
# If no process is ready, one that is alive answers, and its error names the reason.
mv "$work/data/read-model.db" "$work/data/read-model.db.away"
for name in projector-1 projector-2; do stop KILL "$name"; done
for name in query-api-1 query-api-2; do
  stop KILL "$name"
  start "$name"
done
for name in query-api-1 query-api-2; do until_true up "$name" 1; done
names_the_reason() (expect 503 GET "$api/$app" && [[ $(body .code) == read_model_unavailable ]])
until_true names_the_reason
problem read_model_unavailable
echo "no process ready: problem documents with Retry-After"
