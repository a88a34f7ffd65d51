#!/usr/bin/env bash
# Everything a change has to pass: formatting, licences and known vulnerabilities of what is built in, lints with warnings
# denied, every unit and integration test (which
# run promtool, a real Prometheus and real PostgreSQL servers of their own). Arguments go to `cargo test`.
#
# TAPEWAY_CORPUS names a folder of recordings; without it, tests over recordings say that they were skipped.
# TAPEWAY_NO_INSTALL=1 installs nothing and says what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

scripts/install-deps.sh test
find_cargo
if command -v rustup >/dev/null; then
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
fi

cargo fmt --all --check
cargo fmt --manifest-path fuzz/Cargo.toml --check
scripts/advisories.sh
# Crates of every target, which deny looks at and a build for this one leaves out.
cargo fetch --locked --quiet
cargo deny --offline check
cargo clippy --workspace --all-targets --locked -- -D warnings
cargo test --workspace --locked "$@"
cargo test --bench pieces --locked
