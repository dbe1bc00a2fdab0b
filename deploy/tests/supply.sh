#!/usr/bin/env bash
# deny.toml is enforced: every crate passes, and a licence, a crate, a source or an advisory that it does not allow is refused.
# In make test: no, because it compiles cargo-deny the first time (two minutes); make check runs the same rules
DOORWARD_BINARY=${DOORWARD_BINARY:-none}
source "$(dirname "$0")/lib.sh"
folder=$(sh "$repo/.ci/tool" cargo-deny)
PATH=$folder:$PATH
deny() { (cd "$repo" && cargo deny --all-features "$@") >"$work/said" 2>&1; }
refuses() { # refuses WHAT CODE CHECK...
    local what=$1 code=$2
    shift 2
    if deny --config "$work/deny.toml" check "$@"; then fail "$what passes"; fi
    grep -q "error\[$code\]" "$work/said" || fail "$what is refused for another reason: $(head -n 5 "$work/said")"
    say "$what is refused ($code)"
}

deny check licenses bans sources || fail "$(head -n 20 "$work/said")"
say "licences, bans and sources of all $(grep -c '^\[\[package\]\]' "$repo/Cargo.lock") crates of Cargo.lock"

grep -v '"MIT",' "$repo/deny.toml" >"$work/deny.toml"
refuses "a licence that is not allowed" rejected licenses
sed 's/crate = "native-tls"/crate = "bytes"/' "$repo/deny.toml" >"$work/deny.toml"
refuses "a banned crate" banned bans
sed 's|https://github.com/rust-lang/crates.io-index|https://example.com/index|' "$repo/deny.toml" >"$work/deny.toml"
refuses "another registry" source-not-allowed sources

# A database of our own, with one advisory against a crate that is in Cargo.lock and one against no version of it.
advisory() { # advisory ID PATCHED
    cat >"$work/db/crates/bytes/$1.md" <<END
\`\`\`toml
[advisory]
id = "$1"
package = "bytes"
date = "2026-01-01"
[versions]
patched = ["$2"]
\`\`\`

# Made up

Made up for a test.
END
}
mkdir -p "$work/db/crates/bytes"
advisory RUSTSEC-2026-9001 ">= 0.1.0"
git -C "$work/db" init --quiet --initial-branch main
git -C "$work/db" add .
commit() { git -C "$work/db" -c user.name=test -c user.email=test@example.com commit --quiet "$@"; }
commit --message first
# cargo-deny wants a name in the address; git knows what is meant.
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="url.file://$work/db.insteadOf" GIT_CONFIG_VALUE_0=https://advisories.test/db
sed "s|^\[advisories\]|&\ndb-path = \"$work/dbs\"\ndb-urls = [\"https://advisories.test/db\"]|" "$repo/deny.toml" >"$work/deny.toml"
deny --config "$work/deny.toml" check advisories || fail "a database without an advisory against ours: $(head -n 5 "$work/said")"
advisory RUSTSEC-2026-9002 ">= 999.0.0"
git -C "$work/db" add .
commit --message second
refuses "a crate with an advisory" vulnerability advisories

# make check where the database cannot be had, and where it must be.
sh "$repo/.ci/supply" >"$work/said" 2>&1 || fail "$(tail -n 5 "$work/said")"
if grep -q '^SKIPPED: advisories' "$work/said"; then
    if sh "$repo/.ci/supply" required >/dev/null 2>&1; then fail "make deny passes without a database"; fi
    say "no advisory database in reach: make check says SKIPPED, make deny fails"
else
    say "RustSec's database was fetched: no advisory stands against these crates"
fi
