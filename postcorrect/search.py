"""What the corrector would write: greedily, or the best few texts by beam search.

    score = ln P(text, end | source) / steps ^ length_penalty          steps = tokens written, the end included

A beam keeps the ``beam`` best texts of a source, ended or not; an ended one holds its place until enough better ones
push it out. A source is finished when all its texts have ended, or when none that goes on can still overtake those
that are wanted: ln P only falls, so ``ln P / longest ^ length_penalty`` is all that it can reach. A text has at most 50
tokens more than its source (NeMo's rule); there, and where positions run out, nothing but the end may follow, so that
every text that is returned has ended and ``log_prob`` is what the network gives it.

Each source has limits and an end of its own and no text depends on what else is in the batch. NeMo's search mixed up
the caches of a batch (it repeats sources as 0 1 2 0 1 2 and texts as 0 0 1 1 2 2); here both stand source by source.

The surprise: the network may give a probability to tokens that are no text, such as "[UNK]" or the rows that fill its
table up to a multiple of 8. They are never written, and their probability is not given to others.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from postcorrect.model import Cache, Corrector

MOST_TEXTS = 1000  # of a beam


@dataclass(frozen=True)
class SearchSettings:
    """How texts are looked for."""

    beam: int = 4  # texts kept after each token; 1: greedy
    length_penalty: float = 0.0  # power of the number of steps that ln P is divided by; above 0: longer texts
    extra_tokens: int = 50  # that a text may have more than its source
    count: int = 1  # texts wanted of each source, at most ``beam``

    def __post_init__(self) -> None:
        if not 1 <= self.count <= self.beam:
            raise ValueError(f"count must be from 1 to beam ({self.beam}), got {self.count}")
        if self.beam > MOST_TEXTS:
            raise ValueError(f"beam can be at most {MOST_TEXTS}, got {self.beam}; all its texts are in memory")
        if not 0.0 <= self.length_penalty <= 10.0:
            raise ValueError(f"length_penalty must be in [0, 10], got {self.length_penalty}")
        if self.extra_tokens < 0:
            raise ValueError(f"extra_tokens must be at least 0, got {self.extra_tokens}")


@dataclass(frozen=True)
class Written:
    """One text that the network wrote."""

    ids: tuple[int, ...]  # without begin and end
    log_prob: float  # natural logarithm, the end included
    score: float  # what texts are compared by; see the top of the file


# ---------------------------------------------------------------------------------------------------------------------
# The next token


@contextmanager
def evaluating(corrector: Corrector) -> Iterator[None]:
    """Without dropout and gradients; afterwards as before."""
    was_training = corrector.training
    corrector.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        corrector.train(was_training)


def _is_text(corrector: Corrector) -> Tensor:
    """(rows,), which tokens may be written, without the end."""
    special, tokenizer = corrector.config.special, corrector.tokenizer
    tokens = torch.arange(corrector.config.rows, device=corrector.device)
    is_text = tokens < (len(tokenizer) if tokenizer else corrector.config.vocabulary)
    is_text[list(vars(special).values())] = False
    return is_text


def _limits(corrector: Corrector, mask: Tensor, extra_tokens: int) -> Tensor:
    """(batch,) most tokens that may be written for each source, the end not counted; begin and end of it neither."""
    return (mask.sum(1) - 2 + extra_tokens).clamp(min=0, max=corrector.config.positions - 1)


def _next_log_probs(logits: Tensor, is_text: Tensor, at_limit: Tensor, end: int) -> Tensor:
    """(batch, rows) in fp32; minus infinity for what is no text, and at its limit for all but the end."""
    log_probs = logits.float().log_softmax(-1)
    allowed = is_text & ~at_limit.unsqueeze(1)
    allowed[:, end] = True
    return log_probs.masked_fill(~allowed, float("-inf"))


def _check(log_probs: Tensor) -> None:
    if bool(torch.isnan(log_probs).any()):
        raise ValueError("the corrector gives probabilities that are no numbers (NaN); its weights are broken")


def greedy(corrector: Corrector, source: Tensor, mask: Tensor, extra_tokens: int = 50) -> list[Written]:
    """For each source the text that takes the most probable token at every step.

    Args:
        source: (batch, time) numbers of tokens, each text between begin and end.
        mask: (batch, time), True = token.

    Raises:
        ValueError: a source is longer than the positions, or the network gives NaN.
    """
    special, is_text = corrector.config.special, _is_text(corrector)
    with evaluating(corrector):
        cache = corrector.start(corrector.encode(source, mask), mask)
        limits, token = (
            _limits(corrector, mask, extra_tokens),
            torch.full_like(source[:, 0], corrector.config.special.begin),
        )
        total, steps, written = torch.zeros(len(source), device=source.device), torch.zeros_like(limits), []
        while not bool((token == special.end).all()):
            logits, cache = corrector.step(token.unsqueeze(1), cache)
            best, chosen = _next_log_probs(logits[:, -1], is_text, len(written) >= limits, special.end).max(-1)
            goes_on = token != special.end
            total, steps = total + best * goes_on, steps + goes_on
            token = chosen.where(goes_on, special.end)
            written.append(token)
    _check(total)
    rows = torch.stack(written, dim=1).tolist() if written else []
    ended = zip(rows, total.tolist(), steps.tolist(), strict=True)
    return [Written(tuple(row[: count - 1]), log_prob, log_prob) for row, log_prob, count in ended]


# ---------------------------------------------------------------------------------------------------------------------
# The beam


@dataclass(frozen=True)
class _Beams:
    """The texts of the sources that are not finished, (sources, beam) of each, the best first."""

    numbers: Tensor  # of the sources, in the batch: (sources,)
    limits: Tensor  # (sources,)
    tokens: Tensor  # (sources, beam, steps); after its end a text repeats the end
    totals: Tensor  # ln P; minus infinity: there is no such text
    steps: Tensor  # taken until the end
    ended: Tensor
    cache: Cache

    def scores(self, penalty: float) -> Tensor:
        """(sources, beam), what texts are compared by."""
        return self.totals / self.steps.clamp(min=1) ** penalty

    def take(self, places: Tensor) -> Self:
        """Only the sources at these places."""
        sources, beam = self.totals.shape
        rows = torch.arange(sources * beam, device=places.device).view(sources, beam)[places].flatten()
        names = ("numbers", "limits", "tokens", "totals", "steps", "ended")
        parts = {name: getattr(self, name)[places] for name in names}
        return replace(self, cache=self.cache.take_sources(places, rows), **parts)


def _begin(corrector: Corrector, source: Tensor, mask: Tensor, settings: SearchSettings) -> _Beams:
    """One text for each source, without a token; the other places of its beam are empty."""
    shape, device = (len(source), settings.beam), source.device
    totals = torch.full(shape, float("-inf"), device=device)
    totals[:, 0] = 0.0
    return _Beams(
        numbers=torch.arange(len(source), device=device),
        limits=_limits(corrector, mask, settings.extra_tokens),
        tokens=source.new_zeros(*shape, 0),
        totals=totals,
        steps=torch.zeros(shape, dtype=torch.long, device=device),
        ended=torch.zeros(shape, dtype=torch.bool, device=device),
        cache=corrector.start(corrector.encode(source, mask), mask, settings.beam),
    )


def _advance(corrector: Corrector, beams: _Beams, is_text: Tensor, penalty: float) -> _Beams:
    """Every text goes on with every token, ended ones stay as they are; the best of all that remain."""
    sources, beam, step = beams.tokens.shape
    special = corrector.config.special
    last = beams.tokens[:, :, -1:] if step else beams.tokens.new_full((sources, beam, 1), special.begin)
    logits, cache = corrector.step(last.flatten(0, 1), beams.cache)
    at_limit = (step >= beams.limits).repeat_interleave(beam)
    log_probs = _next_log_probs(logits[:, -1], is_text, at_limit, special.end).unflatten(0, (sources, beam))
    log_probs, token = log_probs.topk(min(beam, log_probs.shape[2]))  # what is not among these is not among the best
    stays = log_probs.new_full(log_probs.shape[2:], float("-inf"))
    stays[0] = 0.0
    log_probs = torch.where(beams.ended.unsqueeze(2), stays, log_probs)
    token = token.masked_fill(beams.ended.unsqueeze(2), special.end)

    steps = torch.where(beams.ended, beams.steps, step + 1)
    totals = beams.totals.unsqueeze(2) + log_probs
    best = (totals / steps.unsqueeze(2) ** penalty).flatten(1).topk(beam).indices
    parent, token = best // log_probs.shape[2], token.flatten(1).gather(1, best)
    totals = totals.flatten(1).gather(1, best)
    before = beams.tokens.gather(1, parent.unsqueeze(2).expand(-1, -1, step))
    first = torch.arange(sources, device=parent.device).unsqueeze(1) * beam
    return replace(
        beams,
        tokens=torch.cat([before, token.unsqueeze(2)], dim=2),
        totals=totals,
        steps=steps.gather(1, parent),
        ended=(token == special.end) | totals.isneginf(),
        cache=cache.take_rows((first + parent).flatten()),
    )


def _is_finished(beams: _Beams, settings: SearchSettings) -> Tensor:
    """(sources,), whether the texts that are wanted are known; see the top of the file."""
    nothing = float("-inf")
    wanted = beams.scores(settings.length_penalty).masked_fill(~beams.ended, nothing).topk(settings.count).values[:, -1]
    longest = (beams.limits + 1).unsqueeze(1) ** settings.length_penalty
    reachable = (beams.totals / longest).masked_fill(beams.ended, nothing).amax(1)
    return beams.ended.all(1) | (wanted >= reachable)


def _texts(beams: _Beams, place: int, settings: SearchSettings) -> list[Written]:
    """The ended texts of one source, the best first, as many as are wanted."""
    parts = beams.tokens, beams.totals, beams.scores(settings.length_penalty), beams.steps, beams.ended
    rows = zip(*(part[place].tolist() for part in parts), strict=True)
    ended = [
        Written(tuple(tokens[: steps - 1]), total, score)
        for tokens, total, score, steps, has_ended in rows
        if has_ended and total > float("-inf")
    ]
    return sorted(ended, key=lambda written: -written.score)[: settings.count]


def beam_search(
    corrector: Corrector, source: Tensor, mask: Tensor, settings: SearchSettings | None = None
) -> list[list[Written]]:
    """For each source up to ``settings.count`` texts with different tokens, the best first.

    Args:
        source: (batch, time) numbers of tokens, each text between begin and end.
        mask: (batch, time), True = token.

    Raises:
        ValueError: a source is longer than the positions, or the network gives NaN.
    """
    settings = settings or SearchSettings()
    found: dict[int, list[Written]] = {}
    is_text = _is_text(corrector)
    with evaluating(corrector):
        beams = _begin(corrector, source, mask, settings)
        while len(found) < len(source):
            beams = _advance(corrector, beams, is_text, settings.length_penalty)
            _check(beams.totals)
            finished = _is_finished(beams, settings).tolist()
            for place, number in enumerate(beams.numbers.tolist()):
                if finished[place] and number not in found:
                    found[number] = _texts(beams, place, settings)
            rest = [place for place, is_done in enumerate(finished) if not is_done]
            if 0 < len(rest) <= len(finished) // 2:  # copying the rest costs more than it saves while it is large
                beams = beams.take(torch.tensor(rest, device=source.device))
    return [found[number] for number in range(len(source))]
