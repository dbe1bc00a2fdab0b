#!/usr/bin/env bash
# hadolint has nothing to say about the Dockerfile; compose.yaml follows the Compose specification, and each service in it is confined.
# In make test: yes
source "$(dirname "$0")/lib.sh"
need python3 "apt-get install python3 python3-venv"
here=$repo/deploy/tests/lint
tools=$repo/target/deploy-lint
export here
# shellcheck disable=SC2016 # expanded by the inner shell
sh "$repo/.ci/pinned" "$tools" "$here/requirements.txt" -- sh -euc '
    rm -rf venv
    python3 -m venv venv
    venv/bin/pip install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt"'

"$tools/venv/bin/hadolint" "$repo/deploy/Dockerfile" || fail "hadolint complains"
say "hadolint $("$tools/venv/bin/hadolint" --version | grep -o '[0-9][0-9.]*' | head -n 1) has nothing to say"
printf 'FROM debian\nRUN cd /tmp\n' | "$tools/venv/bin/hadolint" - >/dev/null && fail "hadolint takes anything"

pinned=$(sed -n 's/^cargo-auditable //p' "$repo/.ci/tools")
grep -qx "ARG CARGO_AUDITABLE=$pinned" "$repo/deploy/Dockerfile" || fail "the Dockerfile has another cargo-auditable than .ci/tools, $pinned"
rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$repo/Cargo.toml")
grep -q "^ARG RUST_IMAGE=docker.io/library/rust:$rust-" "$repo/deploy/Dockerfile" || fail "the Dockerfile has another Rust than Cargo.toml, $rust"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$repo/Cargo.toml" | head -n 1)
grep -qF "image: \${DOORWARD_IMAGE:-doorward:$version}" "$repo/deploy/compose.yaml" || fail "compose.yaml has another version than Cargo.toml, $version"
say "Rust, cargo-auditable and version are those of Cargo.toml and .ci/tools"

# Cargo reads no manifest that names a file which is not there.
sed -n 's/^path = "\(.*\)"$/\1/p' "$repo/Cargo.toml" >"$work/paths"
while read -r path; do
    grep -qwF "$path" "$repo/deploy/Dockerfile" || fail "the Dockerfile makes no $path, which Cargo.toml names"
done <"$work/paths"

compose=$repo/deploy/compose.yaml
schema() { "$tools/venv/bin/check-jsonschema" --quiet --builtin-schema vendor.compose-spec "$1"; }
schema "$compose" || fail "compose.yaml does not follow the Compose specification"
sed "s/cap_drop: .ALL./cap_drop: ALL/" "$compose" >"$work/compose.yaml"
schema "$work/compose.yaml" >/dev/null && fail "check-jsonschema takes anything"
say "compose.yaml follows the Compose specification"
"$tools/venv/bin/python" "$here/compose.py" "$compose"

for name in assertion identity; do "$doorward" secret new >"$work/$name" 2>/dev/null; done
sed "s|/run/secrets/|$work/|" "$repo/deploy/compose/doorward.toml" >"$work/doorward.toml"
checked=$("$doorward" check -c "$work/doorward.toml" 2>&1) || fail "$checked"
grep -q '^ok: 1 tenant, 0 warnings$' <<<"$checked" || fail "$checked"
say "doorward check has nothing to say about its configuration"
