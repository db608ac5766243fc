"""What the training loop needs to know about speech recognition: the loss of a batch, and the score of a data set.

``recognition_loss`` is features -> masks -> network -> CTC, one loss for each utterance. ``recognise`` runs the network
over batches and keeps one ``Transcript`` for each clip; every rate is computed from those rows, so the number printed
while training and the number of evaluate.py come from the same lines.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from quartznet import distributed
from quartznet.augment import augment_features
from quartznet.batch import Batch
from quartznet.config import AugmentSettings
from quartznet.ctc import Losses, ctc_losses, greedy_decode
from quartznet.keep import Memory
from quartznet.metrics import error_counts, total
from quartznet.model import QuartzNet
from quartznet.sequence import sequence_losses
from quartznet.task import DevResult
from quartznet.tune_config import SequenceSettings
from quartznet.words import Word


@dataclass(frozen=True)
class Answer:
    """What is heard in a clip."""

    text: str
    words: tuple[Word, ...] = ()  # those of the text in time, where somebody wants them
    before: str | None = None  # the text before it was repaired; None: nobody repairs


Decode = Callable[[Tensor, Tensor], list[Answer]]  # log_probs (batch, time, labels + 1), lengths (batch,)


@dataclass(frozen=True)
class Transcript:
    """One evaluated clip."""

    name: str
    reference: str
    hypothesis: str
    loss: float  # CTC, nats for the whole utterance; infinite where the text is too long for its frames
    words: tuple[Word, ...] = ()  # of the hypothesis
    before: str | None = None  # the hypothesis before it was repaired; None: nobody repairs


def recognition_loss(
    augment: AugmentSettings,
    memory: Memory | None = None,
    sequence: SequenceSettings | None = None,
    ctc: Losses = ctc_losses,
) -> Callable[[QuartzNet, Batch, torch.Generator], Tensor]:
    """The loss function of training: ``(model, batch, generator)`` -> losses ``(batch,)``, fp32.

    CTC, or the expected error rate that ``sequence`` asks for (``quartznet.sequence``), and what ``memory`` adds so
    that the network keeps what it knew (``quartznet.keep``). ``ctc`` computes CTC, on a GPU perhaps without waiting.
    """
    sequence = sequence or SequenceSettings()

    def loss(model: QuartzNet, batch: Batch, generator: torch.Generator) -> Tensor:
        batch = batch.at_speed()
        features, lengths = model.features(batch.signal, batch.signal_lengths)
        if model.training:
            features = augment_features(features, lengths, augment, generator)
        encoded, output_lengths = model.encode(features, lengths)
        log_probs = model.decoder(encoded)[:, : model.output_length(features.shape[2])]
        losses = sequence_losses(
            log_probs, output_lengths, batch.targets, batch.target_lengths, model.alphabet, sequence, generator, ctc
        )
        return losses if memory is None else losses + memory.losses(model, encoded, features, lengths)

    return loss


@torch.inference_mode()
def recognise_batch(model: QuartzNet, batch: Batch, decode: Decode | None = None) -> list[Transcript]:
    """Transcripts and losses of one batch that is on the model's device; each as if the clip were alone.

    Args:
        decode: None: greedy, texts alone.
    """
    log_probs, lengths = model.forward_features(*model.front_end.each(batch.signal, batch.signal_lengths))
    blank = model.alphabet.blank
    losses = ctc_losses(log_probs, lengths, batch.targets, batch.target_lengths, blank, zero_infinity=False).tolist()
    if decode is None:
        return list(
            map(Transcript, batch.names, batch.texts, greedy_decode(log_probs, lengths, model.alphabet), losses)
        )
    rows = zip(batch.names, batch.texts, decode(log_probs, lengths), losses, strict=True)
    return [Transcript(name, text, heard.text, loss, heard.words, heard.before) for name, text, heard, loss in rows]


def recognise(
    model: QuartzNet,
    batches: Iterable[Batch],
    should_stop: Callable[[], bool] = lambda: False,
    decode: Decode | None = None,
) -> tuple[list[Transcript], list[str]]:
    """All clips of ``batches`` in evaluation mode, and one message for each clip that failed to load.

    Stops early, with the rows so far, when ``should_stop()`` says so. The model's mode is put back.
    """
    was_training = model.training
    model.eval()
    rows, skipped = [], []
    for batch in batches:
        skipped += batch.skipped
        if len(batch):
            rows += recognise_batch(model, batch.to(model.device), decode)
        if should_stop():
            break
    model.train(was_training)
    return rows, skipped


def mean_loss(rows: Sequence[Transcript]) -> float:
    """Mean over the rows whose loss is finite; NaN without any."""
    losses = [row.loss for row in rows if math.isfinite(row.loss)]
    return sum(losses) / len(losses) if losses else math.nan


def summarise(rows: Sequence[Transcript], examples: int = 5) -> DevResult:
    """Corpus rates of ``rows`` and the first few pairs, by name."""
    rows = sorted(rows, key=lambda row: row.name)
    pairs = [(row.reference, row.hypothesis) for row in rows]
    wer, cer = (total(error_counts(*zip(*pairs, strict=True), unit)).rate for unit in ("word", "character"))
    empty, impossible = ([not row.hypothesis for row in rows], [math.isinf(row.loss) for row in rows])
    shares = (sum(found) / max(1, len(rows)) for found in (empty, impossible))
    return DevResult(mean_loss(rows), wer, cer, pairs[:examples], *shares)


def evaluator(batches: Iterable[Batch]) -> Callable[[QuartzNet, Callable[[], bool]], DevResult | None]:
    """The evaluation function of training: rows of all ranks together; ``None`` when a stop was asked for.

    Raises:
        ValueError: when not a single clip could be loaded.
    """

    def evaluate(model: QuartzNet, should_stop: Callable[[], bool]) -> DevResult | None:
        rows, skipped = recognise(model, batches, should_stop)
        parts = distributed.gather((rows, should_stop()))
        if any(stopped for _, stopped in parts):
            return None
        rows = [row for part, _ in parts for row in part]
        if not rows:
            raise ValueError(f"no dev clip could be loaded; the first problem: {(skipped or ['none'])[0]}")
        return replace(summarise(rows), skipped=skipped)

    return evaluate
