"""Decoded clips are kept as 16-bit samples, in memory or on disk, so that later epochs do not decode them again.

    python train.py ... --data.cache memory --data.cache_gigabytes 8      # 115 MB for each hour at 16 kHz
    python train.py ... --data.cache disk --data.cache_folder /scratch/cache

It pays where decoding and resampling are slow (mp3 at 48 kHz, long recordings cut into pieces) and the loader, not the
network, sets the pace. What is kept comes before augmentation, so every epoch still hears its own speeds and noises.

The surprise: with a cache every clip is rounded to 16 bits, also on the first pass, and also where the cap leaves it
out. So a resumed run, or one with another cap, hears the same samples bit for bit.
"""

import logging
import math
import mmap
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.hashing import stable_hash
from data.manifest import Utterance, clip_key
from quartznet.config import DataSettings

LOUDEST = 32767
SLACK = 0.06  # s; whole clips may be that much longer than their manifest says (quartznet.audio.ROUNDED)
MOST_OF_MEMORY = 0.8  # of the machine's, that a cache may be allowed to take
GIGABYTE = 10**9

logger = logging.getLogger(__name__)


def to_int16(signal: Tensor) -> np.ndarray:
    """(samples,) float32 in [-1, 1] -> int16; what overshoots is clipped."""
    return (signal * (LOUDEST + 1)).round().clamp(-LOUDEST - 1, LOUDEST).to(torch.int16).numpy()


def to_float(samples: np.ndarray) -> Tensor:
    """(samples,) int16 -> float32 in [-1, 1), a copy; exact."""
    return torch.from_numpy(samples.astype(np.float32) / (LOUDEST + 1))


class Cache(ABC):
    """Remembers the samples of clips that are known by their number.

    Args:
        clips: all clips, with durations; the first of them that fit below the cap have a place.
        sample_rate: of the signals, Hz.
        limit: bytes that the cache may take.
    """

    def __init__(self, clips: Sequence[Utterance], sample_rate: int, limit: int) -> None:
        self.room = np.array([2 * math.ceil((clip.duration + SLACK) * sample_rate) for clip in clips], np.int64)
        self.has_place = np.zeros(len(clips), bool)
        self.bytes = 0
        for index, room in enumerate(self.room):
            if self.bytes + room <= limit:
                self.has_place[index] = True
                self.bytes += int(room)

    @abstractmethod
    def read(self, index: int) -> np.ndarray | None:
        """The int16 samples of a clip that has a place, or None where they are not there."""

    @abstractmethod
    def write(self, index: int, samples: np.ndarray) -> None:
        """Keeps the samples of a clip that has a place, and not more bytes than its ``room``."""

    def get(self, index: int) -> Tensor | None:
        """(samples,) float32 of an earlier ``put``, or None."""
        samples = self.read(index) if self.has_place[index] else None
        return None if samples is None else to_float(samples)

    def put(self, index: int, signal: Tensor) -> Tensor:
        """Keeps a clip if there is a place for it; returns it as ``get`` will, rounded to 16 bits, in any case."""
        samples = to_int16(signal)
        if self.has_place[index] and samples.nbytes <= self.room[index]:
            self.write(index, samples)
        return to_float(samples)


class MemoryCache(Cache):
    """One stretch of memory that loader processes share with the process that made it.

    The operating system hands out its pages when they are written. It can only be handed down to forked processes,
    which is how Linux starts loaders; with others, ``data.cache disk`` does the same.

    Raises:
        ValueError: for a cache larger than 80 % of the machine's memory.
    """

    def __init__(self, clips: Sequence[Utterance], sample_rate: int, limit: int) -> None:
        super().__init__(clips, sample_rate, limit)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if self.bytes > MOST_OF_MEMORY * memory:
            raise ValueError(
                f"data.cache memory would take {self.bytes / GIGABYTE:.1f} GB for this corpus and the machine has "
                f"{memory / GIGABYTE:.1f} GB; lower data.cache_gigabytes or take data.cache disk"
            )
        self.starts = np.concatenate([[0], np.cumsum(np.where(self.has_place, self.room, 0))])
        self.samples = np.frombuffer(mmap.mmap(-1, max(2, self.bytes)), np.int16)
        self.lengths = np.frombuffer(mmap.mmap(-1, max(8, 8 * len(clips))), np.int64)  # samples; 0: not there

    def read(self, index: int) -> np.ndarray | None:
        start, length = self.starts[index] // 2, self.lengths[index]
        return self.samples[start : start + length] if length else None

    def write(self, index: int, samples: np.ndarray) -> None:
        start = self.starts[index] // 2
        self.samples[start : start + len(samples)] = samples
        self.lengths[index] = len(samples)  # last: whoever sees a length sees the samples

    def __reduce__(self) -> str:
        raise ValueError("data.cache memory needs loader processes that are forked; take data.cache disk")


class DiskCache(Cache):
    """A file for each clip, found by path, size, time of change and cut: it serves other runs and processes too.

    A file appears complete or not at all. If the disk fills up all the same, training goes on without writing.

    Raises:
        ValueError: where the disk has less room than the cache may need.
        OSError: where the folder cannot be made.
    """

    def __init__(self, clips: Sequence[Utterance], sample_rate: int, limit: int, folder: Path) -> None:
        super().__init__(clips, sample_rate, limit)
        self.clips, self.sample_rate, self.folder = clips, sample_rate, folder
        self.writable = True
        folder.mkdir(parents=True, exist_ok=True)
        places = np.flatnonzero(self.has_place)
        absent = [index for index in places if not self.path(index).exists()]
        status = os.statvfs(folder)
        needed, free = self.room[absent].sum() / GIGABYTE, status.f_bavail * status.f_frsize / GIGABYTE
        if needed > free:
            raise ValueError(
                f"data.cache disk would take {needed:.1f} GB more in {folder}, where {free:.1f} GB are free; "
                "lower data.cache_gigabytes or name another data.cache_folder"
            )
        logger.info("cache     %d of %d clips are in %s", len(places) - len(absent), len(places), folder)

    def path(self, index: int) -> Path:
        """Where the samples of a clip are, or would be; another file once the sound file has changed."""
        name = f"{stable_hash(clip_key(self.clips[index]), self.sample_rate):016x}"
        return self.folder / name[:2] / f"{name}.npy"

    def read(self, index: int) -> np.ndarray | None:
        try:
            samples = np.load(self.path(index), allow_pickle=False)
        except (OSError, ValueError, EOFError):  # not there, or cut off by a power failure: it is written again
            return None
        return samples if samples.dtype == np.int16 and samples.ndim == 1 and len(samples) else None

    def write(self, index: int, samples: np.ndarray) -> None:
        if not self.writable:
            return
        path = self.path(index)
        partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(exist_ok=True)
            with open(partial, "wb") as file:
                np.save(file, samples)
            os.replace(partial, path)
        except OSError as error:
            self.writable = False
            partial.unlink(missing_ok=True)
            logger.warning("cache     this process writes no more to %s: %s", self.folder, error)


def make_cache(clips: Sequence[Utterance], sample_rate: int, settings: DataSettings) -> Cache | None:
    """The cache that the settings ask for, after a line about it; None for none.

    Raises:
        ValueError, OSError: no room for it, see the classes.
    """
    if settings.cache == "none":
        return None
    limit = int(settings.cache_gigabytes * GIGABYTE)
    if settings.cache == "memory":
        cache: Cache = MemoryCache(clips, sample_rate, limit)
    else:
        cache = DiskCache(clips, sample_rate, limit, Path(settings.cache_folder).expanduser())
    places = int(cache.has_place.sum())
    logger.info("cache     %s, up to %.2f GB for %d of %d clips", settings.cache, cache.bytes / 1e9, places, len(clips))
    return cache
