"""An evaluation as one page that people can read: no server, nothing to fetch, a file that can be sent by mail.

    write_page("report.html", Page(...))        evaluate.py --report report.html does it

Style, script, pictures and sounds are inside. Every text that comes from data passes through ``quartznet.markup``,
which escapes it; and should that ever fail, the page's own security policy lets no script run but the one it names by
its hash, and fetches nothing.

The surprise: the page is complete without its script. Tables, sounds and aligned words are plain HTML; the script only
sorts, filters, and plays single words.
"""

import base64
import hashlib
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from quartznet.breakdown import Clip, Group
from quartznet.confidence import Calibration
from quartznet.confusions import letter_confusions, word_confusions
from quartznet.exhibits import Exhibit
from quartznet.markup import Markup, Piece, joined, tag
from quartznet.page_figures import Texts, calibration, cards, comparison, confusions, fields, kinds, rates_table
from quartznet.page_utterances import articles, utterances_table
from quartznet.report import Evaluation
from quartznet.significance import Comparison

MOST_MESSAGES = 50  # about clips that were left out


@dataclass(frozen=True)
class Page:
    """What the page says."""

    title: str
    facts: tuple[tuple[str, str], ...]  # checkpoint, data, ...
    lang: str  # ISO 639, of the transcripts
    evaluation: Evaluation
    clips: tuple[Clip, ...]  # in the order of the evaluation's utterances
    fields: tuple[str, ...] = ()  # a table for each
    heard: tuple[Group, ...] = ()  # the same clips with noise and in rooms, the clean ones first
    exhibits: dict[int, Exhibit] | None = None  # by the index of the utterance, the worst first
    against: Comparison | None = None
    skipped: tuple[str, ...] = ()  # messages about clips that were left out
    calibration: Calibration | None = None  # of the words' confidence


def direction_of(texts: Sequence[str]) -> str:
    """``rtl`` where most letters are of scripts that are written from right to left, else ``ltr``."""
    kinds = [unicodedata.bidirectional(letter) for letter in set("".join(texts))]
    return "rtl" if sum(kind in ("R", "AL") for kind in kinds) > kinds.count("L") else "ltr"


def asset(name: str) -> str:
    """The style or the script."""
    return resources.files("quartznet").joinpath("assets", name).read_text(encoding="utf-8")


def policy(script: str) -> str:
    """What the browser may do: run this script and no other, show what the page holds, fetch nothing."""
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    rules = (
        "default-src 'none'",
        "img-src data:",
        "media-src data:",
        "style-src 'unsafe-inline'",
        f"script-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    )
    return "; ".join(rules)


def section(name: str, title: str, *pieces: Piece) -> Markup:
    """A part of the page that the list at its top leads to."""
    heading = tag("h2", {"id": f"{name}-title"}, title)
    return tag("section", {"id": name, "aria-labelledby": f"{name}-title"}, heading, *pieces)


def sections(page: Page) -> list[tuple[str, str, Markup]]:
    """(name, title, content) of each part that has something to say."""
    evaluation, against = page.evaluation, page.against
    references = [utterance.reference for utterance in evaluation.utterances]
    hypotheses = [utterance.hypothesis for utterance in evaluation.utterances]
    texts = Texts(page.lang, direction_of([*references, *hypotheses]))
    seconds = sum(clip.seconds for clip in page.clips)
    found = [("rates", "Error rates", cards(evaluation, seconds))]
    if against:
        found.append(("against", "Against the other system", comparison(against)))
    found.append(("kinds", "Kinds of error", kinds(evaluation.words, evaluation.characters)))
    if len(page.heard) > 1:
        heard = rates_table("The same clips, heard in several ways", "condition", page.heard)
        found.append(("conditions", "Noise and rooms", heard))
    if page.fields:
        found.append(("fields", "Where it goes wrong", fields(page.fields, page.clips)))
    taken = confusions(word_confusions(references, hypotheses), letter_confusions(references, hypotheses), texts)
    found.append(("confusions", "What is taken for what", taken))
    if page.calibration:
        found.append(("confidence", "How sure, and how right", calibration(page.calibration)))
    if page.exhibits:
        found.append(("worst", "The worst utterances", articles(evaluation, page.exhibits, against, texts)))
    found.append(("all", "All utterances", utterances_table(evaluation, page.clips, against, texts)))
    if page.skipped:
        found.append(("skipped", "Left out", skipped(page.skipped)))
    return found


def skipped(messages: Sequence[str]) -> Markup:
    """Clips that could not be evaluated, with the reason."""
    more = len(messages) - MOST_MESSAGES
    items = [tag("li", {}, message) for message in messages[:MOST_MESSAGES]]
    rest = tag("p", {}, f"and {more:,} more") if more > 0 else ""
    return joined((tag("p", {}, f"{len(messages):,} clips are in none of the figures."), tag("ul", {}, *items), rest))


def render(page: Page) -> str:
    """The whole page."""
    script, parts = asset("page.js"), sections(page)
    head = (
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"http-equiv": "Content-Security-Policy", "content": policy(script)}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("meta", {"name": "color-scheme", "content": "light dark"}),
        tag("title", {}, page.title),
        tag("style", {}, Markup(asset("page.css"))),
    )
    facts = (joined((tag("dt", {}, name), tag("dd", {}, value))) for name, value in page.facts)
    links = (tag("li", {}, tag("a", {"href": f"#{name}"}, title)) for name, title, _ in parts)
    note = (
        "Rates are errors by words (or characters) of the references, summed over the corpus. Intervals draw the "
        "corpus again from its own utterances (Bisani and Ney, 2004)."
    )
    body = (
        tag("a", {"class": "skip", "href": "#main"}, "To the figures"),
        tag("header", {}, tag("h1", {}, page.title), tag("dl", {"class": "facts"}, *facts)),
        tag("nav", {"aria-label": "Parts of the page"}, tag("ul", {}, *links)),
        tag("main", {"id": "main"}, *(section(*part) for part in parts)),
        tag("footer", {}, tag("p", {}, note)),
        tag("script", {}, Markup(script)),
    )
    sorted_as = page.lang if re.fullmatch("[a-z]{2,3}", page.lang) else ""  # a browser refuses what is no language
    lang = {"lang": "en", "data-texts": sorted_as}
    return "<!doctype html>\n" + tag("html", lang, tag("head", {}, *head), tag("body", {}, *body)) + "\n"


def write_page(path: str | Path, page: Page) -> int:
    """Writes the page, complete or not at all; returns its bytes."""
    path = Path(path)
    partial = path.with_name(path.name + ".tmp")
    try:
        partial.write_text(render(page), encoding="utf-8", newline="\n")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path.stat().st_size
