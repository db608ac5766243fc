"""NeMo's own time for the rows of ``benchmarks/loading.py``; runs in an environment with nemo_toolkit, not in ours.

python benchmarks/nemo_loading.py FOLDER_OF_SOUNDS [MORE ...] [--seconds 12000] [--threads 1]

``AudioSegment.from_file`` and ``FilterbankFeatures``, one clip after the other.
"""

import argparse
import time
from itertools import cycle
from pathlib import Path

import soundfile
import torch
from nemo.collections.asr.parts.preprocessing.features import FilterbankFeatures
from nemo.collections.asr.parts.preprocessing.segment import AudioSegment

SOUNDS = (".wav", ".flac", ".mp3", ".ogg", ".opus")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=12000.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    files = [path for folder in options.folders for path in sorted(folder.rglob("*")) if path.suffix in SOUNDS]
    chosen, total = [], 0.0
    for path in cycle(files):
        if total >= options.seconds:
            break
        chosen.append(path)
        total += soundfile.info(path).duration
    features = FilterbankFeatures(nfilt=64).eval()

    def loop() -> None:
        for path in chosen:
            samples = torch.from_numpy(AudioSegment.from_file(str(path), target_sr=16000).samples)[None]
            features(samples, torch.tensor([samples.shape[1]]))

    times = []
    with torch.inference_mode():
        for _ in range(options.runs + 1):
            start = time.perf_counter()
            loop()
            times.append(time.perf_counter() - start)
    median = sorted(times[1:])[options.runs // 2]
    print(f"{len(chosen)} clips, {total:.0f} s")
    print(f"NeMo, {options.threads} thread(s), one clip after the other {total / median:10.0f}")


if __name__ == "__main__":
    main()
