"""quartznet.doctor: a healthy corpus passes, and each planted fault is named."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
from test_demo import SHIPPED

from data.manifest import read_manifest
from data.synthetic import make_corpus
from quartznet import doctor, load_model
from quartznet.audio import read_audio
from quartznet.checkpoint import save_checkpoint
from quartznet.checkup import check_front_end
from quartznet.settings import to_dict

RATE = ("--optim.name", "adamw", "--optim.lr", "0.003", "--data.workers", "0", "--device", "cpu")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """English as the shipped checkpoint knows it, so that the only faults are those that are planted."""
    return make_corpus("en", tmp_path_factory.mktemp("doctor") / "en", clips=40, held_out=2)


def entries(corpus: Path, part: str) -> list[dict]:
    lines = (corpus / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return [entry | {"audio_filepath": str(corpus / entry["audio_filepath"])} for entry in found]


def write(folder: Path, train: list[dict], dev: list[dict]) -> Path:
    folder.mkdir()
    for name, part in (("train", train), ("dev", dev)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in part), encoding="utf-8")
    return folder


def resampled(entry: dict, folder: Path, rate: int, claimed: int) -> dict:
    """The clip at 8 kHz, written with a header of ``claimed``."""
    signal = read_audio(entry["audio_filepath"], rate)
    path = folder / Path(entry["audio_filepath"]).with_suffix(".wav").name
    soundfile.write(path, signal.numpy(), claimed)
    return entry | {"audio_filepath": str(path), "duration": len(signal) / claimed}


def examined(capsys: pytest.CaptureFixture, *arguments: str, seconds: float = 2.0) -> tuple[int, dict[str, str]]:
    """Exit status, and the text of each check, the mark included."""
    doctor.SECONDS, before = seconds, doctor.SECONDS
    try:
        status = doctor.main([*arguments, *RATE] if "--optim.lr" not in arguments else [*RATE, *arguments])
    finally:
        doctor.SECONDS = before
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    texts: dict[str, str] = {}
    for line in printed.splitlines():
        if not line.startswith(" "):
            mark, check = line.split()[:2]
            texts[check] = f"{mark}:"
            line = line[19:]
        texts[check] += f" {line.strip()}"
    return status, texts


def test_all_is_well(corpus: Path, capsys: pytest.CaptureFixture) -> None:
    status, texts = examined(capsys, "--init", str(SHIPPED), "--data", str(corpus), "--lang", "en", seconds=25.0)
    assert status == 0 and list(texts) == [
        "alphabet",
        "clips",
        "sample-rate",
        "transcripts",
        "front-end",
        "learning",
        "cost",
    ]
    assert all(text.startswith("ok:") for text in texts.values()), texts
    assert "WER 0 %" in texts["learning"] and "min an epoch" in texts["cost"]


def test_wrong_features_are_named(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = load_model(SHIPPED)
    config = replace(model.config, features=replace(model.config.features, normalize="all_features"))
    contents = {"model_config": to_dict(config), "weights": model.state_dict(), "lang": "en"}
    save_checkpoint(tmp_path / "w.pt", contents)
    status, texts = examined(capsys, "--init", str(tmp_path / "w.pt"), "--data", str(corpus), "--lang", "en")
    assert status == 1 and "trained with normalize per_feature" in texts["front-end"]


@pytest.mark.parametrize("folder", ["es_read", "ru_prompts"])
def test_a_wrong_window_of_the_real_network_is_named(shared: Path, folder: str) -> None:
    model = load_model(shared / "checkpoints" / "quartznet15x5_en.nemo").eval()
    clips = doctor.sample(read_manifest(shared / "corpora" / folder / "train.jsonl"), doctor.CLIPS)
    _, signals, _ = doctor.read_signals(clips, 16000)
    assert check_front_end(model, signals).level == "ok"
    model.config = replace(model.config, features=replace(model.config.features, window_size=400))
    finding = check_front_end(model, signals)
    assert finding.level == "fault" and "was trained with a window of 20 ms" in finding.text


def test_a_wrong_alphabet_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    spanish = make_corpus("es", tmp_path / "es", clips=20, held_out=2)
    status, texts = examined(capsys, "--init", str(SHIPPED), "--data", str(spanish), "--lang", "en")
    assert status == 1 and texts["alphabet"].startswith("FAULT:") and "not the alphabet of English" in texts["alphabet"]


def test_shuffled_transcripts_are_named(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    train = entries(corpus, "train")
    texts = [entry["text"] for entry in train]
    random.Random(1).shuffle(texts)
    shuffled = [entry | {"text": text} for entry, text in zip(train, texts, strict=True)]
    folder = write(tmp_path / "shuffled", shuffled, entries(corpus, "dev"))
    status, found = examined(capsys, "--init", str(SHIPPED), "--data", str(folder), "--lang", "en")
    assert status == 1 and "seem not to belong to their clips" in found["transcripts"]


def test_a_rate_a_hundred_times_too_high_is_named(corpus: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ("--init", str(SHIPPED), "--data", str(corpus), "--lang", "en", "--optim.lr", "0.3")
    status, texts = examined(capsys, *arguments, seconds=8.0)
    assert status == 1 and "the rate is too high: try --optim.lr 0.003" in texts["learning"]


def test_8_khz_with_a_header_of_16_is_named(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    parts = [[resampled(entry, tmp_path, 8000, 16000) for entry in entries(corpus, part)] for part in ("train", "dev")]
    folder = write(tmp_path / "hurried", *parts)
    status, texts = examined(capsys, "--init", str(SHIPPED), "--data", str(folder), "--lang", "en")
    assert status == 1 and "taken at 8000 Hz and the headers say 16000" in texts["sample-rate"]
    assert not texts["front-end"].startswith("FAULT:")


def test_without_a_start_only_what_can_be_looked_at(corpus: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ("--from-scratch", "--preset", "tiny", "--data", str(corpus), "--lang", "en")
    _, texts = examined(capsys, *arguments)
    assert list(texts) == ["alphabet", "clips", "learning", "cost"]


def test_what_cannot_be_examined(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert doctor.main(["--init", str(SHIPPED), "--data", str(tmp_path / "nothing"), "--lang", "en"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_clips_that_cannot_be_read_are_named(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those learnt by heart are the shortest, which the other checks need not have heard."""
    train = entries(corpus, "train")
    broken = [train[0] | {"audio_filepath": str(tmp_path / f"{i}.wav"), "duration": 2.2, "text": "a"} for i in range(9)]
    for entry in broken:
        Path(entry["audio_filepath"]).write_text("RIFF no sound")
    folder = write(tmp_path / "broken", [*(entry | {"duration": 3.0} for entry in train), *broken], train[:2])
    arguments = ["--from-scratch", "--preset", "tiny", "--data", str(folder), "--lang", "en", *RATE]
    monkeypatch.setattr(doctor, "CLIPS", 1)
    assert doctor.main(arguments) == 2
    assert "none of the shortest clips can be read; the first problem: " in capsys.readouterr().err


def test_the_signals_and_the_network_are_on_one_device(
    corpus: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: the network is somewhere else until the clips are listened to."""

    def listen_on_cpu(model: torch.nn.Module, signals: list) -> tuple[torch.Tensor, torch.Tensor]:
        assert {signal.device for signal in signals} == {model.device}
        raise ValueError("far enough")

    monkeypatch.setattr(doctor, "listen", listen_on_cpu)
    monkeypatch.setattr(doctor, "choose_device", lambda name: torch.device("meta"))
    monkeypatch.setattr(torch.nn.Module, "cpu", lambda model: model.to_empty(device="cpu"))  # nothing comes from meta
    assert doctor.main(["--init", str(SHIPPED), "--data", str(corpus), "--lang", "en", *RATE]) == 2
    assert "error: far enough" in capsys.readouterr().err


def test_a_broken_clip_is_named_and_the_rest_is_looked_at(corpus: Path, tmp_path: Path, capsys) -> None:
    train = entries(corpus, "train")
    (tmp_path / "broken.wav").write_bytes(b"nothing")
    train[3] |= {"audio_filepath": str(tmp_path / "broken.wav")}
    folder = write(tmp_path / "one", train[:12], entries(corpus, "dev"))
    _, texts = examined(capsys, "--init", str(SHIPPED), "--data", str(folder), "--lang", "en")
    assert texts["clips"].startswith("NOTE: 12 to train on, 1 left out; the first:") and "broken.wav" in texts["clips"]
    assert "transcripts" in texts


def test_the_recipe_is_what_is_examined(corpus: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ("--init", str(SHIPPED), "--data", str(corpus), "--lang", "en", "--recipe", "auto", "--epochs", "3")
    assert doctor.main([*arguments, "--data.workers", "0", "--device", "cpu"]) in (0, 1)
    assert "at rate 1e-05" in " ".join(capsys.readouterr().out.split())
