"""quartznet.tune_lm: weights found where a language model helps, and greedy decoding kept where it does not."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from quartznet.alphabet import Alphabet
from quartznet.arpa import LanguageModel, State
from quartznet.beam import BeamSettings
from quartznet.metrics import total
from quartznet.tune_lm import ALPHAS, Clips, between, surface_table, tune, verdict

ALPHABET = Alphabet((" ", "a", "b", "c"))
SETTINGS = BeamSettings(beam=8, count=2)


class Unigram(LanguageModel):
    """ln P(word) from a table; other words e^-9, the end of a sentence free."""

    order = 1

    def __init__(self, words: dict[str, float]) -> None:
        self.words = words

    def start(self) -> State:
        return 0

    def score(self, state: State, word: str) -> tuple[float, State]:
        return self.words.get(word, -9.0), 0

    def end(self, state: State) -> float:
        return 0.0

    def knows(self, word: str) -> bool:
        return word in self.words

    def vocabulary(self) -> Iterable[str]:
        return self.words


def heard(text: str, rival: str) -> Tensor:
    """(time, 5) log_probs of a text with a blank behind each letter; a letter of ``rival`` is nearly as probable."""
    rows = torch.full((2 * len(text), 5), 1e-4)
    for place, (letter, other) in enumerate(zip(text, rival, strict=True)):
        rows[2 * place, ALPHABET.labels.index(letter)] = 0.6
        rows[2 * place, ALPHABET.labels.index(other)] += 0.39
        rows[2 * place + 1, ALPHABET.blank] = 1.0
    return (rows / rows.sum(dim=1, keepdim=True)).log()


def clips(truth: str, count: int = 12) -> Clips:
    """The network hears "ab c" best, and "ac c" nearly as well."""
    return Clips((truth,) * count, tuple(heard("ab c", "ac c") for _ in range(count)))


def test_a_model_that_knows_the_words_helps() -> None:
    calls: list[tuple[int, int]] = []
    model = Unigram({"ac": -1.0, "c": -1.0})
    tuning = tune(clips("ac c"), ALPHABET, model, SETTINGS, lambda *done: calls.append(done))
    assert total(tuning.greedy).rate == 0.5 and total(tuning.searched).rate == 0.0
    assert tuning.helps and tuning.sureness == 1.0
    assert min(tuning.surface.values()) == tuning.surface[tuning.settings.alpha, tuning.settings.beta] == 0.0
    assert calls[0][0] == 1 and calls[-1][0] == len(calls) <= calls[-1][1]
    assert "it is used" in verdict(tuning)


def test_among_equals_the_smallest_weight_and_beam() -> None:
    tuning = tune(clips("ac c"), ALPHABET, Unigram({"ac": -1.0, "c": -1.0}), SETTINGS)
    equals = [point for point, rate in tuning.surface.items() if rate == 0.0]
    assert tuning.settings.alpha == min(alpha for alpha, _ in equals) and tuning.settings.beam == 8


def test_a_model_that_knows_other_words_leaves_decoding_greedy() -> None:
    tuning = tune(clips("ab c"), ALPHABET, Unigram({"ac": -1.0, "c": -1.0}), SETTINGS)
    assert total(tuning.greedy).rate == 0.0
    assert not tuning.helps and "stays greedy" in verdict(tuning)


def test_one_lucky_clip_is_not_enough() -> None:
    mixed = Clips(("ac c", *("ab c",) * 5), clips("ab c", 6).log_probs)
    tuning = tune(mixed, ALPHABET, Unigram({"ac": -1.0, "ab": -1.0, "c": -1.0}), SETTINGS)
    assert 0.0 <= tuning.sureness < 0.95 and not tuning.helps


def test_no_beam_is_widened_beyond_the_widest() -> None:
    model = Unigram({"ac": -0.1, "c": -0.1})
    assert list(tune(clips("ac c"), ALPHABET, model, replace(SETTINGS, beam=4_000)).beams) == [4_000, 8_000, 10_000]
    assert list(tune(clips("ac c"), ALPHABET, model, replace(SETTINGS, beam=10_000)).beams) == [10_000]


def test_the_finer_grid_by_hand() -> None:
    assert between((0.0, 1.0, 3.0), 1.0) == [0.5, 1.0, 2.0]
    assert between((0.0, 1.0, 3.0), 0.0) == [-0.5, 0.0, 0.5]
    assert between((0.0, 1.0, 3.0), 3.0) == [2.0, 3.0, 4.0]


def test_the_surface_fits_the_screen_and_marks_the_best() -> None:
    tuning = tune(clips("ac c"), ALPHABET, Unigram({"ac": -1.0, "c": -1.0}), SETTINGS)
    lines = surface_table(tuning).splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) > len(ALPHAS)
    assert "0.00*" in "".join(lines) and lines[0].split()[0] == "alpha"
    assert max(map(len, verdict(tuning).splitlines())) <= 80
    unsure = replace(tuning, sureness=0.5)
    assert max(map(len, verdict(unsure).splitlines())) <= 80


def test_nothing_to_tune_on() -> None:
    with pytest.raises(ValueError, match="holds no clips"):
        tune(Clips((), ()), ALPHABET, Unigram({}), SETTINGS)
    with pytest.raises(ValueError, match="holds no words"):
        tune(clips("", 2), ALPHABET, Unigram({}), SETTINGS)
