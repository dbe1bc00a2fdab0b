#!/usr/bin/env bash
# The backend examples in Python, Node, Go and Rust give every vector that the gateway's code made its verdict, for its reason, in files of 100 lines.
# In make test: yes
source "$(dirname "$0")/lib.sh"
need python3 "apt-get install python3"
need node "apt-get install nodejs"
need go "apt-get install golang-go"
need cargo "https://rustup.rs"
examples=$repo/deploy/examples
count=$(python3 -c 'import json, sys; print(len(json.load(open(sys.argv[1]))["requests"]))' "$examples/vectors.json")

# The commands of the README as printed, with what they build beside the build of the gateway and nothing left in the sources.
export CARGO_TARGET_DIR=$repo/target/examples/rust PYTHONDONTWRITEBYTECODE=1
export GOCACHE=$repo/target/examples/go-cache GOPROXY=off GOFLAGS=-mod=readonly
ran=0
while IFS= read -r command; do
    (cd "$examples" && eval "$command") >"$work/output" 2>&1 || fail "$command: $(tail -n 20 "$work/output")"
    grep -q "$count vectors" "$work/output" || fail "$command: ran fewer than $count vectors: $(cat "$work/output")"
    say "$command: $count vectors"
    ran=$((ran + 1))
done < <(awk '/^```sh / { block++; next } /^```$/ { if (block) exit } block == 1' "$examples/README.md")
[ "$ran" = 4 ] || fail "the README prints $ran commands, not one for each of four languages"

# What these vectors are worth: a verifier that lacks any one of its refusals fails them.
mkdir "$work/python"
cp "$examples/vectors.json" "$work/"
cp "$examples/python/test_verify.py" "$work/python/"
python3 -B - "$examples/python/verify.py" "$work/python" <<'PY'
import pathlib, re, subprocess, sys

whole, folder = pathlib.Path(sys.argv[1]).read_text(), pathlib.Path(sys.argv[2])
refusals = list(re.finditer(r"raise Refused\(.*", whole))
for refusal in refusals:
    (folder / "verify.py").write_text(whole[: refusal.start()] + "pass" + whole[refusal.end() :])
    if subprocess.run([sys.executable, "-B", folder / "test_verify.py"], capture_output=True).returncode == 0:
        sys.exit(f"the vectors pass without: {refusal.group()}")
print(f"ok: without any one of its {len(refusals)} refusals the Python verifier fails the vectors")
PY

for file in "$examples"/{python/{verify,fastapi_middleware}.py,node/{verify,express}.mjs,go/{verify,identity,main}.go,rust/src/*.rs}; do
    lines=$(wc -l <"$file")
    [ "$lines" -le 100 ] || fail "$file has $lines lines"
done
say "no file of an example has more than 100 lines"
