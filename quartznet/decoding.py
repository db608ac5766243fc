"""How log_probs become text: greedy, or by beam search with a language model whose weights were tuned on a dev set.

``tuned_file`` beside the language model (``es.arpa.tuned.yaml``) holds what ``python -m quartznet.lm tune`` found, an
entry for each network: the settings of the search, or that greedy decoding is better. An entry is found by the
network's fingerprint, so a network that was trained further is not decoded with weights of its former self in silence.

The surprise: a language model may be given and not used. Where it was measured to do no good, it does not decode;
``--alpha`` or ``--beta`` insist on it.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import yaml
from torch import Tensor

from quartznet.beam import BeamSettings
from quartznet.checkpoint import replace_atomically
from quartznet.settings import from_dict

logger = logging.getLogger(__name__)

Decode = Callable[[Tensor, Tensor], list[str]]  # log_probs (batch, time, labels + 1), lengths (batch,) -> texts


@dataclass(frozen=True)
class Tuned:
    """What was found for one network and one language model."""

    language_model: str  # SHA-256 of its file
    helps: bool  # False: greedy decoding is as good or better
    settings: BeamSettings  # the best place of the search, used if it helps
    data: str  # the dev set
    greedy_wer: float  # on the dev set, fractions
    searched_wer: float


def tuned_file(language_model: str | Path) -> Path:
    """Where the weights for a language model lie."""
    return Path(f"{language_model}.tuned.yaml")


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tuned(language_model: str | Path) -> dict[str, Tuned]:
    """All entries by the network's fingerprint; none where nothing was tuned.

    Raises:
        ValueError: the file is damaged; the message names it.
    """
    path = tuned_file(language_model)
    if not path.exists():
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {str(network): from_dict(Tuned, entry) for network, entry in found.items()}
    except (yaml.YAMLError, ValueError, AttributeError, TypeError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"{path} is not what quartznet.lm tune wrote ({reason}); delete it and tune again") from error


def save_tuned(language_model: str | Path, network: str, tuned: Tuned) -> Path:
    """Adds or replaces the entry of a network, whose fingerprint is ``network``; returns the file."""
    entries = {**read_tuned(language_model), network: tuned}
    text = "# python -m quartznet.lm tune; an entry for each network\n" + yaml.safe_dump(
        {name: asdict(entry) for name, entry in entries.items()}, sort_keys=False, allow_unicode=True
    )
    path = tuned_file(language_model)
    replace_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return path


def chosen_settings(
    language_model: str | Path, network: str, beam: int | None, alpha: float | None, beta: float | None
) -> BeamSettings | None:
    """What decodes with a language model: tuned for this network, or the defaults; None: greedy. Says which.

    Args:
        network: fingerprint.
        beam, alpha, beta: what the user asked for; None: not said.
    """
    asked = {name: value for name, value in (("beam", beam), ("alpha", alpha), ("beta", beta)) if value is not None}
    entries = read_tuned(language_model)
    tuned = entries.get(network)
    if tuned is None:
        other = "was tuned for other networks only" if entries else "was not tuned"
        logger.warning(
            "%s %s; weights are %s: run python -m quartznet.lm tune --checkpoint ... --data DEV --lm %s",
            *(language_model, other, "guesses" if len(asked) < 3 else "yours", language_model),
        )
        return replace(BeamSettings(), **asked)
    if tuned.language_model != file_hash(language_model):
        logger.warning("%s has changed since it was tuned; tune it again", language_model)
    if not tuned.helps and alpha is None and beta is None:
        logger.warning(
            "%s did not help on %s (%.2f %% greedy, %.2f %% with it), so decoding is greedy; --alpha %g insists on it",
            *(language_model, tuned.data, 100 * tuned.greedy_wer, 100 * tuned.searched_wer, tuned.settings.alpha),
        )
        return None
    return replace(tuned.settings, **asked)
