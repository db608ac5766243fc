"""Folds: no sentence on both sides, train.py called as it must be, and how it ends."""

import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from data.manifest import Utterance, read_manifest
from data.splits import sentence_key
from postcorrect import folds
from postcorrect.folds import check_options, make_folds, run, train_fold

CLIPS = [Utterance(Path(f"/c/{n}.wav"), f"satz {n % 7}", 1.0) for n in range(30)]
OPTIONS = ["--init", "en.nemo", "--lang", "de"]


def test_no_sentence_is_learnt_and_decoded() -> None:
    found = make_folds(CLIPS, 3, Path("out"), OPTIONS)
    assert [fold.number for fold in found] == [1, 2, 3]
    assert sorted(clip.name for fold in found for clip in fold.decoded) == sorted(clip.name for clip in CLIPS)
    for fold in found:
        assert len(fold.learnt) + len(fold.decoded) == len(CLIPS)
        texts = [{sentence_key(clip.text) for clip in part} for part in (fold.learnt, fold.decoded)]
        assert not texts[0] & texts[1] and len(texts[1]) in (2, 3)


def test_a_folder_is_called_after_what_is_learnt() -> None:
    folders = [make_folds(CLIPS[:count], 3, Path("out"), options)[0].folder for count, options in TOLD]
    assert len(set(folders)) == 3 and folders[0] == make_folds(CLIPS, 3, Path("out"), OPTIONS)[0].folder


TOLD = ((30, OPTIONS), (20, OPTIONS), (30, [*OPTIONS, "--epochs", "3"]))


@pytest.mark.parametrize(("count", "problem"), [(1, "--folds must be at least 2"), (8, "7 different sentences cannot")])
def test_impossible_folds(count: int, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        make_folds(CLIPS, count, Path("out"), OPTIONS)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "give the options of train.py after --"),
        (["--out=x"], "--out after --"),
        (["--dev", "x"], "--dev after --"),
    ],
)
def test_options_of_the_training(options: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check_options(options)
    check_options(["--train", "lora", "--lang", "de"])


def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, last: str) -> None:
    """A train.py that writes down how it was called."""
    script = (
        f"import json, sys, os, time\njson.dump(sys.argv[1:], open({str(tmp_path / 'called.json')!r}, 'w'))\n{last}\n"
    )
    (tmp_path / "train.py").write_text(script, encoding="utf-8")
    monkeypatch.setattr(folds, "TRAIN", tmp_path / "train.py")


def test_the_training_gets_its_clips_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, tmp_path, "sys.exit(0)")
    fold = make_folds(CLIPS, 3, tmp_path / "folds", OPTIONS)[1]
    train_fold(fold, CLIPS[:2], OPTIONS)
    called = json.loads((tmp_path / "called.json").read_text(encoding="utf-8"))
    assert called[:5] == [*OPTIONS, "--train"] and called[-2:] == ["--out", str(fold.run)]
    assert [clip.text for clip in read_manifest(called[5])] == [clip.text for clip in fold.learnt]
    assert [clip.audio_path for clip in read_manifest(called[7])] == [clip.audio_path for clip in CLIPS[:2]]
    (tmp_path / "called.json").unlink()
    train_fold(fold, CLIPS[:2], OPTIONS)  # it is done
    assert not (tmp_path / "called.json").exists()


def test_a_training_that_fails_or_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fold = make_folds(CLIPS, 3, tmp_path / "folds", OPTIONS)[1]
    stand_in(monkeypatch, tmp_path, "sys.exit(2)")
    with pytest.raises(ValueError, match="the training of fold 2 ended with status 2, see above"):
        train_fold(fold, CLIPS[:2], OPTIONS)
    stand_in(monkeypatch, tmp_path, "sys.exit(130)")
    with pytest.raises(KeyboardInterrupt):
        train_fold(fold, CLIPS[:2], OPTIONS)
    assert not (fold.folder / "done.json").exists()


def test_a_signal_is_handed_on(tmp_path: Path) -> None:
    script = (
        "import signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (open({str(tmp_path / 'saved')!r}, 'w'), sys.exit(143)))\n"
        f"open({str(tmp_path / 'ready')!r}, 'w')\n"
        "time.sleep(60)\n"
    )

    def end() -> None:
        while not (tmp_path / "ready").exists():
            threading.Event().wait(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end).start()
    assert run([sys.executable, "-c", script]) == 128 + signal.SIGTERM
    assert (tmp_path / "saved").exists()
