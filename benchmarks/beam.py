"""Our beam search beside pyctcdecode: word error rate and utterances a second, at several sizes of the beam.

    python benchmarks/beam.py CHECKPOINT CORPUS [--split test] [--lm es.arpa] [--beams 16 64 100 256] [--runs 3]

Both get the same log-probabilities, thresholds and weights, read the same ARPA file and run in one process with one
thread, in turns; times are those of the process, the least of ``--runs``. The network runs once, before.
pyctcdecode needs ``pip install 'quartznet[lm]'``; without it the columns of ours are printed alone.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import quartznet
from data.dataset import normalised
from data.loaders import evaluation_loader
from data.source import fill_durations, read_source
from quartznet.alphabet import Alphabet
from quartznet.arpa import LanguageModel, read_arpa
from quartznet.beam import BeamDecoder, BeamSettings
from quartznet.metrics import error_counts, total
from quartznet.pyctc import PyctcDecoder
from quartznet.text import find_language

Batch = tuple[Tensor, Tensor]  # log_probs (batch, time, labels + 1) and lengths (batch,)
Decoder = Callable[[Tensor, Tensor], list]


def log_probs_of(checkpoint: str, corpus: str, split: str, lang: str) -> tuple[Alphabet, list[tuple[str, Tensor]]]:
    """The alphabet, and (reference, log_probs (time, labels + 1)) of each clip."""
    model = quartznet.load_model(checkpoint).for_inference()
    alphabet, language = Alphabet(model.config.labels), find_language(lang)
    clips, problems = fill_durations(read_source(corpus, split)[0])
    for problem in problems:
        print(f"left out: {problem}")
    if language is None or not clips:
        raise SystemExit(f"no clips in {corpus} ({split}), or no language {lang}")
    clips, _ = normalised(clips, language.restricted_to(alphabet.labels))
    rate, rows = model.config.features.sample_rate, []
    for batch in evaluation_loader(clips, alphabet, rate, 120.0, shortest=model.front_end.shortest):
        with torch.inference_mode():
            log_probs, lengths = model.forward_features(*model.front_end.each(batch.signal, batch.signal_lengths))
        rows += [(text, row[:n]) for text, row, n in zip(batch.texts, log_probs, lengths.tolist(), strict=True)]
    return alphabet, rows


def least_times(makers: Sequence[Callable[[], Decoder]], batch: Batch, runs: int) -> tuple[list[float], list[list]]:
    """Seconds that each decoder takes, in turns, and what it returned; making it does not count."""
    times, results = [float("inf")] * len(makers), [[]] * len(makers)
    for _ in range(runs):
        for place, make in enumerate(makers):
            decode = make()
            start = time.process_time()
            results[place] = decode(*batch)
            times[place] = min(times[place], time.process_time() - start)
    return times, results


def word_error_rate(rows: Sequence[tuple[str, Tensor]], texts: Sequence[str]) -> float:
    """In percent."""
    return 100 * total(error_counts([reference for reference, _ in rows], texts)).rate


def _makers(
    alphabet: Alphabet, settings: BeamSettings, path: Path | None, model: LanguageModel | None
) -> list[Callable[[], Decoder]]:
    """Ours, made anew each time, so that it remembers no words; and pyctcdecode's, which remembers none."""
    try:
        theirs = PyctcDecoder(alphabet, settings, path)
    except ImportError as error:
        print(error)
        return [lambda: BeamDecoder(alphabet, settings, model)]
    return [lambda: BeamDecoder(alphabet, settings, model), lambda: theirs]


def table(
    alphabet: Alphabet,
    rows: Sequence[tuple[str, Tensor]],
    settings: BeamSettings,
    beams: Sequence[int],
    lm: Path | None,
    runs: int,
) -> list[str]:
    """One line for each size of the beam, with and without the language model."""
    log_probs = pad_sequence([row for _, row in rows], batch_first=True)
    lengths = torch.tensor([len(row) for _, row in rows])
    lines = [f"{'':10}{'beam':>6}{'ours: WER':>12}{'utt/s':>8}{'pyctcdecode: WER':>20}{'utt/s':>8}{'ratio':>8}"]
    for path in dict.fromkeys((None, lm)):
        model = read_arpa(path) if path else None
        for beam in beams:
            makers = _makers(alphabet, replace(settings, beam=beam, count=1), path, model)
            times, found = least_times(makers, (log_probs, lengths), runs)
            ours = word_error_rate(rows, [texts[0].text for texts in found[0]])
            line = f"{'with LM' if path else 'without LM':10}{beam:6}{ours:12.2f}{len(rows) / times[0]:8.0f}"
            if len(times) > 1:
                theirs = word_error_rate(rows, [texts[0][0] for texts in found[1]])
                line += f"{theirs:20.2f}{len(rows) / times[1]:8.0f}{times[1] / times[0]:8.1f}"
            lines.append(line)
            print(line if len(lines) > 2 else "\n".join(lines), flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("corpus")
    parser.add_argument("--split", default="test")
    parser.add_argument("--lang", default="en")
    parser.add_argument("--lm", type=Path)
    parser.add_argument("--alpha", type=float, default=BeamSettings.alpha)
    parser.add_argument("--beta", type=float, default=BeamSettings.beta)
    parser.add_argument("--unknown", type=float, default=BeamSettings.unknown)
    parser.add_argument("--beams", type=int, nargs="+", default=[16, 64, 100, 256])
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    alphabet, rows = log_probs_of(options.checkpoint, options.corpus, options.split, options.lang)
    settings = BeamSettings(alpha=options.alpha, beta=options.beta, unknown=options.unknown)
    print(f"{len(rows)} clips, {sum(len(row) for _, row in rows)} frames, {settings}")
    table(alphabet, rows, settings, options.beams, options.lm, options.runs)


if __name__ == "__main__":
    main()
