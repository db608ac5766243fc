"""Detours from the best path, against trying all of them, and by hand."""

import itertools
import math

import pytest
import torch
from enumeration import collapse
from torch import Tensor

from quartznet.alphabet import Alphabet
from quartznet.ctc import greedy_decode
from quartznet.hotword_spots import greedy_with_hotwords, path_with_hotwords, spots
from quartznet.hotwords import HotWord, HotWords

ALPHABET = Alphabet((" ", "a", "b", "c"))


def hot(*entries: tuple[str, float], alphabet: Alphabet = ALPHABET) -> HotWords:
    return HotWords([HotWord(text, weight, (text,), False) for text, weight in entries], alphabet)


def spoken(text: str, alphabet: Alphabet = ALPHABET) -> Tensor:
    """log_probs (2 len(text), labels + 1): each letter, then a blank; 4 nats above all others."""
    logits = torch.zeros(2 * len(text), alphabet.blank + 1)
    for place, label in enumerate(alphabet.encode(text)):
        logits[2 * place, label] = logits[2 * place + 1, alphabet.blank] = 4.0
    return logits.log_softmax(-1)


def decode(log_probs: Tensor, words: HotWords, alphabet: Alphabet = ALPHABET) -> str:
    return greedy_with_hotwords(log_probs[None], torch.tensor([len(log_probs)]), alphabet, words)[0]


def least_loss(log_probs: Tensor, phrase: str, alphabet: Alphabet) -> float:
    """Of all stretches of frames and all ways to read the phrase there."""
    losses = (log_probs - log_probs.max(dim=1, keepdim=True).values).double()
    if " " in alphabet.labels:
        edge = torch.full((1, losses.shape[1]), -math.inf, dtype=torch.float64)
        edge[0, 0] = 0.0
        losses, phrase = torch.cat([edge, losses, edge]), f" {phrase} "
    best, target = -math.inf, tuple(alphabet.encode(phrase))
    for start, end in itertools.combinations(range(len(losses) + 1), 2):
        for path in itertools.product(range(alphabet.blank + 1), repeat=end - start):
            if alphabet.blank not in (path[0], path[-1]) and collapse(path, alphabet.blank) == target:
                best = max(best, sum(losses[start + place, label].item() for place, label in enumerate(path)))
    return -best


@pytest.mark.parametrize("phrase", ["a", "ab", "aa", "a b"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_best_detour_of_all(phrase: str, seed: int) -> None:
    alphabet = Alphabet((" ", "a", "b"))
    log_probs = (2 * torch.randn(4, 4, generator=torch.Generator().manual_seed(seed))).log_softmax(-1)
    loss = least_loss(log_probs, phrase, alphabet)
    found = spots(log_probs, hot((phrase, 90.0), alphabet=alphabet), alphabet.blank)
    assert max((spot.gain for spot in found), default=-math.inf) == pytest.approx(90.0 - loss)
    assert spots(log_probs, hot((phrase, loss - 1e-6), alphabet=alphabet), alphabet.blank) == []


def test_a_phrase_is_written_where_its_loss_is_below_its_weight() -> None:
    log_probs = spoken("ab cb a")  # "cc" in place of "cb": 4 nats
    assert decode(log_probs, hot(("cc", 3.9))) == "ab cb a"
    assert decode(log_probs, hot(("cc", 4.1))) == "ab cc a"
    assert decode(log_probs, hot(("ab ca", 4.1))) == "ab ca a"
    assert decode(log_probs, hot(("b", 3.0), ("c", 3.0))) == "ab cb a"  # whole words only


def test_a_phrase_may_stand_for_several_words_and_at_the_edges() -> None:
    log_probs = spoken("a b")
    assert decode(log_probs, hot(("acb", 5.0))) == "acb"
    assert decode(log_probs, hot(("a c", 5.0))) == "a c"
    assert decode(log_probs, hot(("c b", 5.0), ("a c", 4.5))) == "c b"  # one across the other


def test_neighbours_share_the_space_between_them() -> None:
    assert decode(spoken("ab cb"), hot(("aa", 5.0), ("cc", 5.0))) == "aa cc"


def test_what_is_there_already_keeps_its_place() -> None:
    log_probs = spoken("ab b")
    assert decode(log_probs, hot(("ac", 5.0))) == "ac b"
    assert decode(log_probs, hot(("ac", 5.0), ("ab", 3.0))) == "ab b"


def test_without_spaces_and_with_a_spelling() -> None:
    alphabet = Alphabet(("_", "'", "x"))
    assert decode(spoken("x_x'", alphabet), hot(("xx", 5.0), alphabet=alphabet), alphabet) == "xxxx"
    assert decode(spoken("x_''", alphabet), hot(("xx", 5.0), alphabet=alphabet), alphabet) == "xx''"
    words = HotWords([HotWord("C&A", 5.0, ("c a",), True)], ALPHABET)
    assert decode(spoken("b c a"), words) == "b C&A"


def test_nothing_to_read_and_padding() -> None:
    words = hot(("a", 50.0))
    log_probs = torch.stack([spoken("ab"), torch.full((4, 5), math.nan)])
    assert greedy_with_hotwords(log_probs, torch.tensor([2, 0]), ALPHABET, words) == ["a", ""]
    assert path_with_hotwords(log_probs[0, :2], words, ALPHABET.blank).tolist() == [1, 4]


def test_phrases_far_from_the_sound_change_nothing() -> None:
    log_probs = torch.stack([spoken("ab cb a"), spoken("ca a ab")])
    lengths = torch.tensor([14, 14])
    words = hot(("bbb aaa", 6.0), ("cccc", 6.0))
    assert greedy_with_hotwords(log_probs, lengths, ALPHABET, words) == greedy_decode(log_probs, lengths, ALPHABET)


def test_negative_weights_are_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    assert decode(spoken("ab"), hot(("ab", -9.0), ("c", 1.0))) == "ab"
    assert "1 hot words with a weight of 0 or less have no effect without a beam" in caplog.text
