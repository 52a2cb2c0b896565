# Recipes for https://just.systems. `just` lists them; each is a short command line that also works without just.

# List the recipes.
default:
    @just --list --unsorted

# Build and run the server on http://127.0.0.1:8000 with its data in ./data, or as the options say.
run *options:
    cargo run --release -- {{ options }}

# Run every test. Postgres and Redis are installed where they are missing.
test:
    cargo test --workspace

# Run most tests that need no Postgres and no Redis: under a minute once they are built.
test-fast:
    cargo test --workspace --exclude chat-redis --lib --bins \
        --test domain --test in_process_counters --test sqlite --test search --test kurrentdb \
        --test router --test server --test routes --test tampering --test command_line --test http_contract

# Run crash tests, generation tests and the fault campaign for longer; without `seconds`, property and fuzz tests too.
soak seconds="":
    scripts/soak.sh {{ seconds }}

# Run a fuzz target for a number of seconds, or all of them: `just fuzz search_snippets 60`, `just fuzz all 60`.
fuzz target seconds *options:
    scripts/fuzz.sh {{ target }} {{ seconds }} {{ options }}

# Run the fault campaign on each deployment: `just campaign --seed 7 --faults 1000`.
campaign *options:
    scripts/campaign.sh {{ options }}

# Measure against a bare handler, Postgres and SQLite, and write docs/performance.md: an hour or more, 30 GB of disk.
bench corpus folder *options:
    cargo build --profile dist --locked --workspace --bins
    target/dist/chat-bench compare --corpus {{ quote(corpus) }} --folder {{ quote(folder) }} \
        --report docs/performance.md {{ options }}

# Build the documentation of all crates.
docs *options:
    cargo doc --workspace --no-deps {{ options }}

# Build the binary of a release, with link-time optimization: target/dist/chat-api.
release:
    cargo build --profile dist --locked --package chat-api

# Check formatting, lints, documentation, licences, the image and all tests, as CI does.
ci:
    .ci/run

# Check without a container engine that the image can be built.
check-image:
    CHECK_IMAGE=full infra/deploy/check-image.sh

# Take the screenshots of docs/images/ again. Chromium, HAProxy and Prometheus are installed where they are missing.
screenshots:
    cargo build --release --package chat-api
    scripts/screenshots.sh
