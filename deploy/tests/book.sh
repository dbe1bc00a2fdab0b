#!/usr/bin/env bash
# The manual is a static book: every page of its summary is there, every link inside it leads somewhere, and nothing is loaded from elsewhere.
# In make test: yes
source "$(dirname "$0")/lib.sh"
need python3 "apt-get install python3 python3-venv"

printed=$(sh "$repo/.ci/book/build" "$work/book") || fail "the book is not built: $printed"
[ -s "$work/book/html/index.html" ] || fail "no first page: $printed"
say "built: $(find "$work/book/html" -name '*.html' | wc -l) pages"
found=$(python3 "$repo/.ci/book/check.py" "$work/book/html" "$repo/src/manual/SUMMARY.md") || fail "$found"
say "$found"
