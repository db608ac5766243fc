"""The output layer for a new alphabet: which rows come from where, and that the network then says the same letters."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from quartznet.config import BlockConfig, ModelConfig
from quartznet.head import HeadPlan, base_letter, plan_head, sound, transfer_head
from quartznet.model import QuartzNet
from quartznet.text import find_language, known_languages

ENGLISH = tuple(" abcdefghijklmnopqrstuvwxyz'")


def sources(plan: HeadPlan) -> dict[str, tuple[str, str | None]]:
    """New label -> (how, old label)."""
    return {row.label: (row.how, None if row.source is None else plan.old_labels[row.source]) for row in plan.rows}


def test_spanish_from_english_by_hand() -> None:
    plan = plan_head(ENGLISH, find_language("es").labels)
    found = sources(plan)
    assert all(found[letter] == ("copied", letter) for letter in " abcdefghijklmnopqrstuvwxyz")
    assert {letter: old for letter, (how, old) in found.items() if how == "base"} == {
        "á": "a", "é": "e", "í": "i", "ó": "o", "ú": "u", "ü": "u", "ñ": "n",
    }  # fmt: skip
    lines = str(plan).splitlines()
    assert lines[0].startswith("output layer: copied 27, from a base letter 7 (ñ<-n á<-a")
    assert lines[-1].endswith("by sound 0, new 0") and max(map(len, lines)) <= 80


def test_russian_from_english_and_back() -> None:
    found = sources(plan_head(ENGLISH, find_language("ru").labels))
    assert found["ж"] == ("sound", "j") and found["й"] == ("sound", "y") and found["ё"] == ("sound", "o")
    assert [letter for letter, (how, _) in found.items() if how == "new"] == ["ъ", "ь"]
    back = sources(plan_head(find_language("ru").labels, ENGLISH))
    assert back["o"] == ("sound", "о") and back["e"] == ("sound", "е") and back["q"] == ("new", None)
    assert sources(plan_head(find_language("ru").labels, find_language("uk").labels))["і"] == ("sound", "и")


def test_letters() -> None:
    assert [base_letter(letter) for letter in "ñйǿßæ"] == ["n", "и", "ø", "ß", "æ"]
    assert [sound(letter) for letter in "ñйǿßæ'ъ漢 5"] == ["n", "y", "o", "s", "a", "'", None, None, None, None]


def test_case_does_not_matter_and_the_letter_itself_wins() -> None:
    found = sources(plan_head(("é", "E", "N"), ("e", "n", "É", "ê")))
    assert found == {"e": ("copied", "E"), "n": ("copied", "N"), "É": ("copied", "é"), "ê": ("base", "E")}


@pytest.mark.parametrize("code", known_languages())
def test_every_shipped_language_has_a_start_from_english(code: str) -> None:
    new = [row.label for row in plan_head(ENGLISH, find_language(code).labels).rows if row.how == "new"]
    assert new == {"ca": ["·"], "ru": ["ъ", "ь"], "uk": ["ь"]}.get(code, [])


def network(labels: tuple[str, ...]) -> QuartzNet:
    return QuartzNet(ModelConfig(labels, (BlockConfig(8, 3, stride=2), BlockConfig(6, 1, separable=False)))).eval()


def moved(old: QuartzNet, labels: tuple[str, ...]) -> tuple[QuartzNet, HeadPlan]:
    """The network with an output layer for other labels."""
    plan = plan_head(old.config.labels, labels)
    new = QuartzNet(dataclasses.replace(old.config, labels=labels)).eval()
    new.load_state_dict(old.state_dict() | transfer_head(old.state_dict(), plan))
    return new, plan


def test_the_same_letters_in_another_order_are_said_alike() -> None:
    old = network(ENGLISH)
    order = torch.randperm(len(ENGLISH)).tolist()
    new, _ = moved(old, tuple(ENGLISH[place] for place in order))
    signal, lengths = torch.randn(2, 4000), torch.tensor([4000, 3000])
    before, after = old(signal, lengths)[0], new(signal, lengths)[0]
    assert_close(after[..., :-1], before[..., order])
    assert_close(after[..., -1], before[..., -1])


def test_rows_of_letters_and_blank_are_those_of_their_sources() -> None:
    old = network(ENGLISH)
    new, plan = moved(old, find_language("es").labels)
    for number, row in enumerate(plan.rows):
        assert torch.equal(new.decoder.weight[number], old.decoder.weight[row.source])
        assert torch.equal(new.decoder.bias[number], old.decoder.bias[row.source])
    assert torch.equal(new.decoder.weight[-1], old.decoder.weight[-1])
    assert torch.equal(new.decoder.bias[-1], old.decoder.bias[-1])


def test_a_new_row_is_near_the_mean_of_the_letters_and_no_two_are_alike() -> None:
    old = network(ENGLISH)
    torch.nn.init.constant_(old.decoder.weight[0], 50.0)  # the space is no letter and must not count
    torch.nn.init.constant_(old.decoder.weight[-1], -50.0)  # nor the blank
    new, plan = moved(old, ("漢", "字", "a"))
    assert [row.how for row in plan.rows] == ["new", "new", "copied"]
    letters = old.decoder.weight[1:-1]
    distance = (new.decoder.weight[:2] - letters.mean(0)).abs()
    assert (distance <= 0.6 * letters.std(0)).all() and (distance > 0).any()
    assert not torch.equal(new.decoder.weight[0], new.decoder.weight[1])
    assert_close(new.decoder.bias[:2], old.decoder.bias[1:-1].mean().repeat(2))


def test_a_layer_that_does_not_fit_its_alphabet_is_refused() -> None:
    with pytest.raises(ValueError, match="the output layer has 29 outputs, its alphabet asks for 3"):
        transfer_head(network(ENGLISH).state_dict(), plan_head(("a", "b"), ("a",)))
