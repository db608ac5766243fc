"""HTML out of small pieces, in which nothing that comes from data can become HTML.

    tag("p", {"class": "note"}, "a < b ", tag("b", {}, name))        <p class="note">a &lt; b <b>...</b></p>

A piece is a ``Markup``; whatever else is put into one is escaped, attributes too, so forgetting to escape is not
possible: there is nothing to remember. The surprise: escaping is not enough. Control characters, halves of characters
(which file names may hold) and marks that turn the reading direction of what follows are shown as U+FFFD, since the
first two are no HTML and the third would let a file name rearrange the page.
"""

import html
import re
from collections.abc import Iterable, Mapping

NOT_SHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
VOID = frozenset(("br", "col", "hr", "img", "input", "link", "meta"))  # elements without an end

Attributes = Mapping[str, str | int | float | bool]  # True: without a value, False: left out


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Piece = str | int | float


def escaped(text: Piece) -> Markup:
    """``text`` as HTML that shows it, safe between tags and within a quoted attribute; Markup stays as it is."""
    if isinstance(text, Markup):
        return text
    return Markup(html.escape(NOT_SHOWN.sub("\ufffd", str(text)), quote=True))


def joined(pieces: Iterable[Piece]) -> Markup:
    """Pieces one after the other."""
    return Markup("".join(map(escaped, pieces)))


def _attribute(name: str, value: str | int | float | bool) -> str:
    if not re.fullmatch(r"[a-z][a-z-]*", name) or name.startswith("on"):
        raise ValueError(f"an attribute is a name in lower case that runs no script, got {name!r}")
    if isinstance(value, bool):
        return f" {name}" if value else ""
    return f' {name}="{escaped(str(value))}"'


def tag(name: str, attributes: Attributes, *pieces: Piece) -> Markup:
    """An element with ``pieces`` in it.

    Raises:
        ValueError: for an attribute that no page here needs, such as onclick.
    """
    start = f"<{name}{''.join(_attribute(*pair) for pair in attributes.items())}>"
    return Markup(start if name in VOID else f"{start}{joined(pieces)}</{name}>")
