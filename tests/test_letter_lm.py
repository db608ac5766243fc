"""ln P of texts: by hand, in batches and pieces as alone; and files, friendly and hostile."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quartznet.alphabet import Alphabet
from quartznet.letter_lm import LetterLm, load_for, surprise_of
from quartznet.transformer_xl import TransformerConfig

TINY = TransformerConfig(layers=2, channels=8, heads=2, memory=4, dropout=0.5)


def random_model() -> LetterLm:
    torch.manual_seed(3)
    model = LetterLm.new((" ", "a", "b", "ñ"), TINY, "xx")
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return model


MODEL = random_model()
SENTENCES = st.lists(st.text("ab ñ", max_size=12), min_size=1, max_size=6)


def test_a_text_by_hand() -> None:
    model = random_model()
    model.network.eval()
    log_probs = model.network(torch.tensor([[4, 1, 3]]))[0][0].log_softmax(-1)
    expected = log_probs[0, 1] + log_probs[1, 3] + log_probs[2, 4]  # a, ñ, end
    assert model.score(["añ"]) == pytest.approx([expected.item()])


def test_dropout_is_off_while_scoring_and_on_again_after_it() -> None:
    model = random_model()
    model.network.train()
    assert model.score(["ab ab"]) == model.score(["ab ab"])
    assert model.network.training


@settings(max_examples=20, deadline=None)
@given(texts=SENTENCES, letters=st.integers(1, 40))
def test_batches_and_padding_change_nothing(texts: list[str], letters: int) -> None:
    together, alone = MODEL.score(texts, letters=letters), [MODEL.score([text])[0] for text in texts]
    assert together == pytest.approx(alone, rel=1e-5, abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(texts=SENTENCES, segment=st.integers(1, 5))
def test_pieces_with_memory_change_nothing(texts: list[str], segment: int) -> None:
    assert MODEL.score(texts, segment=segment) == pytest.approx(MODEL.score(texts), rel=1e-5, abs=1e-5)


def test_probabilities_of_all_short_texts_and_of_longer_ones_sum_to_one() -> None:
    """P of the texts with 0 or 1 letters, and of all that begin with two, is everything."""
    short = sum(map(math.exp, MODEL.score(["", " ", "a", "b", "ñ"])))
    network = MODEL.network.eval()
    first = network(torch.tensor([[4]]))[0][0, 0].softmax(-1)
    seconds = network(torch.tensor([[4, letter] for letter in range(4)]))[0][:, 1].softmax(-1)
    longer = (first[:4] * seconds[:, :4].sum(1)).sum()
    assert short + longer.item() == pytest.approx(1.0, abs=1e-5)


def test_a_letter_it_does_not_know() -> None:
    with pytest.raises(ValueError, match=r"\(xx\) has no 'c', 'é', in 'aéc'; its letters are ' abñ'"):
        MODEL.score(["ab", "aéc"])


def test_equally_probable_letters_cost_the_logarithm_of_their_number() -> None:
    model = random_model()
    torch.nn.init.zeros_(model.network.output.weight)
    torch.nn.init.zeros_(model.network.output.bias)
    result = model.surprise(["ab ba", "a"])
    assert result.bits_per_letter == pytest.approx(math.log2(5))
    assert result.bits_per_word == pytest.approx(8 * math.log2(5) / 5)  # 6 letters, 3 words, 2 ends
    assert str(result) == "2.322 bits a letter, 3.72 a word"


def test_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="there is no text to measure"):
        surprise_of([], [])


# ---------------------------------------------------------------------------------------------------------------------
# Files


def test_saved_and_loaded_it_is_the_same_to_the_bit(tmp_path: Path) -> None:
    model = random_model()
    model.save(tmp_path / "lm.pt")
    again = LetterLm.load(tmp_path / "lm.pt")
    assert (again.alphabet, again.lang, again.network.config) == (model.alphabet, "xx", TINY)
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name])
    assert again.score(["ab ñ", "a"]) == model.score(["ab ñ", "a"])
    assert not again.network.training and [path.name for path in tmp_path.iterdir()] == ["lm.pt"]


def test_it_can_go_on_learning_after_loading(tmp_path: Path) -> None:
    random_model().save(tmp_path / "lm.pt")
    network = LetterLm.load(tmp_path / "lm.pt").network
    network(torch.tensor([[4, 1]]))[0].sum().backward()
    assert network.output.weight.grad is not None


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_a_hostile_file_runs_nothing(tmp_path: Path) -> None:
    torch.save({**random_model().payload(), "extra": Evil(tmp_path / "ran")}, tmp_path / "lm.pt")
    with pytest.raises(ValueError, match=r"lm\.pt cannot be read as a language model"):
        LetterLm.load(tmp_path / "lm.pt")
    assert not (tmp_path / "ran").exists()


def test_a_file_that_claims_to_be_huge_fails_on_what_it_holds(tmp_path: Path) -> None:
    payload = random_model().payload()
    payload["config"] = {"layers": 2, "channels": 2**40, "heads": 2}
    torch.save(payload, tmp_path / "lm.pt")
    with pytest.raises(ValueError, match=r"lm\.pt: weights, labels and config contradict each other"):
        LetterLm.load(tmp_path / "lm.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "quartznet-1"}, "no neural language model .* its format is 'quartznet-1'"),
        ({"labels": [" ", "a", "b"]}, "weights, labels and config contradict each other"),
        ({"labels": [" ", "a", "a", "b"]}, "contradict each other: .*repeated"),
        ({"labels": [" ", "a", 3, "b"]}, "labels a list of letters"),
        ({"labels": 4}, "labels a list of letters"),
        ({"lang": None}, "lang must be text"),
        ({"config": {"layers": 2, "depth": 1}}, "unknown setting config.depth"),
        ({"weights": {"output.bias": 1}}, "contradict each other"),
        ({"weights": 5}, "contradict each other"),
    ],
)
def test_a_broken_file(tmp_path: Path, change: dict, message: str) -> None:
    torch.save({**random_model().payload(), **change}, tmp_path / "lm.pt")
    with pytest.raises(ValueError, match=message):
        LetterLm.load(tmp_path / "lm.pt")


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    payload = random_model().payload()
    payload["weights"]["norm.bias"][0] = math.nan
    torch.save(payload, tmp_path / "lm.pt")
    with pytest.raises(ValueError, match=r"norm\.bias is not finite \(of 1\)"):
        LetterLm.load(tmp_path / "lm.pt")


def test_no_file_and_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no language model .*lm\.pt; make one with"):
        LetterLm.load(tmp_path / "lm.pt")
    (tmp_path / "lm.pt").write_bytes(b"\\data\\\nngram 1=4\n")
    with pytest.raises(ValueError, match="cannot be read as a language model"):
        LetterLm.load(tmp_path / "lm.pt")


def test_a_model_for_a_recogniser(tmp_path: Path) -> None:
    random_model().save(tmp_path / "lm.pt")
    for labels, lang in (("abñ ", "xx"), ("ab", "xx-YY"), ("ab", "XX_yy"), ("ab", None)):
        assert load_for(tmp_path / "lm.pt", Alphabet(tuple(labels)), lang).lang == "xx"
    with pytest.raises(ValueError, match=r"lm\.pt is a model of language xx, the network writes es; train one with"):
        load_for(tmp_path / "lm.pt", Alphabet(("a",)), "es")
    with pytest.raises(ValueError, match=r"lm\.pt \(language xx\) has no 'c' 'z', which the network writes"):
        load_for(tmp_path / "lm.pt", Alphabet(tuple("zac")), None)
