"""What learns, and when: freezing, gradual unfreezing, rates that fall with depth, batch norm's four modes.

``Tuning`` reads ``TuneSettings`` and does three things to a QuartzNet from the outside, which does not know of it:

    tuning.insert(model)            adds LoRA or adapters, once, before the optimiser is built
    tuning.begin_epoch(model, 3)    says which parameters learn in this epoch
    tuning.train_mode(model)        model.train(), and batch norms that must hold still back to evaluation

The output layer always learns. Of the encoder, with B blocks, in epoch e (F = ``freeze_encoder``):

    e < F         nothing of it
    all, top-K    all blocks or the last K; with ``unfreeze_every`` E only the last M (1 + floor((e - F) / E)) of them
    head          nothing          bn     scale and shift of every batch norm
    lora          the low-rank factors          adapters     the adapters

Batch norm has two halves, and each moves or not: ``full`` both, ``affine`` scale and shift only, ``stats`` the running
statistics only, ``frozen`` neither, in every block and every epoch. ``auto``: statistics move everywhere, scale and
shift with their block. So ``--freeze-encoder 10 --batchnorm full`` is the published schedule in which the output layer
and the batch norms learn alone for ten epochs, and without the second option the output layer alone does.

The surprise: a parameter without ``requires_grad`` holds still only if its ``grad`` is None as well. A gradient of
zeros would still let weight decay and old momentum move it, so freezing drops the gradient.
"""

from collections.abc import Iterator

from torch import nn

from quartznet import block_adapters, lora
from quartznet.tune_config import InsertConfig, TuneSettings

INSERTED = (f".{lora.CHILD}.", f".{block_adapters.CHILD}.")  # parts of the names of what ``insert`` adds


def insert(encoder: nn.Module, config: InsertConfig) -> None:
    """Adds what ``config`` describes; "none" adds nothing. Raises ValueError if it is there already."""
    if config.kind == "lora":
        lora.attach(encoder, config.rank, config.alpha, config.dropout)
    elif config.kind == "adapters":
        block_adapters.attach(encoder, config.size)


def plain(model: nn.Module) -> nn.Module:
    """``model`` without insertions, changed in place: LoRA is merged into the weights.

    Raises:
        ValueError: it has adapters, which no convolution can take up.
    """
    if block_adapters.has_adapters(model.encoder):
        raise ValueError(
            "adapters after the blocks cannot become part of a plain network; use the checkpoint as it is, or train "
            "with --train lora where a plain network is needed"
        )
    lora.merge(model.encoder)
    lora.remove(model.encoder)
    return model


def batch_norms(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of every batch norm, of one process or synchronised."""
    for name, child in module.named_modules():
        if isinstance(child, nn.BatchNorm2d | nn.SyncBatchNorm):
            yield name, child


def block_of(name: str) -> int | None:
    """The number of the encoder block that a parameter of a QuartzNet belongs to; None for the output layer."""
    parts = name.split(".")
    return int(parts[2]) if parts[:2] == ["encoder", "blocks"] else None


def parameter_groups(model: nn.Module, layer_decay: float) -> list[dict]:
    """All parameters for an optimiser, frozen ones too; ``scale`` is what the rate of a group is multiplied by.

    The top block and the output layer have 1, each block below ``layer_decay`` times the one above it. One group where
    all rates are the same, or the fused updates of the optimisers would be cut in pieces for nothing.
    """
    if layer_decay == 1.0:
        return [{"params": list(model.parameters()), "scale": 1.0}]
    groups: dict[float, list[nn.Parameter]] = {}
    top = len(model.encoder.blocks) - 1
    for name, parameter in model.named_parameters():
        block = block_of(name)
        groups.setdefault(layer_decay ** (0 if block is None else top - block), []).append(parameter)
    return [{"params": parameters, "scale": scale} for scale, parameters in sorted(groups.items(), reverse=True)]


class Tuning:
    """The plan of one run; see the module's docstring."""

    def __init__(self, settings: TuneSettings, freeze_encoder: int = 0) -> None:
        """``freeze_encoder``: epochs in which the output layer learns alone."""
        self.settings, self.freeze_encoder = settings, freeze_encoder

    def insert(self, model: nn.Module) -> None:
        """LoRA or adapters, if the settings ask for them.

        Raises:
            ValueError: the network has them already, has no pointwise convolution, or fewer blocks than top-K.
        """
        blocks, name = len(model.encoder.blocks), self.settings.train
        if name.startswith("top-") and int(name[4:]) > blocks:
            raise ValueError(f"tune.train {name}: the encoder has {blocks} blocks; use all, or top-1 to top-{blocks}")
        insert(model.encoder, self.settings.inserted)

    def blocks_that_learn(self, blocks: int, epoch: int) -> int:
        """How many of the encoder's ``blocks`` learn with all they have in ``epoch``, counted from the top."""
        train, every = self.settings.train, self.settings.unfreeze_every
        most = int(train[4:]) if train.startswith("top-") else blocks if train == "all" else 0
        if epoch < self.freeze_encoder:
            return 0
        if every == 0:
            return most
        return min(most, self.settings.unfreeze_blocks * (1 + (epoch - self.freeze_encoder) // every))

    def learning(self, model: nn.Module, epoch: int) -> set[str]:
        """Names of the parameters that learn in ``epoch``."""
        norms = {f"{name}.{half}" for name, _ in batch_norms(model) for half in ("weight", "bias")}
        blocks = len(model.encoder.blocks)
        lowest = blocks - self.blocks_that_learn(blocks, epoch)
        thawed, mode = epoch >= self.freeze_encoder, self.settings.batchnorm
        chosen = set()
        for name, _ in model.named_parameters():
            block = block_of(name)
            if block is None:
                learns = True
            elif any(part in name for part in INSERTED):
                learns = thawed
            elif name in norms and mode != "auto":
                learns = mode in ("full", "affine")
            elif name in norms and self.settings.train == "bn":
                learns = thawed
            else:
                learns = block >= lowest
            if learns:
                chosen.add(name)
        return chosen

    def begin_epoch(self, model: nn.Module, epoch: int) -> bool:
        """Sets what learns in ``epoch``; True if that is not what was set before."""
        chosen, changed = self.learning(model, epoch), False
        for name, parameter in model.named_parameters():
            if parameter.requires_grad != (name in chosen):
                parameter.requires_grad_(name in chosen)
                changed = True
            if name not in chosen:
                parameter.grad = None
        return changed

    def train_mode(self, model: nn.Module) -> None:
        """``model.train()``, with batch norms that keep their statistics in evaluation mode."""
        model.train()
        if self.settings.batchnorm in ("affine", "frozen"):
            for _, norm in batch_norms(model):
                norm.eval()

    def count(self, model: nn.Module, last_epoch: int) -> tuple[int, int]:
        """Numbers that learn by the end of a run of so many epochs: of the encoder, and of the output layer."""
        chosen = self.learning(model, last_epoch)
        sizes = {name: parameter.numel() for name, parameter in model.named_parameters() if name in chosen}
        head = sum(size for name, size in sizes.items() if block_of(name) is None)
        return sum(sizes.values()) - head, head
