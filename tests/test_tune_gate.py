"""``python -m postcorrect.tune_gate``: from pairs, or from clips, to a gate that evaluate.py finds and obeys."""

import json
from pathlib import Path

import pytest
import soundfile
import tones
import torch
from test_evaluate import checkpoint
from tiny_bert import learnt_corrector, tiny_tokenizer, write_corrector

import evaluate
from postcorrect.gate_file import gate_file, read_gates
from postcorrect.pairs import Pair, write_part
from postcorrect.tune_gate import main
from quartznet import load_model
from quartznet.tuned import network_hash

WORDS = ("the", "don", "wor", "a", "b", "cab", "dad", "bad")
PAIRS = {f"{word} contry": f"{word} country" for word in WORDS} | {f"{word} the": f"{word} the" for word in WORDS}


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corrector")
    return write_corrector(folder / "run", learnt_corrector(PAIRS, tiny_tokenizer(folder / "bert"), steps=100))


@pytest.fixture
def run(learnt: Path) -> Path:
    gate_file(learnt).unlink(missing_ok=True)
    return learnt


def write_pairs(folder: Path, pairs: dict[str, str]) -> Path:
    write_part(folder, "dev", [Pair(*texts) for texts in pairs.items()])
    return folder


def test_pairs_make_a_gate_for_texts(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pairs = write_pairs(tmp_path / "pairs", {**PAIRS, "": "a", "noise": "", "señor": "señor"})
    assert main(["--corrector", str(run), "--data", str(pairs)]) == 0
    shown = capsys.readouterr().out
    assert "1 pairs left out in which nothing was said" in shown and "2 texts cannot be corrected: empty" in shown
    assert f"{run}/gate.yaml: evaluate.py --corrector {run} finds it there" in shown
    assert "the gate is on" in shown and max(map(len, shown.splitlines()[:-1])) <= 80
    gates = read_gates(gate_file(run))
    assert gates.text.settings.is_on and not gates.audio
    assert (gates.text.sentences, gates.text.errors) == (18, 9) and gates.text.errors_after <= 2
    assert gates.text.helped == 9 - gates.text.errors_held_out >= 4 and gates.text.harmed == 0
    assert gates.text.data == f"{pairs}, dev" and gates.text.decoding == ""


def test_a_corrector_without_use_is_off(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pairs = write_pairs(tmp_path / "pairs", {source: source for source in PAIRS})  # all that it changes was right
    assert main(["--corrector", str(run / "best.pt"), "--data", str(pairs)]) == 0
    assert "the gate is off, all texts stay as they are" in capsys.readouterr().out
    assert not read_gates(gate_file(run)).text.settings.is_on


def test_clips_make_a_gate_for_their_recogniser_and_both_are_kept(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["--corrector", str(run), "--data", str(write_pairs(tmp_path / "pairs", PAIRS))]) == 0
    text = read_gates(gate_file(run)).text
    manifest = tones.write_corpus(tmp_path, ("bad", "dab add", "a bad"))
    (tmp_path / "dev.jsonl").write_text(manifest.read_text(encoding="utf-8"), encoding="utf-8")
    model = str(checkpoint(tmp_path / "m.pt", lang="es"))
    heard = ["--checkpoint", model, "--data", str(tmp_path), "--device", "cpu"]
    (tmp_path / "train1.wav").write_bytes(b"RIFF no sound")
    assert main(["--corrector", str(run), *heard]) == 0
    shown = capsys.readouterr().out
    assert "1 clips left out; the first: " in shown and "2 sentences, 3 words" in shown
    gates = read_gates(gate_file(run))
    network = network_hash(load_model(model))
    assert gates.text == text and list(gates.audio) == [network]
    found = gates.audio[network]
    assert found.decoding == "greedy" and found.data == f"{tmp_path}, dev" and not found.settings.is_on
    scored = [*heard, "--split", "dev", "--corrector", str(run), "--json", str(tmp_path / "r.json")]
    assert evaluate.main(scored) == 0
    assert "correcting was no sure help on" in caplog.text
    result = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert result["repaired"]["reasons"] == {"left alone": 2}
    caplog.clear()
    assert evaluate.main([*scored, "--gate", "insist", "--beam", "2"]) == 0
    assert "was tuned on texts of other decoding: greedy" in caplog.text
    assert main(["--corrector", str(run), *heard, "--beam", "2"]) == 0
    assert read_gates(gate_file(run)).audio[network].decoding == "--beam 2"


def test_noise_gives_the_same_sentences_more_errors_to_judge_by(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tones.write_corpus(tmp_path, ("bad", "dab add", "a bad")).rename(tmp_path / "dev.jsonl")
    (tmp_path / "train.jsonl").write_text((tmp_path / "dev.jsonl").read_text(encoding="utf-8"), encoding="utf-8")
    noise = 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(1))
    soundfile.write(tmp_path / "noise.wav", noise.numpy(), 16000)
    model = str(checkpoint(tmp_path / "m.pt", lang="es"))
    heard = ["--corrector", str(run), "--checkpoint", model, "--data", str(tmp_path), "--device", "cpu"]
    heard += ["--noise", str(tmp_path / "noise.wav"), "--snr", "5"]
    assert main(heard) == 0
    shown = capsys.readouterr().out
    assert "clean: 3 clips\n5 dB: 3 clips\n" in shown and "6 sentences, 10 words" in shown
    [found] = read_gates(gate_file(run)).audio.values()
    assert found.data == f"{tmp_path}, dev, noise {tmp_path / 'noise.wav'} at 5 dB" and found.sentences == 6
    assert evaluate.main([*heard, "--split", "dev", "--gate", "insist", "--json", str(tmp_path / "r.json")]) == 0
    shown = capsys.readouterr().out
    assert "repaired, clean\n" in shown and "repaired, 5 dB\n" in shown
    result = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert list(result["repaired_in"]) == ["clean", "5 dB"] and result["repaired_in"]["clean"] == result["repaired"]
    assert all(sum(part["reasons"].values()) == 3 for part in result["repaired_in"].values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: --corrector, --data"),
        (["--corrector", "no", "--data", "pairs"], "no checkpoint no; give the path of a .pt file or of a run folder"),
        (["--corrector", "m.pt", "--data", "pairs"], "m.pt holds a recogniser and no corrector"),
        (["--corrector", "run", "--data", "empty"], "empty has no dev.jsonl and not both of dev.pred and dev.real"),
        (["--corrector", "run", "--data", "empty"], "if these are clips, give their recogniser with --checkpoint"),
        (["--corrector", "run", "--data", "pairs", "--split", "test"], "pairs has no test.jsonl"),
        (["--corrector", "run", "--data", "silent"], "silent has no pairs in its part dev"),
        (["--corrector", "run", "--data", "pairs", "--split", "all"], "--split all is no part of a folder of pairs"),
        (
            ["--corrector", "run", "--data", "x", "--checkpoint", "m.pt", "--batch-seconds", "nan"],
            "--batch-seconds must be above 0 and finite, got nan",
        ),
        (["--corrector", "run", "--data", "pairs", "--lm", "x"], "options of decoding are about audio; give its"),
        (["--corrector", "run", "--data", "pairs", "--noise", "x"], "noise, rooms and options of decoding are about"),
        (["--corrector", "run", "--data", "x", "--checkpoint", "m.pt", "--snr", "5"], "--snr says how loud the noise"),
        (
            ["--corrector", "run", "--data", "pairs", "--lang", "es"],
            "--lang, noise, rooms and options of decoding are about",
        ),
        (["--corrector", "run", "--data", "x", "--checkpoint", "no.pt"], "there is no checkpoint at no.pt"),
        (["--corrector", "run", "--data", "x", "--checkpoint", "run"], "of kind 'corrector' and no recogniser"),
        (["--corrector", "run", "--data", "x", "--checkpoint", "m.pt"], "there is no x; correct the path"),
        (["--corrector", "run", "--data", "x", "--checkpoint", "m.pt", "--alpha", "1"], "--alpha is about a language"),
        (["--corrector", "run", "--data", "broken.jsonl", "--checkpoint", "m.pt", "--split", "train"], "no clip of"),
        (["--corrector", "run", "--data", "x", "--checkpoint", "m.pt", "--batch-seconds", "0"], "above 0 and finite"),
        (["--corrector", "damaged", "--data", "pairs"], "is no gate of postcorrect.tune_gate (unknown setting text.ma"),
        (["--corrector", "by-hand", "--data", "pairs"], "was made by hand and would be overwritten"),
    ],
)
def test_mistakes_get_one_line(
    arguments: list[str],
    message: str,
    learnt: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "m.pt", lang="es")
    for name, gate in (("run", None), ("damaged", "text: {margin: 2}"), ("by-hand", "margin: 2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best.pt").symlink_to(learnt / "best.pt")
        if gate:
            gate_file(name).write_text(gate, encoding="utf-8")
    write_pairs(tmp_path / "pairs", {"a": "b"})
    write_pairs(tmp_path / "silent", {"a": ""})
    (tmp_path / "empty").mkdir()
    tones.write_corpus(tmp_path, ("ab",), "broken")
    (tmp_path / "broken0.wav").write_bytes(b"RIFF no sound")
    monkeypatch.setattr("postcorrect.tune_gate.propose", lambda *_, **__: pytest.fail("it was computed first"))
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1 and message in errors
    assert not gate_file("run").exists()
