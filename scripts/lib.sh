# shellcheck shell=bash disable=SC2034
# Shared by the scripts beside it; to be sourced, with bash. Works on Debian 12 as root or with sudo.

# What a build needs beside cargo, and what the tests and the demo need beside that.
BUILD_PACKAGES=(ca-certificates gcc libc6-dev)
RUN_PACKAGES=(postgresql-15 zstd)
TEST_PACKAGES=("${RUN_PACKAGES[@]}" git libfaketime prometheus)

# The version whose folder name for the advisories scripts/advisories.sh makes.
CARGO_DENY=0.20.2

say() { printf '%s\n' "$*" >&2; }

die() {
    say "$(basename "$0"): $*"
    exit 1
}

as_root() {
    if [[ $EUID -eq 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "needs root for: $* (run it as root, or install sudo)"
    fi
}

is_installed() { [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

# Installs those of the named packages that are missing, and starts none of the services they bring: this machine did
# not ask for a database or a Prometheus of its own.
install_missing() {
    local missing=() package
    for package in "$@"; do
        is_installed "$package" || missing+=("$package")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    [[ -z ${TAPEWAY_NO_INSTALL:-} ]] || die "missing packages: ${missing[*]} (TAPEWAY_NO_INSTALL is set)"
    command -v apt-get >/dev/null || die "missing: ${missing[*]}, and no apt-get to install them with"
    say "installing ${missing[*]}"
    as_root apt-get update -qq || say "apt-get update failed; trying with the lists that are here"
    # shellcheck disable=SC2016 # the inner shell expands it
    as_root env MISSING="${missing[*]}" bash -euo pipefail -c '
        export DEBIAN_FRONTEND=noninteractive
        policy=/usr/sbin/policy-rc.d no_cluster=/etc/postgresql-common/createcluster.d/00-tapeway.conf made=()
        undo() { [[ ${#made[@]} -eq 0 ]] || rm -f "${made[@]}"; }
        trap undo EXIT
        if [[ ! -e $policy ]]; then
            made+=("$policy")
            printf "#!/bin/sh\nexit 101\n" >"$policy"
            chmod 0755 "$policy"
        fi
        # Debian makes and starts a cluster with the first server package unless told not to.
        if [[ ! -e $no_cluster ]]; then
            made+=("$no_cluster")
            mkdir -p "$(dirname "$no_cluster")"
            echo "create_main_cluster = false" >"$no_cluster"
        fi
        apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold $MISSING >/dev/null
        for package in $MISSING; do
            [[ $package != prometheus || ! -d /run/systemd/system ]] || systemctl disable --quiet prometheus
        done
    ' || die "could not install ${missing[*]}"
}

# Installs cargo-deny unless it is there: about three and a half minutes of one core, once.
install_cargo_deny() {
    cargo deny --version >/dev/null 2>&1 && return 0
    [[ -z ${TAPEWAY_NO_INSTALL:-} ]] || die "missing: cargo-deny (TAPEWAY_NO_INSTALL is set)"
    say "installing cargo-deny $CARGO_DENY"
    cargo install --quiet --locked --version "$CARGO_DENY" cargo-deny || die "could not install cargo-deny"
}

# Puts cargo on the PATH, looking where rustup puts it for this user and for the one who called sudo.
find_cargo() {
    local home
    for home in "${CARGO_HOME:-$HOME/.cargo}" "$(getent passwd "${SUDO_USER:-}" 2>/dev/null | cut -d: -f6)/.cargo"; do
        [[ -x $home/bin/cargo ]] && PATH=$PATH:$home/bin
    done
    export PATH
    command -v cargo >/dev/null || die "no cargo found; install Rust from https://rustup.rs"
}
