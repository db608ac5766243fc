"""A checkpoint small enough for a repository: weights only, convolutions in half precision.

    python -m quartznet.slim runs/english english.pt

takes a run folder's best.pt, or any checkpoint of ours, and leaves out the optimiser and the random numbers. Loading
needs no counterpart: ``load_state_dict`` copies half precision into float32 weights.

The surprise: only convolution weights are halved. Batch norm's statistics span many powers of ten and the front end
must stay exact, yet together they are a small part of the file.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from quartznet import commandline
from quartznet.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint


def halved(name: str, value: Tensor) -> Tensor:
    """``value`` in float16 if it is a convolution's weight (4 dimensions), else as it is.

    Raises:
        ValueError: a weight is too large for float16, or was not finite before.
    """
    if value.dim() != 4 or not value.is_floating_point():
        return value
    half = value.half()
    if not half.isfinite().all():
        raise ValueError(f"{name} holds {value.abs().max():g}, which float16 cannot; is it from a failed training?")
    return half


def slim(source: str | Path, target: str | Path) -> Path:
    """Writes the weights of checkpoint or run folder ``source`` to the file ``target``, whole or not at all.

    Raises:
        FileNotFoundError, ValueError: see ``load_checkpoint``; also for a checkpoint without a network.
    """
    payload, target = load_checkpoint(source), Path(target)
    missing = [key for key in ("model_config", "weights", "lang") if key not in payload]
    if missing:
        raise ValueError(f"{source} has no {' and no '.join(missing)}; give a run folder of train.py or its best.pt")
    if target.is_dir():
        raise ValueError(f"{target} is a folder; name the file to write, such as {target / 'small.pt'}")
    kept = {key: payload[key] for key in ("model_config", "lang", "insert") if key in payload}
    weights = {name: halved(name, value.detach().clone()) for name, value in payload["weights"].items()}
    save_checkpoint(target, {**kept, "weights": weights})
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something to correct (one line on stderr)."""
    parser = commandline.Parser(
        prog="python -m quartznet.slim", description="Weights only, convolutions in half precision."
    )
    parser.add_argument("checkpoint", help="run folder (its best.pt), or a checkpoint of ours")
    parser.add_argument("out", help="file to write, such as english.pt")

    def work() -> None:
        options = commandline.parse(parser, arguments)
        out = slim(options.checkpoint, options.out)
        before, after = (path.stat().st_size / 1e6 for path in (find_checkpoint(options.checkpoint), out))
        print(f"{out}: {after:.2f} MB, before {before:.2f} MB")

    return commandline.run(work)


if __name__ == "__main__":
    sys.exit(main())
