"""Makes tests/golden/lm: a text, and what lmplz of KenLM 0.3.0 estimates from it.

    python tests/golden/make_lm.py path/to/lmplz

The text is drawn from a small grammar of words with Zipf's frequencies, so that n-grams of every count from 1 to 5
and more occur. ``tiny`` has three sentences, where no discount has a closed form.
"""

import gzip
import random
import subprocess
import sys
from itertools import product
from pathlib import Path

FOLDER = Path(__file__).parent / "lm"
CASES = (("plain", "text", 3, ()), ("pruned", "text", 4, (0, 0, 1)), ("tiny", "tiny", 4, ()), ("single", "text", 1, ()))
LAST = ["el perro busca un zorro"] * 2  # the last word of all, which lmplz counts in its own way
TINY = ["uno dos tres", "uno dos", "cuatro uno dos tres"]
ARTICLES = ("el", "la", "un", "una", "mi", "este")
NOUNS = (
    "casa",
    "perro",
    "río",
    "niña",
    "mesa",
    "tren",
    "árbol",
    "libro",
    "pan",
    "luna",
    "voz",
    "señor",
    "calle",
    "gato",
)
VERBS = ("ve", "tiene", "busca", "come", "quiere", "deja", "oye", "lleva", "pinta", "olvida")
NAMES = tuple(
    "".join(parts)
    for parts in product(
        ("ma", "lu", "pe", "ro", "ca", "be"), ("ri", "na", "dre", "ti", "lo"), ("ta", "no", "s", "l", "mi")
    )
)
ENDS = ("hoy", "ya", "siempre", "aquí", "otra vez", "de noche", "sin prisa", "con calma", "al sol")


def drawn(words: tuple[str, ...], source: random.Random) -> str:
    """A word; the n-th is n times rarer than the first."""
    return source.choices(words, [1 / (rank + 1) for rank in range(len(words))])[0]


def someone(source: random.Random) -> list[str]:
    return [drawn(NAMES, source)] if source.random() < 0.4 else [drawn(ARTICLES, source), drawn(NOUNS, source)]


def sentence(source: random.Random) -> str:
    words = [*someone(source), drawn(VERBS, source)]
    if source.random() < 0.8:
        words += someone(source)
    if source.random() < 0.4:
        words += [drawn(ENDS, source)]
    return " ".join(words)


def main(lmplz: str) -> None:
    source = random.Random(0)
    texts = {"text": [sentence(source) for _ in range(300)] + LAST, "tiny": TINY}
    for name, sentences in texts.items():
        (FOLDER / f"{name}.txt").write_text("".join(f"{line}\n" for line in sentences), encoding="utf-8")
    for name, text, order, prune in CASES:
        command = [lmplz, "--order", str(order), "--memory", "50M", "--discount_fallback"]
        command += ["--prune", *map(str, prune)] if prune else []
        done = subprocess.run(command, input=(FOLDER / f"{text}.txt").read_bytes(), capture_output=True, check=True)
        (FOLDER / f"{name}.arpa.gz").write_bytes(gzip.compress(done.stdout, mtime=0))


if __name__ == "__main__":
    main(sys.argv[1])
