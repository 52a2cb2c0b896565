#!/usr/bin/env bash
# Runs the fault campaign: processes, engines, disks, clocks and networks fail under load, and afterwards nothing may be
# lost, doubled, skipped, resurrected or out of order, also for 200 clients that follow the live feed, and every
# projection must equal a rebuild from the log.
#
#   scripts/campaign.sh                                  # 100 faults on each deployment
#   scripts/campaign.sh --seed 7 --faults 1000           # with the random choices of this seed
#   scripts/campaign.sh --on one_process --faults 1000   # on one deployment: one_process, redis_and_postgres, dropped_connections, hosts, real_kurrentdb
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '6,8s/^# *//p' "$0" >&2; exit 2; }

filter=()
export CAMPAIGN_FAULTS=${CAMPAIGN_FAULTS:-100} CAMPAIGN_FOLLOWERS=${CAMPAIGN_FOLLOWERS:-200}
while (($# > 0)); do
  (($# > 1)) || usage
  case $1 in
    --seed) export CAMPAIGN_SEED=$2 ;;
    --faults) export CAMPAIGN_FAULTS=$2 ;;
    --on) filter=("$2") ;;
    *) usage ;;
  esac
  shift 2
done
cargo test --workspace --test campaign ${filter[@]+"${filter[@]}"} -- --nocapture
