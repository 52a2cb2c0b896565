#!/usr/bin/env bash
# Runs the crash, generation and chaos tests in full length: processes and engines are killed, restarted and paused
# under load, and afterwards nothing may be lost, doubled or out of order.
#
#   scripts/soak.sh             # in full length: about six minutes on two cores
#   scripts/soak.sh SECONDS     # the chaos test is cut so that all of it takes about so many seconds
#
# Variables that are set already win, for example CRASH_SEED=7 CRASH_ROUNDS=1000.
set -euo pipefail
cd "$(dirname "$0")/.."

limit=${1:-}
run_suite() { cargo test --workspace "$@" -- --nocapture; }

# The time starts when everything is built.
cargo test --workspace --test crash --test generations --test chaos --no-run
started=$SECONDS

CRASH_ROUNDS=${CRASH_ROUNDS:-50} run_suite --test crash
KILL_ROUNDS=${KILL_ROUNDS:-10} SWITCH_ROUNDS=${SWITCH_ROUNDS:-30} run_suite --test generations

# The chaos test runs twice, on an event store in a file and on KurrentDB's protocol, with a fault every 3.5 seconds.
# The start, and the comparison with a rebuild at the end, take some seconds more.
seconds=125
if [[ -n $limit ]]; then
  seconds=$(((limit - (SECONDS - started)) / 2 - 15))
  if ((seconds < 15)); then
    echo "no time is left for the chaos test"
    exit
  fi
fi
CHAOS_SECONDS=${CHAOS_SECONDS:-$seconds} CHAOS_FAULTS=${CHAOS_FAULTS:-$((seconds * 36 / 125))} run_suite --test chaos
