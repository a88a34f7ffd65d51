#!/usr/bin/env bash
# Installs what building (build), running the demo (run) or testing (test, the default) needs and is not there yet.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

case ${1:-test} in
build) install_missing "${BUILD_PACKAGES[@]}" ;;
run) install_missing "${BUILD_PACKAGES[@]}" "${RUN_PACKAGES[@]}" ;;
test)
    install_missing "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
    find_cargo
    install_cargo_deny
    ;;
*) die "usage: $0 [build|run|test]" ;;
esac
