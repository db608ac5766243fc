"""WordPiece: texts <-> numbers of the pieces of words that a BERT knows, through the package ``tokenizers``.

    don't worry  ->  [CLS] don ' t wor ##ry [SEP]  ->  don't worry

A word is cut into the longest pieces of the vocabulary from the left; pieces that go on begin with "##". A folder says
in ``tokenizer.json`` how letters are treated before that, or in ``tokenizer_config.json`` beside a ``vocab.txt``.

The way back has two traps, and a text that falls into one would change without being corrected. Signs are cut off
their words, and where they stood is lost: ``decode`` looks at a text ``like`` it, and else puts apostrophes and hyphens
between the letters around them. And an uncased BERT takes capitals and accents away, a small vocabulary knows not all
letters: ``repeats`` says whether a text survives the way there and back, and only such texts are corrected.

The surprise: many a ``tokenizer.json`` is saved with the order to cut texts at 512 pieces, in silence. It is revoked.
"""

import json
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from postcorrect.config import SpecialTokens
from postcorrect.folder import read_json, write_json
from quartznet.checkpoint import replace_atomically

CONTINUES = "##"  # begins a piece that goes on with a word
JOINERS = "'’-"  # signs that stand between letters without spaces, unless a text shows otherwise
NAMES = {"pad": "[PAD]", "unknown": "[UNK]", "begin": "[CLS]", "end": "[SEP]", "mask": "[MASK]"}
SWITCHES = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")  # of tokenizer_config.json
KEYS = {"pad": "pad_token", "unknown": "unk_token", "begin": "cls_token", "end": "sep_token", "mask": "mask_token"}

# ---------------------------------------------------------------------------------------------------------------------
# Reading and making


def _names(settings: dict) -> dict[str, str]:
    """Field of ``SpecialTokens`` -> name; ``tokenizer_config.json`` may change it."""
    names = {field: settings.get(key) or NAMES[field] for field, key in KEYS.items()}
    return {field: str(name.get("content") if isinstance(name, dict) else name) for field, name in names.items()}


def _specials(vocabulary: dict[str, int], settings: dict, where: object) -> SpecialTokens:
    names = _names(settings)
    missing = [name for name in names.values() if name not in vocabulary]
    if missing:
        raise ValueError(f"the vocabulary of {where} has no {', '.join(missing)}; take all files of one BERT")
    return SpecialTokens(**{field: vocabulary[name] for field, name in names.items()})


def _build(vocabulary: dict[str, int], names: Sequence[str], rules: dict) -> Tokenizer:
    """BERT's tokenizer of a vocabulary; ``names`` of the special tokens in the order of ``SpecialTokens``."""
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=names[1], max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(**rules)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUES, cleanup=False)
    tokenizer.add_special_tokens(list(names))
    begin, end = names[2], names[3]
    tokenizer.post_processor = processors.BertProcessing((end, vocabulary[end]), (begin, vocabulary[begin]))
    return tokenizer


def _read_vocabulary(path: Path) -> dict[str, int]:
    """Token -> line number from 0; of two equal lines the later counts, as in transformers."""
    try:
        with open(path, encoding="utf-8") as file:
            tokens = [line.rstrip("\n") for line in file]  # not splitlines: some vocabularies hold U+2028
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a vocabulary in UTF-8: {error}") from error
    while tokens and not tokens[-1]:
        tokens.pop()
    return {token: number for number, token in enumerate(tokens)}


def _rules(settings: dict, vocabulary: Iterable[str]) -> dict:
    """How letters are treated: as the folder says, else in lower case if the vocabulary has no capitals."""
    lower_case = settings.get("do_lower_case")
    if lower_case is None:
        plain = set(vocabulary).difference(_names(settings).values())
        lower_case = all(token == token.lower() for token in plain if token[:1] != "[")  # not [unused1]
    chinese = settings.get("tokenize_chinese_chars")
    return {
        "clean_text": True,
        "handle_chinese_chars": True if chinese is None else bool(chinese),
        "strip_accents": settings.get("strip_accents"),  # None: where letters are made small
        "lowercase": bool(lower_case),
    }


def _parse(text: str | bytes, where: object) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(text) if isinstance(text, str) else Tokenizer.from_buffer(text)
    except Exception as error:  # tokenizers raises plain Exception
        raise ValueError(f"{where} cannot be read as a tokenizer, it may be damaged: {error}") from error
    kind = type(tokenizer.model).__name__
    if kind != "WordPiece":
        raise ValueError(f"{where} is a {kind} tokenizer; a BERT's, WordPiece, is needed")
    return tokenizer


def _follow(tokenizer: Tokenizer, settings: dict) -> None:
    """Lets ``tokenizer_config.json`` overrule what ``tokenizer.json`` says of letters, as transformers does."""
    rules = json.loads(tokenizer.to_str())["normalizer"] or {}
    asked = {
        "lowercase": settings.get("do_lower_case"),
        "strip_accents": settings.get("strip_accents"),
        "handle_chinese_chars": settings.get("tokenize_chinese_chars"),
    }
    if rules.pop("type", None) == "BertNormalizer":
        rules |= {key: value for key, value in asked.items() if value is not None}
        tokenizer.normalizer = normalizers.BertNormalizer(**rules)


# ---------------------------------------------------------------------------------------------------------------------
# The tokenizer


class WordPiece:
    """A vocabulary of pieces of words, and what is done to letters before they are looked up."""

    def __init__(self, tokenizer: Tokenizer, special: SpecialTokens) -> None:
        """Raises ValueError where the special tokens are not those of the tokenizer."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # "[SEP]" in a text is four signs and letters, not the end of it
        self._tokenizer, self.special = tokenizer, special
        self._returned: dict[str, bool] = {}
        self._tokens = {number: token for token, number in tokenizer.get_vocab().items()}
        missing = [name for name, number in vars(special).items() if number not in self._tokens]
        unknown = tokenizer.model.unk_token
        if missing or self._tokens[special.unknown] != unknown:
            what = f"has no token for {', '.join(missing)}" if missing else f"calls unknown letters {unknown}"
            raise ValueError(f"the tokenizer {what}, with {special}; take all files of one BERT")

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """The tokenizer of a folder: ``tokenizer.json`` if there is one, else ``vocab.txt``.

        Raises:
            FileNotFoundError: the folder has neither.
            ValueError: a file is damaged, of another kind than WordPiece, or lacks a special token.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"there is no folder {folder}; download one with config.json, weights and tokenizer.json or vocab.txt"
            )
        settings: dict = {}
        for name in ("config.json", "tokenizer_config.json"):  # old folders say do_lower_case in the first
            settings |= read_json(folder / name) if (folder / name).is_file() else {}
        wrong = [key for key in SWITCHES if not isinstance(settings.get(key), bool | None)]
        if wrong:
            raise ValueError(
                f"{folder}: {wrong[0]} must be true, false or null, got {reprlib.repr(settings[wrong[0]])}"
            )
        if (folder / "tokenizer.json").is_file():
            path = folder / "tokenizer.json"
            tokenizer = _parse(path.read_bytes(), path)
            _follow(tokenizer, settings)
            return cls(tokenizer, _specials(tokenizer.get_vocab(), settings, path))
        path = folder / "vocab.txt"
        if not path.is_file():
            raise FileNotFoundError(f"there is no tokenizer.json and no vocab.txt in {folder}; download one of them")
        vocabulary = _read_vocabulary(path)
        special = _specials(vocabulary, settings, path)
        names = list(_names(settings).values())
        return cls(_build(vocabulary, names, _rules(settings, vocabulary)), special)

    @classmethod
    def learn(cls, texts: Iterable[str], size: int) -> Self:
        """A vocabulary of at most ``size`` tokens out of texts, for a BERT of one's own; capitals and accents are kept.

        The same texts give the same vocabulary: the trainer numbers letters within words as it meets them, in an order
        that changes from run to run and decides between equally frequent pieces, so they are numbered before it starts.

        Raises:
            ValueError: the texts have more different letters than fit.
        """
        texts, names = list(texts), list(NAMES.values())
        letters = sorted({letter for text in texts for letter in text if not letter.isspace()})
        first = names + [CONTINUES + letter for letter in letters]
        if len(first) + len(letters) > size:
            raise ValueError(f"{len(first) + len(letters)} tokens are needed for the letters alone, got size {size}")
        rules = _rules({"do_lower_case": False, "strip_accents": False}, [])
        tokenizer = _build({name: number for number, name in enumerate(names)}, names, rules)
        tokenizer.train_from_iterator(
            texts, trainers.WordPieceTrainer(vocab_size=size, special_tokens=first, show_progress=False)
        )
        return cls(_build(tokenizer.get_vocab(), names, rules), SpecialTokens(*range(len(names))))

    @classmethod
    def from_json(cls, text: str, special: SpecialTokens) -> Self:
        """What ``to_json`` gave; raises ValueError where it is damaged."""
        return cls(_parse(text, "the tokenizer of this checkpoint"), special)

    def to_json(self) -> str:
        """All of it but ``special``, as one text."""
        return self._tokenizer.to_str()

    def save(self, folder: str | Path) -> None:
        """Writes ``tokenizer.json``, ``tokenizer_config.json`` and ``vocab.txt``; transformers reads them."""
        folder = Path(folder)
        rules = json.loads(self.to_json())["normalizer"] or {}
        lines = [self._tokens.get(number, f"[unused line {number}]") + "\n" for number in range(len(self))]
        files = {"tokenizer.json": self.to_json(), "vocab.txt": "".join(lines)}
        for name, text in files.items():
            replace_atomically(folder / name, lambda temporary, text=text: temporary.write_text(text, "utf-8"))
        table = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": rules.get("lowercase", False),
            "strip_accents": rules.get("strip_accents"),
            "tokenize_chinese_chars": rules.get("handle_chinese_chars", True),
        }
        names = {key: self._tokens[getattr(self.special, field)] for field, key in KEYS.items()}
        write_json(folder / "tokenizer_config.json", table | names)

    def __len__(self) -> int:
        """Tokens, from number 0 to the highest."""
        return max(self._tokens) + 1

    def pieces(self) -> tuple[Tensor, Tensor]:
        """Of each number: whether it is a piece of words, not special or unused; whether it goes on with a word.

        Both (tokens,) bool.
        """
        tokens = [self._tokens.get(number, "[]") for number in range(len(self))]
        special = {self._tokens[number] for number in vars(self.special).values()}
        named = [token in special or (token[:1] == "[" and token[-1:] == "]" and len(token) > 1) for token in tokens]
        continues = [token.startswith(CONTINUES) and len(token) > len(CONTINUES) for token in tokens]
        return ~torch.tensor(named), torch.tensor(continues)

    # -----------------------------------------------------------------------------------------------------------------
    # There

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Numbers of each text between begin and end, of any length; unknown pieces are ``special.unknown``."""
        whole = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]  # half letters become "?"
        found = self._tokenizer.encode_batch(whole, add_special_tokens=False)
        return [[self.special.begin, *encoding.ids, self.special.end] for encoding in found]

    def encode(self, texts: Sequence[str], limit: int) -> tuple[Tensor, Tensor]:
        """Numbers (batch, time) and the mask, True = token, (batch, time); see ``ids``.

        Args:
            limit: tokens that a text may have, begin and end included; ``config.positions`` of a network.

        Raises:
            ValueError: a text is longer; nothing is cut off.
        """
        rows = self.ids(texts)
        for number, row in enumerate(rows, start=1):
            if len(row) > limit:
                raise ValueError(
                    f"text {number} of {len(rows)} has {len(row)} tokens, more than {limit}: "
                    f"'{texts[number - 1][:40]} ...'; split it or leave it out"
                )
        return pad_rows(rows, self.special.pad)

    # -----------------------------------------------------------------------------------------------------------------
    # And back

    def decode(self, ids: Iterable[int], like: str = "") -> str:
        """The text of some numbers; special tokens are left out, but "[UNK]" is shown.

        Args:
            like: a text, as the source of a correction, whose words show where signs stand without spaces.

        Raises:
            ValueError: a number that no token has.
        """
        return " ".join(self._glued(self._words(ids), self._glue(like)))

    def repeats(self, text: str) -> bool:
        """Whether a text comes back from ``decode(ids, like=text)`` as it is, but for spaces; not so an empty one."""
        [row] = self.ids([text])
        is_known = self.special.unknown not in row and len(row) > 2
        return is_known and self.decode(row, like=text) == " ".join(text.split())

    def unwritten(self, text: str) -> str:
        """The characters of a text that ``repeats`` fails for, as often as they stand there.

        Those that do not come back alone; without any of them those that do not come back within a word. It may be
        neither, but how signs stand between words: "".
        """
        different = set(text) - set(" \t")
        strange = {one for one in different if not self._returns(one)}
        strange = strange or {one for one in different if not self._returns(one + one)}
        return "".join(one for one in text if one in strange)

    def _returns(self, text: str) -> bool:
        """``repeats`` of one or two characters, which come again and again."""
        if text not in self._returned:
            self._returned[text] = self.repeats(text)
        return self._returned[text]

    def _words(self, ids: Iterable[int]) -> list[str]:
        """Pieces joined; a sign is a word."""
        silent = {getattr(self.special, field) for field in ("pad", "begin", "end", "mask")}
        words: list[str] = []
        for number in ids:
            if number in silent:
                continue
            if number not in self._tokens:
                raise ValueError(f"no token has the number {number}; this tokenizer has {len(self)}")
            token = self._tokens[number]
            if token.startswith(CONTINUES) and len(token) > len(CONTINUES):
                words.append((words.pop() if words else "") + token.removeprefix(CONTINUES))
            else:
                words.append(token)
        return words

    def _glue(self, like: str) -> dict[tuple[str, ...], str]:
        """What is cut apart -> the word with its signs, of all words of a text that have any."""
        words = sorted({word for word in like.split() if not word.isalnum()})
        cut = [tuple(self._words(row)) for row in self.ids(words)] if words else []
        return {parts: word for parts, word in zip(cut, words, strict=True) if "".join(parts) == word}

    @staticmethod
    def _glued(words: list[str], glue: dict[tuple[str, ...], str]) -> Iterator[str]:
        """Words with their signs: as ``glue`` has them, the longest first, else by the rule for ``JOINERS``."""
        sizes = sorted({len(parts) for parts in glue}, reverse=True)
        current, place = "", 0
        while place < len(words):
            size = next((size for size in sizes if tuple(words[place : place + size]) in glue), 0)
            sign, after = words[place], words[place + 1 : place + 2]
            if size:
                yield from [current] if current else []
                current, place = glue[tuple(words[place : place + size])], place + size
            elif sign in JOINERS and current[-1:].isalnum() and after and after[0][0].isalnum():
                current, place = current + sign + after[0], place + 2
            else:
                yield from [current] if current else []
                current, place = sign, place + 1
        yield from [current] if current else []


def pad_rows(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Numbers (batch, time) of the longest row's length and the mask, True = token, (batch, time)."""
    time = max((len(row) for row in rows), default=0)
    ids = torch.full((len(rows), time), pad)
    mask = torch.zeros(len(rows), time, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[number, : len(row)] = True
    return ids, mask
