"""The same search by pyctcdecode and kenlm, where they are installed: ``pip install quartznet[lm]``.

    found = PyctcDecoder(alphabet, BeamSettings(beam=100), "es.arpa")(log_probs, lengths)

``quartznet.beam`` needs neither and is faster (docs/speed.md); this is what it is measured against, and a second
opinion. Differences: unknown words are punished while they are being written, hot phrases fall apart into single words
of one weight, and there is no closed vocabulary.

The surprise: pyctcdecode guesses what labels mean. It takes ``_`` for the blank and ``|`` for the space where it finds
no other, and ``▁`` for the sign of word pieces. Our alphabet knows all that, so its guessing is passed by.
"""

import logging
import math
from pathlib import Path
from types import ModuleType

from torch import Tensor

from quartznet.alphabet import Alphabet
from quartznet.beam import BeamSettings
from quartznet.hotwords import HotWords

LOG = logging.getLogger(__name__)


def _import_pyctcdecode() -> tuple[ModuleType, ModuleType]:
    """pyctcdecode and kenlm; raises ImportError that says how to get them."""
    logging.getLogger("pyctcdecode").setLevel(logging.ERROR)  # it warns of every alphabet without capitals
    try:
        import kenlm
        import pyctcdecode
    except ImportError as error:
        raise ImportError(
            f"{error.name} is not installed; run pip install 'quartznet[lm]' (it needs numpy below 2), or use the "
            "search of quartznet.beam, which needs no package"
        ) from error
    return pyctcdecode, kenlm


def _language_model(
    modules: tuple[ModuleType, ModuleType], path: str | Path, settings: BeamSettings
) -> "pyctcdecode.language_model.LanguageModel":  # noqa: F821
    """The model with our weights; there an unknown word costs the same at any length, as one of six letters here."""
    pyctcdecode, kenlm = modules
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no language model {path}")
    words = None
    if Path(path).suffix == ".arpa":
        words = pyctcdecode.language_model.load_unigram_set_from_arpa(str(path))
    else:
        LOG.info("%s is no .arpa file: pyctcdecode does without a list of its words", path)
    unknown = settings.unknown + 6 * settings.unknown_letter
    return pyctcdecode.language_model.LanguageModel(
        kenlm.Model(str(path)),
        words,
        alpha=settings.alpha,
        beta=settings.beta,
        unk_score_offset=unknown / (max(settings.alpha, 1e-3) * math.log(10.0)),
    )


class PyctcDecoder:
    """Log-probabilities -> texts, as ``quartznet.beam.BeamDecoder`` does it.

    Args:
        lm: an ARPA file or a KenLM binary.
        hotwords: all of one weight.

    Raises:
        ImportError: if the packages are not installed.
        FileNotFoundError: if there is no file ``lm``.
        ValueError: for a closed vocabulary, and for hot words of several weights, which pyctcdecode does not have.
    """

    def __init__(
        self,
        alphabet: Alphabet,
        settings: BeamSettings,
        lm: str | Path | None = None,
        hotwords: HotWords | None = None,
    ) -> None:
        weights = {entry.weight for entry in hotwords.entries} if hotwords else set()
        if settings.closed:
            raise ValueError("pyctcdecode has no closed vocabulary; use the search of quartznet.beam")
        if len(weights) > 1:
            raise ValueError(
                f"pyctcdecode has one weight for all hot words, got {len(weights)}; give them one weight, or use the "
                "search of quartznet.beam"
            )
        modules = _import_pyctcdecode()
        pyctcdecode, _ = modules
        model = _language_model(modules, lm, settings) if lm is not None else None
        labels = pyctcdecode.alphabet.Alphabet([*alphabet.labels, ""], False)  # the blank is the empty label
        self._decoder = pyctcdecode.decoder.BeamSearchDecoderCTC(labels, model)
        self.settings = settings
        self.hotwords = sorted(hotwords.words) if hotwords else None
        self.weight = weights.pop() if weights else 0.0

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[list[tuple[str, float]]]:
        """(text, total) of up to ``count`` texts of each utterance, best first.

        Args:
            log_probs: (batch, time, labels + 1), output of log-softmax.
            lengths: (batch,) valid frames; later ones are not read.
        """
        arrays, found = log_probs.detach().cpu().float().numpy(), []
        for array, length in zip(arrays, lengths.tolist(), strict=True):
            if length == 0:
                found.append([("", 0.0)])
                continue
            beams = self._decoder.decode_beams(
                array[:length],
                beam_width=self.settings.beam,
                beam_prune_logp=self.settings.beam_threshold,
                token_min_logp=self.settings.label_threshold,
                hotwords=self.hotwords,
                hotword_weight=self.weight,
            )
            found.append([(beam[0], float(beam[-1])) for beam in beams[: self.settings.count]])
        return found
