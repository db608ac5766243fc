"""Text correction: ``from_bert``, ``Corrector``, ``save_bert``."""

from postcorrect.bert import from_bert, save_bert
from postcorrect.model import Corrector

__all__ = ["Corrector", "from_bert", "save_bert"]
