"""Which language a network writes, and by which rules its texts and those that it is compared with are normalised.

A checkpoint of ours says its language; a NeMo file does not, and is taken for English if it has the English letters.

The surprise: the rules are cut down to the letters that the network has, so a text loses what the network cannot write,
and an error rate measures what it could have written.
"""

import logging
from collections.abc import Sequence

from quartznet.checkpoint import is_checkpoint, load_checkpoint
from quartznet.text import Language, find_language, language_from_texts

logger = logging.getLogger(__name__)


def trained_language(checkpoint: str) -> str | None:
    """The code that a checkpoint was trained with; None where the file does not say."""
    return load_checkpoint(checkpoint).get("lang") if is_checkpoint(checkpoint) else None


def choose_language(
    lang: str | None, checkpoint: str, labels: Sequence[str], texts: Sequence[str], adapted: str | None = None
) -> Language:
    """The rules of ``lang``, of an adapter's language or of the checkpoint's, for the letters that the network has.

    Args:
        labels: of the network.
        texts: make the alphabet of a language that has no rules here.

    Raises:
        ValueError: nobody says which language it is.
    """
    trained = adapted or trained_language(checkpoint)
    if lang and trained and lang != trained:
        logger.warning("--lang %s: the network was trained with the rules of %s", lang, trained)
    lang = lang or trained
    if lang is None:
        english = find_language("en")
        if tuple(labels) != english.labels:
            raise ValueError(f"{checkpoint} does not say its language; give it with --lang")
        lang = "en"
    return (find_language(lang) or language_from_texts(lang, texts)).restricted_to(labels)
