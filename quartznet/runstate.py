"""Where a run is, and how it is saved and continued: ``last.pt``, ``best.pt`` and the best few.

``last.pt`` holds everything that changes during training, so that the continued run is the same run. ``best.pt`` and
the files it was chosen from hold weights only (the averaged ones, where there is an average), for use.

The surprise: an optimiser's saved state contains its settings, and loading it would quietly undo the weight decay that
was given today. The new settings win, and every setting that differs from the saved run is printed.
"""

import logging
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
from torch import nn

from quartznet import distributed
from quartznet.checkpoint import copy_checkpoint, load_checkpoint, random_state, restore_random_state, save_checkpoint
from quartznet.config import LoopSettings
from quartznet.ema import WeightAverage
from quartznet.settings import to_dict

logger = logging.getLogger(__name__)

PARTS = ("settings", "state", "optimizer", "scaler", "average", "random")  # of "train" in last.pt


@dataclass
class TrainState:
    """Where a run is."""

    step: int = 0  # optimiser steps, with those left out
    epoch: int = 0
    batch: int = 0  # batches of this epoch already used
    evaluation_due: bool = False
    saved_step: int | None = None  # of the newest last.pt
    epoch_clips: int = 0  # of this epoch, so far: those that were due
    epoch_failed: int = 0  # and those of them that could not be loaded
    skipped_steps: int = 0  # loss or gradient not finite
    bad_in_a_row: int = 0
    scaler_skips: int = 0  # fp16 only, normal
    seconds: float = 0.0  # by the clock, evaluations counted
    audio_seconds: float = 0.0  # heard so far, a clip once in every epoch
    batches_per_epoch: int = 0
    period_loss: float = 0.0  # summed over utterances since the last evaluation
    period_utterances: float = 0.0
    best: list[list] = field(default_factory=list)  # [wer, step, file name], best first
    history: list[dict] = field(default_factory=list)  # the evaluations, as in metrics.jsonl
    watched: list[dict] = field(default_factory=list)  # {"step", "scores": {name: [wer, cer]}} (quartznet/watch.py)


@dataclass
class Training:
    """All that changes during a run."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: WeightAverage | None
    generator: torch.Generator  # for augmentation, on the CPU
    state: TrainState


def save_last(training: Training, settings: LoopSettings, identity: dict, out: Path) -> None:
    """``last.pt``: everything. All ranks must call this, rank 0 writes."""
    training.state.saved_step = training.state.step
    distributed.average_buffers(training.model)
    random_states = distributed.gather(random_state(training.generator))
    if not distributed.is_main():
        return
    train = {
        "settings": to_dict(settings),
        "state": asdict(training.state),
        "optimizer": training.optimizer.state_dict(),
        "scaler": training.scaler.state_dict(),
        "average": training.average.state() if training.average is not None else None,
        "random": random_states,
    }
    save_checkpoint(out / "last.pt", {**identity, "weights": training.model.state_dict(), "train": train})


def rank_of(record: dict) -> tuple[float, float, float]:
    """What makes an evaluation better than another, least first: WER, then CER, then loss, which may be unknown."""
    return record["wer"], record["cer"], math.inf if math.isnan(record["loss"]) else record["loss"]


def keep_best(training: Training, identity: dict, out: Path, wer: float, number: int, measure: str = "WER") -> None:
    """Saves the present weights if they are among the ``number`` best by WER, then CER, then loss.

    WER, or what ``measure`` calls it, and step are in the name.

    ``best.pt`` is a second name of the best of them. The worst file goes when there are too many.
    """
    state = training.state
    name = f"{measure.lower().replace(' ', '-')}{100 * wer:.2f}-step{state.step}.pt"
    places = {record["step"]: rank_of(record) for record in state.history}
    entries = [*(entry for entry in state.best if entry[2] != name), [wer, state.step, name]]
    ranked = sorted(entries, key=lambda entry: (entry[0], places.get(entry[1], (0.0,)), entry[1]))
    state.best, dropped = ranked[:number], ranked[number:]
    if not distributed.is_main() or dropped == [[wer, state.step, name]]:
        return
    score = {"wer": wer, "step": state.step}
    save_checkpoint(out / name, {**identity, "weights": training.model.state_dict(), "score": score})
    if state.best[0][2] == name:
        copy_checkpoint(out / name, out / "best.pt")
    for _, _, old in dropped:
        (out / old).unlink(missing_ok=True)


def flatten(settings: dict, path: str = "") -> dict[str, object]:
    """``{"optim": {"lr": 1}}`` -> ``{"optim.lr": 1}``."""
    flat = {}
    for key, value in settings.items():
        flat |= flatten(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return flat


def changed_settings(old: dict, new: dict) -> list[str]:
    """Lines ``optim.lr: 0.001 -> 0.002`` for what differs."""
    old, new = flatten(old), flatten(new)
    return [f"{key}: {old.get(key)} -> {new.get(key)}" for key in sorted(old | new) if old.get(key) != new.get(key)]


def load_run(settings: LoopSettings, identity: dict, path: Path) -> dict:
    """The contents of ``path``, if this training can continue from it; errors as ``resume``."""
    advice = f"choose another --out, or delete {path} to start again"
    best = path.with_name("best.pt")
    if best.exists() and identity.get("kind") is None:  # only a recogniser's training has --init
        advice += f" (--init {best} with another --out starts from the best weights so far)"
    try:
        payload = load_checkpoint(path)
    except ValueError as error:
        raise ValueError(f"{error}; {advice}") from error
    if "train" not in payload:
        raise ValueError(f"{path} holds weights only and no training can continue from it; {advice}")
    old, new = payload.get("model_config"), identity.get("model_config")
    if old != new and payload.get("kind") == identity.get("kind"):
        keys = [key for key in sorted({*(old or {}), *(new or {})}) if (old or {}).get(key) != (new or {}).get(key)]
        raise ValueError(f"{path} is the run of another network: {', '.join(keys)} differ; {advice}")
    if payload.get("insert") != identity.get("insert"):
        found, wanted = payload.get("insert", "nothing"), identity.get("insert", "nothing")
        raise ValueError(f"{path} has {found} added to the network, this run would have {wanted}; {advice}")
    if payload.get("kind") != identity.get("kind") or payload.get("tokenizer") != identity.get("tokenizer"):
        raise ValueError(f"{path} is the run of another kind of network, or of another vocabulary; {advice}")
    before, now = payload.get("base_sha256"), identity.get("base_sha256")
    if before and now and before != now:
        raise ValueError(f"{path} began with another checkpoint than today's --init {identity.get('init')}; {advice}")
    train = payload["train"]
    known = {item.name for item in fields(TrainState)}
    strange = [key for key in PARTS if key not in train] + sorted({*train.get("state", {})} - known)
    if strange:
        raise ValueError(f"{path} was written by another version of this program: {', '.join(strange)}; {advice}")
    if train["settings"]["optim"]["name"] != settings.optim.name:
        raise ValueError(f"{path} was trained with optim.name {train['settings']['optim']['name']}; {advice}")
    decay = train["settings"].get("tune", {}).get("layer_decay", 1.0)  # runs from before it existed had 1
    if (decay == 1.0) != (settings.layer_decay == 1.0):  # the optimiser's state is in groups of equal rate
        raise ValueError(f"{path} was trained with tune.layer_decay {decay:g}, which cannot change now; {advice}")
    return payload


def resume(training: Training, settings: LoopSettings, identity: dict, path: Path) -> None:
    """Continues from ``path``: fills the model, the optimiser and all the rest.

    Raises:
        ValueError: when the file is damaged, belongs to another network, alphabet or optimiser, or is not a training
            checkpoint of this version. Nothing is changed then, and the message says how to go on.
    """
    payload = load_run(settings, identity, path)
    train = payload["train"]
    for line in changed_settings(train["settings"], to_dict(settings)):
        logger.info("changed since the last run: %s", line)
    training.model.load_state_dict(payload["weights"])
    fresh = [
        {key: value for key, value in group.items() if key != "params"} for group in training.optimizer.param_groups
    ]
    training.optimizer.load_state_dict(train["optimizer"])
    for group, values in zip(training.optimizer.param_groups, fresh, strict=True):
        group.update(values)  # the settings of today, not those saved
    if train["scaler"]:  # empty: the run was not fp16 until now
        training.scaler.load_state_dict(train["scaler"])
    if training.average is not None:
        training.average.restore(train["average"] or {"steps": 0, "weights": payload["weights"]})
    before, training.state = training.state.batches_per_epoch, TrainState(**train["state"])
    training.state.bad_in_a_row = 0  # another chance, perhaps at a lower rate
    if training.state.batches_per_epoch != before:
        logger.warning("the epoch has %d batches, it had %d: it starts anew", before, training.state.batches_per_epoch)
        training.state.batch, training.state.batches_per_epoch = 0, before
    world = distributed.world_size()
    if len(train["random"]) == world:
        restore_random_state(train["random"][distributed.rank()], training.generator)
    else:
        logger.warning("%d processes, it had %d: random numbers start anew", world, len(train["random"]))
    logger.info("continuing %s at step %d", path, training.state.step)
