"""What ``python -m quartznet.lm tune`` found, in a file beside the language model: an entry for each network.

    es.arpa.tuned.yaml      network's hash -> settings of the search, or that greedy decoding is better;
                            and with a neural model: the weights of all judges, or that it is better not asked

An entry is found by the network's hash, so a network that was trained further is not decoded with weights of its former
self in silence; what was found for a neural model by the hash of that.

The surprise: a language model may be given and not used. Where it was measured to do no good, it does not decode;
``--alpha`` or ``--beta`` insist on an n-gram, ``--gamma`` on a neural model.
"""

import hashlib
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import yaml

from quartznet.beam import BeamSettings
from quartznet.checkpoint import fingerprint, replace_atomically
from quartznet.model import QuartzNet
from quartznet.rescore import Weights
from quartznet.settings import from_dict

ALONE, BESIDE = 0.5, 0.25  # gamma where it was not tuned: without an n-gram, and with one, which says much the same

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TunedNeural:
    """What was found for a neural model that chooses among the texts of that search."""

    model: str  # SHA-256 of its file
    helps: bool  # False: what decodes without it is as good or better
    weights: Weights  # the best place, used if it helps
    without_wer: float  # on the dev set, fractions: of what decodes without it
    wer: float  # with it


@dataclass(frozen=True)
class Tuned:
    """What was found for one network and one language model."""

    language_model: str  # SHA-256 of its file
    helps: bool  # False: greedy decoding is as good or better
    settings: BeamSettings  # the best place of the search, used if it helps
    data: str  # the dev set
    greedy_wer: float  # on the dev set, fractions
    searched_wer: float
    neural: TunedNeural | None = None  # None: none was tried


def tuned_file(language_model: str | Path) -> Path:
    """Where the weights for a language model lie."""
    return Path(f"{language_model}.tuned.yaml")


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def network_hash(model: QuartzNet) -> str:
    """SHA-256 of what a network computes: of ``fingerprint``, which leaves the output layer out, and that layer."""
    digest = hashlib.sha256(fingerprint(model.config, model.state_dict()).encode())
    digest.update("".join(model.config.labels).encode())
    for value in model.decoder.state_dict().values():
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def read_tuned(language_model: str | Path) -> dict[str, Tuned]:
    """All entries by the network's hash; none where nothing was tuned.

    Raises:
        ValueError: the file is damaged; the message names it.
    """
    path = tuned_file(language_model)
    if not path.exists():
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {str(network): from_dict(Tuned, entry) for network, entry in found.items()}
    except (yaml.YAMLError, ValueError, AttributeError, TypeError, RecursionError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"{path} is not what quartznet.lm tune wrote ({reason}); delete it and tune again") from error


def save_tuned(language_model: str | Path, network: str, tuned: Tuned) -> Path:
    """Adds or replaces the entry of a network, whose hash is ``network``; returns the file."""
    entries = {**read_tuned(language_model), network: tuned}
    text = "# python -m quartznet.lm tune; an entry for each network\n" + yaml.safe_dump(
        {name: asdict(entry) for name, entry in entries.items()}, sort_keys=False, allow_unicode=True
    )
    path = tuned_file(language_model)
    replace_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return path


def _given(**values: float | None) -> dict[str, float]:
    """Those that the user said."""
    return {name: value for name, value in values.items() if value is not None}


def chosen_settings(
    language_model: str | Path,
    network: str,
    beam: int | None,
    alpha: float | None,
    beta: float | None,
    is_needed: bool = False,
) -> BeamSettings | None:
    """What decodes with a language model: tuned for this network, or the defaults; None: greedy. Says which.

    Args:
        network: its hash.
        beam, alpha, beta: what the user asked for; None: not said.
        is_needed: search whether that alone helps or not, for a neural model that chooses among the texts.
    """
    asked = _given(beam=beam, alpha=alpha, beta=beta)
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
    if not tuned.helps and alpha is None and beta is None and not is_needed:
        logger.warning(
            "%s did not help on %s (%.2f %% greedy, %.2f %% with it), so decoding is greedy; --alpha %g insists on it",
            *(language_model, tuned.data, 100 * tuned.greedy_wer, 100 * tuned.searched_wer, tuned.settings.alpha),
        )
        return None
    found = replace(tuned.settings, **asked)
    logger.info(
        "%s: alpha %g, beta %g, beam %d%s, tuned on %s",
        *(language_model, found.alpha, found.beta, found.beam, " (as asked)" if asked else "", tuned.data),
    )
    return found


def chosen_weights(
    neural: str | Path,
    language_model: str | Path | None,
    network: str,
    alpha: float | None,
    beta: float | None,
    gamma: float | None,
) -> Weights | None:
    """How a neural model's word counts among the texts of the search; None: it is not asked. Says which.

    Args:
        neural: its file.
        language_model: that of the search; None: it goes by sound alone, and there is no file to find weights in.
        network: its hash.
        alpha, beta, gamma: what the user asked for; None: not said.
    """
    asked = _given(alpha=alpha, beta=beta, gamma=gamma)
    tuned = read_tuned(language_model).get(network) if language_model else None
    found = tuned.neural if tuned else None
    if found is None or found.model != file_hash(neural):
        return _guess(neural, language_model, tuned, asked)
    if not found.helps and gamma is None:
        logger.warning(
            "%s was no sure help on %s (%.2f %% without, %.2f %% with it), so it is not asked; --gamma %g insists",
            *(neural, tuned.data, 100 * found.without_wer, 100 * found.wer, found.weights.gamma or BESIDE),
        )
        return None
    return replace(found.weights, **asked)


def _guess(
    neural: str | Path, language_model: str | Path | None, tuned: Tuned | None, asked: dict[str, float]
) -> Weights | None:
    """Weights of a neural model that was not tuned; None where decoding is greedy and nobody insists."""
    if tuned and not tuned.helps and not asked:
        logger.warning("%s has no texts to choose among without a search; --gamma %g insists", neural, BESIDE)
        return None
    if language_model is None:
        start, needed, advice = Weights(0.0, 0.0, ALONE), ("beta", "gamma"), "lm tune finds better ones with an n-gram"
    else:
        settings = tuned.settings if tuned else BeamSettings()
        start, needed = Weights(settings.alpha, settings.beta, BESIDE), ("alpha", "beta", "gamma")
        advice = f"run python -m quartznet.lm tune --checkpoint ... --data DEV --lm {language_model} --neural {neural}"
    weights = replace(start, **asked)
    if any(name not in asked for name in needed):
        shown = ", ".join(f"{name} {getattr(weights, name):g}" for name in needed)
        logger.warning("%s was not tuned for this network, %s is a guess; %s", neural, shown, advice)
    return weights
