"""A page as a reader sees it: its words and resources, its tags checked."""

import re
from html.parser import HTMLParser


class Balance(HTMLParser):
    """Fails on tags that close what is not open."""

    VOID = frozenset(("meta", "link", "img", "br", "mspace", "input"))

    def __init__(self):
        super().__init__()
        self.open, self.resources, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.resources += [v for k, v in attrs if k in ("src", "href") and v]

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text.append(data)


def parsed(html):
    reader = Balance()
    reader.feed(html)
    assert reader.open == []
    return reader


def words(html):
    return " ".join(" ".join(parsed(html).text).split())


def methods_cite_what_they_name(html):
    """Whether every source in the methods is cited, and every citation has its source."""
    part = html[html.index('id="methods-text"') :]
    part = part[: part.index("</div>")]
    used = {int(n) for group in re.findall(r"\[([\d, ]+)\]\.", part) for n in group.split(",")}
    listed = [int(n) for n in re.findall(r"<li>\[(\d+)\]", part)]
    return used == set(listed) and listed == list(range(1, len(listed) + 1))
