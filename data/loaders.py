"""Utterances -> batches for training and for evaluation, each process its share.

Training batches come shuffled and with changed speeds, and every process gets the same number of them. Evaluation is
the opposite: every clip exactly once, as it is, so the share of a process may be longer than another's, or empty.
"""

import signal
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor
from torch.utils.data import DataLoader

from data.cache import make_cache
from data.collate import collate
from data.dataset import SpeechDataset
from data.manifest import Utterance
from data.replay import Mixture
from data.samplers import BucketSampler
from data.shards import shard_numbers
from quartznet.alphabet import Alphabet
from quartznet.batch import Batch
from quartznet.config import TrainSettings
from quartznet.waveform import WaveformAugment, longest_factor


def be_deaf(_worker: int) -> None:
    """A loader process leaves Ctrl-C and SIGTERM to the training process, which saves and then ends its loaders."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _loader(dataset: SpeechDataset, sampler: BucketSampler, workers: int, pin_memory: bool) -> DataLoader:
    make = partial(DataLoader, dataset, batch_sampler=sampler, collate_fn=collate, worker_init_fn=be_deaf)
    return make(num_workers=workers, pin_memory=pin_memory)


def training_loader(
    utterances: Sequence[Utterance] | Mixture,
    alphabet: Alphabet,
    settings: TrainSettings,
    sample_rate: int,
    pin_memory: bool = False,
    rank: int = 0,
    world_size: int = 1,
    shortest: int = 1,
    samples_per_output: int = 0,
    speed_later: bool = False,
) -> DataLoader:
    """Shuffled batches of ``settings.data.batch_seconds``, augmented; all utterances need a duration.

    A ``Mixture`` takes the place of utterances where old speech is replayed among the new.
    ``shortest`` and ``samples_per_output`` are the network's, see ``SpeechDataset``; with ``speed_later``, whoever
    takes the batches must ask for ``Batch.at_speed``.
    """
    data = settings.data
    mixture = utterances if isinstance(utterances, Mixture) else None
    clips, places = (utterances, utterances) if mixture is None else (mixture.clips, mixture.longest())
    sampler = BucketSampler(
        [clip.duration for clip in places],
        data.batch_seconds,
        data.max_batch,
        settings.seed,
        True,
        rank,
        world_size,
        longest_factor(settings.augment),
        sample_rate,
        shard_numbers(places),
    )
    augment = WaveformAugment(settings.augment, sample_rate)
    cache = make_cache(clips, sample_rate, data)
    dataset = SpeechDataset(
        clips,
        alphabet,
        sample_rate,
        augment,
        settings.seed,
        shortest,
        samples_per_output,
        cache,
        mixture,
        speed_later=speed_later,
    )
    return _loader(dataset, sampler, data.workers, pin_memory)


def evaluation_loader(
    utterances: Sequence[Utterance],
    alphabet: Alphabet,
    sample_rate: int,
    batch_seconds: float,
    max_batch: int = 128,
    workers: int = 0,
    pin_memory: bool = False,
    shortest: int = 1,
    heard: Callable[[Utterance, Tensor], Tensor] | None = None,
) -> DataLoader | list[Batch]:
    """Every utterance once, from short to long; an empty list for no utterances. All need a duration.

    ``heard`` changes clips, such as a ``data.noisy.Condition``; None: they are as they were recorded.
    """
    if not utterances:
        return []
    durations = [utterance.duration for utterance in utterances]
    sampler = BucketSampler(durations, batch_seconds, max_batch, shuffle=False, sample_rate=sample_rate)
    dataset = SpeechDataset(utterances, alphabet, sample_rate, shortest=shortest, heard=heard)
    return _loader(dataset, sampler, workers, pin_memory)
