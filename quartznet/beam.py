"""What was said, by sound and by words: beam search with an n-gram model and hot words.

    found = beam_search(log_probs, lengths, alphabet, BeamSettings(beam=100), open_language_model("es.arpa"))
    found[0][0].text                                                        # the best text of the first utterance

A text's score is

    total = ln (sum of its paths) + alpha ln P(text and its end) + beta (number of words) + bonus

in nats, where bonus is what its hot words earn and its unknown words cost (``quartznet.worth``). With a beam that never
fills and no thresholds the search finds every text and these scores are exact; what thresholds leave out makes it fast.
``quartznet.prefix_search`` is the method. A binary KenLM file cannot list its words, so the search cannot look ahead to
them: where the network is unsure, an ARPA file gives better texts.

Spaces at the ends and several in a row are no part of a text: paths that differ in them are summed.

The surprise: with a network that is sure of itself the beam hardly matters. The frames where two labels are probable at
all are one in six, and a beam of 16 finds what one of 256 does; a threshold of e^-10 is what bounds the work.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from quartznet.alphabet import Alphabet
from quartznet.arpa import LanguageModel
from quartznet.hotwords import HotWords
from quartznet.prefix_search import Prefix, read_frames, search
from quartznet.worth import BeamSettings, TextWorth, Values


@dataclass(frozen=True)
class Hypothesis:
    """A text and its score; natural logarithms."""

    text: str  # hot words as they are written
    ids: tuple[int, ...]  # label numbers of what was heard, with single spaces
    acoustic: float  # of the summed probability of those of its paths that stayed in the beam
    language: float  # ln P of the text and the end of the sentence, unweighted; 0 without a language model
    bonus: float  # of hot words and unknown words
    total: float  # acoustic + alpha language + beta words + bonus


@dataclass
class _Text:
    """One text among the results: paths with and without a space at the end are summed."""

    prefix: Prefix
    acoustic: float
    values: Values


def _add_logarithms(first: float, second: float) -> float:
    """ln(e^first + e^second)."""
    high, low = max(first, second), min(first, second)
    return high + math.log1p(math.exp(low - high))


class BeamDecoder:
    """``beam_search`` for one network and one language model; remembers the scores of words between batches.

    Raises:
        ValueError: for a closed vocabulary that cannot be listed or written.
    """

    def __init__(
        self,
        alphabet: Alphabet,
        settings: BeamSettings,
        scorer: LanguageModel | None = None,
        hotwords: HotWords | None = None,
    ) -> None:
        self.alphabet, self.settings, self.hotwords, self.has_scorer = alphabet, settings, hotwords, scorer is not None
        self.space = alphabet.labels.index(" ") if " " in alphabet.labels else -1
        self.worth = TextWorth(alphabet, settings, scorer, hotwords)

    def _texts(self, found: Sequence[tuple[float, Prefix]], log_scale: float) -> list[_Text]:
        """What the search found as different texts."""
        texts: dict[int, _Text] = {}
        for score, prefix in found:
            acoustic = score + log_scale - self.worth.lent(prefix.note)
            is_open = prefix.label == self.space and prefix.parent is not None
            key = id(prefix.parent if is_open else prefix)
            if key in texts:
                texts[key].acoustic = _add_logarithms(texts[key].acoustic, acoustic)
            else:
                texts[key] = _Text(prefix, acoustic, self.worth.values(prefix))
        allowed = [text for text in texts.values() if text.values.is_allowed]
        return allowed or self._without_last_words(list(texts.values()))

    def _without_last_words(self, texts: list[_Text]) -> list[_Text]:
        """The texts of a closed vocabulary where all break off within a word; the most probable of equal ones."""
        found: dict[int, _Text] = {}
        for text in sorted(texts, key=lambda text: -text.acoustic):
            prefix = text.prefix
            while prefix.parent is not None and prefix.label != self.space:
                prefix = prefix.parent
            found.setdefault(id(prefix), _Text(prefix, text.acoustic, self.worth.values(prefix)))
        return list(found.values())

    def _hypothesis(self, text: _Text, total: float) -> Hypothesis:
        """The result."""
        ids = text.prefix.ids()
        if ids and ids[-1] == self.space:
            del ids[-1]
        written = self.alphabet.decode(ids)
        shown = self.hotwords.show(written) if self.hotwords else written
        return Hypothesis(shown, tuple(ids), text.acoustic, text.values.language, text.values.bonus, total)

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        """Up to ``count`` texts of each utterance, best first; at least one.

        Args:
            log_probs: (batch, time, labels + 1), output of log-softmax.
            lengths: (batch,) valid frames; later ones are not read.

        Raises:
            ValueError: if log_probs have another number of labels, a frame gives no label a probability (NaN), or the
                weights are so large that e to their power is no number.
        """
        size, settings = self.alphabet.blank + 1, self.settings
        if log_probs.dim() != 3 or log_probs.shape[2] != size:
            raise ValueError(
                f"log_probs must be (batch, time, {size}): the alphabet has {size - 1} labels and the blank; "
                f"got {tuple(log_probs.shape)}"
            )
        try:
            return self._found(log_probs, lengths)
        except OverflowError as error:
            raise ValueError(
                f"alpha {settings.alpha:g}, beta {settings.beta:g}, back-off weights of the model, or hot words that "
                "end together, are too large to count with; lower them"
            ) from error

    def _found(self, log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        """``__call__`` for what has the right shape."""
        size, settings = self.alphabet.blank + 1, self.settings
        worth, ratio, results = self.worth.for_search(), math.exp(settings.beam_threshold), []
        beta = settings.beta if self.has_scorer else 0.0
        for frames, log_scale in read_frames(log_probs, lengths, self.alphabet.blank, settings.label_threshold):
            texts = self._texts(search(frames, size, settings.beam, ratio, self.space, worth), log_scale)
            scored = [(text.acoustic + text.values.weight(settings.alpha, beta), text) for text in texts]
            scored.sort(key=lambda pair: pair[0], reverse=True)
            results.append([self._hypothesis(text, total) for total, text in scored[: settings.count]])
        return results


def beam_search(
    log_probs: Tensor,
    lengths: Tensor,
    alphabet: Alphabet,
    settings: BeamSettings,
    scorer: LanguageModel | None = None,
    hotwords: HotWords | None = None,
) -> list[list[Hypothesis]]:
    """The best texts of each utterance, best first; ``BeamDecoder`` has shapes and errors, and is for many batches."""
    return BeamDecoder(alphabet, settings, scorer, hotwords)(log_probs, lengths)
