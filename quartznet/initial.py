"""The network that a training begins with: random, or that of another checkpoint with an output layer for new letters.

The surprise: with ``--init`` the architecture *and* the front end come from the checkpoint. What the new language
decides is the output layer alone, and even there the rows that fit are kept (``quartznet.head``).
"""

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from quartznet import load_model
from quartznet.checkpoint import fingerprint, is_checkpoint, load_checkpoint
from quartznet.config import ModelConfig, TrainSettings, preset_blocks
from quartznet.finetune import plain
from quartznet.head import plan_head, transfer_head
from quartznet.model import QuartzNet
from quartznet.nemo import read_nemo
from quartznet.text import find_language

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Base:
    """The network that a training begins with."""

    path: str
    config: ModelConfig
    weights: dict[str, Tensor]  # without ``decoder.*`` where the file has an encoder only
    lang: str | None  # None: the file does not say

    @property
    def fingerprint(self) -> str:
        """Which network this is; ``quartznet.adapter`` asks for it."""
        return fingerprint(self.config, self.weights)


def read_base(path: str) -> Base:
    """The network in a checkpoint of any kind; of a NeMo encoder without a decoder, what it has.

    Raises:
        FileNotFoundError, ValueError: see ``quartznet.load_model``; also for a network with adapters.
    """
    if is_checkpoint(path) or not Path(path).exists():
        model = plain(load_model(path))
        return Base(path, model.config, model.state_dict(), load_checkpoint(path).get("lang"))
    try:
        model = load_model(path)
    except ValueError as error:
        checkpoint = read_nemo(path, encoder_only=True)  # raises where the encoder is no better
        logger.warning("only the encoder of %s is used: %s", path, error)
        return Base(path, dataclasses.replace(checkpoint.config, labels=("",)), checkpoint.weights, None)
    english = find_language("en")
    return Base(path, model.config, model.state_dict(), "en" if model.config.labels == english.labels else None)


def with_dropout(config: ModelConfig, dropout: float | None) -> ModelConfig:
    """The same network with another dropout in every block; None: as it is."""
    if dropout is None:
        return config
    return dataclasses.replace(
        config, blocks=tuple(dataclasses.replace(block, dropout=dropout) for block in config.blocks)
    )


def build_model(settings: TrainSettings, labels: tuple[str, ...], base: Base | None) -> QuartzNet:
    """A random network, or ``base`` with an output layer for ``labels``, as ``settings.head`` says."""
    if base is None:
        return QuartzNet(with_dropout(ModelConfig(labels, preset_blocks(settings.preset)), settings.dropout))
    model = QuartzNet(with_dropout(dataclasses.replace(base.config, labels=labels), settings.dropout))
    if settings.head == "copy" and "decoder.weight" in base.weights:
        plan = plan_head(base.config.labels, labels)
        weights = base.weights | transfer_head(base.weights, plan)
        logger.info("%s", plan)
    else:
        weights = {name: value for name, value in base.weights.items() if not name.startswith("decoder.")}
        logger.info("new output layer for %d labels; the encoder is that of %s", len(labels), base.path)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    lacking = [name for name in missing if not name.startswith(("decoder.", "front_end."))]
    assert not lacking and not unexpected, f"encoder weights missing {lacking}, left over {unexpected}"
    return model
