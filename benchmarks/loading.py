"""How many seconds of sound become log-mel features in a second: our loader, and plain loops over the same clips.

    python benchmarks/loading.py CORPUS [MORE ...] [--seconds 12000] [--workers 2] [--batch-seconds 160] [--runs 3]
                                 [--for-gpu]

Rows: the loader with that many processes, and within this process; with augmentation as in ``configs/noisy.yaml``; from
the cache in memory; and, without this project, a loop that decodes, resamples and computes features one clip after the
other with one thread. Clips are repeated until there are about ``--seconds`` of them, so that starting processes does
not count. The last rows are what a core does for a GPU, which makes the features and, with "speeds changed there",
those too; there processor time is counted. ``benchmarks/nemo_loading.py`` times NeMo's own classes on the same clips,
in its own environment.

The first pass over the files is not counted: disks are not what is compared here.
"""

import argparse
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import soundfile
import torch
import torchaudio

from data.loaders import training_loader
from data.manifest import Utterance
from data.source import fill_durations, read_source
from quartznet.alphabet import Alphabet
from quartznet.config import AugmentSettings, DataSettings, FeatureConfig, TrainSettings
from quartznet.features import LogMel
from quartznet.settings import from_dict, load_yaml

NOISY = Path(__file__).parents[1] / "configs" / "noisy.yaml"


def clips_of(corpora: list[str], seconds: float) -> list[Utterance]:
    """All clips of the corpora with a text that any alphabet has, again and again up to ``seconds``."""
    clips = [replace(clip, text="a") for path in corpora for clip in read_source(path, "all")[0]]
    clips, problems = fill_durations(clips)
    for problem in problems:
        logging.warning("left out: %s", problem)
    chosen, total = [], 0.0
    for clip in cycle(clips):
        if total >= seconds:
            return chosen
        chosen.append(clip)
        total += clip.duration


def load(clips: list[Utterance], data: DataSettings, augment: AugmentSettings) -> Callable[[], int]:
    """A function that makes features of an epoch, batch by batch, and returns the number of clips."""
    loader = training_loader(clips, Alphabet(("a",)), TrainSettings(data=data, augment=augment), 16000)
    front_end = LogMel(FeatureConfig()).eval()  # without dither, as all the others

    def epoch() -> int:
        count = 0
        for batch in loader:
            front_end(batch.signal, batch.signal_lengths)
            count += len(batch.names)
            assert not batch.skipped, batch.skipped[0]
        return count

    return epoch


def load_alone(clips: list[Utterance], data: DataSettings, speed_later: bool) -> Callable[[], int]:
    """The same with three speeds and without features: batches for a GPU."""
    settings = TrainSettings(data=data, augment=AugmentSettings())
    loader = training_loader(clips, Alphabet(("a",)), settings, 16000, speed_later=speed_later)
    return lambda: sum(len(batch.names) for batch in loader)


def plain_loop(clips: list[Utterance], resampled_by: str) -> Callable[[], int]:
    """soundfile, a resampler and torchaudio's mel spectrogram, clip by clip."""
    mel = torchaudio.transforms.MelSpectrogram(16000, 512, 320, 160, n_mels=64, norm="slaney", mel_scale="slaney")
    resamplers: dict[int, torchaudio.transforms.Resample] = {}

    def loop() -> int:
        for clip in clips:
            samples, rate = soundfile.read(clip.audio_path, dtype="float32", always_2d=True)
            signal = torch.from_numpy(samples.mean(axis=1))
            if rate not in resamplers:
                kaiser = {"resampling_method": "sinc_interp_kaiser"} if resampled_by == "kaiser" else {}
                resamplers[rate] = torchaudio.transforms.Resample(rate, 16000, **kaiser)
            features = torch.log(mel(resamplers[rate](signal)) + 1e-5)
            (features - features.mean(1, keepdim=True)) / features.std(1, keepdim=True)
        return len(clips)

    return loop


def speeds_in_turns(
    functions: list[Callable[[], int]], clips: list[Utterance], runs: int, clock: Callable[[], float]
) -> list[float]:
    """Seconds of sound per second of each, the median of ``runs`` in turns after one that is not counted."""
    times = []
    for _ in range(runs + 1):
        times.append([])
        for function in functions:
            start = clock()
            assert function() == len(clips)
            times[-1].append(clock() - start)
    seconds = sum(clip.duration for clip in clips)
    return [seconds / sorted(column)[runs // 2] for column in zip(*times[1:], strict=True)]


def speed(function: Callable[[], int], clips: list[Utterance], runs: int) -> float:
    """The same of one, by the clock on the wall."""
    return speeds_in_turns([function], clips, runs, time.perf_counter)[0]


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpora", nargs="+")
    parser.add_argument("--seconds", type=float, default=12000.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-seconds", type=float, default=160.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--for-gpu", action="store_true", help="the last rows alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clips = clips_of(options.corpora, options.seconds)
    rates = sorted({soundfile.info(clip.audio_path).samplerate for clip in clips[:1000]})
    print(f"{len(clips)} clips, {sum(clip.duration for clip in clips):.0f} s, rates {rates} Hz")
    print("seconds of sound per second:")

    data = DataSettings(batch_seconds=options.batch_seconds, workers=options.workers)
    plain, here = AugmentSettings(speeds=()), replace(data, workers=0)
    if options.for_gpu:
        return print_turns(clips, here, options.runs)
    rows: dict[str, Callable[[], int]] = {
        f"our loader, {options.workers} processes": load(clips, data, plain),
        "our loader, in this process": load(clips, here, plain),
        f"  with three speeds, {options.workers} processes": load(clips, data, AugmentSettings()),
        f"  as configs/noisy.yaml, {options.workers} processes": load(clips, data, noisy()),
        f"  from memory, {options.workers} processes": load(clips, replace(data, cache="memory"), plain),
        "loop: soundfile, torchaudio, one clip a time": plain_loop(clips, "sinc"),
        "  the same with its Kaiser window": plain_loop(clips, "kaiser"),
    }
    for name, function in rows.items():
        print(f"{name:48}{speed(function, clips, options.runs):8.0f}", flush=True)
    print_turns(clips, here, options.runs)


def print_turns(clips: list[Utterance], data: DataSettings, runs: int) -> None:
    """What one core delivers to a GPU."""
    for name, cache in (("for a GPU, one core, three speeds", "none"), ("  from memory", "memory")):
        loads = [load_alone(clips, replace(data, cache=cache), is_later) for is_later in (False, True)]
        now, later = speeds_in_turns(loads, clips, runs, time.process_time)
        print(f"{name:48}{now:8.0f}", flush=True)
        print(f"{'  speeds changed there':48}{later:8.0f}   ratio {later / now:.3f}", flush=True)


def noisy() -> AugmentSettings:
    """The augmentation of ``configs/noisy.yaml`` without what needs recordings of noise and of rooms."""
    augment = load_yaml(NOISY)["augment"]
    return from_dict(AugmentSettings, {key: value for key, value in augment.items() if key not in ("noise", "room")})


if __name__ == "__main__":
    main()
