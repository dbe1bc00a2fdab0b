"""Lays out the manual for mdBook: stage.py REPOSITORY DESTINATION.

The pages stay as they are but for three things: comments are left out (some are run by tests, none is for readers), a block's
language stands alone, and links that lead out of src/manual lead to a copy of what they name, so that the book is whole by
itself. A link to what is not there ends it.
"""

import pathlib
import re
import shutil
import sys

repository, destination = (pathlib.Path(argument).resolve() for argument in sys.argv[1:])
manual = repository / "src/manual"
LINK = re.compile(r"(?<=\]\()([^)\s:#]+)(#[^)]*)?(?=\))")


def stage(page):
    text = (manual / page).read_text()
    text = re.sub(r"<!--.*?-->\n*", "", text, flags=re.DOTALL)
    text = re.sub(r"^```(\w+) .*$", r"```\1", text, flags=re.MULTILINE)

    def link(found):
        target = (manual / page.parent / found[1]).resolve()
        if not target.is_file():
            sys.exit(f"{page}: {found[1]} is no file")
        if target.is_relative_to(manual):
            if target.suffix != ".md":
                copy(target, target.relative_to(manual))
            return found[0]
        # Markdown would be taken for a page that is missing.
        name = target.relative_to(repository)
        name = "repository" / (name.with_suffix(".md.txt") if name.suffix == ".md" else name)
        copy(target, name)
        return "../" * len(page.parent.parts) + name.as_posix()

    write = destination / page
    write.parent.mkdir(parents=True, exist_ok=True)
    write.write_text(LINK.sub(link, text))


def copy(source, name):
    (destination / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, destination / name)


for path in sorted(manual.rglob("*.md")):
    stage(path.relative_to(manual))
