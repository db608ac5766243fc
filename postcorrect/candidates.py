"""From text to text: what the corrector would write instead, and how probable any text is for a source.

    candidates(corrector, ["the contry"], SearchSettings(count=4))      # [[Correction("the country", ...), ...]]
    log_probs(corrector, ["the contry"], ["the contry"])                # [ln P that nothing is changed]

The surprise: not every text is given to the network. What the tokenizer cannot repeat (capitals or accents and an
uncased BERT, letters out of the vocabulary) would change without being corrected, so it stays as it is, and is counted.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from postcorrect.model import Corrector
from postcorrect.search import SearchSettings, beam_search, evaluating
from postcorrect.wordpiece import WordPiece, pad_rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Correction:
    """One text for a source."""

    text: str
    log_prob: float  # ln P(text, end | source), of its most probable tokens
    score: float  # what texts are compared by, see ``postcorrect.search``


def _tokenizer(corrector: Corrector) -> WordPiece:
    if corrector.tokenizer is None:
        raise ValueError("this corrector has no tokenizer, so it reads no texts; make it with postcorrect.from_bert")
    return corrector.tokenizer


def _batches(rows: dict[str, list[int]], tokens: int) -> Iterator[list[str]]:
    """Texts of like length together, as many as have ``tokens`` with padding, but at least one."""
    batch: list[str] = []
    for text in sorted(rows, key=lambda text: (len(rows[text]), text)):
        if batch and (len(batch) + 1) * len(rows[text]) > tokens:
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch


def _correctable(tokenizer: WordPiece, texts: Sequence[str], positions: int, tell: bool) -> dict[str, list[int]]:
    """Numbers of each different text that can be corrected; the log may say how many cannot, and why."""
    different = sorted(set(texts))
    rows = dict(zip(different, tokenizer.ids(different), strict=True))
    empty = {text for text in rows if not text.split()}
    long = {text for text, row in rows.items() if len(row) > positions}
    strange = {text for text in rows if text not in empty | long and not tokenizer.repeats(text)}
    left = empty | long | strange
    if left and tell:
        logger.warning(
            "%d of %d texts stay as they are: %d empty, %d of more than %d tokens, %d that the vocabulary cannot write",
            len(left), len(rows), len(empty), len(long), positions, len(strange),
        )  # fmt: skip
    return {text: row for text, row in rows.items() if text not in left}


def candidates(
    corrector: Corrector,
    texts: Sequence[str],
    settings: SearchSettings | None = None,
    tokens: int = 4096,
    tell: bool = True,
) -> list[list[Correction]]:
    """For each text up to ``settings.count`` different texts, the best first; none where it cannot be corrected.

    Such a text is empty, longer than the positions, or one that the tokenizer cannot repeat. They are counted in the
    log. Equal texts are computed once.

    Args:
        tokens: of the texts that are corrected together, padding included. What is longer is a batch of its own.
        tell: log how many texts cannot be corrected; False for whoever counts those without a result.

    Raises:
        ValueError: the corrector has no tokenizer, or the network gives NaN.
    """
    settings, tokenizer = settings or SearchSettings(), _tokenizer(corrector)
    rows = _correctable(tokenizer, texts, corrector.config.positions, tell)
    found: dict[str, list[Correction]] = {}
    for batch in _batches(rows, tokens):
        padded = pad_rows([rows[text] for text in batch], tokenizer.special.pad)
        source, mask = (part.to(corrector.device) for part in padded)
        for text, written in zip(batch, beam_search(corrector, source, mask, settings), strict=True):
            different: dict[str, Correction] = {}
            for one in written:
                decoded = tokenizer.decode(one.ids, like=text)
                different.setdefault(decoded, Correction(decoded, one.log_prob, one.score))
            found[text] = list(different.values())
    return [found.get(text, []) for text in texts]


def log_probs(corrector: Corrector, sources: Sequence[str], texts: Sequence[str], batch: int = 32) -> list[float]:
    """ln P(text, end | source) of each pair, for a gate that compares a correction with its source.

    Raises:
        ValueError: there is no tokenizer, a text is longer than the positions, or there are not as many texts.
    """
    if len(sources) != len(texts):
        raise ValueError(f"there must be a text for each source, got {len(texts)} for {len(sources)}")
    tokenizer, found = _tokenizer(corrector), []
    with evaluating(corrector):
        for start in range(0, len(texts), batch):
            chunk = slice(start, start + batch)
            encoded = [tokenizer.encode(part[chunk], corrector.config.positions) for part in (sources, texts)]
            source, mask, target, seen = (part.to(corrector.device) for pair in encoded for part in pair)
            scores = corrector(source, mask, target[:, :-1]).float().log_softmax(-1)
            chosen = scores.gather(2, target[:, 1:].unsqueeze(2)).squeeze(2)
            found += chosen.masked_fill(~seen[:, 1:], 0.0).sum(1).tolist()
    return found
