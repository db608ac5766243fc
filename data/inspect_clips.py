"""Decodes every clip of a corpus once and remembers what was found: true length, rate, channels, peak, fingerprint.

    found = inspect_clips(utterances, Path("prepared/inspected.jsonl"), jobs=8)      # one ``Inspection`` for each

Work is shared by processes, and each result is appended to the cache file at once: whoever stops the run loses nothing,
and a second run decodes only what has changed (path, size, time of change, cut) and what has failed.

The surprise: a decoder can die instead of complaining, and takes its process with it. Then the pool is broken and every
clip on its way is suspect. They are tried again one by one, each alone in a process, so that one clip is rejected and
none of its neighbours.
"""

import hashlib
import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from data.manifest import Utterance, clip_key
from quartznet.audio import decode_audio

logger = logging.getLogger(__name__)

CRASHED = "the decoder crashed on it; convert it to flac with another program, or take it out"
WAITING = 4  # clips on their way for each process


@dataclass(frozen=True)
class Inspection:
    """What decoding a clip showed; with a ``problem`` the rest means nothing."""

    problem: str = ""
    duration: float = 0.0  # seconds, of the samples that are really there
    sample_rate: int = 0  # Hz, of the file
    channels: int = 0
    peak: float = 0.0  # largest absolute sample; 0: digital silence, 1: perhaps clipped
    fingerprint: str = ""  # of the decoded samples: equal for equal sound, whatever the file's name


def inspect_clip(clip: Utterance) -> Inspection:
    """Decodes one clip as the file holds it; whatever is wrong with it becomes its ``problem``."""
    try:
        samples, rate = decode_audio(clip.audio_path, clip.offset, clip.duration, clip.span)
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        return Inspection(problem=str(error) or type(error).__name__)
    digest = hashlib.blake2b(samples.numpy().tobytes(), digest_size=16, person=str(rate).encode())
    return Inspection(
        duration=round(len(samples) / rate, 4),
        sample_rate=rate,
        channels=samples.shape[1],
        peak=round(samples.abs().max().item(), 4),
        fingerprint=digest.hexdigest(),
    )


def whole_files(clips: Sequence[Utterance]) -> list[Utterance]:
    """``clips``, without the duration where it is only said of a whole file: tables are often wrong about those."""
    return [replace(clip, duration=None) if clip.whole else clip for clip in clips]


def read_cache(path: Path) -> dict[str, Inspection]:
    """Earlier results by key. A line that cannot be read (the last one of a run that was killed) is passed over."""
    found: dict[str, Inspection] = {}
    names = {item.name for item in fields(Inspection)}
    if not path.is_file():
        return found
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                entry = json.loads(line)
                key = entry.pop("key")
                if not entry["problem"]:
                    found[key] = Inspection(**{name: entry[name] for name in names})
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
    return found


def inspect_clips(clips: Sequence[Utterance], cache: Path, jobs: int = 2) -> list[Inspection]:
    """One ``Inspection`` for each clip, in order; see the module's docstring.

    Args:
        cache: JSON lines, made where it is not there; new results are appended.
        jobs: processes; 0: in this one, where a crash of a decoder would be the end.
    """
    clips = whole_files(clips)
    keys = [clip_key(clip) for clip in clips]
    found = read_cache(cache)
    new = {key: clip for key, clip in zip(keys, clips, strict=True) if key not in found}  # and what failed before
    if new:
        logger.info("decoding %d of %d clips", len(new), len(clips))
        cache.parent.mkdir(parents=True, exist_ok=True)
        with open(cache, "a+", encoding="utf-8") as file, tqdm(total=len(new), desc="decoding", disable=None) as bar:
            _end_torn_line(file)
            for key, result in _results(new, jobs):
                found[key] = result
                if not result.problem:  # tomorrow ffmpeg may be installed, or there may be more memory
                    file.write(json.dumps({"key": key, **asdict(result)}) + "\n")
                    file.flush()
                bar.update()
    return [found[key] for key in keys]


def _end_torn_line(file: TextIO) -> None:
    """A run that was killed may have left half a line; what follows starts on a new one."""
    file.seek(0, os.SEEK_END)
    if file.tell():
        file.write("\n")


def _results(clips: dict[str, Utterance], jobs: int) -> Iterator[tuple[str, Inspection]]:
    """Results as they come, in any order."""
    if jobs < 1:
        yield from ((key, inspect_clip(clip)) for key, clip in clips.items())
        return
    left = dict(clips)
    while left:
        suspects = list(left)[: jobs * WAITING]  # what is on its way if the pool breaks before its first result
        try:
            for key, result in _pooled(left, jobs):
                del left[key]
                yield key, result
                suspects = list(left)[: jobs * WAITING]
        except BrokenProcessPool:
            logger.warning("a decoder process died; trying the clips that were on their way one by one")
            for key in suspects:
                yield key, _alone(left.pop(key))


def _pool(jobs: int) -> ProcessPoolExecutor:
    """Processes that leave Ctrl-C to this one."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, context, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))


def _pooled(clips: dict[str, Utterance], jobs: int) -> Iterator[tuple[str, Inspection]]:
    """Results from several processes; at most ``jobs * WAITING`` of the first clips without a result are on their way.

    Results come in the order of the clips among those that are ready.
    """
    order = iter(list(clips.items()))
    with _pool(jobs) as pool:
        running: dict[Future, str] = {}
        try:
            while True:
                for key, clip in order:
                    running[pool.submit(inspect_clip, clip)] = key
                    if len(running) >= jobs * WAITING:
                        break
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _alone(clip: Utterance) -> Inspection:
    with _pool(1) as pool:
        try:
            return pool.submit(inspect_clip, clip).result()
        except BrokenProcessPool:
            return Inspection(problem=f"{clip.name}: {CRASHED}")
