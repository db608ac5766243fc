"""Imports go one way, quartznet <- data <- postcorrect <- scripts; and this test notices when they do not."""

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("quartznet", "data", "postcorrect")
SCRIPTS = ("train", "evaluate", "benchmarks", "tests")
MAY_IMPORT = {"quartznet": ("quartznet",), "data": ("quartznet", "data"), "postcorrect": PACKAGES}
DATA_MAY_USE = (
    "audio",
    "alphabet",
    "text",
    "audit",
    "batch",
    "lengths",
    "augment",
    "waveform",
    "config",
    "settings",
    "commandline",
)

# Inside quartznet a module imports from its own level (not in a circle) and from those above it in this table.
LEVELS = (
    (
        "config",
        "tune_config",
        "settings",
        "alphabet",
        "text",
        "audit",
        "audit_file",
        "faults",
        "letter_stream",
        "spelling",
        "audio",
        "ffmpeg",
        "pcm_stream",
        "effects",
        "waveform",
        "lengths",
        "speed",
        "batch",
        "prefetch",
        "distributed",
        "graphs",
        "metrics",
        "schedules",
        "interrupt",
        "claim",
        "diagnosis",
        "commandline",
        "helptext",
        "markup",
        "confusions",
        "arpa",
        "ngram_counts",
        "ngram",
        "kenlm_model",
        "lm",
        "lmplz",
        "perplexity",
        "leaks",
    ),
    (
        "features",
        "feature_blocks",
        "head",
        "augment",
        "augment_preview",
        "layers",
        "kernels",
        "kernel_calls",
        "fused",
        "backend",
        "ctc",
        "ctc_kernel",
        "nbest",
        "words",
        "confidence",
        "prefix_search",
        "worth",
        "vocabulary",
        "beam",
        "hotwords",
        "hotword_spots",
        "hotword_report",
        "pyctc",
        "subtitles",
        "sequence",
        "optim",
        "novograd_kernel",
        "ema",
        "inference",
        "lora",
        "block_adapters",
        "finetune",
        "transformer_xl",
    ),
    ("model",),
    (
        "checkpoint",
        "nemo",
        "nemo_archive",
        "nemo_pickle",
        "nemo_keys",
        "nemo_config",
        "nemo_export",
        "report",
        "breakdown",
        "significance",
        "page_figures",
        "runlog",
        "runstate",
        "slim",
        "recipes",
        "letter_lm",
        "rescore",
        "tune_lm",
        "tune_neural",
        "tuned",
        "decoding",
        "writing",
    ),
    (
        "engine",
        "find_lr",
        "step",
        "task",
        "scoring",
        "recognition",
        "graphed",
        "keep",
        "watch",
        "checkup",
        "exhibits",
        "page_utterances",
        "page",
    ),
    ("windows", "recordings", "live"),
)
LEVEL_OF = {f"quartznet.{name}": level for level, names in enumerate(LEVELS) for name in names}

# Above all levels: they use the whole package, ``load_model`` included; only postcorrect, scripts and each other use
# them. Those that are commands about a corpus import data too, as train.py does.
TOP = {
    "quartznet.initial": ("quartznet",),
    "quartznet.adapter": ("quartznet",),
    "quartznet.options": ("quartznet",),
    "quartznet.old_speech": ("quartznet", "data"),
    "quartznet.interpolate": ("quartznet", "data"),
    "quartznet.doctor": ("quartznet", "data"),
    "quartznet.transcribe": ("quartznet",),
    "quartznet.tune_command": ("quartznet", "data"),
    "quartznet.lm_text": ("quartznet", "data"),
    "quartznet.lm_command": ("quartznet", "data"),
    "quartznet.neural_lm": ("quartznet", "data"),
}

# The public ``model.transcribe(paths)`` and ``corrector.correct(texts)`` live far above their models, so they are
# imported inside those methods only; and the commands ``python -m quartznet.text audit`` and ``python -m quartznet.lm``
# need the modules that they are typed with.
LATE = (
    ("quartznet.model", "quartznet.recordings"),
    ("quartznet.text", "quartznet.audit_file"),
    ("quartznet.lm", "quartznet.lm_command"),
    ("postcorrect.model", "postcorrect.candidates"),
)


def modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file, of everything in the packages; a package itself is its ``__init__``."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_names(path: Path, module: str) -> Iterator[str]:
    """Every dotted name that a file imports, wherever in it; ``from a import b`` is both ``a`` and ``a.b``."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant))


def own_imports(root: Path) -> dict[str, set[str]]:
    """Module -> those of our modules and scripts that it imports."""
    known = modules(root)
    graph: dict[str, set[str]] = {}
    for module, path in known.items():
        graph[module] = set()
        for name in imported_names(path, module):
            if (module, name.rpartition(".")[0]) in LATE:
                continue
            while name not in known and name.partition(".")[0] in PACKAGES and "." in name:
                name = name.rpartition(".")[0]  # a class or function of that module
            if name.partition(".")[0] in (*PACKAGES, *SCRIPTS):
                graph[module].add(name)
    return graph


def violations(root: Path) -> list[str]:
    """One message for each module without a level, each import against the arrows, and each circle."""
    graph = own_imports(root)
    problems = [
        f"{module}: has no level in tests/test_architecture.py" for module in sorted(graph) if _unplaced(module)
    ]
    for module, targets in graph.items():
        problems += [f"{module} imports {target}" for target in sorted(targets) if not _allowed(module, target)]
    return problems + [f"circle: {' -> '.join(circle)}" for circle in _circles(graph)]


def _unplaced(module: str) -> bool:
    return module.startswith("quartznet.") and module not in LEVEL_OF and module not in TOP


def _allowed(module: str, target: str) -> bool:
    package, other = module.partition(".")[0], target.partition(".")[0]
    if module in TOP:
        return other in TOP[module]
    if target in TOP:
        return package == "postcorrect" and target != "quartznet.initial"  # its commands stand above those
    if other not in MAY_IMPORT[package]:
        return False
    if package == "data" and other == "quartznet":
        return target.removeprefix("quartznet.") in DATA_MAY_USE
    if package == "quartznet" and module != "quartznet":
        return LEVEL_OF.get(target, len(LEVELS)) <= LEVEL_OF.get(module, len(LEVELS))
    return True


def _circles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """At least one circle for each group of modules that import each other."""
    finished: set[str] = set()

    def walk(module: str, trail: list[str]) -> Iterator[list[str]]:
        if module in trail:
            yield [*trail[trail.index(module) :], module]
        elif module not in finished:
            for target in sorted(graph.get(module, ())):
                yield from walk(target, [*trail, module])
            finished.add(module)

    for module in sorted(graph):
        yield from walk(module, [])


def test_imports_go_one_way() -> None:
    assert violations(ROOT) == []


@pytest.mark.parametrize(("module", "target"), LATE)
def test_the_late_imports_are_not_at_the_top(module: str, target: str) -> None:
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    assert not any(isinstance(node, ast.ImportFrom) and node.module == target for node in tree.body)


PLANTED = {
    ("data/manifest.py", "import train"): "data.manifest imports train",
    ("quartznet/audio.py", "def late():\n    from evaluate import main"): "quartznet.audio imports evaluate.main",
    ("data/lines.py", "from quartznet.features import LogMel"): "data.lines imports quartznet.features",
    ("data/lines.py", "from quartznet import load_model"): "data.lines imports quartznet",
    ("data/lines.py", "from quartznet import engine as e"): "data.lines imports quartznet.engine",
    ("data/lines.py", "import postcorrect"): "data.lines imports postcorrect",
    ("quartznet/text.py", "import data.manifest"): "quartznet.text imports data.manifest",
    ("quartznet/config.py", "from .layers import time_mask"): "quartznet.config imports quartznet.layers",
    ("quartznet/config.py", "from . import model"): "quartznet.config imports quartznet.model",
    (
        "quartznet/config.py",
        "import importlib\nimportlib.import_module('quartznet.engine')",
    ): "imports quartznet.engine",
    ("quartznet/config.py", "import quartznet"): "quartznet.config imports quartznet",
    ("quartznet/config.py", "import quartznet.augment"): "circle: quartznet.config -> quartznet.augment",
    ("postcorrect/new.py", "import benchmarks.speed"): "postcorrect.new imports benchmarks.speed",
    ("quartznet/config.py", "from quartznet import adapter"): "quartznet.config imports quartznet.adapter",
    ("quartznet/adapter.py", "import data.manifest"): "quartznet.adapter imports data.manifest",
    ("quartznet/new.py", ""): "quartznet.new: has no level",
}


@pytest.mark.parametrize(("place", "line"), PLANTED, ids=range(len(PLANTED)))
def test_a_planted_violation_is_caught(tmp_path: Path, place: str, line: str) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=lambda folder, names: _no_code(Path(folder), names))
    before = violations(tmp_path)
    with open(tmp_path / place, "a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    new = [problem for problem in violations(tmp_path) if problem not in before]
    assert any(PLANTED[place, line] in problem for problem in new), new


def _no_code(folder: Path, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".py") and not (folder / name).is_dir()]


def test_a_legal_import_is_not_reported(tmp_path: Path) -> None:
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "quartznet/audio.py").write_text("from quartznet.config import X\nfrom quartznet import config\n")
    (tmp_path / "quartznet/config.py").write_text("import torch, tests_of_others\n")
    (tmp_path / "data/source.py").write_text("import quartznet.audio\nfrom data import source_of_truth\n")
    (tmp_path / "postcorrect/train.py").write_text("from data.source import open_source\nimport quartznet\n")
    assert violations(tmp_path) == []
