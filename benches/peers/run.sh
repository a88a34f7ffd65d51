#!/usr/bin/env bash
# tapeway beside its peers on the same recorded frames, in one run: cryptofeed (PyPI) and a typed serde_json decode.
# Usage: benches/peers/run.sh [RUNS]      (default 5; medians count)
#
# Needs the recordings (TAPEWAY_CORPUS, default ../shared/corpus), python3 with venv, zstd and PostgreSQL; says so and
# stops when one is missing. Everything it makes is in a temporary folder and target/peers. One JSON object a line on
# stdout; how far it is on stderr.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

runs=${1:-5}
corpus=${TAPEWAY_CORPUS:-../shared/corpus}
skip() {
    echo "SKIPPED: $1" >&2
    exit 0
}
[ -d "$corpus/frames" ] || skip "no recordings at $corpus"
command -v python3 >/dev/null || skip "no python3"
command -v zstd >/dev/null || skip "no zstd"
postgres=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$postgres" ] || skip "no PostgreSQL server in /usr/lib/postgresql"

venv=target/peers
if ! "$venv/bin/python" -c 'import asyncpg, cryptofeed' 2>/dev/null; then
    python3 -m venv "$venv" || skip "python3 cannot make a venv"
    "$venv/bin/pip" install --quiet cryptofeed==2.4.1 asyncpg || skip "cryptofeed cannot be installed from the registry"
fi
find_cargo
cargo build --release --locked --quiet

dir=$(mktemp -d)
chmod 755 "$dir"
server=""
clean() {
    [ -z "$server" ] || run_as_postgres "$postgres/pg_ctl" -D "$dir/data" -m immediate -s stop || true
    rm -rf "$dir"
}
trap clean EXIT
run_as_postgres() {
    if [ "$(id -u)" = 0 ]; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi
}

peer="benches/peers/peer_cryptofeed.py"
recordings=$("$venv/bin/python" "$peer" prepare "$corpus" "$dir/frames")
for recording in $recordings; do
    # The two sides in turn, so that both meet the same machine.
    for _ in $(seq "$runs"); do
        echo "decode $recording" >&2
        "$venv/bin/python" "$peer" decode "$recording" 1
        target/release/tapeway bench decode --file "$recording" --runs 1 --json
    done
done | "$venv/bin/python" benches/peers/medians.py decode

mkdir "$dir/data"
[ "$(id -u)" != 0 ] || chown postgres "$dir/data"
run_as_postgres "$postgres/initdb" -D "$dir/data" -U postgres -A trust >/dev/null
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
run_as_postgres "$postgres/pg_ctl" -D "$dir/data" -s -w -o "-p $port -k $dir/data -c listen_addresses=127.0.0.1" start >/dev/null
server=1
for recording in $recordings; do
    echo "postgresql $recording" >&2
    "$venv/bin/python" "$peer" postgres "$recording" "$runs" 127.0.0.1 "$port" postgres postgres
done | "$venv/bin/python" benches/peers/medians.py sink
echo "sink of tapeway (plain PostgreSQL, loopback material)" >&2
target/release/tapeway bench sink --plain --runs "$runs" --rows 1000000 --json
