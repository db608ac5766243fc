"""Sound files -> text, many at a time.

Files of similar length share a batch, as many as fit into ``batch_seconds`` with padding counted, and the texts come
back in the order of the files. The surprise: sorting is what makes it fast; a ten-second clip beside a one-second clip
would cost as much as two of ten seconds.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence

from quartznet.audio import audio_duration, read_audio
from quartznet.ctc import greedy_decode
from quartznet.model import QuartzNet


def batches_by_length(durations: Sequence[float], batch_seconds: float) -> Iterator[list[int]]:
    """Indices, longest first; longest clip of a batch times its size <= ``batch_seconds``, or one clip alone."""
    batch: list[int] = []
    for index in sorted(range(len(durations)), key=lambda index: -durations[index]):
        if batch and durations[batch[0]] * (len(batch) + 1) > batch_seconds:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _texts(model: QuartzNet, paths: Sequence[str | Path]) -> list[str]:
    """The transcripts of one batch."""
    signals = [read_audio(path, model.config.features.sample_rate) for path in paths]
    for path, signal in zip(paths, signals, strict=True):
        if len(signal) < model.front_end.shortest:
            needed = model.front_end.shortest
            raise ValueError(f"{path} has {len(signal)} samples, the network needs {needed}; leave it out")
    lengths = torch.tensor([len(signal) for signal in signals], device=model.device)
    signal = pad_sequence(signals, batch_first=True).to(model.device)
    log_probs, frames = model.forward_features(*model.front_end.each(signal, lengths))
    return greedy_decode(log_probs, frames, model.alphabet)


@torch.inference_mode()
def transcribe(model: QuartzNet, paths: Sequence[str | Path], batch_seconds: float = 120.0) -> list[str]:
    """Greedy transcripts of ``paths``, in their order; the model's mode is left as it was.

    Raises:
        ValueError: ``batch_seconds`` is not positive, or a file cannot be decoded or is shorter than the front end
            needs (some 0.02 s); the message names the file.
        FileNotFoundError: a file is not there.
    """
    if batch_seconds <= 0:
        raise ValueError(f"batch_seconds must be above 0, got {batch_seconds}")
    if isinstance(paths, str | Path):
        raise ValueError(f"give a list of paths, not one path: [{str(paths)!r}]")
    durations = [audio_duration(path) for path in paths]
    texts = [""] * len(durations)
    was_training = model.training
    model.eval()
    try:
        for batch in batches_by_length(durations, batch_seconds):
            for index, text in zip(batch, _texts(model, [paths[index] for index in batch]), strict=True):
                texts[index] = text
    finally:
        model.train(was_training)
    return texts
