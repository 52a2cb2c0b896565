#!/usr/bin/env bash
# Runs a fuzz target for a number of seconds with cargo-fuzz, on the nightly toolchain.
#
#   scripts/fuzz.sh TARGET SECONDS [OPTION…]     # options of libFuzzer, such as -seed=7
#   scripts/fuzz.sh all SECONDS                  # each target for this number of seconds
#   scripts/fuzz.sh --check                      # whether the tools are there; if not, says what is missing
#
# New cases are kept in fuzz/corpus, failing ones in fuzz/artifacts. Neither is in the repository; fuzz/seeds is.
set -euo pipefail
cd "$(dirname "$0")/.."

missing() {
  echo "fuzz targets are not run: $1" >&2
  exit 2
}
cargo +nightly --version >/dev/null 2>&1 || missing "there is no nightly toolchain (rustup toolchain install nightly)"
cargo fuzz --version >/dev/null 2>&1 || missing "there is no cargo-fuzz (cargo install --locked cargo-fuzz)"
[[ ${1:-} != --check ]] || exit 0

target=${1:?which target? cargo +nightly fuzz list names them}
seconds=${2:?for how many seconds?}
shift 2

# libFuzzer ends the process without running destructors, so a target does not remove its temporary files: this script
# does at its end. They are in memory if /dev/shm can be written: there, the engines' syncs cost nothing.
TMPDIR=$(mktemp -d -p "$([[ -w /dev/shm ]] && echo /dev/shm || echo "${TMPDIR:-/tmp}")" chat-fuzz.XXXXXX)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

# The workspace has no unsafe code, and without the address sanitizer twice as many cases are run.
cargo_fuzz() { cargo +nightly fuzz "$1" --sanitizer none "${@:2}"; }

# The targets are built with the versions of the workspace.
[[ fuzz/Cargo.lock -nt Cargo.lock ]] || cp Cargo.lock fuzz/Cargo.lock

[[ $target == all ]] && targets=$(cargo +nightly fuzz list) || targets=$target
cargo_fuzz build ${target/#all/}
for target in $targets; do
  mkdir -p "fuzz/corpus/$target"
  cargo_fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
    -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 "$@"
done
