"""Hear and see what augmentation does to one clip, before hours are spent on it.

    python -m quartznet.augment_preview clip.mp3 --out preview --config configs/noisy.yaml
    python -m quartznet.augment_preview clip.mp3 --out preview --augment.noise.probability 1 --augment.noise.folder n

writes ``before.flac``, ``after-1.flac`` ... and ``preview.png``: one column for each copy, its log-mel features above,
below them the same with the masks of training. Each title names what was drawn.

The surprise: the settings are those of a training run, so ``settings.yaml`` of a run folder shows what that run heard.
"""

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile
import torch
from torch import Tensor

from quartznet import commandline
from quartznet.audio import read_audio
from quartznet.augment import augment_features
from quartznet.config import FeatureConfig, TrainSettings
from quartznet.features import LogMel
from quartznet.settings import from_dict
from quartznet.waveform import WaveformAugment

SAMPLE_RATE = 16000  # Hz


@dataclass(frozen=True)
class Copy:
    """One version of the clip."""

    title: str
    signal: Tensor  # (samples,)
    features: Tensor  # (mels, frames), normalised
    masked: Tensor  # the same with holes


def make_copies(signal: Tensor, settings: TrainSettings, copies: int) -> list[Copy]:
    """The clip as it is, then ``copies`` augmented versions of it, drawn from ``settings.seed``."""
    augment = WaveformAugment(settings.augment, SAMPLE_RATE)
    front_end = LogMel(FeatureConfig()).eval()
    made = []
    for number in range(copies + 1):
        generator = torch.Generator().manual_seed(1000 * settings.seed + number)
        heard, names = augment.traced(signal, generator) if number else (signal, ["before"])
        features, lengths = front_end(heard.unsqueeze(0), torch.tensor([len(heard)]))
        masked = augment_features(features, lengths, settings.augment, generator) if number else features
        title = ", ".join(names) or "unchanged"
        made.append(Copy(title, heard, features[0, :, : lengths[0]], masked[0, :, : lengths[0]]))
    return made


def draw(copies: Sequence[Copy], path: Path, name: str) -> None:
    """A PNG: features above, features with holes below, all on one scale of time and of loudness."""
    from matplotlib.figure import Figure  # slow to import; a bare Figure draws with Agg and keeps no global state

    figure = Figure(figsize=(3.4 * len(copies), 5.2), dpi=110, layout="constrained")
    figure.suptitle(name, fontsize=12, fontweight="bold")
    panels = figure.subplots(2, len(copies), sharex=True, sharey=True, squeeze=False)
    seconds = max(len(copy.signal) for copy in copies) / SAMPLE_RATE
    for column, copy in zip(panels.T, copies, strict=True):
        length = len(copy.signal) / SAMPLE_RATE
        for panel, features in zip(column, (copy.features, copy.masked), strict=True):
            panel.imshow(
                features.numpy(), origin="lower", aspect="auto", extent=(0, length, 0, len(features)), vmin=-2, vmax=3
            )
            panel.set_xlim(0, seconds)
        column[0].set_title("\n".join(textwrap.wrap(copy.title, 34)), fontsize=9)
        column[1].set_xlabel("seconds")
    panels[0, 0].set_ylabel("mel band")
    panels[1, 0].set_ylabel("mel band, with masks")
    figure.savefig(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line, see the module's docstring; 0, or 2 after one line about what was wrong."""
    parser = commandline.Parser(
        prog="python -m quartznet.augment_preview",
        usage="python -m quartznet.augment_preview CLIP --out FOLDER\n"
        "                       [--config FILE.yaml] [--augment.NAME VALUE] ...",
        description="Writes augmented copies of a clip, and their spectrograms as a PNG.",
        allow_abbrev=False,
        add_help=False,  # add_settings brings its own
    )
    parser.add_argument("clip", metavar="CLIP", help="a sound file")
    parser.add_argument("--config", metavar="FILE.yaml", help="settings of a run; options here have priority")
    parser.add_argument("--copies", type=int, default=4, help="augmented versions (4)")
    commandline.add_settings(parser, TrainSettings, {})

    def work() -> None:
        options = commandline.parse(parser, arguments)
        if not 1 <= options.copies <= 20:
            raise ValueError(f"--copies must be 1 to 20, got {options.copies}")
        mapping = commandline.chosen_settings(options, options.config)
        if "out" not in mapping:
            raise ValueError("--out is missing: the folder for the sounds and the picture")
        settings = from_dict(TrainSettings, mapping)
        copies = make_copies(read_audio(options.clip, SAMPLE_RATE), settings, options.copies)
        out = Path(settings.out)
        out.mkdir(parents=True, exist_ok=True)
        for number, copy in enumerate(copies):
            name = f"after-{number}.flac" if number else "before.flac"
            soundfile.write(out / name, copy.signal.clamp(-1, 1).numpy(), SAMPLE_RATE)
            print(f"{name:<14}{len(copy.signal) / SAMPLE_RATE:6.2f} s  {copy.title}")
        draw(copies, out / "preview.png", Path(options.clip).name)
        print(f"picture: {out / 'preview.png'}")

    return commandline.run(work)


if __name__ == "__main__":
    sys.exit(main())
