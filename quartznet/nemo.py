"""English QuartzNets from NeMo come in here, and ours go out as ``.nemo``.

    checkpoint = read_nemo("quartznet15x5.nemo")  # what is inside: configuration, weights, dropped, assumed
    model = load_nemo("quartznet15x5.nemo")       # the network
    save_nemo(model, "ours.nemo")                 # in NeMo: ASRModel.restore_from("ours.nemo")

    python -m quartznet.nemo inspect quartznet15x5.nemo
    python -m quartznet.nemo export runs/es ours.nemo

Files of NeMo 0.8 to 2.5 are read, without NeMo and without running anything from them (``quartznet/nemo_pickle.py``).
Every weight of the file is used or named in ``dropped``; every weight of ours is filled, or reading fails with a list.

The surprise is in the other direction: NeMo 2.5 computes features by its own rule, whatever a file says. A model that
was trained with the rule ``0.x`` goes out with the same weights, and NeMo feeds it slightly other features.
"""

import copy
import gzip
import io
import os
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import Tensor

from quartznet import commandline
from quartznet.config import ModelConfig
from quartznet.finetune import plain
from quartznet.model import QuartzNet
from quartznet.nemo_archive import Package, open_package
from quartznet.nemo_config import (
    ENGLISH_LABELS,
    Sections,
    read_blocks,
    read_features,
    read_labels,
    read_settings,
    write_settings,
)
from quartznet.nemo_keys import (
    blocks_from_shapes,
    canonical_weights,
    from_nemo,
    front_end_table,
    listing,
    to_nemo,
    weight_table,
)

ERAS = {
    "0.10": "NeMo 0.8 to 0.10, a .pt file for each module",
    "0.11": "NeMo 0.11 .nemo",
    "1.x": "NeMo 1.x or 2.x .nemo",
    "lightning": "Lightning checkpoint of NeMo 1.x or 2.x",
    "weights": "a dictionary of weights",
    "ours": "this project",
}


@dataclass(frozen=True)
class NemoCheckpoint:
    """What a NeMo file holds, in our words."""

    path: Path
    era: str  # a key of ERAS
    version: str | None  # of NeMo, where the file says it
    config: ModelConfig
    weights: dict[str, Tensor]  # our names and shapes, fp32; front_end.* only where the file carries them
    dropped: tuple[str, ...]  # what is in the file and not in ``weights``
    notes: tuple[str, ...]  # what was assumed
    front_end_reason: str  # why config.features.rule is what it is

    @property
    def parameters(self) -> int:
        """Trainable numbers; neither batch-norm statistics nor the front end count."""
        buffers = ("running_mean", "running_var", "num_batches_tracked")
        names = [name for name in self.weights if not name.startswith("front_end.") and not name.endswith(buffers)]
        return sum(self.weights[name].numel() for name in names)


# ---------------------------------------------------------------------------------------------------------------------
# In


def read_nemo(path: str | Path, labels: Sequence[str] | None = None, encoder_only: bool = False) -> NemoCheckpoint:
    """Reads any NeMo QuartzNet: ``.nemo``, ``.ckpt``, ``.pt``, or the folder of a pair of ``.pt`` files.

    Args:
        path: the file or folder.
        labels: the alphabet in the order of the outputs, without blank, where the file does not say it.
        encoder_only: leave the decoder out, also where the file has none; ``config.labels`` is then a placeholder.

    Raises:
        FileNotFoundError: where nothing is at ``path``.
        ValueError: for a damaged or hostile file, another architecture, or missing, doubled or misshapen weights.
    """
    path = Path(path)
    package = open_package(path)
    try:
        return _read_package(path, package, labels, encoder_only)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_package(path: Path, package: Package, labels: Sequence[str] | None, encoder_only: bool) -> NemoCheckpoint:
    sections = read_settings(package.settings or {})
    raw, decoder_keys = package.weights, []
    if encoder_only:
        decoder_keys = [key for key in raw if "decoder" in key.split(".", 3)[:3] or "decoder_layers" in key]
        raw = {key: tensor for key, tensor in raw.items() if key not in decoder_keys}
    weights, dropped = canonical_weights(raw)
    notes = list(package.notes)
    config, reason, more = _model_config(package, sections, weights, labels, encoder_only)
    entries = weight_table(config)
    if encoder_only:
        entries = [entry for entry in entries if not entry.ours.startswith("decoder.")]
    front_end, _ = from_nemo(weights, front_end_table(config))
    ours, missing = from_nemo(weights, entries)
    counters = [entry for entry in missing if entry.ours.endswith("num_batches_tracked")]
    lacking = [entry.theirs for entry in missing if entry not in counters]
    if lacking:
        raise ValueError(f"the file lacks {listing(lacking)}")
    used = {entry.theirs for entry in entries + front_end_table(config)}
    unused = [key for key in weights if key not in used]
    if unused:
        raise ValueError(f"the configuration has no place for {listing(unused)}")
    ours |= {entry.ours: torch.zeros((), dtype=torch.int64) for entry in counters}
    if counters:
        more.append(f"{len(counters)} counters of batch-norm steps are not in the file; they start at 0")
    everything = (*package.dropped, *decoder_keys, *dropped)
    return NemoCheckpoint(
        path, package.era, sections.version, config, front_end | ours, everything, (*notes, *more), reason
    )


def _model_config(
    package: Package,
    sections: Sections,
    weights: dict[str, Tensor],
    labels: Sequence[str] | None,
    encoder_only: bool,
) -> tuple[ModelConfig, str, list[str]]:
    """The configuration, the reason for its front-end rule, and what was assumed."""
    features, reason, notes = read_features(sections, package.era, weights)
    if sections.encoder:
        blocks = read_blocks(sections.encoder, early=package.era in ("0.10", "0.11"))
        masked = bool(sections.encoder.get("conv_mask", True))  # the default of every NeMo
    else:
        blocks, masked = blocks_from_shapes(weights), _has_masks(package.weights)
        notes.append("no configuration: blocks from the shapes of the weights, dropout 0")
        notes.append("assumed: stride 2 in the first block, dilation 2 where the kernel is 87")
    alphabet, about_labels = _alphabet(sections, weights, labels, encoder_only)
    return ModelConfig(alphabet, blocks, features, masked), reason, notes + about_labels


def _has_masks(keys: dict[str, Tensor]) -> bool:
    """``mconv.0.weight`` is a plain convolution, ``mconv.0.conv.weight`` a masked one; 0.8 wrote neither but masked."""
    return any(".conv.weight" in key or ".conv.0.weight" in key for key in keys)


def _alphabet(
    sections: Sections, weights: dict[str, Tensor], labels: Sequence[str] | None, encoder_only: bool
) -> tuple[tuple[str, ...], list[str]]:
    given = labels if labels is not None else sections.labels
    decoder = weights.get("decoder.decoder_layers.0.weight")
    if encoder_only:
        notes = ["encoder only; the output layer is not read"]
        return (read_labels(given) if given else ENGLISH_LABELS), notes
    if decoder is None:
        raise ValueError(
            "there is no decoder; put JasperDecoderForCTC*.pt beside the encoder, or ask for the encoder alone"
            " with encoder_only=True"
        )
    outputs = decoder.shape[0] if decoder.dim() else 0
    if given is None and outputs == len(ENGLISH_LABELS) + 1:
        return ENGLISH_LABELS, ["no labels in the file; 29 outputs are taken as space, a to z, apostrophe, blank"]
    if given is None:
        raise ValueError(f"no labels in the file, which has {outputs} outputs; give the {outputs - 1} as labels=[...]")
    if len(given) + 1 != outputs:
        raise ValueError(f"{len(given)} labels and a blank do not match {outputs} outputs")
    return read_labels(given), []


def load_nemo(path: str | Path, labels: Sequence[str] | None = None, encoder_only: bool = False) -> QuartzNet:
    """The network of a NeMo file, in evaluation mode; arguments and errors are those of ``read_nemo``.

    With ``encoder_only`` the output layer keeps its random start.
    """
    checkpoint = read_nemo(path, labels, encoder_only)
    model = QuartzNet(checkpoint.config)
    model.load_state_dict(model.state_dict() | checkpoint.weights)
    return model.eval()


# ---------------------------------------------------------------------------------------------------------------------
# Out


def save_nemo(model: QuartzNet, path: str | Path) -> None:
    """Writes a ``.nemo`` that NeMo 1.0 to 2.5 restores strictly: gzip tar, members with ``./``, written in one step.

    ``nemo_version`` in it is one that has the model's front-end rule, so that ``load_nemo`` gives the same model back.
    LoRA is merged into the weights of what is written.

    Raises:
        ValueError: the network has adapters, which that file cannot hold.
    """
    path, model = Path(path), plain(copy.deepcopy(model))
    config = yaml.safe_dump(write_settings(model.config), sort_keys=False, allow_unicode=True).encode("utf-8")
    weights = io.BytesIO()
    torch.save(to_nemo(model.state_dict(), model.config), weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with (
        temporary.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0, compresslevel=1) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        for name, content in (("model_config.yaml", config), ("model_weights.ckpt", weights.getvalue())):
            member = tarfile.TarInfo(f"./{name}")
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    os.replace(temporary, path)


# ---------------------------------------------------------------------------------------------------------------------
# Command line


def describe(checkpoint: NemoCheckpoint) -> str:
    """The content of a file as text for a terminal, lines of at most 80 columns."""
    config, features = checkpoint.config, checkpoint.config.features
    lines = [
        f"file        {checkpoint.path.name}",
        f"written by  {ERAS[checkpoint.era]}" + (f" ({checkpoint.version})" if checkpoint.version else ""),
        f"parameters  {checkpoint.parameters:,}",
        f"alphabet    {len(config.labels)} labels and blank: {''.join(config.labels)!r}",
        f"front end   rule {features.rule}: {checkpoint.front_end_reason}",
        f"            {features.mels} mels, {features.sample_rate} Hz, window {features.window_size}, "
        f"hop {features.hop}, fft {features.fft_size}, {features.normalize}",
        f"masked      {'yes' if config.masked else 'no'}",
        "",
        "blocks  filters  kernel  repeat  stride  dilation  dropout residual  full groups",
    ]
    start = 0
    for index, block in enumerate(config.blocks):
        if index + 1 < len(config.blocks) and config.blocks[index + 1] == block:
            continue
        which = f"{start}" if start == index else f"{start}-{index}"
        start = index + 1
        lines.append(
            f"{which:>6}  {block.filters:>7}  {block.kernel_size:>6}  {block.repeat:>6}  {block.stride:>6}  "
            f"{block.dilation:>8}  {block.dropout:>7} {'yes' if block.residual else 'no':>8}  "
            f"{'no' if block.separable else 'yes':>4} {block.groups:>6}"
        )
    for title, items in (("assumed", checkpoint.notes), ("dropped", checkpoint.dropped)):
        lines += ["", f"{title}: {len(items) or 'nothing'}", *(f"  {item}" for item in items[:20])]
        lines += [f"  and {len(items) - 20} more"] if len(items) > 20 else []
    return "\n".join(_fold(_printable(line)) for line in lines)


def _printable(line: str) -> str:
    """Names in a file are a stranger's; none shall move the cursor or paint the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def _fold(line: str, width: int = 80) -> str:
    pieces = []
    while len(line) > width:
        cut = line.rfind(" ", width // 2, width)
        cut = width - 1 if cut < 0 else cut
        pieces.append(line[:cut].rstrip())
        line = " " * 12 + line[cut:].lstrip()
    return "\n".join([*pieces, line])


def main(arguments: Sequence[str] | None = None) -> int:
    """``inspect FILE`` and ``export RUN OUT.nemo``; 0, or 2 after one line about what was wrong with the input."""
    parser = commandline.Parser(prog="python -m quartznet.nemo", description="NeMo checkpoints, in and out")
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser("inspect", help="print what a checkpoint of NeMo, or a run, holds")
    inspect.add_argument("file", type=Path)
    inspect.add_argument("--encoder-only", action="store_true", help="leave the output layer out")
    export = commands.add_parser("export", help="write a run or checkpoint of ours as .nemo")
    export.add_argument("checkpoint", type=Path, help="run folder or checkpoint")
    export.add_argument("out", type=Path, help="the .nemo file to write")

    def work() -> None:
        options = commandline.parse(parser, arguments)
        if options.command == "inspect":
            print(describe(_own(options.file) or read_nemo(options.file, encoder_only=options.encoder_only)))
        else:
            _export(options.checkpoint, options.out)

    return commandline.run(work)


def _own(path: Path) -> NemoCheckpoint | None:
    """A run or checkpoint of this project in the same words; None for anything else."""
    from quartznet.checkpoint import is_checkpoint, model_from_checkpoint

    if not is_checkpoint(path):
        return None
    model = model_from_checkpoint(path)
    return NemoCheckpoint(path, "ours", None, model.config, model.state_dict(), (), (), "as the checkpoint says")


def _export(checkpoint: Path, out: Path) -> None:
    from quartznet.checkpoint import model_from_checkpoint

    if checkpoint.is_dir():
        best = checkpoint / "best.pt"
        checkpoint = best if best.is_file() else checkpoint / "last.pt"
    model = model_from_checkpoint(checkpoint)
    save_nemo(model, out)
    print(f"wrote {out} from {checkpoint}")
    if model.config.features.rule != "2.5":
        print(
            f"the model has the front-end rule {model.config.features.rule}; NeMo 2.5 has another and differs slightly"
        )


if __name__ == "__main__":
    sys.exit(main())
