"""A corpus prepared: bad files, splits, duplicates, the report, and the same bytes the second time."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from bad_corpus import write_bad_common_voice, write_bad_manifest
from tones import sing
from tones import write_corpus as write_corpus_of_tones

from data import inspect_clips as inspect_module
from data.manifest import read_manifest
from data.prepare import main, prepare

FILES = ("train.jsonl", "dev.jsonl", "test.jsonl", "rejected.tsv", "report.md", "report.json", "durations.png")


def write_corpus(folder: Path, rows: dict[str, list[tuple[str, str, str]]]) -> Path:
    """A Common Voice folder: table -> rows of (clip, speaker, sentence); a clip sings its sentence in its own way."""
    (folder / "clips").mkdir(parents=True)
    for table, lines in rows.items():
        text = "".join(f"{speaker}\t{clip}\t{sentence}\n" for clip, speaker, sentence in lines)
        (folder / f"{table}.tsv").write_text("client_id\tpath\tsentence\n" + text, encoding="utf-8")
        for clip, _, sentence in lines:
            if not (folder / "clips" / clip).exists():
                sound = sing("abcd"[len(sentence) % 4] * 6)
                level = 0.5 + 0.4 * np.random.default_rng(list(clip.encode())).random()
                soundfile.write(folder / "clips" / clip, level * sound, 16000)
    return folder


def rejected(out: Path) -> list[tuple[str, str]]:
    lines = (out / "rejected.tsv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "file\treason"
    return [tuple(line.split("\t")) for line in lines[1:]]


def names(out: Path, part: str) -> list[str]:
    path = out / f"{part}.jsonl"
    return [clip.audio_path.name for clip in read_manifest(path)] if path.stat().st_size else []


def texts(out: Path, part: str) -> list[str]:
    return [clip.text for clip in read_manifest(out / f"{part}.jsonl")]


@pytest.mark.parametrize("write", [write_bad_common_voice, write_bad_manifest])
def test_one_of_every_bad_file(write: object, tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus")
    out = tmp_path / "out"
    assert main([str(corpus.path), str(out), "--lang", "es", "--jobs", "0"]) == 0
    kept = [name for part in ("train", "dev", "test") for name in names(out, part)]
    assert sorted(kept) == sorted(corpus.good)
    rows = rejected(out)
    for name, reason in corpus.bad.items():
        found = [line for line in rows if name in " ".join(line) and re.search(reason, " ".join(line))]
        assert len(found) == 1, (name, reason, rows)
    assert len(rows) == len(corpus.bad)
    durations = {clip.audio_path.name: clip.duration for clip in read_manifest(out / "train.jsonl")}
    assert max(durations.values()) < 3  # nobody's word is taken for it


def official(folder: Path) -> Path:
    train = [("t1.wav", "ann", "uno"), ("t2.wav", "bob", "dos")]
    more = [
        ("m1.wav", "ann", "uno"),
        ("m2.wav", "eve", "tres"),
        ("m3.wav", "dan", "cuatro"),
        ("m4.wav", "fay", "CINCO!"),
    ]
    dev, test = [("d1.wav", "dan", "seis")], [("e1.wav", "gus", "cinco")]
    other = [("o1.wav", "hal", "ocho")]
    tables = {"train": train, "dev": dev, "test": test, "validated": [*train, *dev, *test, *more], "other": other}
    return write_corpus(folder, tables)


def test_smart_keeps_the_official_parts_and_gains_hours(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    assert main([str(official(tmp_path / "cv")), str(out), "--lang", "es", "--jobs", "0"]) == 0
    assert (names(out, "dev"), names(out, "test")) == (["d1.wav"], ["e1.wav"])
    assert names(out, "train") == ["t1.wav", "t2.wav", "m1.wav", "m2.wav"]
    lost = {Path(where).name: reason for where, reason in rejected(out)}
    assert len(lost) == 2
    assert any("its speaker is in dev or test" in reason for reason in lost.values())
    assert any("its sentence was held out for dev or test: 'cinco'" in reason for reason in lost.values())
    contents = json.loads((out / "report.json").read_text())
    assert set(contents["overlaps"].values()) == {0}
    train = read_manifest(out / "train.jsonl")
    gained = sum(clip.duration for clip in train if clip.audio_path.name.startswith("m")) / 3600
    assert contents["hours_gained"] == pytest.approx(gained, abs=1e-4)
    assert contents["unused_tables"] == {"other": 1}
    printed = capsys.readouterr().out
    assert "no speaker and no sentence lies in two parts" in printed and "hours against the official train" in printed
    assert max(map(len, printed.replace(str(out), "prepared/es").splitlines())) <= 80


def test_official_and_ratio_and_other(tmp_path: Path) -> None:
    corpus = official(tmp_path / "cv")
    prepare(corpus, tmp_path / "a", "es", "official", jobs=0)
    assert [names(tmp_path / "a", part) for part in ("train", "dev", "test")] == [
        ["t1.wav", "t2.wav"], ["d1.wav"], ["e1.wav"],
    ]  # fmt: skip
    assert sum("in no official part" in reason for _, reason in rejected(tmp_path / "a")) == 4
    prepare(corpus, tmp_path / "b", "es", "ratio", jobs=0, share=0.25)
    parts = [names(tmp_path / "b", part) for part in ("train", "dev", "test")]
    every = ["d1.wav", "e1.wav", "m1.wav", "m2.wav", "m3.wav", "m4.wav", "t1.wav", "t2.wav"]
    assert sorted(name for part in parts for name in part) == every
    assert all(parts) and not set(texts(tmp_path / "b", "train")) & set(texts(tmp_path / "b", "test"))
    prepare(corpus, tmp_path / "c", "es", "smart", jobs=0, include_other=True)
    assert names(tmp_path / "c", "train")[-1] == "o1.wav"


def test_what_is_said_of_a_clip_stays_with_it(tmp_path: Path) -> None:
    manifest = write_corpus_of_tones(tmp_path / "in", ("abba", "cab dada", "bad cab"))
    lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    told = [line | {"accent": "andino", "snr": number + 0.5} for number, line in enumerate(lines)]
    manifest.write_text("\n".join(map(json.dumps, told)), encoding="utf-8")
    prepare(manifest, tmp_path / "out", "es", jobs=0, share=0.3)
    clips = [clip for part in ("train", "dev", "test") for clip in read_manifest(tmp_path / "out" / f"{part}.jsonl")]
    found = {clip.audio_path.name: dict(clip.fields) for clip in clips}
    assert found == {f"train{number}.wav": {"accent": "andino", "snr": number + 0.5} for number in range(3)}


@pytest.mark.parametrize("how", ["official", "smart"])
def test_no_official_parts(how: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    corpus = write_corpus(tmp_path / "cv", {"validated": [(f"{n}.wav", "x", f"frase {'abc'[n]}") for n in range(3)]})
    assert main([str(corpus), str(tmp_path / "out"), "--lang", "es", "--split", how, "--jobs", "0"]) == 2
    assert "it has no official dev or test part; use --split ratio" in capsys.readouterr().err


def test_the_second_run_changes_no_byte_and_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, out = official(tmp_path / "cv"), tmp_path / "out"
    prepare(corpus, out, "es", jobs=0)
    before = {name: (out / name).read_bytes() for name in FILES}
    monkeypatch.setattr(inspect_module, "inspect_clip", None)
    prepare(corpus, out, "es", jobs=0)
    assert {name: (out / name).read_bytes() for name in FILES} == before
    assert sorted(path.name for path in out.iterdir()) == sorted([*FILES, "inspected.jsonl"])


def test_processes_find_what_one_finds(tmp_path: Path) -> None:
    corpus = official(tmp_path / "cv")
    for jobs in (0, 2):
        prepare(corpus, tmp_path / str(jobs), "es", jobs=jobs)
    for name in FILES:
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_duplicates_and_contradictions(tmp_path: Path) -> None:
    rows = [(f"{n}.wav", f"s{n}", f"frase {'abcdefgh'[n]}") for n in range(8)]
    corpus = write_corpus(
        tmp_path / "cv", {"validated": [*rows, ("same.wav", "s0", "Frase a."), ("wrong.wav", "s1", "z")]}
    )
    for copy, source in (("same.wav", "0.wav"), ("wrong.wav", "1.wav")):
        (corpus / "clips" / copy).write_bytes((corpus / "clips" / source).read_bytes())
    report = prepare(corpus, tmp_path / "out", "es", jobs=0)
    reasons = {Path(where).name: reason for where, reason in rejected(tmp_path / "out")}
    assert set(reasons) == {"same.wav", "1.wav", "wrong.wav"}
    assert reasons["same.wav"].startswith("the same sound and text as") and "0.wav" in reasons["same.wav"]
    assert "the same sound has another text" in reasons["1.wav"] and "'frase b' of" in reasons["wrong.wav"]
    assert report.contents["rejected"] == {"duplicate": 3}


def test_unknown_speakers_are_not_said_to_be_apart(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    corpus = write_corpus_of_tones(tmp_path / "corpus", tuple("abcd"[n % 4] * (3 + n) for n in range(12)))
    assert main([str(corpus), str(tmp_path / "out"), "--lang", "es", "--jobs", "0"]) == 0
    assert "no sentence lies in two parts; of speakers nothing is known" in capsys.readouterr().out
    assert "| train-dev speakers | unknown |" in (tmp_path / "out" / "report.md").read_text()


def test_a_line_that_is_left_out_changes_no_other(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.random.default_rng(0).normal(0, 0.1, 60 * 8000), 8000)
    lines = [{"audio_filepath": "long.wav", "offset": 3.0 * n, "duration": 3.0, "text": text}
             for n, text in enumerate(("hola buenos días", "???"))]  # fmt: skip
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    prepare(tmp_path / "m.jsonl", tmp_path / "out", "es", jobs=0)
    assert [clip.duration for clip in read_manifest(tmp_path / "out" / "train.jsonl")] == [3.0]


def test_segments_that_begin_together_are_two_clips(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "r.wav", np.random.default_rng(0).normal(0, 0.1, 4 * 8000), 8000)
    soundfile.write(tmp_path / "unused.wav", np.zeros(800), 8000)
    (tmp_path / "wav.scp").write_text("r r.wav\nu unused.wav\n")
    (tmp_path / "segments").write_text("one r 0 2\ntwo r 0 3\n")
    (tmp_path / "text").write_text("one uno dos\ntwo uno dos tres\n")
    prepare(tmp_path, tmp_path.parent / "out-of-kaldi", "es", jobs=0)
    clips = read_manifest(tmp_path.parent / "out-of-kaldi" / "train.jsonl")
    assert sorted((clip.duration, clip.text) for clip in clips) == [(2.0, "uno dos"), (3.0, "uno dos tres")]
    assert ("segments", "no line for recording 'u'") in [
        (Path(where).name, reason) for where, reason in rejected(tmp_path.parent / "out-of-kaldi")
    ]


def test_out_destroys_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    manifest = write_corpus_of_tones(tmp_path / "corpus")
    before = manifest.read_bytes()
    for source, out in ((manifest.parent, manifest.parent), (manifest.parent, manifest.parent / "prepared"),
                        (manifest, manifest.parent)):  # fmt: skip
        assert main([str(source), str(out), "--lang", "es", "--jobs", "0"]) == 2
        assert re.search("give an OUT elsewhere|would be overwritten; give another OUT", capsys.readouterr().err)
    assert manifest.read_bytes() == before and len(list(manifest.parent.iterdir())) == 5


def test_the_clip_that_is_left_out_is_the_one_that_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "a: b"
    folder.mkdir()
    for name, seconds in (("a.wav", 2), ("a.flac", 0.05), ("c.wav", 1)):
        soundfile.write(
            folder / name, np.random.default_rng(int(seconds * 9)).normal(0, 0.1, int(8000 * seconds)), 8000
        )
    (folder / "a.txt").write_text("hola buenos días")
    (folder / "c.txt").write_text("漢字")
    prepare(folder, tmp_path / "out", "es", jobs=0)
    found = dict(rejected(tmp_path / "out"))
    assert set(found) == {str(folder / "a.flac"), str(folder / "c.wav")}
    assert "frames" in found[str(folder / "a.flac")] and "no letter" in found[str(folder / "c.wav")]


def test_nothing_left_to_train_on(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = {"train": [("a.wav", "ann", "uno")], "dev": [("b.wav", "ann", "dos")], "test": [("c.wav", "bob", "tres")]}
    corpus, out = write_corpus(tmp_path / "cv", rows), tmp_path / "out"
    assert main([str(corpus), str(out), "--lang", "es", "--jobs", "0"]) == 2
    assert "--split official keeps the corpus's own parts" in capsys.readouterr().err
    assert [reason for _, reason in rejected(out)] == [f"its speaker is in dev or test ({corpus / 'train.tsv'}:2)"]
    assert not (out / "train.jsonl").exists()
    assert main([str(corpus), str(out), "--lang", "es", "--jobs", "0", "--split", "official"]) == 0


def test_the_report_says_what_happened_to_the_text(tmp_path: Path) -> None:
    rows = [(f"{n}.wav", f"s{n}", f"Là frase {'abcdefgh'[n]} 漢 21 | <b>") for n in range(8)]
    corpus = write_corpus(tmp_path / "cv", {"validated": rows})
    out = tmp_path / "out"
    assert main([str(corpus), str(out), "--lang", "es", "--jobs", "0"]) == 1  # far more than 0.5 % lost
    assert main([str(corpus), str(out), "--lang", "es", "--jobs", "0", "--allow-char-loss"]) == 0
    letters = json.loads((out / "report.json").read_text())["letters"]
    assert letters["mapped"]["à"] == {"to": "a", "count": 8, "example": rows[0][2]}
    assert letters["spelled"]["21"] == {"to": "veintiuno", "count": 8, "example": rows[0][2]}
    assert letters["lost"]["漢"]["count"] == 8
    page = (out / "report.md").read_text()
    assert "| à | a | 8 | Là frase a 漢 21 \\| &lt;b> |" in page
    assert "### Spelled as words" in page and "| 21 | veintiuno | 8 |" in page
    assert "### Words with characters that are lost" in page and "| 漢 | 8 |" in page
    clip = read_manifest(out / "train.jsonl")[0]
    assert clip.text.startswith("la frase") and clip.raw_text.startswith("Là frase")


def test_texts_that_fit_only_when_spoken_slowly(tmp_path: Path) -> None:
    """6 tones last 0.9 s: 45 outputs, 40 at the fastest speed."""
    rows = [(f"{n}.wav", f"s{n}", f"si {'abcdefgh'[n]}") for n in range(8)]
    corpus = write_corpus(tmp_path / "cv", {"validated": rows})
    seconds = soundfile.info(corpus / "clips" / "0.wav").duration
    outputs = int(seconds * 50)
    table = corpus / "validated.tsv"
    table.write_text(
        table.read_text() + f"x\t8.wav\t{('ab' * outputs)[:outputs]}\nx\t9.wav\t{('cd' * 99)[: outputs + 1]}\n"
    )
    for name in ("8.wav", "9.wav"):
        soundfile.write(corpus / "clips" / name, (0.3 + 0.1 * int(name[0]) / 9) * sing("abcdab"), 16000)
    assert soundfile.info(corpus / "clips" / "8.wav").duration == seconds
    report = prepare(corpus, tmp_path / "out", "es", jobs=0)
    assert [Path(where).name for where, _ in rejected(tmp_path / "out")] == ["9.wav"]
    assert len(report.too_fast) == 1 and "validated.tsv:10" in report.too_fast[0]
    assert "Texts that do not fit at the fastest speed" in (tmp_path / "out" / "report.md").read_text()


def test_a_language_without_rules_takes_its_alphabet_from_the_texts(tmp_path: Path) -> None:
    rows = [(f"{n}.wav", f"s{n}", f"ŵyth {'abcdefgh'[n]}") for n in range(8)]
    report = prepare(write_corpus(tmp_path / "cv", {"validated": rows}), tmp_path / "out", "cy", jobs=0)
    assert "ŵ" in report.audit.language.letters


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "out", "--lang", "es"], "there is no nowhere"),
        (
            ["train.jsonl", "file", "--lang", "es"],
            "file cannot be made (File exists); OUT is the folder for the result",
        ),
        (["nowhere", "out", "--lang", "es", "--ratio", "0.7"], "--ratio must lie between 0 and 0.5"),
        (["nowhere", "out", "--lang", "es", "--jobs", "-1"], "--jobs and --shards from 0 on, got 0.1, -1 and 0"),
        (["nowhere", "out"], "required: --lang; --help says more"),
        (["nowhere", "out", "--lang", "es", "--shard", "x"], "argument --shards: invalid int value: 'x'"),
        (["nowhere", "out", "--lang", "es", "--share", "1"], "unknown option --share; did you mean --shards"),
    ],
)
def test_mistakes(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_corpus_of_tones(tmp_path)
    (tmp_path / "file").touch()
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and message in told and told.count("\n") == 1


def test_ctrl_c_says_that_the_same_command_continues(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("data.prepare.prepare", stop)
    assert main(["corpus", "out", "--lang", "es"]) == 130
    told = "stopped; OUT/inspected.jsonl keeps what was decoded: the same command continues\n"
    assert capsys.readouterr().err == told


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "cv", {"validated": [("0.wav", "x", "a")]})
    (corpus / "clips" / "0.wav").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no clip of .* is left; the first problem: .*0.wav: is empty \(0 bytes\)"):
        prepare(corpus, tmp_path / "out", "es", jobs=0)


@pytest.mark.parametrize("lang", ["en", "it", "de", "fr", "pt"])
def test_the_common_voice_samples_have_no_unexplained_rejection(lang: str, shared: Path, tmp_path: Path) -> None:
    source = shared / "corpora" / "common_voice_sample" / lang
    report = prepare(source, tmp_path / "out", lang, jobs=0)
    kept = sum(len(part) for part in report.parts.values())
    assert kept + len(report.rejected) == 100 and kept >= 95
    assert set(report.contents["overlaps"].values()) == {0}
    assert all(reason for _, reason in rejected(tmp_path / "out"))
