"""A report as its reader's browser takes it apart. Source: own."""

import re
from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """Elements, addresses and text of a page, what its scripts do and what they are given."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.scripts: list[str] = []
        self.data: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._inside = tag
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "action", "srcset", "data")]
        self.addresses += re.findall(r"url\(([^)]*)\)", " ".join(v or "" for _, v in attrs))
        if tag == "script":
            self._target = self.data if ("type", "application/json") in attrs else self.scripts
            self._target.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self._target[-1] += data
        elif self._inside == "style":
            self.addresses += re.findall(r"url\(([^)]*)\)|@import", data)
        else:
            self.text += data + "\n"


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))
