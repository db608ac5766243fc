"""Train, dev and test; and how to hold out dev and test where a corpus comes without them.

Two rules pull apart. A *sentence* must never lie on both sides, or the network is tested on what it learnt by heart. A
*speaker* should not, or the score says nothing about new voices. Where speakers are known, whole speakers are held out
and the few training clips that repeat a held-out sentence are left out and counted. Where that would cost more than 5 %
of the clips (corpora in which everybody reads the same sentences), whole sentences are held out instead.

The order of the groups comes from a hash of their name, so the split depends on neither the order of the files nor a
seed: everybody who holds out from the same corpus gets the same clips.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from data.hashing import stable_hash
from data.manifest import Utterance

SHARE = 0.1  # of the clips that a held-out part gets
FEWEST_SPEAKERS = 10  # below this a held-out speaker is too much of the corpus
LARGEST_LOSS = 0.05  # of the clips that may be left out for the sake of new speakers


@dataclass(frozen=True)
class Splits:
    """What a corpus gave."""

    train: list[Utterance]
    dev: list[Utterance]
    test: list[Utterance]
    skipped: list[str] = field(default_factory=list)  # one message for each clip that was left out
    description: str = ""  # one line for the terminal: what was found and how it was split
    extra: list[Utterance] = field(default_factory=list)  # Common Voice: validated, in none of the three official parts
    other: list[Utterance] = field(default_factory=list)  # Common Voice: too few votes yet
    invalidated: list[Utterance] = field(default_factory=list)  # Common Voice: voted down


def sentence_key(text: str) -> str:
    """The letters and digits of a text in lower case: two texts with the same key are the same sentence to the ear."""
    folded = unicodedata.normalize("NFC", text.casefold())
    return "".join(character for character in folded if unicodedata.category(character)[0] in "LMN") or text


def with_held_out(splits: Splits, share: float = SHARE) -> Splits:
    """``splits`` with a dev part (and a test part where there is none either) taken from train; else unchanged.

    ``share`` is that of each held-out part among all clips.
    """
    if splits.dev or not splits.train:
        return splits
    names = ("dev",) if splits.test else ("test", "dev")
    different = len({clip.name for clip in splits.train})
    if different < 3:
        few = f"; only {different} different clips to train on: nothing was held out"
        return replace(splits, description=splits.description + few)
    parts, lost, how = _divide(splits.train, names, share)
    kept = {
        name: [clip for clip, part in zip(splits.train, parts, strict=True) if part == name] for name in (*names, "")
    }
    counts = " and ".join(f"{name} ({len(kept[name])} clips)" for name in reversed(names))
    return replace(
        splits,
        train=kept[""],
        dev=kept["dev"],
        test=kept.get("test", splits.test),
        skipped=splits.skipped + lost,
        description=f"{splits.description}; {counts} held out from train {how}",
    )


def _divide(
    clips: Sequence[Utterance], names: tuple[str, ...], share: float
) -> tuple[list[str | None], list[str], str]:
    """For each clip the part it goes to ("": train, None: left out), the messages of those left out, and how."""
    sentences = [sentence_key(clip.text) for clip in clips]
    if all(clip.speaker for clip in clips) and len({clip.speaker for clip in clips}) >= FEWEST_SPEAKERS:
        parts = _hold_out([clip.speaker for clip in clips], names, share)
        leaks = set(_repeats(sentences, parts))
        remaining = [None if index in leaks else part for index, part in enumerate(parts)]
        if len(leaks) <= LARGEST_LOSS * len(clips) and {*names, ""} <= set(remaining):
            return remaining, [_leak_message(clips[index]) for index in sorted(leaks)], "by speaker"
    if len(set(sentences)) >= 3:
        return list(_hold_out(sentences, names, share)), [], "by sentence"
    parts = _hold_out([clip.name for clip in clips], names, share)
    return list(parts), [], "clip by clip: fewer than 3 different sentences, so they lie on both sides"


def _hold_out(keys: Sequence[str], names: tuple[str, ...], share: float) -> list[str]:
    """The part of each clip; clips with the same key stay together, and every part, train too, gets a group or more.

    There must be more keys than names.
    """
    groups: dict[str, int] = {}
    for key in keys:
        groups[key] = groups.get(key, 0) + 1
    order = sorted(groups, key=lambda key: (stable_hash(key), key))
    part_of: dict[str, str] = {}
    for taken, name in enumerate(names, 1):
        room = max(1, round(share * len(keys)))
        free = [key for key in order if key not in part_of]
        spare = len(free) - 1 - (len(names) - taken + 1)  # groups that neither this part nor those after it need
        part_of[min(free, key=lambda key: groups[key])] = name  # the first of the smallest: the part is never empty
        room -= min(groups[key] for key in free)
        for key in free:
            if key not in part_of and groups[key] <= room and spare > 0:
                part_of[key] = name
                room -= groups[key]
                spare -= 1
    return [part_of.get(key, "") for key in keys]


def _repeats(sentences: Sequence[str], parts: Sequence[str]) -> list[int]:
    """Clips whose sentence also lies in a part that matters more: test before dev before train."""
    rank = {"test": 2, "dev": 1, "": 0}
    highest: dict[str, int] = {}
    for sentence, part in zip(sentences, parts, strict=True):
        highest[sentence] = max(highest.get(sentence, 0), rank[part])
    return [index for index, sentence in enumerate(sentences) if rank[parts[index]] < highest[sentence]]


def _leak_message(clip: Utterance) -> str:
    return f"{clip.origin or clip.name}: its sentence was held out for dev or test: {clip.text!r}"


# ---------------------------------------------------------------------------------------------------------------------
# More training clips than the official part has


def smart(splits: Splits) -> Splits:
    """Official dev and test, and all else that shares neither a speaker nor a sentence with them to train on.

    Common Voice's own train part has one recording of each sentence, often a third of what was validated; the rest is
    in ``extra``. A clip of train or extra that does share one is left out with a message.

    Raises:
        ValueError: where there is neither dev nor test; ``with_held_out`` makes them.
    """
    held_out = [*splits.dev, *splits.test]
    if not held_out:
        raise ValueError(f"{splits.description}: no official dev or test part to keep; hold some out (--split ratio)")
    speakers = {clip.speaker for clip in held_out if clip.speaker}
    sentences = {sentence_key(clip.text) for clip in held_out}
    train, lost = [], []
    for clip in (*splits.train, *splits.extra):
        if clip.speaker in speakers:
            lost.append(f"{clip.origin or clip.name}: its speaker is in dev or test")
        elif sentence_key(clip.text) in sentences:
            lost.append(_leak_message(clip))
        else:
            train.append(clip)
    gained = f"{len(train)} of {len(splits.train)} + {len(splits.extra)} clips to train on"
    return replace(
        splits, train=train, extra=[], skipped=splits.skipped + lost, description=f"{splits.description}; {gained}"
    )


def joined(splits: Splits) -> Splits:
    """Every clip in train, for whoever wants other parts than the official ones."""
    everything = [*splits.train, *splits.dev, *splits.test, *splits.extra]
    return replace(splits, train=everything, dev=[], test=[], extra=[])


def overlaps(splits: Splits) -> dict[str, int | None]:
    """How many speakers and sentences each pair of parts shares: ``{"train-dev speakers": 0, ...}``.

    None where a part names no speaker at all: then nobody can tell.
    """
    parts = {"train": splits.train, "dev": splits.dev, "test": splits.test}
    kinds = {"speakers": lambda clip: clip.speaker, "sentences": lambda clip: sentence_key(clip.text)}
    found = {
        (part, kind): {key(clip) for clip in clips} - {""}
        for part, clips in parts.items()
        for kind, key in kinds.items()
    }
    counts: dict[str, int | None] = {}
    for left, right in (("train", "dev"), ("train", "test"), ("dev", "test")):
        for kind in kinds:
            ours, theirs = found[left, kind], found[right, kind]
            unknown = kind == "speakers" and any(parts[part] and not found[part, kind] for part in (left, right))
            counts[f"{left}-{right} {kind}"] = None if unknown else len(ours & theirs)
    return counts
