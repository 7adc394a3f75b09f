r"""Small XML files, sound or not → their elements.

In: the source of a package, a table of contents or a list of parts. Out: :class:`Element`, in the order of
their tags. Only what those files are asked for is read: names, attributes and text. So a bare ``&``, a prefix
that nothing declares, or a missing end is no reason to lose a book, and entities that a file defines itself
are never resolved. Each character is looked at a few times, whatever the source says.
"""

import html
import re
from dataclasses import dataclass, replace

TAG = re.compile(r"""<(/?)([a-zA-Z_][\w.:-]*+)((?:"[^"<]*+"|'[^'<]*+'|[^<>])*+)>""")
ATTRIBUTE = re.compile(r"""([\w.:-]++)\s*+=\s*+(?:"([^"]*+)"|'([^']*+)')""")
ANY_TAG = re.compile("<[^<>]*+>")
COMMENT = "<!--"


@dataclass(frozen=True)
class Element:
    """A tag that begins something."""

    name: str
    """In small letters, without a prefix."""
    attributes: dict[str, str]
    text: str = ""
    """What stands from there to the next tag of its name, as one line."""


def elements(source: str, *names: str) -> list[Element]:
    """The elements of these names."""
    source = _without_comments(source)
    found: list[Element] = []
    begun: dict[str, tuple[int, int]] = {}
    for tag in TAG.finditer(source):
        name = tag[2].rpartition(":")[2].lower()
        if name in begun:
            number, start = begun.pop(name)
            found[number] = replace(found[number], text=_line(source[start : tag.start()]))
        if tag[1] or name not in names:
            continue
        if not tag[3].endswith("/"):
            begun[name] = len(found), tag.end()
        found.append(Element(name, _attributes(tag[3])))
    return found


def unescaped(text: str) -> str:
    """A text with its references resolved; one to a number of thousands of digits stays as it is."""
    try:
        return html.unescape(text)
    except ValueError:
        return text


def _attributes(source: str) -> dict[str, str]:
    return {found[1].lower(): unescaped(found[2] or found[3] or "") for found in ATTRIBUTE.finditer(source)}


def _line(source: str) -> str:
    return " ".join(unescaped(ANY_TAG.sub("", source)).split())


def _without_comments(source: str) -> str:
    """A comment that never ends goes to the end."""
    parts, at = [], 0
    while (start := source.find(COMMENT, at)) >= 0:
        parts.append(source[at:start])
        end = source.find("-->", start)
        at = end + 3 if end >= 0 else len(source)
    return "".join([*parts, source[at:]])
