"""Text correction: ``from_bert``, ``load``, ``Corrector``, ``save_bert``."""

from postcorrect.bert import from_bert, save_bert
from postcorrect.checkpoint import load
from postcorrect.model import Corrector

__all__ = ["Corrector", "from_bert", "load", "save_bert"]
