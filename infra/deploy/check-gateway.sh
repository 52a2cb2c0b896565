#!/usr/bin/env bash
# Checks gateway/haproxy.cfg with real processes: two command-apis, two query-apis and their projectors on one embedded
# log, HAProxy in front, everything on loopback and in a temporary folder that is removed again.
#
#   infra/deploy/check-gateway.sh [BINARY]      BINARY: target/release/chat-api, or else target/debug/chat-api
#
# Every kind of request passes through the gateway. Then each process is stopped and started, and killed and started,
# while clients send traffic: an orderly stop may cost no request, a kill only the commands that the process was at.
# Needs haproxy, curl, jq and sqlite3. Exit code 0: fine, 1: a finding, 2: something is missing.
# shellcheck disable=SC2031
set -euo pipefail

# Nothing here takes minutes: whatever hangs ends after three, through the same clean-up.
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

# Waits until a command succeeds, ten seconds at most.
until_true() {
  local deadline=$((SECONDS + 10))
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || finding "waited in vain for: $*"
    sleep 0.05
  done
}

# Eight ports in a row on which nobody listens.
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

# Nothing of the caller's environment: engines, folders, limits.
unset DATA_DIR DATABASE_URL EVENT_STORE_URL LISTEN_ADDR MAX_IN_FLIGHT RATE_LIMIT REDIS_URL SEARCH_INDEX_DIR
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

# Each query-api has a search folder of its own, kept by a projector beside it, as in production. Read model and log are
# shared; the second projector stands by for the read model.
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

# up NAME COUNT: in so many of the two backends that have a process, the gateway holds it fit for requests.
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

# ---- every kind of request ------------------------------------------------------------------------------------------

checks=0
# expect STATUS METHOD PATH [curl's options]: leaves the answer in $work/head and $work/body.
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
# problem CODE: the answer is a problem document with this code, and names the request.
problem() {
  [[ $(header content-type) == application/problem+json ]] || finding "not a problem document: $(cat "$work/head")"
  [[ $(body .code) == "$1" ]] || finding "code $(body .code) instead of $1"
  [[ $(body .request_id) == "$(header x-request-id)" ]] || finding "the problem names another request"
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
expect 200 GET /docs/errors/overloaded
expect 200 GET /openapi.json

expect 201 POST $api "${json[@]}" -d '{"name":"first_app"}'
app=$(body .data.app_token)
[[ $(header location) == "$api/$app" ]] || finding "Location is $(header location)"
expect 200 PUT "$api/$app" "${json[@]}" -d '{"name":"renamed"}'
expect 201 POST "$api/$app/chats"
chat=$api/$app/chats/1
expect 201 POST "$chat/messages" "${json[@]}" -d '{"body":"The quick brown fox"}' -H 'X-Request-Id: mine-1'
[[ $(header x-request-id) == mine-1 ]] || finding "the request's id is $(header x-request-id)"
expect 200 PUT "$chat/messages/1" "${json[@]}" -d '{"body":"The quick red fox"}'
expect 201 POST "$chat/messages" "${json[@]}" -d '{"body":"gone soon"}'
expect 204 DELETE "$chat/messages/2"
read_own=(-H "Consistency-Token: $(header consistency-token)" -H 'Prefer: wait=10')

# Both query-apis have seen it.
for _ in {1..4}; do
  expect 200 GET "$api/$app" "${read_own[@]}"
  [[ $(body .name) == renamed ]] || finding "the app is named $(body .name)"
  expect 200 HEAD "$api/$app" "${read_own[@]}"
  expect 200 GET "$api/$app/chats" "${read_own[@]}"
  expect 200 GET "$chat" "${read_own[@]}"
  [[ $(body .message_count) == 1 ]] || finding "$(body .message_count) messages are counted"
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
# The address that an event is recorded under is the client's, whatever it claims.
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
# Who asks before sending surely sees the answer; others may find the connection closed while they send.
expect 413 POST "$chat/messages" "${json[@]}" --data-binary "@$work/too-large" -H 'Expect: 100-continue'
problem payload_too_large

# counted ROLE PATTERN: the requests of a kind that the processes of a role have answered.
counted() {
  for name in "$1-1" "$1-2"; do curl -s "http://${address[$name]}/metrics"; done |
    awk -v pattern="$2" '$0 ~ "^http_requests_total" && $0 ~ pattern { sum += $2 } END { print sum + 0 }'
}
[[ $(counted query-api '"(PUT|DELETE)"') == 0 ]] || finding "a query-api was sent a command"
[[ $(counted command-api '"GET",route="/api') == 0 ]] || finding "a command-api was sent a query"
[[ $(counted query-api '"POST",route=".*search"') == 8 ]] || finding "not every search reached a query-api"
echo "requests: $checks answered as expected"

# ---- processes come and go ------------------------------------------------------------------------------------------

# Four apps, so that both command-apis have some; a writer and a reader each, with connections that are kept. A line of
# what they write is an answer's body and its status.
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
    curl -s --max-time 20 "${json[@]}" -d '{"body":"to and fro"}' -w '|%{http_code}\n' "$url?n=[1-20]" || true
  done >"$work/written-$number") &
  senders+=($!)
  (while [[ -e $work/sending ]]; do
    curl -s --max-time 20 -H "Consistency-Token: $token" -w '|%{http_code}\n' "$url?limit=1&n=[1-20]" || true
    curl -s --max-time 20 "${json[@]}" -d '{"query":"fir"}' -w '|%{http_code}\n' "$url/search?n=[1-5]" || true
  done >"$work/read-$number") &
  senders+=($!)
done

# Complete lines only: the last one may be half written.
answers() { grep -hE '\|[0-9]{3}$' "$work/$1"-[1-4] || true; }
failures() { answers "$1" | grep -vE '\|20[01]$' || true; }
answered() { answers "$1" | wc -l; }
failed() { failures "$1" | wc -l; }
# Waits until so many more requests were answered: that what happened was felt.
more_traffic() {
  local written read
  written=$(($(answered written) + 60)) read=$(($(answered read) + 60))
  until_true eval "(( \$(answered written) > $written && \$(answered read) > $read ))"
}

more_traffic
for name in command-api-1 command-api-2 query-api-1 query-api-2; do
  for signal in TERM KILL; do
    before=$(failed written)
    stop "$signal" "$name"
    more_traffic
    start "$name"
    until_true ready "$name"
    until_true in_use "$name"
    more_traffic
    lost=$(($(failed written) - before))
    echo "$name, SIG$signal and start: $lost commands without an answer of their own"
    # One in flight a writer at most, where the process was killed; none where it was asked to stop.
    allowed=0
    [[ $signal == KILL && $name == command-* ]] && allowed=4
    ((lost <= allowed)) || finding "$lost commands failed: $(failures written | tail -3)"
    [[ $(failed read) == 0 ]] || finding "queries failed: $(failures read | tail -3)"
  done
done
rm "$work/sending"
wait "${senders[@]}"

failures written >"$work/unknown"
[[ $(grep -vc '"code":"outcome_unknown".*|503$' "$work/unknown" || true) == 0 ]] ||
  finding "a command failed otherwise than as outcome_unknown: $(grep -v outcome_unknown "$work/unknown" | head -3)"
for number in 1 2 3 4; do
  acknowledged=$(grep -oE '"message_number":[0-9]+' "$work/written-$number" | sort | uniq -c | awk '$1 > 1' | wc -l)
  [[ $acknowledged == 0 ]] || finding "a number was acknowledged twice"
  last=$(grep -oE '"message_number":[0-9]+' "$work/written-$number" | cut -d: -f2 | sort -n | tail -1)
  expect 201 POST "$api/${traffic[number]}/chats/1/messages" "${json[@]}" -d '{"body":"last"}'
  next=$(body .message_number)
  expect 200 GET "$api/${traffic[number]}/chats/1" -H "Consistency-Token: $(header consistency-token)" -H 'Prefer: wait=10'
  [[ $(body .message_count) == "$next" ]] || finding "message $next is there, $(body .message_count) are counted"
  ((next > last)) || finding "message $last was acknowledged, and $next came after it"
done
echo "traffic: $(answered written) commands and $(answered read) queries, $(wc -l <"$work/unknown") commands unknown"

# ---- killed with a request in flight --------------------------------------------------------------------------------

# at NAME: a request is at this process.
at() {
  local side=queries metrics
  [[ $1 == command-* ]] && side=commands
  metrics=$(curl -sf "http://$GATEWAY_METRICS_ADDR/metrics") || return
  grep -q "^haproxy_server_current_sessions{proxy=\"$side\",server=\"$1\"} 1" <<<"$metrics"
}

# A stopped process takes requests and answers nothing. One of the two gets the command and is killed with it; the other
# one goes on, and would answer if it were given the command too.
for name in command-api-1 command-api-2; do kill -STOP "${pids[$name]}"; done
(expect 503 POST "$api/$app/chats" && problem outcome_unknown && [[ $(header retry-after) == 1 ]]) &
sent=$!
at_either() { at command-api-1 || at command-api-2; }
until_true at_either
killed=command-api-1 other=command-api-2
at "$killed" || killed=command-api-2 other=command-api-1
stop KILL "$killed"
kill -CONT "${pids[$other]}"
wait "$sent" || finding "a command in flight was not answered outcome_unknown"
start "$killed"
for name in command-api-1 command-api-2; do until_true in_use "$name"; done
expect 201 POST "$api/$app/chats"
[[ $(body .chat_number) == 3 ]] || finding "the command of before was sent twice: chat $(body .chat_number)"

# A query that was at a killed process is answered by the other one.
kill -STOP "${pids[query-api-1]}"
asked=()
for number in 1 2; do
  # shellcheck disable=SC2030,SC2031  # answers of its own, in the subshell alone
  (work=$work/asked-$number && mkdir -p "$work" && expect 200 GET "$api/$app") &
  asked+=($!)
done
until_true at query-api-1
stop KILL query-api-1
wait "${asked[@]}" || finding "a query in flight was not answered"
start query-api-1
until_true in_use query-api-1
echo "in flight: a command was answered outcome_unknown and not sent twice, a query was answered by the other process"

# ---- nobody is there ------------------------------------------------------------------------------------------------

for name in command-api-1 command-api-2; do stop TERM "$name"; done
for name in command-api-1 command-api-2; do until_true gone "$name"; done
expect 503 POST $api "${json[@]}" -d '{"name":"nobody"}' && problem overloaded
[[ $(header retry-after) == 1 ]] || finding "Retry-After is missing"
expect 503 GET /readyz
[[ $(body '.parts[0].status') == down && $(body '.parts[1].status') == ok ]] || finding "readiness says $(cat "$work/body")"
expect 200 GET "$api/$app"
# A process that is not ready answers for itself as long as no other is ready.
mv "$work/data/read-model.db" "$work/data/read-model.db.away"
for name in projector-1 projector-2; do stop KILL "$name"; done
for name in query-api-1 query-api-2; do
  stop KILL "$name"
  start "$name"
done
for name in query-api-1 query-api-2; do until_true up "$name" 1; done
says_why() (expect 503 GET "$api/$app" && [[ $(body .code) == read_model_unavailable ]])
until_true says_why
problem read_model_unavailable
echo "nobody there: problem documents with Retry-After"
