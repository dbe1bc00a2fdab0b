"""Looks at a built book as a browser without script would: check.py HTML SUMMARY.

Every page of the summary is there, with a heading; every link that stays in the book leads to a file that is there, and to an
element of it where it names one; no image, style or script is another site's. Prints what it counted, and ends with 1 and every
finding where something is wrong.
"""

import html.parser
import pathlib
import re
import sys
import urllib.parse

book, summary = (pathlib.Path(argument) for argument in sys.argv[1:])
wrong = []


class Page(html.parser.HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.links, self.loaded, self.ids, self.headings = [], [], set(), 0
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.update(value for key, value in attributes.items() if key in ("id", "name") and value)
        self.links += [attributes[key] for key in ("href", "src") if attributes.get(key)]
        self.loaded += [attributes[key] for key in ("href", "src") if tag in ("link", "script", "img") and attributes.get(key)]
        self.headings += tag == "h1"


pages = {path.resolve(): Page(path) for path in sorted(book.rglob("*.html"))}
links = 0
for path, page in pages.items():
    wrong += [f"{path.name}: {link} is loaded from elsewhere" for link in page.loaded if urllib.parse.urlsplit(link).netloc]
    for link in page.links:
        parts = urllib.parse.urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        links += 1
        # The page of the book that says that there is none has links from the site's root.
        if path.name == "404.html" and parts.path.startswith("/"):
            continue
        target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
        if not target.is_file():
            wrong.append(f"{path.name}: {link} leads nowhere")
        elif parts.fragment and target in pages and urllib.parse.unquote(parts.fragment) not in pages[target].ids:
            wrong.append(f"{path.name}: {link} names no element")

chapters = re.findall(r"\]\(([^)]+)\.md\)", summary.read_text())
for chapter in chapters:
    page = pages.get((book / f"{chapter}.html").resolve())
    if page is None or not page.headings:
        wrong.append(f"{chapter}: no page, or one without a heading")

print(*wrong, sep="\n", end="\n" if wrong else "")
print(f"{len(chapters)} chapters, {links} links inside the book")
sys.exit(bool(wrong) or not links)
