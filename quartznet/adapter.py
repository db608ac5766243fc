"""What a fine-tuning changed, as a small file beside a large base: made, checked, applied, merged.

    python -m quartznet.adapter save runs/es-lora es.adapter.pt                    # 3 MB in place of 76
    python -m quartznet.adapter apply quartznet15x5_en.nemo es.adapter.pt es.pt    # a checkpoint for every command
    python -m quartznet.adapter show es.adapter.pt

The file holds the tensors that differ from the base (the output layer, LoRA's factors or adapters, batch-norm values
that moved), the alphabet, and the fingerprint of its base: SHA-256 over front end, blocks and encoder weights. Applied
to any other network it would give nonsense without an error, so it refuses.

The surprise: batch-norm statistics belong to it even where nothing of batch norm "learns". They move while training,
and without them the same factors give another network.
"""

import argparse
import copy
import reprlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from quartznet import commandline
from quartznet.checkpoint import (
    find_checkpoint,
    fingerprint,
    load_checkpoint,
    not_finite,
    replace_atomically,
    save_checkpoint,
)
from quartznet.config import ModelConfig
from quartznet.finetune import insert, plain
from quartznet.initial import Base, read_base
from quartznet.model import QuartzNet
from quartznet.settings import from_dict, to_dict
from quartznet.tune_config import InsertConfig

FORMAT = "quartznet-adapter-1"
KEYS = ("base_sha256", "model_config", "insert", "lang", "tensors")


def changed_tensors(weights: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of ``weights`` that ``base`` lacks or has with other values, and always the whole output layer."""
    return {
        name: value.clone()
        for name, value in weights.items()
        if not name.startswith("front_end.")
        and (name.startswith("decoder.") or name not in base or not torch.equal(value, base[name]))
    }


def save_adapter(run: str | Path, path: str | Path, base: str | Path | None = None) -> dict:
    """Writes what the best checkpoint of a run folder changed in the network that it began with.

    Args:
        run: run folder of ``train.py``, or its best.pt.
        base: the checkpoint it began with; None: the run's own ``init``.

    Returns:
        the contents of the file.

    Raises:
        ValueError: the run began from scratch, or ``base`` is not what it began with.
    """
    payload = load_checkpoint(run)
    expected = payload.get("base_sha256")
    base = base or payload.get("init")
    if expected is None or base is None:
        raise ValueError(
            f"{run} did not begin with another checkpoint (train.py --init), so there is no base to leave out"
        )
    original = read_base(str(base))
    if original.fingerprint != expected:
        found = original.fingerprint
        raise ValueError(f"{base} is not the network that {run} began with ({found[:12]}, not {expected[:12]})")
    contents = {
        "format": FORMAT,
        "base_sha256": expected,
        "model_config": payload["model_config"],
        "insert": payload.get("insert", {}),
        "lang": payload.get("lang"),
        "tensors": changed_tensors(payload["weights"], original.weights),
    }
    replace_atomically(Path(path), lambda temporary: torch.save(contents, temporary))
    return contents


def read_adapter(path: str | Path) -> dict:
    """The contents of a file of ``save_adapter``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or something else.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no adapter file {path}; python -m quartznet.adapter save RUN FILE makes one")
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails anywhere inside zipfile and torch
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} cannot be read as an adapter file: {reason}") from error
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        found = contents.get("format") if isinstance(contents, dict) else type(contents).__name__
        raise ValueError(f"{path} is not a {FORMAT} file (it is: {found}); a whole checkpoint needs no base")
    missing = [key for key in KEYS if key not in contents]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; make it again with python -m quartznet.adapter save")
    tensors = contents["tensors"]
    if not isinstance(tensors, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in tensors.items()
    ):
        raise ValueError(f"{path}: tensors must be a table of tensors; make the file again")
    for key in ("base_sha256", "lang"):
        if not isinstance(contents[key], str) and (key != "lang" or contents[key] is not None):
            raise ValueError(f"{path}: {key} must be text, got {reprlib.repr(contents[key])}; make the file again")
    from_dict(ModelConfig, contents["model_config"], "model_config.")
    from_dict(InsertConfig, contents["insert"], "insert.")
    return contents


def apply_adapter(base: QuartzNet | Base, path: str | Path) -> QuartzNet:
    """A new network: ``base``, changed as the file says, with the file's alphabet; in evaluation mode.

    ``base`` is a network, or what ``quartznet.initial.read_base`` reads, which may be an encoder alone.

    Raises:
        FileNotFoundError, ValueError: see ``read_adapter``; also for another base, and tensors that do not fit.
    """
    contents = read_adapter(path)
    if isinstance(base, Base):
        config, weights = base.config, base.weights
    else:
        base = plain(copy.deepcopy(base))
        config, weights = base.config, base.state_dict()
    found, wanted = fingerprint(config, weights), contents["base_sha256"]
    if found != wanted:
        raise ValueError(
            f"{path} was made for another base: it needs the network {str(wanted)[:12]}, this is {found[:12]}; "
            "give the checkpoint that its training began with"
        )
    model = QuartzNet(from_dict(ModelConfig, contents["model_config"], "model_config."))
    insert(model.encoder, from_dict(InsertConfig, contents["insert"], "insert."))
    encoder = {name: value for name, value in weights.items() if name.startswith("encoder.")}
    try:
        missing, unexpected = model.load_state_dict({**encoder, **contents["tensors"]}, strict=False)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: its tensors do not fit its base: {' '.join(str(error).split())}") from error
    missing = [name for name in missing if not name.startswith("front_end.")]
    if missing or unexpected:
        raise ValueError(f"{path}: its tensors do not fit its base: missing {missing[:3]}, left over {unexpected[:3]}")
    broken = not_finite(model)
    if broken:
        raise ValueError(f"{path}: {broken[0]} is not finite (of {len(broken)}); file or training is broken")
    return model.eval()


def summary(contents: dict) -> str:
    """What is inside, in three lines."""
    tensors = contents["tensors"]
    head = sum(value.numel() for name, value in tensors.items() if name.startswith("decoder."))
    count = sum(value.numel() for value in tensors.values())
    labels = "".join(contents["model_config"]["labels"])
    return (
        f"{contents['insert'].get('kind', 'no insertion')}, {count:,} numbers, of these {head:,} in the output layer\n"
        f"language {contents['lang']}, labels {labels!r}\nbase {contents['base_sha256'][:12]}"
    )


def run(options: argparse.Namespace) -> None:
    """One of the three commands."""
    if options.command == "save":
        contents = save_adapter(options.run, options.out, options.base)
        print(f"{options.out}  {Path(options.out).stat().st_size / 1e6:.2f} MB\n{summary(contents)}")
    elif options.command == "show":
        print(summary(read_adapter(options.adapter)))
    else:
        contents = read_adapter(options.adapter)
        model = apply_adapter(read_base(options.base), options.adapter)
        inserted = contents["insert"]
        if inserted.get("kind") == "lora":
            model, inserted = plain(model), {}
        payload = {"model_config": to_dict(model.config), "weights": model.state_dict(), "lang": contents["lang"]}
        save_checkpoint(options.out, payload | ({"insert": inserted} if inserted else {}))
        print(f"{options.out}  {find_checkpoint(options.out).stat().st_size / 1e6:.1f} MB")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something to correct (one line on stderr)."""
    parser = commandline.Parser(prog="python -m quartznet.adapter", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="save | apply | show")
    save = commands.add_parser("save", help="what a run changed, as a small file")
    save.add_argument("run", help="run folder of train.py")
    save.add_argument("out", help="file to write")
    save.add_argument("--base", help="the checkpoint it began with, where that has moved")
    apply = commands.add_parser("apply", help="base and small file together as an ordinary checkpoint")
    apply.add_argument("base", help="checkpoint that the training began with")
    apply.add_argument("adapter", help="file of save")
    apply.add_argument("out", help="checkpoint to write")
    commands.add_parser("show", help="what is inside").add_argument("adapter", help="file of save")
    return commandline.run(lambda: run(commandline.parse(parser, arguments)))


if __name__ == "__main__":
    sys.exit(main())
