#!/usr/bin/env bash
# The release script gives a tarball that runs, checksums that fit, an SBOM of every crate, a binary that says what is in it; twice the same.
# In make test: no, because it builds a release binary (seven minutes the first time) and compiles two cargo tools
# No binary is needed: it makes its own.
DOORWARD_BINARY=${DOORWARD_BINARY:-none}
source "$(dirname "$0")/lib.sh"
need readelf "apt-get install binutils"
dist=$repo/target/dist

"$repo/deploy/release.sh" >"$work/log" 2>&1 || fail "$(tail -n 30 "$work/log")"
(
    cd "$dist" &&
        sha256sum --check SHA256SUMS
) >/dev/null || fail "SHA256SUMS does not fit"
cp "$dist/SHA256SUMS" "$work/first"
tarball=$(ls "$dist"/doorward-*.tar.gz) sbom=$(ls "$dist"/doorward-*.cdx.json)
say "$(basename "$tarball") ($(($(wc -c <"$tarball") / 1000)) kB), $(basename "$sbom"), SHA256SUMS fits"

# ---- the tarball
date=$(git -C "$repo" log -1 --format=%ct)
tar --list --verbose --numeric-owner --full-time --file "$tarball" >"$work/list"
TZ=UTC tar --list --verbose --numeric-owner --full-time --file "$tarball" |
    awk -v when="$(date -u -d "@$date" '+%F %T')" '$2 != "0/0" || $4 " " $5 != when { print }' >"$work/odd"
[ ! -s "$work/odd" ] || fail "neither root's nor of the commit's time: $(head -n 3 "$work/odd")"
tar --extract --directory "$work" --file "$tarball"
tree=$work/$(basename "$tarball" .tar.gz)
for file in doorward README.md LICENSE CHANGELOG.md conf/doorward.toml systemd/doorward.service upgrade.sh completions/doorward.bash; do
    [ -s "$tree/$file" ] || fail "$file is not in it"
done
bash -n "$tree/completions/doorward.bash"
[ "$("$tree/doorward" --version)" = "doorward $(sed -n 's/^version = "\(.*\)"/\1/p' "$repo/Cargo.toml" | head -n 1)" ] || fail "another version"
admin=$(free_port)
"$tree/doorward" key new >"$work/assertion" 2>/dev/null
"$tree/doorward" secret new >"$work/identity" 2>/dev/null
sed -e "s|0.0.0.0:8080|127.0.0.1:0|; s|127.0.0.1:9090|127.0.0.1:$admin|; /^probes/d; s|/etc/doorward/secrets/|$work/|" "$tree/conf/sidecar.toml" >"$work/doorward.toml"
start "$tree/doorward" run -c "$work/doorward.toml" >/dev/null 2>"$work/run.log"
wait_for 10 "$tree/doorward" health --ready -c "$work/doorward.toml"
say "the binary in it runs by the sidecar.toml in it; all is root's and of the commit's time"

if grep -qaF "$HOME/" "$tree/doorward" || grep -qF "$repo" "$sbom"; then fail "a path of this machine is in it"; fi
say "no path of this machine in binary or SBOM"

# ---- what is in it: Cargo.lock's crates that a build of this target uses, the SBOM and the list in the binary
# Offset and size of the section .dep-v0, in which cargo auditable leaves compressed JSON.
read -r offset size < <(readelf --section-headers --wide "$tree/doorward" | awk '{ for (i = 1; i < NF; i++) if ($i == ".dep-v0") print $(i + 3), $(i + 4) }') ||
    fail "the binary names no crates"
tail -c "+$((16#$offset + 1))" "$tree/doorward" | head -c "$((16#$size))" >"$work/embedded" || true
target=$(rustc -vV | sed -n 's/^host: //p')
for edges in normal normal,build; do
    (cd "$repo" && cargo tree --locked --quiet --edges "$edges" --target "$target" --prefix none --format '{p}') >"$work/tree.$edges"
done
python3 - "$repo/Cargo.lock" "$sbom" "$work/embedded" "$work/tree.normal" "$work/tree.normal,build" <<'END'
import json, sys, tomllib, zlib
lock, sbom, embedded, linked, used = sys.argv[1:]
checksums = {(p["name"], p["version"]): p.get("checksum") for p in tomllib.load(open(lock, "rb"))["package"]}
def tree(path):
    rows = (line.split() for line in open(path) if line.strip())
    return {(row[0], row[1].removeprefix("v")) for row in rows} - {own}
bom = json.load(open(sbom))
own = (bom["metadata"]["component"]["name"], bom["metadata"]["component"]["version"])
listed = {(c["name"], c["version"]): c for c in bom["components"]}
def same(what, missing):
    if missing:
        sys.exit(f"{what}: {sorted(missing)}")
same("in the build, not in the SBOM", tree(used) - set(listed))
same("in the SBOM, not in Cargo.lock", set(listed) - set(checksums))
same("of another hash than Cargo.lock's", {k for k, c in listed.items() if [h["content"] for h in c["hashes"]] != [checksums[k]]})
same("without a licence", {k for k, c in listed.items() if not c.get("licenses")})
told = {(p["name"], p["version"]): p.get("kind", "runtime") for p in json.loads(zlib.decompress(open(embedded, "rb").read()))["packages"]}
del told[own]
same("linked, not named in the binary", tree(linked) - set(told))
same("named in the binary, not in the SBOM", set(told) - set(listed))
print(f"ok: the SBOM has all {len(tree(used))} crates of the build ({len(listed)} in it), with Cargo.lock's hashes and a licence each")
print(f"ok: the binary names {len(told)} crates itself, all {len(tree(linked))} that are linked among them")
END

# An advisory of our own making is found by the binary alone.
if folder=$(sh "$repo/.ci/tool" cargo-audit --ready); then
    mkdir -p "$work/db/crates/bytes"
    {
        # shellcheck disable=SC2016 # Markdown
        printf '```toml\n[advisory]\nid = "RUSTSEC-2026-9001"\npackage = "bytes"\ndate = "2026-01-01"\n[versions]\npatched = [">= 999.0.0"]\n```\n'
        printf '\n# Made up\n\nMade up for a test.\n'
    } >"$work/db/crates/bytes/RUSTSEC-2026-9001.md"
    git -C "$work/db" init --quiet
    git -C "$work/db" add .
    git -C "$work/db" -c user.name=test -c user.email=test@example.com commit --quiet --message db
    status=0
    (cd "$work" && PATH=$folder:$PATH cargo audit --db "$work/db" --no-fetch --stale bin "$tree/doorward") >"$work/audit" 2>&1 || status=$?
    if [ "$status" != 1 ] || ! grep -q "Found 'cargo auditable' data" "$work/audit" || ! grep -q '^ID: *RUSTSEC-2026-9001' "$work/audit"; then
        fail "cargo audit bin: $(cat "$work/audit")"
    fi
    say "cargo audit bin reads the list in the binary and finds what an advisory names"
else
    printf 'SKIPPED: cargo audit bin; sh .ci/tool cargo-audit compiles it in four minutes\n'
fi

# ---- twice the same
"$repo/deploy/release.sh" >"$work/log" 2>&1 || fail "$(tail -n 30 "$work/log")"
cmp "$work/first" "$dist/SHA256SUMS" || fail "a second run gives other bytes"
say "packed twice: the same bytes"
image=${DOORWARD_IMAGE:-localhost/doorward:test}
if [ "$(podman image inspect --format '{{index .Labels "org.opencontainers.image.revision"}}' "$image" 2>/dev/null)" = "$(git -C "$repo" rev-parse HEAD)" ]; then
    other=$(podman image mount "$image")
    cp "$other/usr/bin/doorward" "$work/other"
    podman image unmount "$image" >/dev/null
    cmp "$work/other" "$tree/doorward" || fail "the binary of $image, of the same commit, has other bytes"
    say "built in two places, for $image and here: the same binary"
fi
