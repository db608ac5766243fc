"""From what the settings name to clips that can be trained on: corpus -> text rules -> durations -> what is usable.

    splits = read_data(settings)                        # manifests, a corpus, or the embedded default
    language = choose_language(splits, settings)        # with a table of what the rules keep and lose
    clips = prepare(splits, language, alphabet, frames_per_second, settings)    # and what was left out

The surprise: nothing is dropped in silence. Whatever cannot be learnt from becomes a message with file and line, and
the caller writes all of them into the run folder.
"""

import logging
from dataclasses import dataclass, replace

from data.dataset import normalised, usable
from data.manifest import Utterance, read_manifest
from data.replay import Mixture, mix
from data.source import fill_durations, is_single, open_source, read_source
from data.splits import Splits, with_held_out
from data.synthetic import default_folder, embedded_default
from quartznet.alphabet import Alphabet
from quartznet.audit import audit
from quartznet.config import TrainSettings
from quartznet.text import Language, find_language, language_from_texts
from quartznet.waveform import fastest_factor

logger = logging.getLogger(__name__)


def read_data(settings: TrainSettings) -> Splits:
    """Manifests, a corpus, or the embedded default; held-out clips where there is no dev part."""
    data = settings.data
    if data.train:
        skipped: list[str] = []
        parts = [[clip for path in paths for clip in read_manifest(path, skipped)] for paths in (data.train, data.dev)]
        return with_held_out(Splits(parts[0], parts[1], [], skipped, f"manifests {', '.join(data.train + data.dev)}"))
    if data.dev:
        raise ValueError("--dev without --train; name the training manifests too, or one corpus with --data")
    if data.source:
        return open_source(data.source)
    logger.warning("no --data: this trains on synthetic speech, made into %s", default_folder(settings.lang))
    try:
        return embedded_default(settings.lang)
    except ValueError as error:
        raise ValueError(f"{error} with --data PATH") from error


def choose_language(splits: Splits, settings: TrainSettings) -> Language:
    """The text rules, after a table of what they keep and lose; raises ValueError if they lose too much."""
    texts = [clip.text for clip in (*splits.train, *splits.dev)]
    language = find_language(settings.lang)
    if language is None:
        language = language_from_texts(settings.lang, (clip.text for clip in splits.train))
        logger.info("no rules for %r: the alphabet is taken from the training text", settings.lang)
    report = audit(texts, language)
    logger.info("%s", report.table())
    if not settings.allow_char_loss:
        report.check()
    return language


def measured(splits: Splits) -> Splits:
    """The splits with durations for all training clips; those that cannot be measured are left out and named."""
    train, problems = fill_durations(splits.train)
    return replace(splits, train=train, skipped=[*splits.skipped, *problems])


@dataclass(frozen=True)
class Clips:
    """Normalised utterances with durations, ready for loaders."""

    train: list[Utterance] | Mixture
    dev: list[Utterance]
    test: list[Utterance]
    skipped: list[str]


def read_other(path: str, language: Language, split: str | None = None) -> tuple[list[Utterance], list[str]]:
    """The clips of a corpus that is watched or replayed, normalised and measured, and what was left out.

    ``split`` is as for ``data.source.read_source``.

    Raises:
        FileNotFoundError, ValueError: as ``data.source.read_source``; also where no clip is left.
    """
    clips, skipped, _ = read_source(path, split)
    clips, emptied = normalised(clips, language)
    clips, problems = fill_durations(clips)
    skipped = [*skipped, *emptied, *problems]
    if not clips:
        raise ValueError(
            f"no clip of {path} can be used with the rules of {language.name}; the first problem: {skipped[0]}"
        )
    return clips, skipped


def with_replay(
    clips: Clips, language: Language, alphabet: Alphabet, frames_per_second: float, settings: TrainSettings
) -> Clips:
    """Clips whose training part has the shares of old speech that ``settings.keep.replay`` asks for.

    Args:
        language: of the old speech.
    """
    old, skipped, data = [], list(clips.skipped), settings.data
    for path, share in settings.keep.replayed:
        corpus, problems = read_other(path, language, None if is_single(path) else "train")  # never its test clips
        corpus, unusable = usable(
            corpus,
            alphabet,
            data.min_duration,
            data.max_duration,
            frames_per_second,
            fastest_factor(settings.augment),
        )
        skipped += problems + unusable
        old.append((corpus, share))
    return Clips(mix(clips.train, old, settings.seed), clips.dev, clips.test, skipped)


def prepare(
    splits: Splits, language: Language, alphabet: Alphabet, frames_per_second: float, settings: TrainSettings
) -> Clips:
    """Normalises texts, measures durations, leaves out what cannot be learnt from.

    Args:
        alphabet: of the network, whose labels every text must be written in.
        frames_per_second: of the network's output.

    Raises:
        ValueError: no training clip is left.
    """
    skipped = list(splits.skipped)
    parts = []
    for clips in (splits.train, splits.dev, splits.test):
        for step in (lambda clips: normalised(clips, language), fill_durations):
            clips, problems = step(clips)
            skipped += problems
        parts.append(clips)
    data = settings.data
    train, problems = usable(
        parts[0],
        alphabet,
        data.min_duration,
        data.max_duration,
        frames_per_second=frames_per_second,
        fastest_speed=fastest_factor(settings.augment),
    )
    if not train:
        first = (skipped + problems)[:1] or ["the corpus has no training clips"]
        raise ValueError(f"no clip is left to train on; the first problem: {first[0]}")
    if not parts[1]:
        logger.warning("no dev clips: the training clips are scored instead, which says little")
    return Clips(train, parts[1] or train, parts[2], skipped + problems)
