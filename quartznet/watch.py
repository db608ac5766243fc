"""Sets that are watched while something else is learnt: what the network forgets, and when.

    python train.py --init en.nemo --lang es --data es --watch en=english/test.jsonl

Each set is scored before the first step, after every evaluation and so at the end; ``forgetting_table`` puts the first
and the last score side by side. A set in the old language is scored under the *old* output layer on the present
encoder, because the new one may not even have its letters; where the new alphabet holds all of them (replay makes it
so) it is scored under the new output layer as well.

The surprise: under the old output layer a score can get worse although nothing is lost for good. The encoder has moved,
and its old reader did not follow. A new output layer on the same encoder would recover part of it.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from quartznet import distributed
from quartznet.batch import Batch
from quartznet.keep import with_head
from quartznet.model import Decoder, QuartzNet
from quartznet.recognition import Transcript, recognise, summarise

logger = logging.getLogger(__name__)

Scores = dict[str, tuple[float, float]]  # name -> (WER, CER), fractions


@dataclass(frozen=True)
class WatchedSet:
    """One set under one output layer."""

    name: str
    batches: Iterable[Batch]  # of this rank
    head: Decoder | None = None  # None: the network's own
    labels: tuple[str, ...] = ()  # of ``head``


def score(model: QuartzNet, watched: WatchedSet, should_stop: Callable[[], bool]) -> tuple[float, float] | None:
    """WER and CER over all ranks; None when a stop was asked for. Raises ValueError if no clip could be loaded."""
    view = model if watched.head is None else with_head(model, watched.head, watched.labels)
    rows, skipped = recognise(view, watched.batches, should_stop)
    parts = distributed.gather((rows, skipped, should_stop()))
    if any(stopped for *_, stopped in parts):
        return None
    everything: list[Transcript] = [row for part, *_ in parts for row in part]
    skipped = [message for _, part, _ in parts for message in part]
    if not everything:
        raise ValueError(f"no clip of keep.watch {watched.name} could be loaded; the first problem: {skipped[:1]}")
    if skipped:
        logger.warning("%d clips of %s could not be loaded; the first: %s", len(skipped), watched.name, skipped[0])
    result = summarise(everything)
    return result.wer, result.cer


def watcher(sets: Sequence[WatchedSet]) -> Callable[[QuartzNet, Callable[[], bool]], Scores | None]:
    """A function that scores all sets; None when a stop was asked for in between."""

    def watch(model: QuartzNet, should_stop: Callable[[], bool]) -> Scores | None:
        scores: Scores = {}
        for watched in sets:
            result = score(model, watched, should_stop)
            if result is None:
                return None
            scores[watched.name] = result
        return scores

    return watch


def forgetting_table(history: Sequence[Mapping], best_step: int) -> str:
    """The scores before training and those of the best checkpoint, a line for each set; empty without any.

    Args:
        history: ``{"step": 0, "scores": {"en": [0.03, 0.01]}}``, in the order of time.
        best_step: of the checkpoint that the run is judged by.
    """
    if not history:
        return ""
    first = {}
    for record in reversed(history):
        first |= {name: (record["step"], *pair) for name, pair in record["scores"].items()}
    last = next((record for record in history if record["step"] == best_step), history[-1])
    late: list[str] = []
    lines = [f"{'watched':<22}{'WER before':>12}{'after':>10}{'change':>9}{'CER before':>13}{'after':>10}"]
    for name, (step, wer, cer) in first.items():
        wer_after, cer_after = last["scores"].get(name, (float("nan"),) * 2)
        change = f"{100 * (wer_after - wer):+.2f}"
        late += [f"{name}: watched from step {step} on, which stands for before"] if step else []
        lines.append(
            f"{name[:21]:<22}{100 * wer:>10.2f} %{100 * wer_after:>8.2f} %{change:>9}"
            f"{100 * cer:>11.2f} %{100 * cer_after:>8.2f} %"
        )
    return "\n".join([*lines, *late])
