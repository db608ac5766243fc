"""The output labels of a network: characters <-> label numbers.

The surprise: the CTC blank has no label here; it is the number after the last one, so that a text can never hold it.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Alphabet:
    """The output labels of a model, one character each; the CTC blank is the number after the last."""

    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        repeated = sorted(label for label, count in Counter(self.labels).items() if count > 1)
        if repeated or not self.labels:
            raise ValueError(
                f"an alphabet needs labels without repeats; {len(self.labels)} given, repeated: {repeated}"
            )

    @property
    def blank(self) -> int:
        return len(self.labels)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {label: number for number, label in enumerate(self.labels)}

    def encode(self, text: str) -> list[int]:
        """The labels' numbers, one for each character; raises ValueError that names the characters it lacks."""
        unknown = sorted(set(text) - self._numbers.keys())
        if unknown:
            raise ValueError(
                f"the alphabet has no {', '.join(map(repr, unknown))}, in {text!r}; normalise the text first"
            )
        return [self._numbers[character] for character in text]

    def decode(self, ids: Iterable[int]) -> str:
        """The characters of label numbers, repeats as they are; raises ValueError for the blank and beyond."""
        ids = list(ids)
        if any(not 0 <= number < self.blank for number in ids):
            raise ValueError(f"label numbers go from 0 to {self.blank - 1}, got {ids}; remove blanks before decoding")
        return "".join(self.labels[number] for number in ids)
