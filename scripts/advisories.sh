#!/usr/bin/env bash
# Security advisories for `cargo deny`, without a network: scripts/advisories.tsv has the facts of the RustSec database
# (https://github.com/rustsec/advisory-db) about every crate of our lock files.
#
#   scripts/advisories.sh                   makes the database that deny.toml names, from the list
#   scripts/advisories.sh renew CHECKOUT    makes the list anew, from a checkout of the RustSec database
set -euo pipefail
cd "$(dirname "$0")/.."

LIST=scripts/advisories.tsv
# The folder's name is cargo-deny's for the URL in deny.toml.
DATABASE=target/advisories/advisory-db-3157b0e258782691

renew() {
    local checkout=$1 crates
    crates=$(sed -n 's/^name = "\(.*\)"/\1/p' Cargo.lock fuzz/Cargo.lock | sort -u)
    {
        echo "# Facts of the RustSec advisory database at commit $(git -C "$checkout" log -1 --format='%H of %cs')."
        echo "# id, crate, date, kind of notice, patched versions, versions never affected"
        for crate in $crates; do
            for file in $(git -C "$checkout" ls-tree -r --name-only HEAD "crates/$crate/"); do
                # The head of the file, between the first two fences, with lists joined to one line each.
                git -C "$checkout" show "HEAD:$file" | awk '
                    /^```/ { if (fence++) exit; next }
                    { line = open ? line $0 : $0; open = line ~ /=[ ]*\[[^]]*$/; if (open) next }
                    line ~ /^withdrawn/ { gone = 1 }
                    line ~ /^[a-z]+ *=/ { key = line; sub(/ *=.*/, "", key); sub(/^[^=]*= */, "", line); value[key] = line }
                    END {
                        if (gone || value["id"] == "") exit
                        for (key in value) gsub(/\t/, " ", value[key])
                        none = "[]"
                        gsub(/"/, "", value["id"]); gsub(/"/, "", value["package"]); gsub(/"/, "", value["date"])
                        gsub(/"/, "", value["informational"])
                        printf "%s\t%s\t%s\t%s\t%s\t%s\n", value["id"], value["package"], value["date"],
                            value["informational"] == "" ? "-" : value["informational"],
                            value["patched"] == "" ? none : value["patched"],
                            value["unaffected"] == "" ? none : value["unaffected"]
                    }'
            done
        done
    } >"$LIST.new"
    mv "$LIST.new" "$LIST"
}

make() {
    rm -rf "$DATABASE"
    mkdir -p "$DATABASE"
    local id crate date notice patched unaffected
    while IFS=$'\t' read -r id crate date notice patched unaffected; do
        [[ $id == RUSTSEC-* ]] || continue
        mkdir -p "$DATABASE/crates/$crate"
        {
            printf '```toml\n[advisory]\nid = "%s"\npackage = "%s"\ndate = "%s"\n' "$id" "$crate" "$date"
            printf 'url = "https://rustsec.org/advisories/%s.html"\n' "$id"
            [[ $notice == - ]] || printf 'informational = "%s"\n' "$notice"
            printf '\n[versions]\npatched = %s\nunaffected = %s\n```\n\n' "$patched" "$unaffected"
            printf '# %s\n\nSee https://rustsec.org/advisories/%s.html\n' "$id" "$id"
        } >"$DATABASE/crates/$crate/$id.md"
    done <"$LIST"
    # cargo-deny takes a repository and nothing else, and asks it for its age.
    git -C "$DATABASE" init -q
    git -C "$DATABASE" add -A
    git -C "$DATABASE" -c user.name=tapeway -c user.email=tapeway@localhost commit -qm "$(head -1 "$LIST")"
    touch "$DATABASE/.git/FETCH_HEAD"
}

case ${1:-make} in
make) make ;;
renew) renew "${2:?a checkout of the RustSec database}" ;;
*)
    echo "usage: $0 [renew CHECKOUT]" >&2
    exit 2
    ;;
esac
