"""What a training keeps of the language that its network spoke before: whose rules, which sets, which losses.

Between the settings (``KeepSettings``) and the parts that do the work: ``quartznet.keep`` for losses,
``quartznet.watch`` for scores, ``data.replay`` for batches.

The surprise: a watched set may be scored twice, under the network's own output layer and under the old one. Where the
alphabet has changed only the second can be compared with what was there before.
"""

import logging
import re

import torch

from data.clips import read_other
from data.loaders import evaluation_loader
from quartznet import distributed
from quartznet.alphabet import Alphabet
from quartznet.config import TrainSettings
from quartznet.initial import Base
from quartznet.keep import Memory, frozen_head
from quartznet.model import Decoder, QuartzNet
from quartznet.text import Language, find_language
from quartznet.watch import WatchedSet

logger = logging.getLogger(__name__)


def old_language(settings: TrainSettings, base: Base | None, new: Language, name: str = "") -> Language:
    """The text rules of a watched or replayed set: those that its name begins with (it-news), else the old ones.

    Args:
        new: the rules of the language that is learnt, which may have been made from its texts.

    Raises:
        ValueError: nothing says which language the old one is, or it has no rules.
    """
    named = name.partition("-")[0]
    if named == new.code:
        return new
    language = find_language(named) if re.fullmatch("[a-z]{2,3}", named) else None
    if language is not None:
        return language
    code = settings.keep.lang or (base.lang if base is not None else settings.lang)
    if code is None:
        raise ValueError(f"{base.path} does not say its language; name that of the old speech with --keep.lang")
    language = new if code == new.code else find_language(code)
    if language is None:
        raise ValueError(f"there are no text rules for {code!r}; name a language that has them with --keep.lang")
    return language


def remember(settings: TrainSettings, base: Base | None, device: torch.device) -> Memory | None:
    """What the losses of the run remember of the network that it began with."""
    keep = settings.keep
    if keep.l2sp == keep.lwf == 0:
        return None
    if base is None or (keep.lwf and "decoder.weight" not in base.weights):
        raise ValueError("keep.l2sp holds on to a network of --init, keep.lwf to its output layer too; there is none")
    old = QuartzNet(base.config)
    old.load_state_dict(base.weights, strict="decoder.weight" in base.weights)
    return Memory(old.to(device), keep.l2sp, keep.lwf, keep.temperature)


def watched_sets(model: QuartzNet, settings: TrainSettings, base: Base | None, new: Language) -> list[WatchedSet]:
    """Each set under the network's own output layer where that has all its letters, and under the old one.

    ``new`` are the rules of the language that is learnt.
    """
    rank, world = distributed.rank(), distributed.world_size()
    rate, data = model.config.features.sample_rate, settings.data
    sets = []
    for name, path in settings.keep.watched:
        language = old_language(settings, base, new, name)
        heads: list[tuple[str, Decoder | None, tuple[str, ...]]] = []
        if language.code == settings.lang or {*language.labels} <= {*model.config.labels}:
            heads.append((name, None, model.config.labels))
        if base is not None and "decoder.weight" in base.weights and language.code != settings.lang:
            heads.append((f"{name}, old layer", frozen_head(base.weights), base.config.labels))
        if not heads:
            raise ValueError(f"keep.watch {name}: no output layer has the letters of {language.name}; leave it out")
        for shown, head, labels in heads:
            clips, skipped = read_other(path, language.restricted_to(labels))
            for message in skipped[:3]:
                logger.warning("left out of %s: %s", name, message)
            if len(skipped) > 3:
                logger.warning("left out of %s: %d clips in all", name, len(skipped))
            shortest = model.front_end.shortest
            batches = evaluation_loader(
                clips[rank::world], Alphabet(labels), rate, data.batch_seconds, data.max_batch, shortest=shortest
            )
            sets.append(WatchedSet(shown, batches, head, labels))
    return sets
