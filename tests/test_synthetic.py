import json
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from torchaudio.transforms import Resample

from data import synthetic
from data.espeak import Espeak
from data.phrases import PHRASEBOOKS
from data.synthetic import MARKER, SAMPLE_RATE, VARIANTS, embedded_default, make_corpus, say


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus("es", tmp_path_factory.mktemp("corpora") / "es", clips=12, held_out=4)


def test_clips_are_16_bit_flac_at_16_kilohertz_and_as_long_as_stated(corpus: Path) -> None:
    for split, count in (("train", 12), ("dev", 4), ("test", 4)):
        rows = lines(corpus / f"{split}.jsonl")
        assert len(rows) == count
        for row in rows:
            info = soundfile.info(corpus / row["audio_filepath"])
            assert (info.samplerate, info.channels, info.format, info.subtype) == (SAMPLE_RATE, 1, "FLAC", "PCM_16")
            assert row["duration"] == pytest.approx(info.duration, abs=1e-3)
            assert 0.3 < row["duration"] < 12


def test_no_phrase_and_no_voice_is_in_two_splits(corpus: Path) -> None:
    splits = {split: lines(corpus / f"{split}.jsonl") for split in VARIANTS}
    texts = [row["text"] for rows in splits.values() for row in rows]
    assert len(set(texts)) == len(texts)
    voices = {split: {row["speaker"].split("+")[1] for row in rows} for split, rows in splits.items()}
    for split in VARIANTS:
        assert voices[split] <= set(VARIANTS[split].split())


def test_variants_exist_once_each() -> None:
    names = [name for split in VARIANTS.values() for name in split.split()]
    assert len(set(names)) == len(names)
    assert set(names) <= set(Espeak().variants())


@pytest.mark.parametrize("lang", sorted(PHRASEBOOKS))
def test_every_voice_of_every_language_speaks(lang: str) -> None:
    synthesizer = Espeak()
    for voice in PHRASEBOOKS[lang].voices:
        assert len(synthesizer.synthesize("a", voice)[0]) > 100


def test_same_seed_same_files_and_a_longer_training_set_keeps_the_test_set(corpus: Path, tmp_path: Path) -> None:
    again = make_corpus("es", tmp_path / "again", clips=14, held_out=4)
    for split in ("test", "dev"):
        assert (again / f"{split}.jsonl").read_text() == (corpus / f"{split}.jsonl").read_text()
    for row in lines(corpus / "train.jsonl"):
        clips = [soundfile.read(folder / row["audio_filepath"])[0] for folder in (corpus, again)]
        assert np.array_equal(*clips)
    other = make_corpus("es", tmp_path / "other", clips=1, held_out=4, seed=1)
    assert (other / "test.jsonl").read_text() != (corpus / "test.jsonl").read_text()


def test_say_stays_within_full_scale_with_noise_in_the_pauses() -> None:
    synthesizer = Espeak()
    resample = Resample(synthesizer.sample_rate, SAMPLE_RATE)
    for seed in range(5):
        clip = say(synthesizer, resample, "mil", "es", "m1", random.Random(seed))
        assert clip.dtype == np.float32
        assert 10 ** (-16 / 20) < np.abs(clip).max() <= 1
        pause = clip[: int(0.05 * SAMPLE_RATE)]
        assert 1e-5 < pause.std() < 0.02


def test_second_call_reuses_the_folder(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "make_all", None)
    assert make_corpus("es", corpus, clips=12, held_out=4) == corpus


def test_other_contents_are_never_overwritten(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds .*'clips': 12.*not the corpus .*'clips': 13.*name another folder"):
        make_corpus("es", corpus, clips=13, held_out=4)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        make_corpus("es", tmp_path, clips=1, held_out=1)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_stop_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(lang: str, folder: Path, recipe: dict) -> None:
        (folder / "train").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "make_all", stop)
    with pytest.raises(KeyboardInterrupt):
        make_corpus("es", tmp_path / "es", clips=1, held_out=1)
    assert list(tmp_path.iterdir()) == []


def test_the_faster_of_two_processes_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overtaken(lang: str, folder: Path, recipe: dict) -> None:
        (folder / MARKER).write_text("slow")
        (tmp_path / "es").mkdir()
        (tmp_path / "es" / MARKER).write_text(json.dumps(recipe))

    monkeypatch.setattr(synthetic, "make_all", overtaken)
    make_corpus("es", tmp_path / "es", clips=1, held_out=1)
    assert (tmp_path / "es" / MARKER).read_text() != "slow"
    assert os.listdir(tmp_path) == ["es"]


def test_a_full_disk_is_not_mistaken_for_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(lang: str, folder: Path, recipe: dict) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(synthetic, "make_all", full)
    with pytest.raises(OSError, match="no space left"):
        make_corpus("es", tmp_path / "es", clips=1, held_out=1)


@pytest.mark.parametrize(
    ("lang", "clips", "message"),
    [("tlh", 1, "no embedded default in 'tlh', only in ca, de"), ("es", 0, "at least one clip.*clips 0")],
)
def test_impossible_requests_are_errors(tmp_path: Path, lang: str, clips: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_corpus(lang, tmp_path / "out", clips=clips)


def test_embedded_default_opens_as_splits(corpus: Path) -> None:
    splits = embedded_default("es", corpus, clips=12, held_out=4)
    assert [len(splits.train), len(splits.dev), len(splits.test)] == [12, 4, 4]
    assert splits.skipped == []
    assert splits.test[0].audio_path.is_file()


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    arguments = ["synthetic", "--lang", "it", "--out", str(tmp_path / "it"), "--clips", "2", "--held-out", "1"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert synthetic.main() == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("said 0.") and printed[-1] == str(tmp_path / "it")
    assert synthetic.main([*arguments[1:], "--seed", "5"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.endswith("name another folder\n") and told.count("\n") == 1
    assert synthetic.main(["--lang", "xx"]) == 2 and "invalid choice: 'xx'" in capsys.readouterr().err
    assert synthetic.main([*arguments[1:], "--clips", "0"]) == 2 and "at least one clip" in capsys.readouterr().err


def test_ctrl_c_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "make_split", stop)
    assert synthetic.main(["--lang", "it", "--out", str(tmp_path / "it")]) == 130
    assert capsys.readouterr().err == "stopped; nothing was made\n" and not list(tmp_path.iterdir())
