#!/bin/sh
# Run once, by the database image, when the database is new: a role for Grafana that can read and nothing else.
set -eu
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    -v password="$(cat /run/secrets/reader_password)" <<'SQL'
CREATE ROLE tapeway_reader LOGIN PASSWORD :'password' CONNECTION LIMIT 20;
GRANT pg_read_all_data TO tapeway_reader;
ALTER ROLE tapeway_reader SET statement_timeout = '30s';
ALTER ROLE tapeway_reader SET default_transaction_read_only = on;
SQL
