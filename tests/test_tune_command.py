"""``python -m quartznet.lm tune``: from a corpus and a model file to weights that evaluate.py finds."""

import argparse
import json
from pathlib import Path

import pytest
import tones
from test_decoding import neural_file
from test_evaluate import checkpoint
from tiny_lm import arpa

import evaluate
from quartznet.lm_command import main
from quartznet.ngram import build_model
from quartznet.tuned import file_hash, read_tuned, tuned_file

ARPA = arpa({"abba": -0.5, "cab": -0.6, "dada": -0.7}, {"cab dada": -0.3, "<s> abba": -0.2})


@pytest.fixture
def case(tmp_path: Path) -> argparse.Namespace:
    """A corpus with a dev part, a network that has learnt nothing, and a model of three words."""
    manifest = tones.write_corpus(tmp_path, ("bad", "dab add", "a bad"))  # no word of the model
    (tmp_path / "dev.jsonl").write_text(manifest.read_text(encoding="utf-8"), encoding="utf-8")
    arpa = tmp_path / "x.arpa"
    arpa.write_text(ARPA, encoding="utf-8")
    return argparse.Namespace(folder=tmp_path, arpa=arpa, checkpoint=checkpoint(tmp_path / "m.pt", lang="es"))


def tune(case: argparse.Namespace, *more: str) -> int:
    words = ["--checkpoint", str(case.checkpoint), "--data", str(case.folder), "--lm", str(case.arpa), "--beam", "4"]
    return main(["tune", *words, "--device", "cpu", *more])


def test_tuned_weights_are_found_and_obeyed(
    case: argparse.Namespace, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    assert tune(case) == 0
    printed = capsys.readouterr().out
    assert "3 clips, beam 4" in printed and f"{tuned_file(case.arpa)}: evaluate.py --lm" in printed
    [tuned] = read_tuned(case.arpa).values()
    assert not tuned.helps and tuned.data.endswith(", dev")  # it knows other words
    scored = ["--checkpoint", str(case.checkpoint), "--data", str(case.folder), "--split", "dev", "--device", "cpu"]
    assert evaluate.main([*scored, "--lm", str(case.arpa)]) == 0
    assert "did not help on" in caplog.text
    caplog.clear()
    assert evaluate.main([*scored, "--lm", str(case.arpa), "--alpha", "0.5", "--beam", "8"]) == 0
    assert f"{case.arpa}: alpha 0.5, beta " in caplog.text and ", beam 8 (as asked), tuned on " in caplog.text
    assert "WARNING" not in caplog.text


def test_wrong_files(case: argparse.Namespace, capsys: pytest.CaptureFixture) -> None:
    case.arpa.write_text(ARPA.replace("abba", "ABBA").replace("cab", "CAB").replace("dada", "DADA"), encoding="utf-8")
    assert tune(case) == 2 and "cannot be written in the network's letters" in capsys.readouterr().err
    with pytest.MonkeyPatch.context() as patch:  # said before the network has heard an hour
        patch.setattr("quartznet.tune_command.hear", lambda *_: pytest.fail("it was heard first"))
        assert tune(case) == tune(case, "--beam", "0") == 2 and "beam and count" in capsys.readouterr().err
        assert tune(case, "--beam", "10001") == 2 and "10,000 texts at most" in capsys.readouterr().err
    case.arpa.write_text(ARPA[:60], encoding="utf-8")
    assert tune(case) == 2 and "x.arpa:" in capsys.readouterr().err
    case.arpa.unlink()
    assert tune(case) == 2 and "x.arpa" in capsys.readouterr().err
    case.arpa.write_text(ARPA, encoding="utf-8")
    case.checkpoint = checkpoint(case.folder / "n.pt")
    assert tune(case) == 2 and "does not say its language" in capsys.readouterr().err


def test_a_neural_model_is_tuned_obeyed_and_recorded(
    case: argparse.Namespace, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    neural, result = neural_file(case.folder / "lm.pt"), case.folder / "r.json"
    assert tune(case, "--neural", str(neural)) == 0
    printed = capsys.readouterr().out
    assert "the best of the 64 texts" in printed and f"--lm {case.arpa} --neural {neural} finds it there" in printed
    [tuned] = read_tuned(case.arpa).values()
    assert tuned.neural.model == file_hash(neural) and tuned.neural.wer >= 0
    scored = ["--checkpoint", str(case.checkpoint), "--data", str(case.folder), "--split", "dev", "--device", "cpu"]
    scored += ["--lm", str(case.arpa), "--neural", str(neural), "--json", str(result)]
    assert evaluate.main(scored) == 0
    assert ("lm.pt was no sure help on" in caplog.text) == (not tuned.neural.helps)
    assert evaluate.main([*scored, "--gamma", "0.5", "--alpha", "0.1", "--beam", "8"]) == 0
    decoding = json.loads(result.read_text(encoding="utf-8"))["decoding_asked"]
    assert decoding == f"--lm {case.arpa} --beam 8 --alpha 0.1 --neural {neural} --gamma 0.5"
    capsys.readouterr()
    assert tune(case) == 0
    assert "a neural model was tuned for the former search" in capsys.readouterr().out
    [tuned] = read_tuned(case.arpa).values()
    assert tuned.neural is None


def test_wrong_neural_models_are_refused_before_anything_is_heard(
    case: argparse.Namespace, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quartznet.tune_command.hear", None)
    assert tune(case, "--neural", "no.pt") == 2 and "no language model no.pt" in capsys.readouterr().err
    assert tune(case, "--neural", str(case.arpa)) == 2 and "cannot be read as a language" in capsys.readouterr().err
    russian = neural_file(case.folder / "ru.pt", lang="ru")
    assert tune(case, "--neural", str(russian)) == 2 and "is a model of language ru" in capsys.readouterr().err


def test_a_model_that_learnt_the_dev_sentences_is_told(case: argparse.Namespace, capsys: pytest.CaptureFixture) -> None:
    long = "a bad cab add a dada"
    tones.write_corpus(case.folder, (long, "dab"), "dev")
    build_model([long, "dab add", "a cab"], case.arpa, 4)
    assert tune(case) == 0
    assert "holds all word sequences of 1 of these sentences; most likely its text held them\n" in (
        shown := capsys.readouterr().out
    )
    assert f"Examples:\n  {long}" in shown
