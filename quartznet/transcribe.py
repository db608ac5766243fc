"""Transcribes sound files of any length and sound that is still being made: text, JSON, subtitles (SRT, VTT), CTM.

    python -m quartznet.transcribe a.mp3 b.wav --checkpoint runs/es                     the texts, on the screen
    python -m quartznet.transcribe lecture.mp3 --checkpoint runs/es --format srt --out subtitles
    arecord -f S16_LE -r 16000 -t raw | python -m quartznet.transcribe - --stream --checkpoint runs/es

An hour takes no more memory than minutes do (``quartznet.windows``). A file that cannot be read is named on stderr at
the end, the others are written all the same, and the exit status is 1.

The surprise: with ``--stream`` the words are those of a network that cannot look far ahead and knows the loudness of
what has been said so far only (``quartznet.live``), so for a file on disk leave it out.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch
from tqdm import tqdm

from quartznet import backend, commandline, decoding, load_model, subtitles
from quartznet.adapter import apply_adapter, read_adapter
from quartznet.checkpoint import replace_atomically
from quartznet.distributed import choose_device
from quartznet.initial import read_base
from quartznet.live import LiveRecogniser, Update, recognise_stream
from quartznet.model import QuartzNet
from quartznet.pcm_stream import microphone_blocks, pcm_blocks
from quartznet.recordings import Decode, Recording, recognise
from quartznet.text import find_language
from quartznet.writing import trained_language

FORMATS = ("txt", "json", "srt", "vtt", "ctm")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line.

    Raises:
        ValueError: an option is missing, unknown or contradicts another.
    """
    parser = commandline.Parser(
        prog="python -m quartznet.transcribe",
        description="Sound files, or a stream, to text with times.",
        allow_abbrev=False,
    )
    parser.add_argument("files", nargs="*", help="sound files; with --stream: - or microphone")
    parser.add_argument("--checkpoint", help="file or run folder (its best): ours, .nemo, .ckpt, .pt pair")
    parser.add_argument("--adapter", metavar="FILE", help="what a fine-tuning changed in that checkpoint (adapter.pt)")
    parser.add_argument("--lang", help="rules of custom words; the checkpoint's language when left out")
    parser.add_argument("--format", choices=FORMATS, default="txt", help="txt (default), json, srt, vtt or ctm")
    parser.add_argument("--out", metavar="FOLDER", help="a file for each recording, and not the screen")
    parser.add_argument(
        "--precision",
        choices=tuple(DTYPES),
        default="fp32",
        help="fp32 (default); bf16: faster where GPU or CPU has it",
    )
    parser.add_argument("--kernels", choices=backend.CHOICES, default="auto", help=backend.HELP)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--batch-seconds", type=float, default=120.0, help="sound in a batch (120)")
    parser.add_argument("--stream", action="store_true", help="read sound that is still being made")
    parser.add_argument("--rate", type=int, default=16000, help="of raw samples in the stream, Hz (16000)")
    decoding.add_options(parser)
    options = commandline.parse(parser, arguments)
    decoding.check_options(options)
    if options.checkpoint is None:
        raise ValueError("--checkpoint is missing: a run folder, a .nemo, ...")
    if not options.files:
        raise ValueError("no sound file given; - --stream reads standard input")
    if options.stream and options.files not in (["-"], ["microphone"]):
        raise ValueError("--stream reads one stream: - for standard input, or microphone")
    if not options.stream and "-" in options.files:
        raise ValueError("- is standard input, which needs --stream")
    if options.stream and (options.out or options.format not in ("txt", "json")):
        raise ValueError("--stream writes txt or json lines on the screen; leave --out and other formats to files")
    return options


def written(recording: Recording, kind: str) -> str:
    """The content of an output file of one of ``FORMATS``."""
    if kind == "json":
        return subtitles.as_json(recording.words, str(recording.path), recording.duration)
    if kind == "ctm":
        return subtitles.ctm(recording.words, Path(recording.path).stem)
    return {"txt": subtitles.txt, "srt": subtitles.srt, "vtt": subtitles.vtt}[kind](recording.words)


def output_paths(files: Sequence[str], folder: str, kind: str) -> list[Path]:
    """``folder/stem.kind`` for each file.

    Raises:
        ValueError: two of them would be the same, or one is there already, beside its sound: that may be its reference.
    """
    paths = [Path(folder, f"{Path(file).stem}.{kind}") for file in files]
    for index, path in enumerate(paths):
        if path in paths[:index]:
            first = files[paths.index(path)]
            raise ValueError(f"{first} and {files[index]} would both be written to {path}; transcribe them apart")
        if path.exists() and path.resolve().parent == Path(files[index]).resolve().parent:
            raise ValueError(f"{path} lies beside its sound and may be what was said in it; choose another --out")
    return paths


def write(path: Path, text: str) -> OSError | None:
    """Writes a file, whole or not at all; returns what went wrong. Names that are no UTF-8 are written with escapes."""
    try:
        replace_atomically(path, lambda part: part.write_text(text, encoding="utf-8", errors="backslashreplace"))
    except OSError as error:
        return OSError(f"{path} cannot be written: {error.strerror}")
    return None


@contextmanager
def progress_bar() -> Iterator[Callable[[float, float], None]]:
    """A function of seconds done and seconds in all, drawn on stderr, and only where that is a terminal."""
    with tqdm(
        unit="s", disable=not sys.stderr.isatty(), leave=False, bar_format="{percentage:3.0f}% |{bar}| {remaining}"
    ) as bar:

        def show_progress(done: float, total: float) -> None:
            bar.total = total
            bar.update(min(done, total) - bar.n)

        yield show_progress


def transcribe_files(model: QuartzNet, options: argparse.Namespace, decode: Decode | None = None) -> int:
    """Writes what ``options`` ask for; returns how many files failed. Greedy without ``decode``."""
    paths = output_paths(options.files, options.out, options.format) if options.out else None
    if options.out:
        if not options.out.strip() or (Path(options.out).exists() and not Path(options.out).is_dir()):
            raise ValueError(f"--out {options.out} is no folder; name one, it is made where it is missing")
        Path(options.out).mkdir(parents=True, exist_ok=True)
    found: dict[int, Recording] = {}
    with progress_bar() as progress:
        for index, recording in recognise(model, options.files, decode, None, options.batch_seconds, progress):
            found[index] = recording
            if paths and recording.error is None:
                found[index] = replace(recording, error=write(paths[index], written(recording, options.format)))
    for index in range(len(options.files) if paths is None else 0):
        if found[index].error is None:
            if len(options.files) > 1 and options.format in ("txt", "srt", "vtt"):
                print(f"== {options.files[index]}")
            print(written(found[index], options.format), end="")
    if paths:
        print(f"{sum(one.error is None for one in found.values())} of {len(paths)} files written to {options.out}")
    failed = [str(found[index].error) for index in sorted(found) if found[index].error is not None]
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    return len(failed)


def show(update: Update, kind: str) -> None:
    """A chunk on stdout: JSON, or lines of final words, with the words to come below them on a terminal."""
    if kind == "json":
        words = [
            {key: round(x, 3) if isinstance(x, float) else x for key, x in asdict(w).items()} for w in update.words
        ]
        document = {"seconds": round(update.seconds, 3), "words": words, "partial": update.partial}
        print(json.dumps(document, ensure_ascii=False), flush=True)
        return
    text, clear = " ".join(word.text for word in update.words), "\r\033[K" if sys.stdout.isatty() else ""
    if text:
        print(f"{clear}{text}", flush=True)
    if clear:
        print(f"{clear}{update.partial[-79:]}", end="", flush=True)


def transcribe_stream(model: QuartzNet, options: argparse.Namespace, decode: Decode | None = None) -> None:
    """Standard input or the microphone until it ends, or until Ctrl-C; says on stderr how long a word takes."""
    rate = model.config.features.sample_rate
    recogniser = LiveRecogniser(model, decode)
    print(f"words show {recogniser.latency:.1f} s after they are said, and the network's time", file=sys.stderr)
    microphone = options.files == ["microphone"]
    signals = microphone_blocks(rate) if microphone else pcm_blocks(sys.stdin.buffer, options.rate, rate)
    try:
        for update in recognise_stream(recogniser, signals):
            show(update, options.format)
    except KeyboardInterrupt:
        show(recogniser.finish(), options.format)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 a file failed and the others are written, 2 something to correct (a line on stderr)."""

    def work() -> int:
        options = read_options(arguments)
        device = choose_device(options.device)
        backend.check_machine(options.kernels, device, DTYPES[options.precision])
        code = options.lang or trained_language(options.checkpoint)
        if options.adapter:
            plain = apply_adapter(read_base(options.checkpoint), options.adapter)
            code = options.lang or read_adapter(options.adapter)["lang"]
        else:
            plain = load_model(options.checkpoint)
        chosen, _ = decoding.choose_decode(options, plain, find_language(code) if code else None)
        model = plain.to(device).for_inference(DTYPES[options.precision], options.kernels)
        decode = decoding.in_time(chosen, plain) if chosen else None
        if options.stream:
            transcribe_stream(model, options, decode)
            return 0
        return 1 if transcribe_files(model, options, decode) else 0

    return commandline.run(work, log=sys.stderr)  # stdout is for the words


if __name__ == "__main__":
    sys.exit(main())
