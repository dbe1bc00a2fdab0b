#!/bin/sh
# Makes a release of this checkout in target/dist:
#
#   doorward-VERSION-TARGET.tar.gz     the binary, with what belongs beside it
#   doorward-VERSION-TARGET.cdx.json   what it was built from: every crate with version, hash and licence (CycloneDX 1.5)
#   SHA256SUMS                         of both
#
# Built with --locked in the release profile by cargo auditable, so that the binary itself says what is in it. The same commit,
# Rust and C compiler give the same bytes wherever that is: times are the commit's (or SOURCE_DATE_EPOCH), owners are 0, and the
# binary holds no path of this machine. Needs GNU tar.
set -eu
umask 022
cd "$(dirname "$0")/.."
root=$PWD

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
target=$(rustc -vV | sed -n 's/^host: //p')
name=doorward-$version-$target
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
if [ -n "$(git status --porcelain)" ]; then
    echo "this checkout differs from its commit: what is made here is no release" >&2
fi
for tool in cargo-auditable cargo-cyclonedx; do
    folder=$(sh .ci/tool "$tool")
    PATH=$folder:$PATH
done

# As deploy/Dockerfile has it. Our own sources are named from the root of the repository already; the time is for __TIME__ in C.
RUSTFLAGS="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src=/crates"
CARGO_TARGET_DIR=$root/target/dist/build
export RUSTFLAGS CARGO_TARGET_DIR
SOURCE_DATE_EPOCH=0 deploy/auditable build --release --locked --bin doorward
binary=$CARGO_TARGET_DIR/release/doorward

out=$root/target/dist
rm -rf "$out/tree" "$out"/doorward-*.tar.gz "$out"/doorward-*.cdx.json "$out/SHA256SUMS"
tree=$out/tree/$name
mkdir -p "$tree/completions"
cp "$binary" README.md LICENSE CHANGELOG.md "$tree/"
cp -R conf deploy/systemd deploy/upgrade.sh "$tree/"
"$binary" completions bash >"$tree/completions/doorward.bash"
"$binary" completions zsh >"$tree/completions/_doorward"
"$binary" completions fish >"$tree/completions/doorward.fish"
tar --create --sort=name --format=ustar --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
    --directory "$out/tree" "$name" | gzip -9 --no-name >"$out/$name.tar.gz"

# Written beside Cargo.toml, and naming this folder: neither stays.
trap 'rm -f "$root/doorward_bin.cdx.json"' EXIT
cargo cyclonedx --quiet --format json --spec-version 1.5 --describe binaries --target "$target"
sed "s|path+file://$root#|path+file:///doorward#|g" doorward_bin.cdx.json >"$out/$name.cdx.json"

cd "$out"
sha256sum "$name.tar.gz" "$name.cdx.json" >SHA256SUMS
rm -rf tree
cat SHA256SUMS
