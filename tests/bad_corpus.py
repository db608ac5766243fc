"""A small corpus with one of every bad file that people have, beside good clips; as Common Voice and as a manifest.

    corpus = write_bad_common_voice(tmp_path)      # corpus.path is what --data or data.prepare gets
    corpus.good                                    # file names that must all be kept
    corpus.bad["zero_bytes.wav"]                   # a word of the reason that must be given for it

The surprise: half of what looks broken is not. A wav that is called mp3 decodes, odd quotation marks are just text, and
a wrong duration is put right by decoding. Those are among the good ones. ``twice.wav`` is in both: its first line is
good, its second is not.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import soundfile
from tones import sing

GOOD = (
    "abba",
    "cab dada",
    "da bad",
    "bad cab",
    "dab",
    "a cab",
    "bab add",
    "cad",
    "add a dab",
    "dad bad",
    "baa",
    "cc a",
)
WRONG_SECONDS = 40.0  # what the table and the manifest say of a clip that lasts less than a second


@dataclass(frozen=True)
class BadCorpus:
    """What was written and what must become of it."""

    path: Path
    good: frozenset[str]  # names of sound files
    bad: dict[str, str]  # name of the sound file, or ``table:line`` where the line is unreadable -> word of the reason


@dataclass(frozen=True)
class _Row:
    name: str
    text: str
    speaker: str
    duration: float | None = None
    raw: bytes = b""  # of a line that is not made from the fields above


def write_bad_common_voice(folder: Path) -> BadCorpus:
    """``folder`` becomes a Common Voice folder: ``validated.tsv``, ``clip_durations.tsv``, ``clips/``."""
    rows, bad = _sounds(folder / "clips")
    quoted = {"quote_open.wav": '"abba dad', "quote_inside.wav": 'cab "dada add', "quote_csv.wav": '"""abba"" cab bad"'}
    rows += [_Row(name, text, f"q{index}") for index, (name, text) in enumerate(quoted.items())]
    for name, text in quoted.items():
        _write(folder / "clips" / name, text.replace('"', ""))
    lines = [f"{row.speaker}\t{row.name}\t{row.text}\t2\t0\tes\r\n".encode() for row in rows]
    lines[5] = b"\xef\xbb\xbf" + lines[5]  # two files with byte-order marks, one appended to the other
    lines[7:7] = [
        b"x\tlatin.wav\tcaf\xe9\t2\t0\tes\r\n",
        b"\r\n",
        b"too\tfew\r\n",
        b"a\tgood0.wav\tb\tc\td\te\tf\tg\r\n",
    ]
    table = b"\xef\xbb\xbfclient_id\tpath\tsentence\tup_votes\tdown_votes\tlocale\r\n" + b"".join(lines)
    (folder / "validated.tsv").write_bytes(table)
    durations = [f"wrong_duration.wav\t{1000 * WRONG_SECONDS:.0f}\n", "good1.wav\tsoon\n", "good2.wav\n"]
    (folder / "clip_durations.tsv").write_text("clip\tduration[ms]\n" + "".join(durations))
    bad |= {"validated.tsv:9": "not UTF-8", "validated.tsv:11": "columns", "validated.tsv:12": "columns"}
    return BadCorpus(folder, frozenset(row.name for row in rows if row.name not in bad) | {"twice.wav"}, bad)


def write_bad_manifest(folder: Path) -> BadCorpus:
    """``folder`` gets ``all.jsonl`` and ``clips/``."""
    rows, bad = _sounds(folder / "clips")
    _write(folder / "clips" / "late.wav", "dad")
    lines = []
    for row in rows:
        entry = {"audio_filepath": f"clips/{row.name}", "text": row.text, "speaker": row.speaker}
        lines.append(json.dumps(entry | ({"duration": row.duration} if row.duration else {})).encode() + b"\r\n")
    lines[5] = b"\xef\xbb\xbf" + lines[5]
    lines[7:7] = [
        b'{"audio_filepath": "clips/latin.wav", "text": "caf\xe9"}\r\n', b"\r\n", b'{"audio_filepath": \r\n',
        b'{"audio_filepath": "clips/late.wav", "text": "dad", "offset": 30, "duration": 0.5}\r\n',
    ]  # fmt: skip
    (folder / "all.jsonl").write_bytes(b"\xef\xbb\xbf" + b"".join(lines))
    bad |= {"all.jsonl:8": "not UTF-8", "all.jsonl:10": "not JSON", "late.wav": "offset|cut"}
    return BadCorpus(
        folder / "all.jsonl", frozenset(row.name for row in rows if row.name not in bad) | {"twice.wav"}, bad
    )


def _sounds(clips: Path) -> tuple[list[_Row], dict[str, str]]:
    """Writes the sound files of both forms; their rows, and the bad ones with a word of the reason."""
    clips.mkdir(parents=True)
    rows = []
    for index, text in enumerate(GOOD):
        name = f"good{index}.{'mp3' if index % 4 == 3 else 'wav'}"
        _write(clips / name, text)
        rows.append(_Row(name, text, f"s{index}"))
    for name, text in {"wrong_duration.wav": "bad dad", "mp3_called.wav": "cab", "wav_called.mp3": "bab"}.items():
        rows.append(_Row(name, text, "m", WRONG_SECONDS if name.startswith("wrong") else None))
    _write(clips / "wrong_duration.wav", "bad dad")
    soundfile.write(clips / "mp3_called.wav", sing("cab"), 16000, format="MP3")
    soundfile.write(clips / "wav_called.mp3", sing("bab"), 16000, format="WAV")
    bad = _bad_sounds(clips)
    texts = {"no_text.wav": "", "text_too_long.wav": "abba " * 40}
    rows += [_Row(name, texts.get(name, f"dad {name[0]}ab"), "b") for name in bad]
    _write(clips / "twice.wav", "abba cab")
    rows += [_Row("twice.wav", "abba cab", "t"), _Row("twice.wav", "cab abba", "t")]
    return rows, bad | {"twice.wav": "twice"}


def _bad_sounds(clips: Path) -> dict[str, str]:
    (clips / "zero_bytes.wav").touch()
    for name in ("truncated.wav", "truncated.mp3"):
        _write(clips / name, "abba cab dada")
        content = (clips / name).read_bytes()
        (clips / name).write_bytes(content[: len(content) // 2])
    (clips / "text.wav").write_text("this was never a sound\n" * 50)
    (clips / "web_page.mp3").write_text("<!DOCTYPE html><html><body>404 not found</body></html>" * 20)
    for name in ("no_text.wav", "text_too_long.wav"):
        _write(clips / name, "abba")
    return {
        "zero_bytes.wav": "empty",
        "truncated.wav": "cut off",
        "truncated.mp3": "cut off",
        "text.wav": "does not decode",
        "web_page.mp3": "does not decode",
        "no_text.wav": "empty",
        "text_too_long.wav": "frames",
        "missing.wav": "is not in|no sound file",
    }


def _write(path: Path, text: str) -> None:
    soundfile.write(path, sing(text), 16000)
