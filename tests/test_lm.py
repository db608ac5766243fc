"""Opening models with and without KenLM, and whether they fit an alphabet."""

import logging
from collections.abc import Iterable
from pathlib import Path

import pytest

from quartznet import lm
from quartznet.alphabet import Alphabet
from quartznet.arpa import ArpaModel, LanguageModel, read_arpa
from quartznet.kenlm_model import KenlmModel, has_kenlm
from quartznet.lm import check_alphabet, open_language_model
from quartznet.ngram import build_model

BINARY = b"mmap lm http://kheafield.com/code format version 5\n\0"
TEXT = ["sí no", "no", "sí sí no quizá", "mañana no", "no no sí"]
needs_kenlm = pytest.mark.skipif(not has_kenlm(), reason="the package kenlm is not installed (extra [lm])")


@pytest.fixture
def arpa(tmp_path: Path) -> Path:
    build_model(TEXT, tmp_path / "es.arpa", 3)
    return tmp_path / "es.arpa"


class Words(LanguageModel):
    """A vocabulary and nothing else."""

    order = 1

    def __init__(self, words: Iterable[str] | None) -> None:
        self.words = words

    def start(self) -> int:
        return 0

    def score(self, state: int, word: str) -> tuple[float, int]:
        return 0.0, 0

    def end(self, state: int) -> float:
        return 0.0

    def knows(self, word: str) -> bool:
        return word in (self.words or ())

    def vocabulary(self) -> Iterable[str] | None:
        return self.words


# ---------------------------------------------------------------------------------------------------------------------
# Opening


def test_without_kenlm_our_reader_reads(arpa: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm, "has_kenlm", lambda: False)
    assert isinstance(open_language_model(arpa), ArpaModel)
    arpa.write_bytes(BINARY)
    with pytest.raises(ValueError, match="KenLM binary; to read it, pip install kenlm"):
        open_language_model(arpa)


@pytest.mark.parametrize("kenlm", [False, pytest.param(True, marks=needs_kenlm)])
def test_files_that_cannot_be_opened(arpa: Path, monkeypatch: pytest.MonkeyPatch, kenlm: bool) -> None:
    monkeypatch.setattr(lm, "has_kenlm", lambda: kenlm)
    with pytest.raises(FileNotFoundError, match="there is no language model"):
        open_language_model(arpa.parent / "it.arpa")
    lines = arpa.read_text(encoding="utf-8").splitlines(keepends=True)
    arpa.write_text("".join(lines[:12]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"es\.arpa:13: the file ends before"):
        open_language_model(arpa)


@needs_kenlm
def test_kenlm_gives_the_same_scores(arpa: Path) -> None:
    theirs, ours = open_language_model(arpa), lm.read_arpa(arpa)
    assert isinstance(theirs, KenlmModel) and theirs.order == ours.order == 3
    assert sorted(theirs.vocabulary()) == sorted(ours.vocabulary()) == ["mañana", "no", "quizá", "sí"]
    for text in ("", "sí no", "no no sí", "tal vez no", "mañana sí sí"):
        left, right = theirs.start(), ours.start()
        for word in text.split():
            (score, left), (expected, right) = theirs.score(left, word), ours.score(right, word)
            assert score == pytest.approx(expected, abs=1e-5) and theirs.knows(word) == ours.knows(word)
        assert theirs.end(left) == pytest.approx(ours.end(right), abs=1e-5)
    assert not any(map(theirs.knows, ("<s>", "</s>", "<unk>")))


@needs_kenlm
def test_kenlm_matches_the_same_n_grams(arpa: Path) -> None:
    theirs, ours = KenlmModel(arpa), read_arpa(arpa)
    for text in (*TEXT, "sí mañana", ""):
        assert theirs.matched(text.split()) == ours.matched(text.split())


@needs_kenlm
def test_states_of_kenlm_can_be_compared_and_hashed(arpa: Path) -> None:
    model = open_language_model(arpa)
    first, second = (model.score(model.start(), "no")[1] for _ in range(2))
    assert first == second and len({first, second, model.start()}) == 2


@needs_kenlm
def test_what_kenlm_refuses_our_reader_may_read(arpa: Path, caplog: pytest.LogCaptureFixture) -> None:
    build_model(TEXT, arpa, 1)  # KenLM wants bigrams
    assert isinstance(open_language_model(arpa), ArpaModel)
    assert "read without KenLM, which refuses it" in caplog.text and "at least a bigram model" in caplog.text


@needs_kenlm
def test_a_broken_binary(arpa: Path) -> None:
    arpa.write_bytes(BINARY)
    with pytest.raises(ValueError, match="no KenLM binary that the installed kenlm reads"):
        open_language_model(arpa)


# ---------------------------------------------------------------------------------------------------------------------
# The alphabet

SPANISH = Alphabet((" ", *"abcdefghijklmnñopqrstuvwxyzáéíóúü"))


def test_a_model_that_fits(arpa: Path, caplog: pytest.LogCaptureFixture) -> None:
    alphabet = Alphabet((" ", *"aimnñoqsuzáí"))
    assert check_alphabet(open_language_model(arpa), alphabet) == 0.0 and not caplog.records


def test_a_model_in_another_script_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ru\.arpa: 66\.7% of its 3 words cannot be written .* такое, кино \(к о т"):
        check_alphabet(Words(["vino", "такое", "кино"]), SPANISH, "ru.arpa")


def test_a_model_in_capitals_is_refused_and_lower_case_named() -> None:
    with pytest.raises(ValueError, match=r"100\.0% of its 2 words .*in lower case only 0\.0%.*lm build --lang"):
        check_alphabet(Words(["HOLA", "SÍ"]), SPANISH)


def test_a_few_foreign_words_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    words = [f"{first}{second}" for first in SPANISH.labels[1:] for second in "abc"]
    assert check_alphabet(Words([*words, "façade", "Übel"]), SPANISH) == pytest.approx(2 / 101)
    [record] = caplog.records
    assert record.levelno == logging.WARNING and "2.0% of its 101 words" in record.message
    assert "façade, Übel" in record.message


def test_letters_that_no_word_holds_are_named(caplog: pytest.LogCaptureFixture) -> None:
    assert check_alphabet(Words(["the", "quick", "brown", "fox"]), SPANISH) == 0.0
    assert "no word holds a d g j l m p s v y z á é í ñ ó ú ü; is it of this language?" in caplog.text


def test_a_model_that_cannot_list_its_words(caplog: pytest.LogCaptureFixture) -> None:
    assert check_alphabet(Words(None), SPANISH, "es.binary") is None
    assert "es.binary cannot list its words" in caplog.text


def test_garbage_that_kenlm_quotes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(path: Path) -> None:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    (tmp_path / "x.arpa").write_bytes(b"\xff" * 100)
    monkeypatch.setattr("quartznet.lm.has_kenlm", lambda: True)
    monkeypatch.setattr("quartznet.lm.KenlmModel", refuses)
    with pytest.raises(ValueError, match=r"x\.arpa:1: bytes that are no UTF-8"):
        open_language_model(tmp_path / "x.arpa")
