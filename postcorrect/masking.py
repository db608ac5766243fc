"""BERT's masked pieces (arXiv:1810.04805): some pieces of a text are hidden, and a network learns to guess them.

    masker = Masker(tokenizer, MaskSettings())
    masked = masker(ids, masker.counts(ids), generator)     # masked.ids to read, ids[masked.asked] to guess

Of each text max(1, round(0.15 pieces)) are asked for. 80 % of what is hidden becomes [MASK], 10 % another piece, and
10 % stays as it is, because a network that only ever saw [MASK] would learn nothing about places without it. Special
tokens, unknown words and padding are never touched. Pieces of one word betray each other, so whole words are hidden
(unless ``whole_words`` is off): words in random order, until there are pieces enough.

The surprise: the last word may have more pieces than are still to be asked for. Then it is hidden as a whole all the
same and only some of its pieces are asked for. So a batch asks for as many pieces as its texts have by ``counts``, a
number known before anything is drawn, and a long word is hidden as often as a short one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from postcorrect.wordpiece import WordPiece

TIE = 1e-9  # what the order of pieces within a word weighs beside the order of words


@dataclass(frozen=True)
class MaskSettings:
    """What is hidden, and how."""

    share: float = 0.15  # of a text's pieces that are asked for
    masks: float = 0.8  # share of the hidden pieces that become [MASK]
    others: float = 0.1  # share that becomes another piece; the rest stays
    whole_words: bool = True  # all pieces of a word are hidden together

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise ValueError(f"share must be above 0 and below 1, got {self.share}")
        if min(self.masks, self.others) < 0.0 or self.masks + self.others > 1.0 + 1e-9:
            raise ValueError(f"masks and others must be shares of at most 1 in all, got {self.masks} and {self.others}")


@dataclass(frozen=True)
class Masked:
    """Texts with hidden pieces."""

    ids: Tensor  # (batch, time) int64, what the network reads
    asked: Tensor  # (batch, time) bool, the places that it has to guess


class Masker:
    """Hides pieces of texts of one vocabulary."""

    def __init__(self, tokenizer: WordPiece, settings: MaskSettings) -> None:
        """Raises ValueError where the vocabulary has no piece that could be hidden."""
        self.settings, self.mask = settings, tokenizer.special.mask
        self.ordinary, self.continues = tokenizer.pieces()
        self.choice = self.ordinary.nonzero().flatten()  # what may stand in the place of another piece
        if not len(self.choice):
            raise ValueError("the vocabulary has special tokens only; nothing of a text can be hidden")

    def counts(self, ids: Tensor) -> Tensor:
        """How many pieces of each text (batch, time) are asked for, (batch,) int64; 0 where there are none."""
        pieces = self.ordinary[ids].sum(1)
        return (pieces * self.settings.share).round().long().clamp(min=1).minimum(pieces)

    def __call__(self, ids: Tensor, counts: Tensor, generator: torch.Generator) -> Masked:
        """Hides pieces of texts.

        Args:
            ids: (batch, time) numbers of pieces, padded with the special token for that.
            counts: (batch,) pieces to ask for, of ``counts``; on the device of ``ids``.
            generator: of the CPU; four numbers are drawn for each place, in fp64, so all devices hide the same.
        """
        draws = torch.rand(4, *ids.shape, generator=generator, dtype=torch.float64).to(ids.device)
        ordinary = self.ordinary.to(ids.device)[ids]
        words = self._word_keys(ids, ordinary, draws[0])
        order = (words + TIE * draws[1]).masked_fill(~ordinary, 2.0).argsort(1)
        rank = torch.empty_like(order).scatter_(1, order, torch.arange(ids.shape[1], device=ids.device).expand_as(ids))
        asked = ordinary & (rank < counts[:, None])
        last = words.masked_fill(~asked, -1.0).amax(1, keepdim=True)  # the word that was reached last
        hidden = ordinary & (words <= last)
        return Masked(self._hide(ids, hidden, draws[2], draws[3]), asked)

    def _word_keys(self, ids: Tensor, ordinary: Tensor, draws: Tensor) -> Tensor:
        """A random number for each word, at all its pieces: the one drawn for its first; (batch, time)."""
        if not self.settings.whole_words:
            return draws
        begins = ordinary & ~self.continues.to(ids.device)[ids]
        places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        return draws.gather(1, places.masked_fill(~begins, 0).cummax(1).values)

    def _hide(self, ids: Tensor, hidden: Tensor, kinds: Tensor, pieces: Tensor) -> Tensor:
        """[MASK], another piece or the piece itself at the hidden places, as ``kinds`` in [0, 1) says."""
        settings, choice = self.settings, self.choice.to(ids.device)
        others = choice[(pieces * len(choice)).long()]
        found = ids.masked_fill(hidden & (kinds < settings.masks), self.mask)
        is_other = hidden & (kinds >= settings.masks) & (kinds < settings.masks + settings.others)
        return torch.where(is_other, others, found)
