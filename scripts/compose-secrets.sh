#!/usr/bin/env bash
# Makes the passwords that compose.yaml mounts, if they are not there yet. Never prints or replaces one.
set -euo pipefail
cd "$(dirname "$0")/.."

install -d -m 0700 secrets
for name in database_password reader_password grafana_password; do
    [[ -s secrets/$name ]] && continue
    head -c 24 /dev/urandom | od -An -vtx1 | tr -d ' \n' >"secrets/$name"
    # Readable by any user inside a container, whatever its number; outside, the folder keeps others out.
    chmod 0444 "secrets/$name"
    echo "made secrets/$name"
done
