"""WordPiece: the numbers of transformers, texts that come back, limits that hold, broken vocabularies."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_bert import SPECIAL, TOKENS, tiny_tokenizer, write_vocabulary
from tokenizers import Tokenizer, models

from postcorrect.wordpiece import WordPiece, pad_rows

GOLDEN = Path(__file__).parent / "golden" / "bert"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> WordPiece:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


# ---------------------------------------------------------------------------------------------------------------------
# There


@pytest.mark.parametrize("lower_case", [False, True])
def test_numbers_are_those_of_transformers(tmp_path: Path, lower_case: bool) -> None:
    shutil.copy(GOLDEN / "vocab.txt", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower_case}))
    texts = json.loads((GOLDEN / "texts.json").read_text("utf-8"))[str(lower_case)]
    assert WordPiece.read(tmp_path).ids([text for text, _ in texts]) == [ids for _, ids in texts]


def test_numbers_by_hand(tokenizer: WordPiece) -> None:
    tokens = [TOKENS[number] for number in tokenizer.ids(["the country's"])[0]]
    assert tokens == ["[CLS]", "the", "coun", "##try", "'", "s", "[SEP]"]
    assert tokenizer.special == SPECIAL and len(tokenizer) == len(TOKENS)


def test_names_of_special_tokens_in_a_text_are_text(tokenizer: WordPiece) -> None:
    [row] = tokenizer.ids(["a [SEP] b [PAD]"])
    assert row.count(SPECIAL.end) == 1 and SPECIAL.pad not in row


def test_a_batch_is_padded_and_masked(tokenizer: WordPiece) -> None:
    ids, mask = tokenizer.encode(["the", "", "the don"], limit=4)
    assert ids.tolist() == [[2, 7, 3, 0], [2, 3, 0, 0], [2, 7, 5, 3]]
    assert mask.tolist() == [[True] * 3 + [False], [True, True, False, False], [True] * 4]
    assert ids.dtype == torch.int64 and mask.dtype == torch.bool


def test_nothing_is_cut_off(tokenizer: WordPiece) -> None:
    with pytest.raises(ValueError, match=r"text 2 of 2 has 5 tokens, more than 4: 'don't ...'; split it"):
        tokenizer.encode(["the", "don't"], limit=4)
    [row] = tokenizer.ids(["the " * 2000])
    assert len(row) == 2002


def test_no_rows_and_empty_rows() -> None:
    assert pad_rows([], 0)[0].shape == (0, 0)
    ids, mask = pad_rows([[], [5]], 9)
    assert ids.tolist() == [[9], [5]] and mask.tolist() == [[False], [True]]


def test_a_saved_order_to_truncate_is_revoked(tmp_path: Path, tokenizer: WordPiece) -> None:
    inner = Tokenizer.from_str(tokenizer.to_json())
    inner.enable_truncation(3)
    inner.enable_padding(length=9)
    inner.save(str(tmp_path / "tokenizer.json"))
    assert WordPiece.read(tmp_path).ids(["the country's"]) == tokenizer.ids(["the country's"])


# ---------------------------------------------------------------------------------------------------------------------
# And back


def test_texts_come_back(tokenizer: WordPiece) -> None:
    for text in ("don't worry", "the country's mother-in-law", "l'n d'a", "a b"):
        assert tokenizer.decode(tokenizer.ids([text])[0]) == text


def test_signs_stand_where_a_text_like_it_has_them(tokenizer: WordPiece) -> None:
    for like, text in (
        ("the dons' hats", "the dons' cats"),  # the rule alone would write dons'cats
        ("the don 'n' a", "the don 'n' a"),
        ("a - b", "a - c"),
        ("'a' - b-c", "b-c - 'a'"),
        ("don't", "don't can't"),
    ):
        assert tokenizer.decode(tokenizer.ids([text])[0], like=like) == text
    assert tokenizer.decode(tokenizer.ids(["the dons' cats"])[0]) == "the dons'cats"


def test_special_tokens_are_silent_but_the_unknown_is_seen(tokenizer: WordPiece) -> None:
    number = TOKENS.index
    assert tokenizer.decode([2, number("##try"), number("##s"), 4, 1, 3, 0, 0]) == "trys [UNK]"
    with pytest.raises(ValueError, match=rf"no token has the number 99; this tokenizer has {len(TOKENS)}"):
        tokenizer.decode([99])


def test_what_repeats_and_what_does_not(tokenizer: WordPiece) -> None:
    for text in ("don't", "  the   dons'  hats", "'a' - b-c", "a-", "rock 'n' '"):
        assert tokenizer.repeats(text), text
    for text in ("", "  ", "Don't", "mañana", "日本", "a,b"):
        assert not tokenizer.repeats(text), text


@given(text=st.text(alphabet="abtry'- ", max_size=20))
def test_letters_and_signs_always_repeat(tokenizer: WordPiece, text: str) -> None:
    found = tokenizer.decode(tokenizer.ids([text])[0], like=text)
    assert found.replace(" ", "") == text.replace(" ", "")
    assert tokenizer.repeats(text) or len(text.split()) != 1


# ---------------------------------------------------------------------------------------------------------------------
# Folders


def test_what_cannot_be_written_is_named(tmp_path: Path, tokenizer: WordPiece) -> None:
    assert tokenizer.unwritten("Señor ñu 7") == "Sññ7"
    assert tokenizer.unwritten("a ñ\ud800") == "ñ\ud800"
    assert tokenizer.unwritten("the country") == "" and tokenizer.unwritten("") == ""
    write_vocabulary(tmp_path / "few", [*TOKENS[:5], "a", "b", "##b"])
    few = WordPiece.read(tmp_path / "few")  # an a begins words only
    assert not few.repeats("ba b") and few.unwritten("ba b") == "a"


def test_capitals_are_kept_if_the_vocabulary_has_some(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, [*TOKENS, "[unused1]", "[UNUSED2]"])
    assert WordPiece.read(tmp_path).ids(["THE"]) == [[2, 7, 3]]
    write_vocabulary(tmp_path, [*TOKENS, "T", "##H", "##E"])
    assert WordPiece.read(tmp_path).ids(["THE"]) == [[2, *range(len(TOKENS), len(TOKENS) + 3), 3]]


def test_accents_are_kept_if_the_folder_says_so(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, [*TOKENS, "##ñ"], {"do_lower_case": True})
    assert WordPiece.read(tmp_path).decode(WordPiece.read(tmp_path).ids(["Añ"])[0]) == "an"
    write_vocabulary(tmp_path, [*TOKENS, "##ñ"], {"do_lower_case": True, "strip_accents": False})
    assert WordPiece.read(tmp_path).decode(WordPiece.read(tmp_path).ids(["Añ"])[0]) == "añ"


def test_an_old_folder_says_it_in_config_json(tmp_path: Path) -> None:
    write_vocabulary(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"do_lower_case": False}))
    assert WordPiece.read(tmp_path).ids(["THE"]) == [[2, SPECIAL.unknown, 3]]


def test_tokenizer_config_overrules_tokenizer_json(tmp_path: Path, tokenizer: WordPiece) -> None:
    tokenizer.save(tmp_path)
    assert WordPiece.read(tmp_path).ids(["THE"]) == [[2, 7, 3]]
    table = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(table | {"do_lower_case": False}))
    assert WordPiece.read(tmp_path).ids(["THE"]) == [[2, SPECIAL.unknown, 3]]


@pytest.mark.parametrize("kept", ["tokenizer.json", "vocab.txt"])
def test_a_saved_folder_reads_the_same(tmp_path: Path, tokenizer: WordPiece, kept: str) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / ({"tokenizer.json", "vocab.txt"} - {kept}).pop()).unlink()
    again = WordPiece.read(tmp_path)
    texts = ["don't worry", "THE a-b", "日 a"]
    assert again.ids(texts) == tokenizer.ids(texts) and again.special == SPECIAL


def test_it_goes_through_a_checkpoint(tokenizer: WordPiece) -> None:
    again = WordPiece.from_json(tokenizer.to_json(), tokenizer.special)
    assert again.ids(["don't [SEP]"]) == tokenizer.ids(["don't [SEP]"])
    with pytest.raises(ValueError, match="the tokenizer of this checkpoint cannot be read"):
        WordPiece.from_json("{}", SPECIAL)


def test_special_tokens_may_have_other_names(tmp_path: Path) -> None:
    tokens = ["<pad>", *TOKENS[1:]]
    write_vocabulary(tmp_path, tokens, {"pad_token": {"content": "<pad>", "lstrip": False}})
    assert WordPiece.read(tmp_path).special == SPECIAL


def test_equal_lines_and_odd_line_ends(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, [*TOKENS, "x\u2028", "the", ""])
    again = WordPiece.read(tmp_path)
    assert again.ids(["the"]) == [[2, len(TOKENS) + 1, 3]] and len(again) == len(TOKENS) + 2
    again.save(tmp_path)
    assert WordPiece.read(tmp_path).ids(["the"]) == [[2, len(TOKENS) + 1, 3]]


def test_a_vocabulary_of_ones_own(tmp_path: Path) -> None:
    texts = ["el señor Mañana", "la señora mañana", "l'hombre"] * 5
    own = WordPiece.learn(texts, 60)
    assert all(WordPiece.learn(texts, 60).to_json() == own.to_json() for _ in range(4))
    assert len(own.ids(["señora"])[0]) < 2 + len("señora")  # longer pieces than letters
    assert own.special == SPECIAL and len(own) <= 60
    assert all(own.repeats(text) for text in texts)
    own.save(tmp_path)
    assert WordPiece.read(tmp_path).ids(texts) == own.ids(texts)
    with pytest.raises(ValueError, match="tokens are needed for the letters alone, got size 9"):
        WordPiece.learn(texts, 9)


def test_broken_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder bert-base-cased; download one with"):
        WordPiece.read("bert-base-cased")
    with pytest.raises(FileNotFoundError, match=r"there is no tokenizer\.json and no vocab\.txt in"):
        WordPiece.read(tmp_path)
    write_vocabulary(tmp_path, [token for token in TOKENS if token not in ("[MASK]", "[SEP]")])
    with pytest.raises(ValueError, match=r"vocab\.txt has no \[SEP\], \[MASK\]; take all files of one BERT"):
        WordPiece.read(tmp_path)
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="is not a vocabulary in UTF-8"):
        WordPiece.read(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer\.json cannot be read as a tokenizer"):
        WordPiece.read(tmp_path)
    Tokenizer(models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="is a BPE tokenizer; a BERT's, WordPiece, is needed"):
        WordPiece.read(tmp_path)


def test_broken_settings_are_named(tmp_path: Path) -> None:
    for settings, message in (
        ({"strip_accents": "x"}, "strip_accents must be true, false or null, got 'x'"),
        ({"do_lower_case": [1]}, r"do_lower_case must be true, false or null, got \[1\]"),
        ({"unk_token": 3}, r"vocab\.txt has no 3"),
        ({"unk_token": ["a"]}, r"vocab\.txt has no \['a'\]"),
    ):
        write_vocabulary(tmp_path, settings=settings)
        with pytest.raises(ValueError, match=message):
            WordPiece.read(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b"\xff")
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(ValueError, match=r"tokenizer\.json cannot be read as a tokenizer"):
        WordPiece.read(tmp_path)


def test_half_letters_cannot_be_repeated(tokenizer: WordPiece) -> None:
    assert not tokenizer.repeats("a \ud800") and tokenizer.repeats("a b")


def test_transformers_reads_what_is_saved(tmp_path: Path, tokenizer: WordPiece) -> None:
    transformers = pytest.importorskip("transformers", reason="the package transformers is not installed")
    tokenizer.save(tmp_path)
    texts = ["don't worry", "THE a-b"]
    for kind in (transformers.BertTokenizer, transformers.BertTokenizerFast):
        assert kind.from_pretrained(tmp_path)(texts)["input_ids"] == tokenizer.ids(texts)
