"""Before spending hours: two minutes of looking at the checkpoint, the corpus and a first few steps.

    python -m quartznet.doctor --init quartznet15x5_en.nemo --data corpora/es --lang es

takes the options of train.py, so what is examined is the run that would follow, and looks at

    alphabet      do the language's letters cover the texts, or does another language fit better
    clips         can they be read, and how many are left out
    sample-rate   is 8 kHz speech in files that say 16 kHz
    transcripts   does a clip know its own text better than those of other clips
    front-end     do the features fit what the checkpoint remembers, or would another window, hop or normalisation
    learning      can 8 utterances be learnt by heart at the rate of the run
    cost          how long and how much memory the run will take

Exit status: 0 nothing to correct, 1 a fault was found, 2 it could not look. ``quartznet.checkup`` has the measurements.

The surprise: learning 8 utterances by heart proves a lot. Labels, lengths, blank, loss, optimiser and rate all have to
be right for it, and where they are it takes a minute.
"""

import dataclasses
import logging
import resource
import sys
import textwrap
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from data.clips import measured, prepare, read_data
from data.loaders import evaluation_loader
from data.manifest import Utterance
from quartznet import commandline
from quartznet.alphabet import Alphabet
from quartznet.audio import read_audio
from quartznet.audit import audit
from quartznet.batch import Batch
from quartznet.checkup import (
    Finding,
    check_front_end,
    check_overfit,
    check_sample_rate,
    check_transcripts,
    own_text_wins,
    slowed,
)
from quartznet.config import AugmentSettings, TrainSettings
from quartznet.distributed import choose_device
from quartznet.finetune import Tuning, parameter_groups
from quartznet.initial import build_model, read_base
from quartznet.interpolate import measure_batch_norm
from quartznet.model import QuartzNet
from quartznet.optim import build_optimizer
from quartznet.options import Options, follow_recipe, read_options
from quartznet.recognition import recognise, recognition_loss, summarise
from quartznet.step import choose_precision
from quartznet.text import Language, find_language, known_languages, language_from_texts

USAGE = """python -m quartznet.doctor --init CHECKPOINT --data PATH --lang CODE
                                  [options of train.py]"""
CLIPS = 32  # that are listened to
BY_HEART = 8  # that are learnt
SECONDS = 60.0  # of learning, at most


def sample(clips: Sequence[Utterance], count: int) -> list[Utterance]:
    """``count`` clips spread evenly over the corpus, of medium length where there are many: 1.5 to 8 seconds."""
    medium = [clip for clip in clips if 1.5 <= clip.duration <= 8.0]
    chosen = medium if len(medium) >= count else list(clips)
    return chosen[:: max(1, len(chosen) // count)][:count]


def shortest(clips: Sequence[Utterance], count: int) -> list[Utterance]:
    """The ``count`` shortest clips of at least a second, because what is learnt by heart should be learnt fast."""
    long_enough = [clip for clip in clips if clip.duration >= 1.0]
    return sorted(long_enough or clips, key=lambda clip: clip.duration)[:count]


def read_signals(clips: Sequence[Utterance], sample_rate: int) -> tuple[list[Utterance], list[Tensor], list[str]]:
    """The clips that can be read, their samples, and a message for each of the others."""
    read, signals, problems = [], [], []
    for clip in clips:
        try:
            signals.append(read_audio(clip.audio_path, sample_rate, clip.offset, clip.duration, clip.span))
            read.append(clip)
        except (OSError, ValueError) as error:
            problems.append(f"{clip.origin or clip.name}: {error}")
    return read, signals, problems


# ---------------------------------------------------------------------------------------------------------------------
# One check each


def check_alphabet(texts: Sequence[str], language: Language) -> Finding:
    """Whether another language's rules fit the texts better: what they lose and what they must map is counted."""
    texts = texts[:: max(1, len(texts) // 2000)]

    def misfit(rules: Language) -> float:
        found = audit(texts, rules)
        unused = len(found.unused) / max(1, len(rules.letters)) if found.letters > 2000 else 0.0
        return (found.dropped.total() + found.mapped.total()) / max(1, found.letters) + 0.01 * unused

    found = audit(texts, language)
    lost, changed = found.letters_lost, found.mapped.total() / max(1, found.letters)
    others = {code: misfit(find_language(code)) for code in known_languages() if code != language.code}
    best = min(others, key=others.__getitem__)
    worst = ", ".join(f"{letter} {count}x" for letter, count in (found.dropped + found.mapped).most_common(5))
    seen = f"{lost:.2%} of the letters lost, {changed:.2%} become another letter" + (f" ({worst})" if worst else "")
    if lost > 0.005 or (changed > 0.005 and others[best] < 0.5 * misfit(language)):
        fits = f"the texts fit --lang {best} ({find_language(best).name})" if others[best] < 0.005 else "choose another"
        return Finding("alphabet", "fault", f"{seen}; not the alphabet of {language.name}", fits)
    unused = found.unused if found.letters > 2000 else ""
    note = f"; no text has {' '.join(unused[:12])}" if unused else ""
    return Finding("alphabet", "ok", seen + note)


@torch.no_grad()
def listen(model: QuartzNet, signals: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Log-probabilities (batch, time, labels) and lengths (batch,) of all clips, on the CPU."""
    fast = model.for_inference()
    rows = []
    for signal in signals:
        log_probs, lengths = fast.forward_features(*fast.front_end.each(signal[None], torch.tensor([len(signal)])))
        rows.append(log_probs[0, : int(lengths)].cpu())
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return padded, torch.tensor([len(row) for row in rows])


def check_speech(model: QuartzNet, clips: Sequence[Utterance], signals: Sequence[Tensor]) -> list[Finding]:
    """Sample rate and transcripts: both ask how well texts fit what is heard."""
    ids = [model.alphabet.encode(clip.text) for clip in clips]
    log_probs, lengths = listen(model, signals)
    shares, losses = own_text_wins(log_probs, lengths, ids, model.alphabet.blank)
    half_speed = listen(model, [slowed(signal) for signal in signals])
    _, slow_losses = own_text_wins(*half_speed, ids, model.alphabet.blank)
    pairs = [(own, slow) for own, slow in zip(losses, slow_losses, strict=True) if own < 1e9 and slow < 1e9]
    own, slow = (sum(column) / max(1, len(pairs)) for column in zip(*pairs, strict=True)) if pairs else (1e9, 1.0)
    letters = [len(clip.text) for clip in clips]
    rate = model.config.features.sample_rate
    return [
        check_sample_rate(signals, rate, letters, {"as it is": own, "slowed": slow}),
        check_transcripts(shares, [str(clip.audio_path) for clip in clips]),
    ]


def learn(
    model: QuartzNet, batch: Batch, settings: TrainSettings, lr: float, seconds: float, most: int
) -> tuple[list[float], float]:
    """Losses of up to ``most`` steps at one rate on one batch, changed in place; and the seconds of one step."""
    tuning = Tuning(settings.tune)
    tuning.begin_epoch(model, 10**6)  # as at the end of the run, when all that will learn does
    optim = dataclasses.replace(settings.optim, lr=lr)
    optimizer = build_optimizer(parameter_groups(model, settings.tune.layer_decay), optim)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]
    loss_of = recognition_loss(AugmentSettings(cutout_masks=0))
    device, generator = model.device, torch.Generator().manual_seed(settings.seed)
    dtype = choose_precision(settings.precision, device)
    losses: list[float] = []
    began = time.perf_counter()
    while len(losses) < most and (len(losses) < 3 or time.perf_counter() - began < seconds):
        tuning.train_mode(model)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = loss_of(model, batch, generator).float().mean()
        losses.append(loss.item())
        if not torch.isfinite(loss) or losses[-1] > 20 * losses[0]:
            break
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if optim.grad_clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), optim.grad_clip)
        optimizer.step()
        if losses[-1] < 0.2:
            break
    return losses, (time.perf_counter() - began) / len(losses)


def check_learning(settings: TrainSettings, make_model: Callable[[], QuartzNet], batch: Batch) -> tuple[Finding, float]:
    """Learns a few clips by heart; where that fails, once more at a hundredth of the rate."""
    lr, model = settings.optim.lr, make_model()
    batch = batch.to(model.device)
    curve, seconds = learn(model, batch, settings, lr, SECONDS, 100)
    if settings.tune.batchnorm not in ("affine", "frozen"):
        measure_batch_norm(model, [batch])  # running statistics are steps behind the weights
    rows, _ = recognise(model, [batch])
    wer = summarise(rows).wer
    slower: list[float] = []
    if wer > 0:
        slower, _ = learn(make_model(), batch, settings, lr / 100, SECONDS / 2, min(40, len(curve)))
    return check_overfit(curve, slower, wer, lr, len(batch)), seconds / batch.seconds(model.config.features.sample_rate)


def check_cost(
    settings: TrainSettings, clips: Sequence[Utterance], seconds_a_second: float, device: torch.device
) -> Finding:
    """Time of the run from the time of a step, and memory from what was used so far."""
    heard = sum(clip.duration for clip in clips)
    epoch = heard * seconds_a_second
    steps = settings.steps
    of_a_step = settings.data.batch_seconds * settings.optim.accumulate
    epochs = settings.epochs if steps is None else steps * of_a_step / max(heard, 1e-9)
    if device.type == "cuda":
        used, what = torch.cuda.max_memory_allocated(device) / 1e9, "GPU memory"
    else:
        used, what = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, "memory"
    text = (
        f"{1 / seconds_a_second:.0f} s of speech a second: {epoch / 60:.1f} min an epoch, {epochs:.0f} epochs "
        f"{epochs * epoch / 3600:.1f} h; {what} so far {used:.1f} GB with a small batch"
    )
    return Finding("cost", "ok", text)


# ---------------------------------------------------------------------------------------------------------------------
# The whole


def check_clips(clips: Sequence[Utterance], problems: Sequence[str]) -> Finding:
    """What was left out before anything could be looked at."""
    if not problems:
        return Finding("clips", "ok", f"{len(clips):,} to train on, none left out")
    seen = f"{len(clips):,} to train on, {len(problems):,} left out; the first: {problems[0]}"
    return Finding("clips", "note", seen, "python -m data.prepare lists all of them with the reason")


def examine(options: Options) -> list[Finding]:
    """All checks; raises ValueError or OSError where something cannot even be looked at."""
    settings = options.settings()
    torch.manual_seed(settings.seed)
    device = choose_device(settings.device)
    splits = read_data(settings)
    if options.recipe:
        splits = measured(splits)
        settings, _ = follow_recipe(options, [clip.duration for clip in splits.train], device.type)
    texts = [clip.text for clip in splits.train]
    language = find_language(settings.lang) or language_from_texts(settings.lang, texts)
    findings = [report(check_alphabet(texts, language))]
    base = read_base(settings.init) if settings.init else None

    def make_model() -> QuartzNet:
        torch.manual_seed(settings.seed)
        model = build_model(settings, language.labels, base)
        Tuning(settings.tune).insert(model)
        return model.to(device)

    model = make_model()
    frames_per_second = model.config.features.sample_rate / model.samples_per_output
    prepared = prepare(splits, language, Alphabet(language.labels), frames_per_second, settings)
    train = prepared.train
    clips, signals, problems = read_signals(sample(train, CLIPS), model.config.features.sample_rate)
    findings.append(report(check_clips(train, [*prepared.skipped, *problems])))
    if not clips:
        raise ValueError(f"none of the clips looked at can be read; the first problem: {problems[0]}")
    if base is not None:
        model = model.cpu().eval()  # where the signals are
        speech = [report(finding) for finding in check_speech(model, clips, signals)]
        findings += speech
        front_end = check_front_end(model, signals)
        if speech[0].level == "fault" == front_end.level:
            advice = "the sample rate may explain it: mend that first"
            front_end = dataclasses.replace(front_end, level="note", advice=advice)
        findings.append(report(front_end))
    rate, fewest = model.config.features.sample_rate, model.front_end.shortest
    [batch] = evaluation_loader(shortest(train, BY_HEART), model.alphabet, rate, 1e9, shortest=fewest)
    if not len(batch):
        raise ValueError(f"none of the shortest clips can be read; the first problem: {batch.skipped[0]}")
    learning, seconds = check_learning(settings, make_model, batch)
    findings.append(report(learning))
    findings.append(report(check_cost(settings, train, seconds, device)))
    return findings


def report(finding: Finding) -> Finding:
    """Prints one finding, 80 columns wide."""
    mark = {"ok": "ok", "note": "NOTE", "fault": "FAULT"}[finding.level]
    head = f"{mark:<6}{finding.check:<13}"
    print("\n".join(textwrap.wrap(finding.text, 79, initial_indent=head, subsequent_indent=" " * 19)))
    if finding.advice:
        print("\n".join(textwrap.wrap(f"-> {finding.advice}", 79, initial_indent=" " * 19, subsequent_indent=" " * 22)))
    sys.stdout.flush()
    return finding


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 nothing to correct, 1 a fault was found, 2 it could not look (one line on stderr)."""

    def work() -> int:
        logging.getLogger().setLevel(logging.WARNING)  # the findings say what there is to say
        findings = examine(read_options(arguments, __doc__.split("\n")[0], USAGE))
        return int(any(finding.level == "fault" for finding in findings))

    return commandline.run(work, memory="--data.batch_seconds")


if __name__ == "__main__":
    sys.exit(main())
