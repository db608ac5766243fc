"""Our checkpoint: one file that rebuilds its network, and, inside ``train``, everything that continues its training.

``{"format": "quartznet-1", "model_config": {...}, "weights": {...}, "lang": "es", "train": {...}}``, and where LoRA or
adapters were added, ``"insert": {...}``. Only tensors and plain Python values are inside, so
``torch.load(weights_only=True)`` reads it and a foreign file cannot run code.

A file is written under a temporary name, flushed to the disk and then renamed: whoever opens ``last.pt`` sees the old
one or the new one, never half of one, even when the power fails. The surprise: random number generators belong here
too. Without them a resumed run is a different run.
"""

import hashlib
import json
import os
import random
import reprlib
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy
import torch
from torch import Tensor, nn

from quartznet.config import ModelConfig
from quartznet.finetune import insert
from quartznet.model import QuartzNet
from quartznet.settings import from_dict, to_dict
from quartznet.tune_config import InsertConfig

FORMAT = "quartznet-1"
COUNTER = "num_batches_tracked"  # of batch norm; nothing is computed from it


def replace_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Lets ``write`` fill ``path``.tmp and renames it to ``path``; after an error the old ``path`` is untouched."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_checkpoint(path: str | Path, payload: dict) -> None:
    """Writes ``payload`` with the format's name; atomic, see above.

    Raises:
        OSError: the disk is full or the folder cannot be written; the message names the file and says what to do.
    """

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            torch.save({"format": FORMAT, **payload}, file)
            file.flush()
            os.fsync(file.fileno())

    try:
        replace_atomically(Path(path), write)
    except (OSError, RuntimeError) as error:  # torch.save makes a RuntimeError of some failed writes
        reason = getattr(error, "strerror", None) or str(error).strip().split("\n")[0]
        raise OSError(
            f"{path} cannot be written ({reason}); what was saved before is untouched: make room or make the folder "
            "writable, then run the same command again"
        ) from error


def copy_checkpoint(source: str | Path, target: str | Path) -> None:
    """``target`` becomes a second name of the file ``source``, or a copy where the disk knows no hard links."""

    def write(temporary: Path) -> None:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)

    replace_atomically(Path(target), write)


def find_checkpoint(path: str | Path) -> Path:
    """A file as it is; of a run folder its best.pt, or last.pt before the first evaluation.

    Raises:
        FileNotFoundError: there is no such file, or the folder has no checkpoint.
    """
    path = Path(path)
    if path.is_dir():
        found = [path / name for name in ("best.pt", "last.pt") if (path / name).is_file()]
        if not found:
            raise FileNotFoundError(f"{path} has no best.pt and no last.pt; give a run folder of train.py or a file")
        return found[0]
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}; give the path of a .pt file or of a run folder")
    return path


def is_checkpoint(path: str | Path) -> bool:
    """Whether ``path`` is a checkpoint of ours, of any version, or a run folder; reads no weights."""
    path = Path(path)
    if path.is_dir():
        return (path / "best.pt").is_file() or (path / "last.pt").is_file()
    if not path.is_file():
        return False
    try:
        if not zipfile.is_zipfile(path):
            return False
        payload = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # a damaged file fails anywhere inside zipfile and torch: BadZipFile, KeyError, IndexError, ...
        return False
    return isinstance(payload, dict) and str(payload.get("format")).startswith("quartznet-")


def load_checkpoint(path: str | Path) -> dict:
    """Reads a file of ``save_checkpoint``, or a run folder's; all tensors on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is not a checkpoint of ours, is of a later format, or says nonsense of itself,
            such as weights of gigabytes made of one number that is read again and again.
    """
    path = find_checkpoint(path)
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # as in ``is_checkpoint``
        reason = str(error).strip().split(". ")[0].split("\n")[0] or type(error).__name__
        raise ValueError(
            f"{path} cannot be read as a checkpoint, it may be damaged or of another kind: {reason}"
        ) from error
    found = payload.get("format") if isinstance(payload, dict) else None
    if found != FORMAT:
        hint = "update this program" if str(found).startswith("quartznet-") else "open it with quartznet.load_model"
        raise ValueError(f"{path} is not a {FORMAT} checkpoint (format: {found}); {hint}")
    for key in ("lang", "init", "base_sha256"):
        if not isinstance(payload.get(key), str | None):
            raise ValueError(f"{path}: {key} must be text, got {reprlib.repr(payload[key])}; the file is broken")
    weights = payload.get("weights")
    for name, value in weights.items() if isinstance(weights, dict) else ():
        if isinstance(value, Tensor) and value.nbytes > value.untyped_storage().nbytes():
            raise ValueError(f"{path}: {name} says it is larger than what is stored of it; the file is broken")
    return payload


def fingerprint(config: ModelConfig, weights: Mapping[str, Tensor]) -> str:
    """SHA-256, in hexadecimal, of front end, blocks and encoder weights in fp32; of a plain network, head left out."""
    plain = {name: value for name, value in to_dict(config).items() if name != "labels"}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    for name in sorted(weights):
        if name.startswith("encoder.") and not name.endswith(COUNTER):
            digest.update(f"{name} {tuple(weights[name].shape)}".encode())
            digest.update(weights[name].detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def not_finite(model: nn.Module) -> list[str]:
    """Names of the weights and statistics that hold NaN or infinity."""
    return [name for name, value in model.state_dict().items() if not torch.isfinite(value).all()]


def fill(model: nn.Module, weights: object, path: str | Path) -> None:
    """Puts the weights of a checkpoint into a network.

    Raises:
        ValueError: they are missing, left over, of the wrong shape or not finite; the message names ``path``.
    """
    try:
        model.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: weights and model_config contradict each other: {reason}") from error
    if broken := not_finite(model):
        raise ValueError(f"{path}: {broken[0]} is not finite (of {len(broken)}); file or training is broken")


def model_from_checkpoint(path: str | Path) -> QuartzNet:
    """The network of a checkpoint, on the CPU, in evaluation mode.

    Raises:
        ValueError: see ``load_checkpoint``; also when weights are missing, left over, of the wrong shape or not finite,
            or are those of another kind of network.
    """
    payload = load_checkpoint(path)
    if (kind := payload.get("kind")) is not None:
        raise ValueError(f"{path} holds a network of kind {reprlib.repr(kind)} and no recogniser; train.py makes one")
    missing = [key for key in ("model_config", "weights") if key not in payload]
    if missing:
        raise ValueError(f"{path} has no {' and no '.join(missing)}, so no network can be built from it")
    model = QuartzNet(from_dict(ModelConfig, payload["model_config"], "model_config."))
    insert(model.encoder, from_dict(InsertConfig, payload.get("insert", {}), "insert."))
    fill(model, payload["weights"], path)
    return model.eval()


# ---------------------------------------------------------------------------------------------------------------------
# Random number generators


def random_state(generator: torch.Generator) -> dict:
    """The state of Python's, NumPy's and PyTorch's generators and of ``generator``, as tensors and plain values."""
    version, integers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = numpy.random.get_state()
    return {
        "python": [version, list(integers), gauss],
        "numpy": [str(kind), torch.from_numpy(keys.astype("int64")), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "generator": generator.get_state(),
    }


def restore_random_state(state: dict, generator: torch.Generator) -> None:
    """Puts all generators back to where ``random_state`` found them."""
    version, integers, gauss = state["python"]
    random.setstate((version, tuple(integers), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    numpy.random.set_state((kind, keys.numpy().astype("uint32"), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    generator.set_state(state["generator"])
