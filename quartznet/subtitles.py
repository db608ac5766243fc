"""Words with times -> plain text, JSON, CTM, and subtitles as SRT and WebVTT.

A subtitle has at most two lines of 42 characters, the usual measure of television, and stands for at most 7 seconds. It
ends at a pause of 0.6 s or more; where the words run on for longer than fits, it is cut at the longest gap between
words in the second half of what would fit. It appears with its first word and stays for 0.4 s after its last one (the
network's times end before the sound does, see ``quartznet.words``) and for a second at least, but never into the next.

The surprise: two times that are in order may fall on the same millisecond, the finest that the formats can write. All
arithmetic is therefore on whole milliseconds, after rounding, and a subtitle that would last for none of them lasts
for one and pushes the next.
"""

import html
import json
import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from quartznet.words import Word

CHARACTERS = 42  # of a line
LINES = 2
PAUSE = 0.6  # s; a gap between words that ends a subtitle
LONGEST = 7.0  # s from the first word's start to the last one's end
SHORTEST = 1.0  # s that a subtitle stands, if the next one leaves it
LINGER = 0.4  # s after the last word's end, if the next one leaves it


@dataclass(frozen=True)
class Cue:
    """One subtitle: whole milliseconds from the start of the recording, and its lines."""

    start: int
    end: int
    lines: tuple[str, ...]


def wrap(text: str) -> list[str]:
    """Lines of at most 42 characters, as few as possible and as even as possible."""
    lines = textwrap.wrap(text, CHARACTERS, break_on_hyphens=False)
    for width in range(math.ceil(len(text) / max(1, len(lines))), CHARACTERS):
        even = textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)
        if len(even) == len(lines) and max(map(len, even)) <= width:
            return even
    return lines


def _pieces(word: Word) -> list[Word]:
    """A word longer than a line in pieces that fit, with their share of its time (a language without spaces)."""
    count = math.ceil(len(word.text) / CHARACTERS)
    if count <= 1:
        return [word]
    texts = [word.text[start : start + CHARACTERS] for start in range(0, len(word.text), CHARACTERS)]
    edges = [
        word.start + (word.end - word.start) * min(1.0, index * CHARACTERS / len(word.text)) for index in range(count)
    ]
    return [
        Word(text, start, end, word.confidence)
        for text, start, end in zip(texts, edges, [*edges[1:], word.end], strict=True)
    ]


def _fits(words: Sequence[Word]) -> bool:
    long = words[-1].end - words[0].start > LONGEST and len(words) > 1
    return not long and len(wrap(" ".join(word.text for word in words))) <= LINES


def _first(words: Sequence[Word]) -> int:
    """How many of ``words`` make the first subtitle."""
    count = 1
    while count < len(words):
        if words[count].start - words[count - 1].end >= PAUSE:
            return count
        if not _fits(words[: count + 1]):
            later = range((count + 1) // 2, count + 1)
            return max(later, key=lambda cut: (words[cut].start - words[cut - 1].end, cut))
        count += 1
    return count


def _check(words: Sequence[Word]) -> None:
    before = 0.0
    for word in words:
        if not before <= word.start <= word.end < math.inf:
            raise ValueError(f"times of words must not run backwards; {word.text!r}: {word.start} to {word.end} s")
        if not word.text or word.text.split() != [word.text]:
            raise ValueError(f"a word has no blanks or line breaks and is not empty, got {word.text!r}")
        before = word.start


def make_cues(words: Sequence[Word]) -> list[Cue]:
    """Subtitles of words in order of time; they never overlap.

    Raises:
        ValueError: times run backwards, or a word is empty or holds white space.
    """
    _check(words)
    left = [piece for word in words for piece in _pieces(word)]
    groups = []
    while left:
        count = _first(left)
        groups.append(left[:count])
        left = left[count:]
    cues, free = [], 0
    for group, following in zip(groups, [*groups, None][1:], strict=True):
        start = max(free, round(1000 * group[0].start))
        wanted = max(group[-1].end + LINGER, group[0].start + SHORTEST)
        latest = wanted if following is None else min(wanted, following[0].start)
        free = max(start + 1, round(1000 * latest))
        cues.append(Cue(start, free, tuple(wrap(" ".join(word.text for word in group)))))
    return cues


def _clock(milliseconds: int, mark: str) -> str:
    """``01:02:03,004``; hours grow beyond 99 where they must."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{mark}{rest:03d}"


def srt(words: Sequence[Word]) -> str:
    """SubRip. It knows no escapes, so letters are written as they are."""
    blocks = [
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n" + "\n".join(cue.lines) + "\n"
        for number, cue in enumerate(make_cues(words), start=1)
    ]
    return "\n".join(blocks)


def vtt(words: Sequence[Word]) -> str:
    """WebVTT; ``&``, ``<`` and ``>`` are written as ``&amp;``, ``&lt;`` and ``&gt;``."""
    blocks = [
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n"
        + "\n".join(html.escape(line, quote=False) for line in cue.lines)
        + "\n"
        for cue in make_cues(words)
    ]
    return "\n".join(["WEBVTT\n", *blocks])


def ctm(words: Sequence[Word], name: str) -> str:
    """NIST's time-marked words, one a line: recording, channel, start, duration, word, confidence.

    White space in ``name``, which would part fields, becomes ``_``.
    """
    _check(words)
    recording = re.sub(r"\s", "_", name)
    return "".join(
        f"{recording} 1 {word.start:.2f} {word.end - word.start:.2f} {word.text} {word.confidence:.3f}\n"
        for word in words
    )


def as_json(words: Sequence[Word], name: str, duration: float) -> str:
    """``{"file", "duration", "text", "words": [{"text", "start", "end", "confidence"}]}``, times in seconds."""
    rows = [
        {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(word).items()}
        for word in words
    ]
    text = " ".join(word.text for word in words)
    document = {"file": name, "duration": round(duration, 4), "text": text, "words": rows}
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def txt(words: Sequence[Word]) -> str:
    """The text alone, a new line after each pause of ``PAUSE`` seconds."""
    text = ""
    for index, word in enumerate(words):
        pause = index > 0 and word.start - words[index - 1].end >= PAUSE
        text += ("" if index == 0 else "\n" if pause else " ") + word.text
    return text + "\n"
