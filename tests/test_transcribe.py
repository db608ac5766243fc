"""python -m quartznet.transcribe: formats, folders, streams, and what a bad file or option does."""

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tones
import torch
from test_decoding import neural_file
from tiny_lm import arpa

import quartznet
from quartznet.config import BlockConfig, ModelConfig
from quartznet.model import QuartzNet
from quartznet.transcribe import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint ``c.nemo`` and two sounds, in the working folder."""
    monkeypatch.chdir(tmp_path)
    blocks = (BlockConfig(32, 5, stride=2), BlockConfig(32, 1, separable=False))
    quartznet.save_nemo(QuartzNet(ModelConfig(tuple(" abcd"), blocks)), "c.nemo")
    soundfile.write("a.mp3", tones.sing("abba cab"), 16000)
    soundfile.write("b.wav", np.repeat(tones.sing("bad cab")[:, None], 2, axis=1), 96000)
    return tmp_path


def test_texts_on_the_screen(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["a.mp3", "b.wav", "--checkpoint", "c.nemo"]) == 0
    printed = capsys.readouterr()
    texts = quartznet.load_model("c.nemo").transcribe(["a.mp3", "b.wav"])
    assert printed.out.split() == f"== a.mp3 {texts[0]} == b.wav {texts[1]}".split() and printed.err == ""


def test_a_second_look_by_a_neural_model(folder: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["a.mp3", "--checkpoint", "c.nemo", "--neural", "lm.pt"]
    neural_file(folder / "lm.pt", lang="xx")  # nobody knows the language of a NeMo file
    assert main([*words, "--beam", "8", "--gamma", "2", "--beta", "0"]) == 0
    assert capsys.readouterr().out.strip()
    neural_file(folder / "lm.pt", labels=" abc")
    for more, message in ((["--beam", "8"], "has no 'd', which the network writes"), ([], "add --lm FILE or --beam N")):
        assert main([*words, *more]) == 2
        shown = capsys.readouterr().err
        assert message in shown and shown.count("\n") == 1


@pytest.mark.parametrize("kind", ["txt", "json", "srt", "vtt", "ctm"])
def test_a_file_for_each_recording(folder: Path, kind: str) -> None:
    assert main(["a.mp3", "b.wav", "--checkpoint", "c.nemo", "--format", kind, "--out", "x/y"]) == 0
    assert sorted(path.name for path in Path("x/y").iterdir()) == [f"a.{kind}", f"b.{kind}"]
    content = Path(f"x/y/a.{kind}").read_text(encoding="utf-8")
    if kind == "json":
        document = json.loads(content)
        assert document["text"] == " ".join(word["text"] for word in document["words"]) and document["file"] == "a.mp3"
    assert kind != "vtt" or content.startswith("WEBVTT\n\n00:")
    assert kind != "ctm" or all(len(line.split()) == 6 for line in content.splitlines())


def test_one_bad_file_of_two(folder: Path, capsys: pytest.CaptureFixture) -> None:
    Path("bad.wav").write_bytes(b"RIFF nothing")
    assert main(["bad.wav", "a.mp3", "absent.wav", "--checkpoint", "c.nemo", "--out", "o"]) == 1
    assert [path.name for path in Path("o").iterdir()] == ["a.txt"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "bad.wav does not decode" in lines[0] and "absent.wav does not exist" in lines[1]


def test_a_file_that_cannot_be_written(folder: Path, capsys: pytest.CaptureFixture) -> None:
    Path("o/a.txt").mkdir(parents=True)
    assert main(["a.mp3", "b.wav", "--checkpoint", "c.nemo", "--out", "o"]) == 1
    assert sorted(path.name for path in Path("o").iterdir()) == ["a.txt", "b.txt"]  # and no half of one
    printed = capsys.readouterr()
    assert printed.out == "1 of 2 files written to o\n"
    assert printed.err == "error: o/a.txt cannot be written: Is a directory\n"


def test_names_that_are_no_text(folder: Path, capsys: pytest.CaptureFixture) -> None:
    name = os.fsdecode(b"caf\xe9 %s.mp3")
    Path("a.mp3").rename(name)
    assert main([name, "b.wav", "--checkpoint", "c.nemo"]) == 0
    assert capsys.readouterr().out.startswith("== caf\\udce9 %s.mp3\n")
    assert main([name, "--checkpoint", "c.nemo", "--format", "json", "--out", "o"]) == 0
    [path] = Path("o").iterdir()
    assert json.loads(path.read_text(encoding="utf-8"))["file"] == name


def test_what_the_packages_say_is_not_among_the_words(folder: Path, capsys: pytest.CaptureFixture) -> None:
    Path("x.arpa").write_text(arpa({"abba": -0.5, "cab": -0.6, "dada": -0.7}, {"cab dada": -0.3}), encoding="utf-8")
    assert main(["a.mp3", "--checkpoint", "c.nemo", "--lm", "x.arpa", "--format", "json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["file"] == "a.mp3" and "x.arpa was not tuned" in printed.err


def test_a_gpu_that_is_not_there(folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["a.mp3", "--checkpoint", "c.nemo", "--device", "cuda"]) == 2
    assert "PyTorch sees no GPU here" in capsys.readouterr().err


def test_a_terminal_sees_how_far_it_is(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["a.mp3", "--checkpoint", "c.nemo"]) == 0
    assert "%" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["txt", "json"])
def test_a_stream(folder: Path, kind: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = (np.tile(tones.sing("abba cab dada"), 3) * 32767).astype("<i2")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(samples.tobytes())))
    assert main(["-", "--stream", "--checkpoint", "c.nemo", "--format", kind]) == 0
    printed = capsys.readouterr()
    assert "words show 1.0 s after" in printed.err and printed.out
    if kind == "json":
        updates = [json.loads(line) for line in printed.out.splitlines()]
        assert len(updates) > 2 and updates[-1]["seconds"] == pytest.approx(len(samples) / 16000, abs=0.03)
        assert any(update["words"] for update in updates) and updates[-1]["partial"] == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.mp3"], "--checkpoint is missing"),
        (["--checkpoint", "c.nemo"], "no sound file given"),
        (["-", "--checkpoint", "c.nemo"], "- is standard input, which needs --stream"),
        (["a.mp3", "--stream", "--checkpoint", "c.nemo"], "reads one stream"),
        (["-", "--stream", "--format", "srt", "--checkpoint", "c.nemo"], "txt or json lines"),
        (["a.mp3", "--checkpoint", "c.nemo", "--device", "tpu"], "must be auto, cpu or cuda, got 'tpu'"),
        (["a.mp3", "x/a.wav", "--out", "o", "--checkpoint", "c.nemo"], "would both be written to o/a.txt"),
        (["a.mp3", "--checkpoint", "none.nemo"], "there is no checkpoint at none.nemo"),
        (["a.mp3", "--checkpont", "c.nemo"], "did you mean --checkpoint"),
        (["a.mp3", "--checkpoint", "c.nemo", "--batch-seconds", "0"], "batch_seconds must be above 0"),
        (["a.mp3", "--checkpoint", "c.nemo", "--batch-seconds", "inf"], "batch_seconds must be above 0 and finite"),
        (["a.mp3", "--checkpoint", "c.nemo", "--out", "b.wav"], "--out b.wav is no folder"),
    ],
)
def test_mistakes_are_one_line(folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_a_text_beside_its_sound_is_not_replaced(folder: Path, capsys: pytest.CaptureFixture) -> None:
    Path("a.txt").write_text("what was said", encoding="utf-8")
    assert main(["a.mp3", "--checkpoint", "c.nemo", "--out", "."]) == 2
    assert "a.txt lies beside its sound and may be what was said in it" in capsys.readouterr().err
    assert Path("a.txt").read_text(encoding="utf-8") == "what was said"
    assert main(["a.mp3", "--checkpoint", "c.nemo", "--out", ".", "--format", "srt"]) == 0
    assert main(["a.mp3", "--checkpoint", "c.nemo", "--out", "elsewhere"]) == 0


def test_a_real_network_hears_nothing_in_silence_and_words_in_words(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    checkpoint = shared / "checkpoints" / "quartznet15x5_en.nemo"
    if not checkpoint.is_file():
        pytest.skip(f"there is no {checkpoint}")
    soundfile.write(tmp_path / "silence.wav", np.zeros(48000), 16000)
    soundfile.write(tmp_path / "blink.wav", np.random.default_rng(0).normal(0, 0.01, 800), 16000)
    names = [str(tmp_path / "silence.wav"), str(tmp_path / "blink.wav")]
    assert main([*names, "--checkpoint", str(checkpoint), "--format", "ctm"]) == 0
    assert capsys.readouterr().out == ""
