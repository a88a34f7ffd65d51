#!/usr/bin/env bash
# The whole thing on this machine: installs what is missing, builds in release, then records from loopback venues into
# a private PostgreSQL (with TimescaleDB when the server has it) and compares every row with what was sent.
#
#   scripts/demo.sh [--seconds N] [--rate ROWS_PER_S] [--symbols N] [--seed N] [--plain] [--keep]
#
# Nothing outside a temporary folder is touched. Ctrl-C stops cleanly. TAPEWAY_NO_INSTALL=1 installs nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

scripts/install-deps.sh run
find_cargo
cargo build --release --locked --quiet
exec "${CARGO_TARGET_DIR:-target}/release/tapeway" demo "$@"
