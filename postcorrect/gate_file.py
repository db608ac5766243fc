"""What ``python -m postcorrect.tune_gate`` found, in ``gate.yaml`` of the corrector's run folder.

    text     the gate for texts alone
    audio    gates for texts whose audio is at hand: hash of the recogniser's network -> the gate

each with the figures that it was chosen by. The gate of the recogniser goes first where there is one, then the one for
texts alone; without either the defaults are taken, which are strict, and that is said. A file that holds nothing but
``margin: 2`` and other ``GateSettings`` is a gate made by hand.

The surprise: a corrector may be there and nothing is corrected. Where tuning could not tell its help from luck, all
stays as it is; ``--gate insist`` takes the tuned numbers all the same, ``--gate open`` all that the corrector likes.
"""

import hashlib
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import yaml

from postcorrect.gate import OPEN, GateSettings
from postcorrect.model import Corrector
from quartznet.checkpoint import replace_atomically
from quartznet.settings import from_dict, load_yaml, to_dict

FILE = "gate.yaml"
KINDS = ("text", "audio")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TunedGate:
    """What was found for a corrector; counts are those of the dev set."""

    settings: GateSettings  # the best of the grid; ``is_on`` is the verdict
    corrector: str  # ``corrector_hash``
    data: str
    decoding: str  # of the audio: "greedy", or the options of the search; "" for texts alone
    sentences: int
    words: int  # in the references
    errors: int  # in words, before
    errors_after: int  # with these settings, chosen on the same sentences
    errors_held_out: int  # each sentence with settings that were chosen on others; so the counts below
    changed: int  # sentences
    helped: int
    harmed: int
    sureness: float  # share of the bootstrap's draws in which there are fewer errors

    @property
    def figures(self) -> str:
        """Word error rates before and after, for messages."""
        rates = (100 * errors / max(1, self.words) for errors in (self.errors, self.errors_held_out))
        return "{:.2f} % without it, {:.2f} % with it".format(*rates)


@dataclass(frozen=True)
class Gates:
    """All that a file holds."""

    text: TunedGate | None = None
    audio: Mapping[str, TunedGate] = field(default_factory=dict)


def gate_file(run: str | Path) -> Path:
    """Where the gate of a corrector lies: in its run folder, or beside its file."""
    run = Path(run)
    return (run if run.is_dir() else run.parent) / FILE


def corrector_hash(corrector: Corrector) -> str:
    """SHA-256 of what a corrector computes: its sizes and weights."""
    digest = hashlib.sha256(repr(corrector.config).encode())
    for name, value in sorted(corrector.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------------------------------
# The file


def _finite(mapping: object) -> tuple[object, dict[str, float]]:
    """The settings of a gate without those that may be infinite and are, which no other settings may; and these."""
    if not isinstance(mapping, dict):
        return mapping, {}
    infinite = {name: math.inf for name in ("margin", "most_edits", "veto") if mapping.get(name) == math.inf}
    return {name: value for name, value in mapping.items() if name not in infinite}, infinite


def _settings(mapping: dict) -> GateSettings:
    mapping, infinite = _finite(mapping)
    return replace(from_dict(GateSettings, mapping), **infinite)


def _tuned(entry: object, place: str) -> TunedGate:
    """Raises ValueError for an entry that is no table, lacks a field, or has an unknown one."""
    if not isinstance(entry, dict):
        return from_dict(TunedGate, entry, f"{place}.")  # says so
    names = [one.name for one in fields(TunedGate)]
    missing = [name for name in names if name not in entry]
    if missing and set(entry) <= set(names):
        raise ValueError(f"{place} lacks {', '.join(missing)}")
    settings, infinite = _finite(entry.get("settings"))
    found = from_dict(TunedGate, {**entry, "settings": settings}, f"{place}.")
    return replace(found, settings=replace(found.settings, **infinite))


def _gates(mapping: dict) -> Gates:
    unknown = [key for key in mapping if key not in KINDS]
    if unknown:
        raise ValueError(f"unknown key {unknown[0]}; there are {', '.join(KINDS)}")
    text, audio = (mapping.get(kind) for kind in KINDS)
    found = {str(network): _tuned(entry, f"audio.{network}") for network, entry in (audio or {}).items()}
    return Gates(None if text is None else _tuned(text, "text"), found)


def read_gates(path: str | Path) -> Gates | GateSettings:
    """What a file holds; nothing where there is none. ``GateSettings`` of one that was made by hand.

    Raises:
        ValueError: the file is damaged or has unknown keys; the message names it.
    """
    path = Path(path)
    if not path.exists():
        return Gates()
    try:
        mapping = load_yaml(path)
        is_by_hand = bool(mapping) and not any(kind in mapping for kind in KINDS)
        return _settings(mapping) if is_by_hand else _gates(mapping)
    except (ValueError, AttributeError, TypeError, RecursionError, OSError) as error:
        reason = str(error).split("\n")[0].removeprefix(f"{path} ")
        raise ValueError(f"{path} is no gate of postcorrect.tune_gate ({reason}); delete it and tune again") from error


def save_gate(run: str | Path, tuned: TunedGate, network: str | None = None) -> Path:
    """Adds or replaces the gate for texts alone, or the one of a recogniser; the others stay. Returns the file.

    Args:
        network: hash of the recogniser; None: texts alone.

    Raises:
        ValueError: what is there is damaged, or made by hand.
    """
    path = gate_file(run)
    gates = read_tuned_gates(path)
    gates = replace(gates, audio={**gates.audio, network: tuned}) if network else replace(gates, text=tuned)
    tables = {
        "text": gates.text and to_dict(gates.text),
        "audio": {key: to_dict(one) for key, one in gates.audio.items()},
    }
    text = "# python -m postcorrect.tune_gate; word errors and sentences are those of dev\n" + yaml.safe_dump(
        {kind: table for kind, table in tables.items() if table}, sort_keys=False, allow_unicode=True
    )
    replace_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return path


def read_tuned_gates(path: str | Path) -> Gates:
    """``read_gates`` of a file that may be written anew; raises ValueError also where it was made by hand."""
    gates = read_gates(path)
    if isinstance(gates, GateSettings):
        raise ValueError(f"{path} was made by hand and would be overwritten; move it and give it with --gate FILE")
    return gates


# ---------------------------------------------------------------------------------------------------------------------
# Which gate


def chosen_gate(
    run: str | Path,
    corrector: Corrector,
    asked: str | None = None,
    network: str | None = None,
    decoding: str = "",
) -> GateSettings:
    """The gate that decides, by what the user asked for and what was tuned. Says which.

    Args:
        run: the corrector's run folder or file.
        asked: None: as tuned; "insist": as tuned even where that was no sure help; "open": all that the corrector finds
            more probable is taken; else a file.
        network: hash of the recogniser whose audio is at hand; None: texts alone.
        decoding: how it decodes, as ``TunedGate.decoding``.

    Raises:
        FileNotFoundError: the file that was asked for is not there.
        ValueError: the file is damaged.
    """
    if asked == "open":
        logger.warning("the gate is off: all that the corrector finds more probable is taken")
        return OPEN
    path = gate_file(run) if asked in (None, "insist") else Path(asked)
    if not path.is_file() and asked not in (None, "insist"):
        raise FileNotFoundError(f"there is no gate {path}; --gate takes a file, insist or open")
    gates = read_gates(path)
    if isinstance(gates, GateSettings):
        logger.info("gate: %s, as in %s", gates, path)
        return gates
    tuned = gates.audio.get(network or "") or gates.text
    is_stale = tuned is not None and tuned.corrector != corrector_hash(corrector)
    if tuned is None or (is_stale and asked is None):
        return _default(run, "changed since its gate was tuned" if is_stale else "has no tuned gate", gates, network)
    if is_stale:
        logger.warning("%s was tuned for another corrector; taken as asked", path)
    if tuned.decoding and tuned.decoding != decoding:
        logger.warning("%s was tuned on texts of other decoding: %s", path, tuned.decoding)
    return _obeyed(tuned, path, asked == "insist", tuned is gates.text and network is not None)


def _default(run: str | Path, why: str, gates: Gates, network: str | None) -> GateSettings:
    settings = GateSettings()
    other = f" for {'this recogniser or for ' if network else ''}texts alone" if gates.audio else ""
    data = "PAIRS" if network is None else "CORPUS --checkpoint CHECKPOINT"
    logger.warning(
        "%s %s%s; the defaults are strict guesses (%s): run python -m postcorrect.tune_gate --corrector %s --data %s",
        *(run, why, other, settings, run, data),
    )
    return settings


def _obeyed(tuned: TunedGate, path: Path, insists: bool, is_deaf: bool) -> GateSettings:
    """The tuned settings, and what there is to say of them; ``is_deaf``: tuned on texts, used with audio."""
    settings = tuned.settings
    note = "; python -m postcorrect.tune_gate --checkpoint ... has the audio's say tuned as well" if is_deaf else ""
    if settings.is_on or insists:
        sure = "" if settings.is_on else f", no sure help there ({tuned.figures}), but taken as asked"
        logger.info("gate: %s, tuned on %s%s%s", settings, tuned.data, sure, note)
        return replace(settings, is_on=True)
    logger.warning(
        "%s: correcting was no sure help on %s (%s), so all texts stay as they are; --gate insist corrects them%s",
        *(path, tuned.data, tuned.figures, note),
    )
    return settings
