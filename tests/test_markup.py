"""HTML out of pieces: what comes from data stays text, whatever it holds."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quartznet.markup import NOT_SHOWN, Markup, escaped, joined, tag


class Reader(HTMLParser):
    """What a page consists of, as a browser would read it."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((name, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data


def read(markup: str) -> Reader:
    reader = Reader()
    reader.feed(markup)
    reader.close()
    return reader


def test_by_hand() -> None:
    made = tag("p", {"class": "a b", "hidden": True, "open": False, "data-value": 0.5}, "1 < 2 & ", tag("br", {}), 3)
    assert made == '<p class="a b" hidden data-value="0.5">1 &lt; 2 &amp; <br>3</p>'
    assert escaped(made) is made and joined(["<", Markup("<b>")]) == "&lt;<b>"


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' onmouseover='alert(1)",
        "</td></table><svg/onload=alert(1)>",
        "&lt;script&gt;",
        "--><script>",
    ],
)
def test_hostile_text_stays_text(hostile: str) -> None:
    found = read(tag("p", {"title": hostile}, hostile))
    assert found.tags == [("p", {"title": hostile})] and found.text == hostile


@given(st.text(), st.text())
def test_any_text_comes_back_as_it_was_but_for_what_is_not_shown(attribute: str, text: str) -> None:
    found = read(tag("p", {"title": attribute}, text))
    assert found.tags == [("p", {"title": NOT_SHOWN.sub("\ufffd", attribute)})]
    assert found.text == NOT_SHOWN.sub("\ufffd", text)


def test_marks_of_direction_and_half_characters_are_not_shown() -> None:
    assert escaped("a\u202egpj.exe\ud800\x00\x1b[31m\n") == "a\ufffdgpj.exe\ufffd\ufffd\ufffd[31m\n"
    escaped("name\udcff").encode("utf-8")


@pytest.mark.parametrize("name", ["onclick", "ONCLICK", "a b", "x=", ""])
def test_attributes_that_run_scripts_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="an attribute is a name in lower case that runs no script"):
        tag("p", {name: "x"})
