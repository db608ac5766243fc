"""The utterances of the report page: the worst ones to hear and see, and all of them in a table.

The surprise: a table of 50,000 rows is a page that no browser scrolls, so the ``MOST_ROWS`` with most errors are shown,
and the page says how many there are.
"""

from collections.abc import Iterator, Sequence

from quartznet.breakdown import Clip
from quartznet.confusions import aligned_units
from quartznet.exhibits import Exhibit
from quartznet.markup import Markup, Piece, joined, tag
from quartznet.metrics import error_counts
from quartznet.page_figures import Texts, cell, heads_row, per_cent, plural
from quartznet.report import Evaluation, Utterance
from quartznet.significance import Comparison
from quartznet.words import Word

WORST = 20  # utterances to hear and see
MOST_ROWS = 2000  # of the table
PIXELS = 130  # of a spectrogram, for each second


def worst_first(utterances: Sequence[Utterance]) -> list[int]:
    """Indices of all utterances, those with most errors in words, then in characters, first."""
    counts = [(-one.words.errors, -one.characters.errors) for one in utterances]
    return sorted(range(len(utterances)), key=lambda index: counts[index])


def worst(evaluation: Evaluation, count: int = WORST) -> list[int]:
    """The indices of those with most errors; faultless ones are left out."""
    utterances = evaluation.utterances
    return [index for index in worst_first(utterances) if utterances[index].characters.errors][:count]


def kind_of(said: str, heard: str) -> str:
    """What an aligned pair of words is."""
    if said == heard:
        return "right"
    return "insertion" if not said else "deletion" if not heard else "substitution"


def difference(said: str, heard: str, texts: Texts) -> Markup:
    """One line: what was said and not heard is struck out, what was heard and not said is underlined."""
    pieces: list[Piece] = []
    for reference, hypothesis in aligned_units(said.split(), heard.split()):
        if reference == hypothesis:
            pieces += [reference, " "]
            continue
        pieces += [tag("del", {}, reference), " "] if reference else []
        pieces += [tag("ins", {}, hypothesis), " "] if hypothesis else []
    return texts.tag("span", joined(pieces) or tag("span", {"class": "none"}, "nothing said, nothing heard"))


# ---------------------------------------------------------------------------------------------------------------------
# One utterance to hear and see


def _timed(pairs: Sequence[tuple[str, str]], heard: Sequence[Word]) -> Iterator[tuple[str, str, Word | None]]:
    """The pairs with the time of the word that was heard, where the words are those of the pairs."""
    fits = [word.text for word in heard] == [hypothesis for _, hypothesis in pairs if hypothesis]
    times = iter(heard if fits else ())
    for said, hypothesis in pairs:
        yield said, hypothesis, next(times, None) if hypothesis else None


def _heard(text: str, time: Word | None) -> tuple[Markup, Markup]:
    """The word that was heard, and below it its time."""
    if not text:
        return tag("span", {"class": "heard none"}, "–"), tag("span", {"class": "time"}, "")
    if time is None:
        return tag("span", {"class": "heard"}, text), tag("span", {"class": "time"}, "")
    span = f"{time.start:.2f}–{time.end:.2f}"
    title = f"{time.start:.2f} to {time.end:.2f} s, confidence {100 * time.confidence:.0f} %; click to hear it"
    moments = {"data-start": f"{time.start:.3f}", "data-end": f"{time.end:.3f}"}
    button = tag("button", {"type": "button", "class": "heard", "title": title, **moments}, text)
    return button, tag("span", {"class": "time"}, f"{span} · {100 * time.confidence:.0f} %")


def aligned_list(said: str, heard: str, times: Sequence[Word], texts: Texts) -> Markup:
    """Word over word: what was said, what was heard, from when to when, and how sure the network is."""
    items = []
    for reference, hypothesis, time in _timed(aligned_units(said.split(), heard.split()), times):
        kind = kind_of(reference, hypothesis)
        above = tag("span", {"class": "said"}, tag("span", {"class": "unseen"}, "said "), reference or "–")
        items.append(tag("li", {"class": f"{kind}-word", "title": kind}, above, *_heard(hypothesis, time)))
    attributes = {"class": "words", "lang": texts.lang, "dir": texts.direction}
    return tag("ol", attributes, *items)


def _track(name: str, words: Sequence[Word], wrong: Sequence[bool], seconds: float) -> Markup:
    """Words along the time of the clip: a box as long as the word, and room for its letters up to the next one."""
    boxes = []
    ends = [*(word.start for word in words[1:]), seconds]
    for word, is_wrong, end in zip(words, wrong, ends, strict=True):
        room = max(end - word.start, 1e-3)
        box = tag("i", {"style": f"width:{min(100.0, 100 * (word.end - word.start) / room):.1f}%"})
        place = {"style": f"left:{100 * word.start / seconds:.2f}%;width:{100 * room / seconds:.2f}%"}
        title = {"title": f"{name}: {word.text}, {word.start:.2f} to {word.end:.2f} s"}
        style = {"class": "wrong"} if is_wrong else {}
        boxes.append(tag("span", {**style, **place, **title}, box, tag("bdi", {}, word.text)))
    return tag("div", {"class": "track", "aria-hidden": "true"}, *boxes)


def timeline(shown: Exhibit, pairs: Sequence[tuple[str, str]], texts: Texts) -> Markup:
    """What was said, the spectrogram and what was heard, on one scale of time."""
    if not shown.spectrogram:
        return Markup("")
    parts = []
    for side, (name, words) in enumerate((("said", shown.said), ("heard", shown.heard))):
        wrong = [said != heard for said, heard in pairs if (said, heard)[side]]
        fits = words and len(wrong) == len(words)
        parts.append(_track(name, words, wrong, shown.seconds) if fits else Markup(""))
    picture = tag("img", {"src": shown.spectrogram, "alt": "Spectrogram; low bands below, time to the right"})
    inside = tag(
        "div",
        {"style": f"width:{PIXELS * shown.seconds:.0f}px", "lang": texts.lang},
        parts[0],
        picture,
        parts[1],
        tag("span", {"class": "playhead"}),
    )
    return tag(
        "div", {"class": "timeline", "tabindex": 0, "role": "group", "aria-label": "Spectrogram and words"}, inside
    )


def article(place: int, utterance: Utterance, shown: Exhibit, other: str | None, texts: Texts) -> Markup:
    """One utterance: name, sound, picture, aligned words, and what the other system heard."""
    words = utterance.words
    count = f"{plural(words.errors, 'error')} in {plural(words.reference_length, 'word')}, {shown.seconds:.1f} s"
    pairs = aligned_units(utterance.reference.split(), utterance.hypothesis.split())
    parts = [
        tag("h3", {}, f"{place}. {utterance.name.rpartition('/')[2]}"),
        tag("p", {"class": "quiet", "title": utterance.name}, count),
    ]
    if shown.audio:
        label = f"Sound of utterance {place}"
        parts.append(tag("audio", {"controls": True, "preload": "metadata", "src": shown.audio, "aria-label": label}))
    if shown.problem:
        parts.append(tag("p", {"class": "quiet"}, f"No sound here: {shown.problem}."))
    parts.append(timeline(shown, pairs, texts))
    parts.append(aligned_list(utterance.reference, utterance.hypothesis, shown.heard, texts))
    if other is not None:
        parts.append(tag("p", {"class": "quiet"}, "The other system: ", difference(utterance.reference, other, texts)))
    return tag("article", {"data-seconds": f"{max(shown.seconds, 0.01):.3f}"}, *parts)


def articles(evaluation: Evaluation, exhibits: dict[int, Exhibit], against: Comparison | None, texts: Texts) -> Markup:
    """The exhibits in their order."""
    others = against.hypotheses if against else {}
    found = evaluation.utterances
    return joined(
        article(place, found[index], shown, others.get(index), texts)
        for place, (index, shown) in enumerate(exhibits.items(), 1)
    )


# ---------------------------------------------------------------------------------------------------------------------
# All utterances


def _change(utterance: Utterance, other: int | None) -> Markup:
    """How many errors more than the other system's; a dash where that did not hear the utterance."""
    change = 0 if other is None else utterance.words.errors - other
    return cell("–" if other is None else f"{change:+d}", "change", change)


def _row(index: int, utterance: Utterance, clip: Clip, change: Markup, texts: Texts) -> Markup:
    """An utterance; ``change``: a cell more, or nothing."""
    words, characters = utterance.words, utterance.characters
    rates = ((words, "WER"), (characters, "CER"))
    cells = (
        tag("th", {"scope": "row", "class": "number", "data-label": "no.", "data-value": index + 1}, str(index + 1)),
        cell(str(words.errors), "errors", words.errors),
        cell(str(words.reference_length), "words", words.reference_length),
        *(cell(per_cent(counts.rate), name, min(counts.rate, 1e9)) for counts, name in rates),
        change,
        cell(f"{clip.seconds:.1f}", "seconds", clip.seconds),
        tag("td", {"class": "text"}, difference(utterance.reference, utterance.hypothesis, texts)),
        tag("td", {"class": "name", "title": utterance.name}, utterance.name.rpartition("/")[2]),
    )
    return tag("tr", {"data-wrong": int(characters.errors > 0)}, *cells)


def _others(evaluation: Evaluation, against: Comparison) -> dict[int, int]:
    """Errors in words of the other system, by the index of the utterance."""
    references = [evaluation.utterances[index].reference for index in against.hypotheses]
    counts = error_counts(references, list(against.hypotheses.values()), "word")
    return {index: count.errors for index, count in zip(against.hypotheses, counts, strict=True)}


def utterances_table(evaluation: Evaluation, clips: Sequence[Clip], against: Comparison | None, texts: Texts) -> Markup:
    """The table that can be sorted and filtered, and its tools, which appear where scripts run."""
    order = worst_first(evaluation.utterances)[:MOST_ROWS]
    others = _others(evaluation, against) if against else {}
    rows = []
    for index in order:
        utterance = evaluation.utterances[index]
        change = _change(utterance, others.get(index)) if against else Markup("")
        rows.append(_row(index, utterance, clips[index], change, texts))
    change = ["change#"] if against else []
    heads = ["no.#", "errors#", "words#", "WER#", "CER#", *change, "seconds#", "said and heard", "file"]
    count = len(evaluation.utterances)
    cut = f" The {MOST_ROWS:,} with most errors of {count:,} are listed." if count > MOST_ROWS else ""
    caption = tag("caption", {}, "Struck out: said and not heard. Underlined: heard and not said.", cut)
    body = (caption, heads_row(heads), tag("tbody", {}, *rows))
    made = tag("table", {"class": "sortable utterances", "id": "utterances"}, *body)
    return joined((tools(), tag("div", {"class": "scroll"}, made)))


def tools() -> Markup:
    """Search and filter of the table."""
    search = tag(
        "input", {"type": "search", "placeholder": "words or file names", "aria-label": "Filter the utterances"}
    )
    wrong = tag("label", {}, tag("input", {"type": "checkbox"}), " only with errors")
    return tag(
        "form", {"class": "tools", "data-table": "utterances"}, search, wrong, tag("output", {"aria-live": "polite"})
    )
