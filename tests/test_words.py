"""quartznet.words: times by hand, forced alignment against every path, and where a sound really is in the waveform."""

import pytest
import torch
from enumeration import all_paths, collapse, path_probabilities
from hypothesis import given, settings
from hypothesis import strategies as st

from quartznet.alphabet import Alphabet
from quartznet.config import BlockConfig, FeatureConfig, ModelConfig
from quartznet.ctc import greedy_decode
from quartznet.model import QuartzNet
from quartznet.words import Span, Word, align, align_words, letters, read_spans, words_of

ALPHABET = Alphabet((" ", "a", "b"))
SPACE, A, B, BLANK = range(4)


def certain(path: list[int], probability: float = 0.97) -> torch.Tensor:
    """Log-probs (time, 4) whose best path is ``path``."""
    probabilities = torch.full((len(path), 4), (1 - probability) / 3)
    probabilities[torch.arange(len(path)), torch.tensor(path, dtype=torch.int64)] = probability
    return probabilities.log()


def test_spans_by_hand() -> None:
    assert read_spans([BLANK, A, A, BLANK, A, B, BLANK], BLANK) == [Span(A, 1, 2), Span(A, 4, 4), Span(B, 5, 5)]
    assert read_spans([], BLANK) == [] == read_spans([BLANK, BLANK], BLANK)


def test_words_by_hand() -> None:
    log_probs = certain([A, A, BLANK, B, SPACE, SPACE, BLANK, B, BLANK, A])
    log_probs[7] = torch.tensor([0.1, 0.1, 0.7, 0.1]).log()
    [found] = words_of(log_probs[None], torch.tensor([9]), ALPHABET, 0.02)  # the tenth frame is padding
    assert [word.text for word in found] == ["ab", "b"]
    assert found[0].start == 0.0 and found[0].end == pytest.approx(0.07)
    assert found[0].confidence == pytest.approx(0.97**2)  # of two letters
    assert found[1].start == pytest.approx(0.13) and found[1].end == pytest.approx(0.15)
    assert found[1].confidence == pytest.approx(0.7)


def test_letters_have_times_too_and_count_their_surest_frame() -> None:
    log_probs = certain([BLANK, A, A, SPACE])
    log_probs[1] = torch.tensor([0.1, 0.6, 0.2, 0.1]).log()
    found = letters(read_spans([BLANK, A, A, SPACE], BLANK), log_probs, ALPHABET, 1.0)
    assert [letter.text for letter in found] == ["a", " "]
    assert (found[0].start, found[0].end) == (0.5, 2.5) and found[0].confidence == pytest.approx(0.97)
    assert (found[1].start, found[1].end) == (2.5, 3.5)


def test_nothing_said_is_no_words() -> None:
    log_probs = certain([BLANK, SPACE, BLANK])[None]
    assert words_of(log_probs, torch.tensor([3]), ALPHABET, 0.02) == [[]]
    assert words_of(log_probs, torch.tensor([0]), ALPHABET, 0.02) == [[]]
    assert words_of(log_probs[:, :0], torch.tensor([0]), ALPHABET, 0.02) == [[]]
    assert words_of(log_probs[:0], torch.tensor([]), ALPHABET, 0.02) == []


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 30))
def test_words_are_the_greedy_text_and_never_run_backwards(seed: int, time: int) -> None:
    log_probs = torch.randn(2, time, 4, generator=torch.Generator().manual_seed(seed)).log_softmax(2)
    lengths = torch.tensor([time, time // 2])
    found = words_of(log_probs, lengths, ALPHABET, 0.02)
    assert [" ".join(word.text for word in row) for row in found] == [
        " ".join(text.split()) for text in greedy_decode(log_probs, lengths, ALPHABET)
    ]
    for row, length in zip(found, lengths.tolist(), strict=True):
        ends = [0.0] + [edge for word in row for edge in (word.start, word.end)] + [length * 0.02]
        assert ends == sorted(ends)
        assert all(word.end > word.start and 0.0 < word.confidence <= 1.0 for word in row)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.lists(st.integers(0, 2), max_size=4))
def test_align_finds_the_best_of_all_paths(seed: int, ids: list[int]) -> None:
    logits = 2 * torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
    paths = all_paths(5, 4)
    right = torch.tensor([collapse(tuple(path), BLANK) == tuple(ids) for path in paths.tolist()])
    if not right.any():
        with pytest.raises(ValueError, match=r"needs \d frames, the recording has 5"):
            align(logits.log_softmax(1), 5, ids)
        return
    best = (path_probabilities(logits, paths) * right).argmax()
    assert align(logits.log_softmax(1), 5, ids) == read_spans(paths[best].tolist(), BLANK)


def test_the_greedy_text_aligns_to_the_greedy_path() -> None:
    log_probs = torch.randn(1, 40, 4).log_softmax(2)
    [text] = greedy_decode(log_probs, torch.tensor([40]), ALPHABET)
    [greedy] = words_of(log_probs, torch.tensor([40]), ALPHABET, 0.02)
    assert align_words(log_probs[0], 40, text, ALPHABET, 0.02) == greedy


def test_align_reads_no_frame_beyond_the_length() -> None:
    log_probs = certain([A, BLANK, BLANK, B])
    assert align(log_probs, 3, [B])[0].last < 3
    assert align(log_probs, 4, [A, B]) == [Span(A, 0, 0), Span(B, 3, 3)]
    assert align(log_probs, 0, []) == []


def test_align_takes_another_blank() -> None:
    log_probs = certain([A, BLANK, B, B])
    assert align(log_probs, 4, [A, BLANK, B], blank=SPACE) == [Span(A, 0, 0), Span(BLANK, 1, 1), Span(B, 2, 3)]


def test_a_word_that_was_not_said_is_not_sure() -> None:
    log_probs = certain([A, BLANK, SPACE, B, BLANK])
    first, second = align_words(log_probs, 5, "b b", ALPHABET, 0.02)
    assert first.confidence == pytest.approx(0.01) and second.confidence == pytest.approx(0.97)


@pytest.mark.parametrize(
    ("log_probs", "length", "ids", "message"),
    [
        (torch.zeros(2, 3, 4), 3, [A], "takes one utterance"),
        (torch.zeros(3, 4), 4, [A], "at most its frames"),
        (torch.zeros(3, 4), 3, [BLANK], "without the blank"),
        (torch.zeros(3, 4), 3, [7], "letters 0 to 3"),
        (torch.zeros(3, 4), 3, [A, A, B], "3 letters needs 4 frames, the recording has 3"),
        (torch.full((3, 4), torch.nan), 3, [A], "NaN"),
    ],
)
def test_what_cannot_be_aligned(log_probs: torch.Tensor, length: int, ids: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        align(log_probs, length, ids)


def test_a_frame_has_a_length() -> None:
    with pytest.raises(ValueError, match="frame_seconds must be above 0"):
        words_of(torch.zeros(1, 2, 4), torch.tensor([2]), ALPHABET, 0.0)


@pytest.mark.parametrize("rule", ["0.x", "1.x", "2.5"])
def test_frame_t_is_centred_on_sample_t_times_320(rule: str) -> None:
    """A click there is felt alike on both sides of frame t, where kernels are symmetric."""
    blocks = (BlockConfig(4, 3, stride=2), BlockConfig(4, 5, residual=True))
    features = FeatureConfig(rule=rule, normalize="none", preemphasis=0.0, periodic_window=True)
    model = QuartzNet(ModelConfig((" ", "a"), blocks, features))
    for name, weight in model.encoder.named_parameters():
        if weight.dim() == 4:
            weight.data = weight.abs() + weight.abs().flip(3)
        elif name.endswith("norm.bias"):
            weight.data.fill_(1000.0)  # far from where ReLU bends
    quiet = torch.zeros(1, 32000)
    for frame in (40, 41):
        click = quiet.clone()
        click[0, frame * model.samples_per_output] = 1.0
        with torch.inference_mode():
            felt = [model.eval().encode(*model.features(x, torch.tensor([32000])))[0][0, :, 0] for x in (quiet, click)]
        change = (felt[1] - felt[0]).abs().sum(0)[:100]
        moved = change.nonzero()[:, 0]
        assert moved.min() + moved.max() == 2 * frame
        around = change[frame - 5 : frame + 6]
        torch.testing.assert_close(around, around.flip(0), rtol=1e-3, atol=1e-2)


def test_word_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Word("a", 0.0, 1.0, 1.0).start = 2.0
