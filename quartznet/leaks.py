"""Evaluation sentences in the text of a language model, where they must not be; and in the model, without its text.

A model that has read the sentences it is tested on knows their words beforehand: 3.12 % WER looked like 0.83 %. A
sentence is found where a line is that sentence, or, if it has five words or more, where a line holds it.

The surprise: texts and corpora have the same sources (Common Voice reads Wikipedia, LibriSpeech reads books), so this
is the usual case and no accident. Sentences of one and two words ("sí", "buenos días") are nobody's property and do
not count.
"""

from collections.abc import Iterable

from quartznet.arpa import LanguageModel

LEAST, LEAST_WITHIN = 3, 5  # words of a sentence that is looked for: as a line of its own, within a longer line
LEAST_ORDER, LEAST_LONGEST = 4, 5  # of a model that is looked into; of its longest n-grams in a sentence


class LeakFinder:
    """Looks for evaluation sentences in line after line. All texts are normalised by the same rules."""

    def __init__(self, sentences: Iterable[str]) -> None:
        """``sentences``: those of the evaluation; repeated ones and those of less than three words are not counted."""
        self.sentences = {sentence for sentence in sentences if sentence.count(" ") + 1 >= LEAST}
        self.found: set[str] = set()
        self.lines = 0  # that hold one
        self._by_beginning: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
        for sentence in sorted(self.sentences):
            words = tuple(sentence.split())
            if len(words) >= LEAST_WITHIN:
                self._by_beginning.setdefault(words[:LEAST], []).append(words)

    def look(self, line: str) -> bool:
        """Whether a line holds one of the sentences, which is then noted."""
        hits = {line} & self.sentences
        words = tuple(line.split())
        for start, beginning in enumerate(zip(words, words[1:], words[2:], strict=False)):
            for sentence in self._by_beginning.get(beginning, ()):
                if words[start : start + len(sentence)] == sentence:
                    hits.add(" ".join(sentence))
        self.found |= hits
        self.lines += bool(hits)
        return bool(hits)

    def warning(self, name: str) -> str | None:
        """What was found, with examples, for a terminal of 80 columns; None: nothing. ``name``: of the evaluation."""
        if not self.found:
            return None
        examples = "".join(f"\n  {sentence[:76]}" for sentence in sorted(self.found, key=len, reverse=True)[:3])
        return (
            f"WARNING: {len(self.found):,} of {len(self.sentences):,} sentences of {name}\n"
            f"stand in {self.lines:,} lines of the text, so error rates there look better than\n"
            f"they are. --leave-out takes these lines out. Examples:{examples}"
        )


def in_full(model: LanguageModel, sentences: Iterable[str]) -> list[str]:
    """The different sentences every n-gram of which is in the model, so that its text most likely held them.

    Looked for are sentences with five or more n-grams of the highest order, in models of order 4 and above: shorter
    ones are common to all texts (of 4,287 that a 4-gram model had not read, 5 are found, and all that it had read). A
    model that left out what occurs once (``--prune``) shows nothing.
    """
    if model.order < LEAST_ORDER:
        return []
    found = []
    for sentence in dict.fromkeys(sentences):
        words = sentence.split()
        lengths = model.matched(words) if len(words) >= LEAST_LONGEST + model.order - 3 else None
        longest = (min(model.order, place + 2) for place in range(len(words) + 1))  # <s> is the first word of some
        if lengths is not None and lengths == list(longest):
            found.append(sentence)
    return found


def in_full_warning(found: list[str], name: str) -> str | None:
    """What ``in_full`` found in the model called ``name``, for a terminal of 80 columns; None: nothing."""
    if not found:
        return None
    examples = "".join(f"\n  {sentence[:76]}" for sentence in sorted(found, key=len, reverse=True)[:3])
    return (
        f"WARNING: {name}\nholds all word sequences of {len(found):,} of these sentences; most likely its text held "
        f"them\nand its weights come out too large. lm build --against looks into a text,\n"
        f"--leave-out takes them out. Examples:{examples}"
    )
