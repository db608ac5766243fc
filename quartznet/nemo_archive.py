"""Opens the files that hold NeMo models and hands out what is inside, still in NeMo's words, without running any of it.

Containers, told apart by their first bytes and not by their names: ``.nemo`` of 1.x and 2.x (tar, gzip or plain,
``model_config.yaml`` and ``model_weights.ckpt``), ``.nemo`` of 0.11 (``module.yaml`` and one ``.pt`` for each module),
a folder or pair of 0.8 to 0.10 (``JasperEncoder-STEP-100.pt`` beside ``JasperDecoderForCTC-STEP-100.pt``, the layout in
a YAML file), Lightning ``.ckpt``, and bare dictionaries of tensors.

The surprise: an archive can point outside itself, hold links, or unpack to more than the memory. Such are refused.
"""

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import yaml
from torch import Tensor

from quartznet.nemo_pickle import BYTES_LIMIT, check_values, first_line, plain_settings, read_pickle, tensors_of

YAML_LIMIT = 2**20


@dataclass(frozen=True)
class Package:
    """The content of a foreign checkpoint."""

    era: str  # 0.10 | 0.11 | 1.x | lightning | weights
    settings: dict | None  # the model's configuration, where the file or one beside it has any
    weights: dict[str, Tensor]  # NeMo's names
    dropped: tuple[str, ...] = ()  # parts that nobody reads, by name
    notes: tuple[str, ...] = ()  # what was assumed or chosen


class _Bounded:
    """A file that refuses to be read beyond ``BYTES_LIMIT``, so that a small gzip file cannot fill the memory."""

    def __init__(self, file: io.BufferedIOBase, path: Path):
        self.file, self.path = file, path

    def read(self, size: int = -1) -> bytes:
        if size < 0 or self.file.tell() + size > BYTES_LIMIT:
            raise ValueError(f"{self.path} unpacks to more than 1 GiB; it is not a QuartzNet")
        return self.file.read(size)

    def seek(self, position: int, whence: int = 0) -> int:
        return self.file.seek(position, whence)

    def tell(self) -> int:
        return self.file.tell()


# ---------------------------------------------------------------------------------------------------------------------
# YAML


def _yaml_parts(node: yaml.Node) -> Iterable[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else ()


def parse_yaml(text: bytes, where: str) -> dict:
    """Settings as a dictionary; as ``yaml.safe_load``, so tags that build objects are errors.

    Aliases are counted in the tree of nodes, before values are made of it: merging (``<<: [*a, *a]``) copies.

    Raises:
        ValueError: for text that is not a YAML dictionary.
    """
    if len(text) > YAML_LIMIT:
        raise ValueError(f"{where} has {len(text) / 2**20:.0f} MiB; a configuration has at most 1")
    try:
        loader = yaml.SafeLoader(text.decode("utf-8"))
        tree = loader.get_single_node()
        check_values(tree, _yaml_parts, where)
        settings = None if tree is None else loader.construct_document(tree)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{where} is not valid YAML: {' '.join(str(error).split())[:160]}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{where} must hold 'key: value' lines, got {type(settings).__name__}")
    return settings


def settings_beside(folder: Path, pattern: str) -> tuple[dict | None, list[str]]:
    """The one YAML file of ``folder`` that describes an encoder, and notes about it.

    Raises:
        ValueError: where several do, because a guess could be wrong in silence.
    """
    found: dict[str, dict] = {}
    notes = []
    for path in sorted(folder.glob(pattern)):
        if path.suffix not in (".yaml", ".yml") or not path.is_file():
            continue
        try:
            with path.open("rb") as file:
                settings = parse_yaml(file.read(YAML_LIMIT + 1), str(path))
        except ValueError as error:
            notes.append(f"left out: {error}")
            continue
        inner = settings["model"] if isinstance(settings.get("model"), dict) else settings
        if "JasperEncoder" in inner or "encoder" in inner or "init_params" in inner:
            found[path.name] = settings
    if len(found) > 1:
        raise ValueError(f"{folder} holds several configurations: {', '.join(found)}; leave only the right one there")
    notes += [f"configuration from {name}" for name in found]
    return next(iter(found.values()), None), notes


# ---------------------------------------------------------------------------------------------------------------------
# Archives


def _check_member(member: tarfile.TarInfo, path: Path) -> None:
    parts = PurePosixPath(member.name.replace("\\", "/")).parts
    if member.name.startswith("/") or PureWindowsPath(member.name).drive or ".." in parts:
        raise ValueError(f"{path} holds {member.name!r}, which points outside the archive; the file is refused")
    if not (member.isfile() or member.isdir()):
        raise ValueError(f"{path} holds {member.name!r}, a link or device; the file is refused")
    if member.size < 0:  # leads back to members already read, for ever
        raise ValueError(f"{path} holds {member.name!r} of {member.size} bytes; the file is refused")


def read_archive(path: Path) -> tuple[dict[str, io.BytesIO], list[str]]:
    """Configuration and weights of a ``.nemo`` archive by file name, and the names of all other members.

    Raises:
        ValueError: for links, devices, paths that leave the archive, doubled names, more than 1 GiB, or damage.
    """
    wanted: dict[str, io.BytesIO] = {}
    others: list[str] = []
    total = 0
    with path.open("rb") as raw:
        file = gzip.GzipFile(fileobj=raw) if is_gzip(path) else raw
        try:
            bounded = _Bounded(file, path)
            with tarfile.open(fileobj=bounded, mode="r:") as archive:
                for member in archive:
                    _check_member(member, path)
                    total += member.size
                    if total > BYTES_LIMIT:
                        raise ValueError(f"{path} unpacks to more than 1 GiB; it is not a QuartzNet")
                    name = PurePosixPath(member.name).name
                    if member.isdir():
                        continue
                    if name in wanted:
                        raise ValueError(f"{path} holds {name} twice; the file is refused")
                    if name in ("model_config.yaml", "model_weights.ckpt", "module.yaml") or name.endswith(".pt"):
                        wanted[name] = io.BytesIO(archive.extractfile(member).read(member.size))
                    else:
                        others.append(f"file {name}")
            while bounded.read(2**20):  # gzip compares its checksum at its very end, behind the last member
                pass
        except (tarfile.TarError, EOFError, OSError, OverflowError, RecursionError, zlib.error) as error:
            raise ValueError(f"{path} is damaged or no .nemo archive: {first_line(error)}") from error
    return wanted, others


def is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def is_tar(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(512)[257:262] == b"ustar"


def _package_archive(path: Path) -> Package:
    members, others = read_archive(path)
    if "model_weights.ckpt" in members and "model_config.yaml" in members:
        settings = parse_yaml(members["model_config.yaml"].getvalue(), f"{path}: model_config.yaml")
        where = f"{path}: model_weights.ckpt"
        weights, odd = tensors_of(read_pickle(members["model_weights.ckpt"], where), where)
        return Package("1.x", settings, weights, (*others, *odd))
    encoder = next((name for name in members if name.startswith("JasperEncoder")), None)
    if "module.yaml" not in members or encoder is None:
        inside = ", ".join([*members, *others]) or "nothing"
        raise ValueError(
            f"{path} has neither model_config.yaml and model_weights.ckpt nor module.yaml; it has {inside}"
        )
    settings = parse_yaml(members["module.yaml"].getvalue(), f"{path}: module.yaml")
    weights, dropped = {}, list(others)
    for name in [name for name in members if name.endswith(".pt")]:
        if name.startswith(("JasperEncoder", "JasperDecoder")):
            tensors, odd = tensors_of(read_pickle(members[name], f"{path}: {name}"), f"{path}: {name}")
            weights |= tensors
            dropped += odd
        else:
            dropped.append(f"file {name}")
    return Package("0.11", settings, weights, tuple(dropped))


# ---------------------------------------------------------------------------------------------------------------------
# Files of one module each, and bare pickles


def _number(path: Path) -> int:
    """The step or epoch at the end of ``JasperEncoder-STEP-247400.pt``; -1 where there is none."""
    match = re.search(r"-(\d+)\.pt$", path.name)
    return int(match.group(1)) if match else -1


def module_files(path: Path) -> tuple[list[Path], list[str]]:
    """The encoder's file and the decoder's, those of one step: of ``path`` if it is a file, else the latest."""
    folder = path if path.is_dir() else path.parent
    chosen, notes = [], []
    number = None if path.is_dir() else _number(path)
    for kind in ("JasperEncoder", "JasperDecoder"):
        files = sorted((item for item in folder.glob(f"{kind}*.pt") if item.is_file()), key=_number)
        same = [item for item in files if _number(item) == number]
        if path in files:
            same = [path]
        if files:
            chosen.append((same or files)[-1])
            number = _number(chosen[-1]) if number is None else number
            if not same and _number(chosen[-1]) != number:
                notes.append(f"no {kind} of step {number}; took {chosen[-1].name}")
            if len(files) > 1:
                notes.append(f"took {chosen[-1].name} of {len(files)} {kind} files")
    return chosen, notes


def _package_modules(path: Path) -> Package:
    files, notes = module_files(path)
    if not any(file.name.startswith("JasperEncoder") for file in files):
        if path.is_dir():
            known = "best.pt or last.pt of a run, model_weights.ckpt, JasperEncoder*.pt"
            raise ValueError(f"{path} holds no checkpoint ({known}); give another folder, or a .nemo file")
        raise ValueError(f"no JasperEncoder*.pt beside {path}; put the encoder's file there, or give a .nemo file")
    weights: dict[str, Tensor] = {}
    dropped: list[str] = []
    for file in files:
        tensors, odd = tensors_of(read_pickle(file, str(file)), str(file))
        weights |= tensors
        dropped += odd
    settings, more = settings_beside(files[0].parent, "*.y*ml")
    return Package("0.10", settings, weights, tuple(dropped), (*notes, *more))


def _package_pickle(path: Path) -> Package:
    content = read_pickle(path, str(path))
    if isinstance(content, dict) and str(content.get("format", "")).startswith("quartznet-"):
        raise ValueError(f"{path} is one of our own checkpoints; open it with quartznet.load_model")
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        weights, dropped = tensors_of(content, str(path))
        settings, notes = settings_beside(path.parent, f"{path.stem}.y*ml")
        return Package("weights", settings, weights, tuple(dropped), tuple(notes))
    weights, dropped = tensors_of(content["state_dict"], str(path))
    dropped += [str(key) for key in content if key not in ("state_dict", "hyper_parameters")]
    settings, notes = plain_settings(content.get("hyper_parameters"), f"{path}: hyper_parameters"), []
    settings = settings.get("cfg", settings) if isinstance(settings, dict) else None
    if not settings:
        settings, notes = settings_beside(path.parent, f"{path.stem}.y*ml")
    era = "lightning" if "pytorch-lightning_version" in content or "hyper_parameters" in content else "weights"
    return Package(era, settings, weights, tuple(dropped), tuple(notes))


def open_package(path: Path) -> Package:
    """Opens a file or folder by its content.

    Raises:
        FileNotFoundError: where ``path`` is not there.
        ValueError: for anything that is not a NeMo model, is damaged, or wants to run code.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint at {path}; correct the path")
    if path.is_dir():
        if (path / "model_weights.ckpt").is_file():
            where = str(path / "model_weights.ckpt")
            weights, odd = tensors_of(read_pickle(path / "model_weights.ckpt", where), where)
            settings, notes = settings_beside(path, "model_config.yaml")
            return Package("1.x", settings, weights, tuple(odd), tuple(notes))
        return _package_modules(path)
    if not path.is_file():
        raise ValueError(f"{path} is neither a file nor a folder")
    if is_gzip(path) or is_tar(path):
        return _package_archive(path)
    if path.name.startswith(("JasperEncoder", "JasperDecoder")):
        return _package_modules(path)
    return _package_pickle(path)
