"""evaluate.py --corrector: the sound's score by hand, words in time, a small corrector behind a small recogniser."""

import itertools
import json
import math
from pathlib import Path

import pytest
import tones
import torch
from test_evaluate import checkpoint
from tiny_bert import learnt_corrector, tiny_tokenizer, write_corrector

import evaluate
from postcorrect import repair_speech
from postcorrect.candidates import Correction
from postcorrect.gate import OPEN, GateSettings
from postcorrect.gate_file import gate_file
from postcorrect.repair_speech import SpeechRepairer, ctc_scores
from quartznet import load_model
from quartznet.alphabet import Alphabet
from quartznet.ctc import read_paths
from quartznet.decoding import Heard
from quartznet.text import find_language

ALPHABET = Alphabet((" ", "a", "b"))


def test_a_sound_score_is_the_sum_of_all_paths() -> None:
    log_probs = torch.randn(6, 4).log_softmax(-1)
    sums: dict[str, float] = {}
    for path in itertools.product(range(4), repeat=5):
        [ids] = read_paths(torch.tensor([path]), torch.tensor([5]), 3)
        value = sum(float(log_probs[frame, label]) for frame, label in enumerate(path))
        sums[ALPHABET.decode(ids)] = sums.get(ALPHABET.decode(ids), 0.0) + math.exp(value)
    texts = ["", "a", "ab", "aa b", "ä", "abcab", "aaa", "aaaa", "b"]
    found = ctc_scores(log_probs, 5, texts, ALPHABET)  # the sixth frame is padding
    assert found == pytest.approx([math.log(sums[text]) if text in sums else -math.inf for text in texts], abs=1e-4)
    assert found[4] == found[5] == found[7] == -math.inf and math.isfinite(found[6])
    assert ctc_scores(log_probs, 5, ["ä"], ALPHABET) == [-math.inf] and ctc_scores(log_probs, 5, [], ALPHABET) == []
    assert ctc_scores(log_probs.to(torch.bfloat16), 5, ["a"], ALPHABET) == pytest.approx(found[1:2], abs=0.1)


@pytest.fixture
def case(tmp_path: Path) -> dict:
    """A corpus, a network that has learnt nothing, what it hears, and a corrector that knows it by heart."""
    manifest, scores = tones.write_corpus(tmp_path, ("abba", "cab dada", "bad cab")), tmp_path / "scores.json"
    arguments = ["--checkpoint", str(checkpoint(tmp_path / "m.pt", lang="es")), "--data", str(manifest)]
    arguments += ["--json", str(scores), "--device", "cpu"]
    assert evaluate.main(arguments) == 0
    rows = json.loads(scores.read_text(encoding="utf-8"))["transcripts"]
    pairs = {row["hypothesis"]: row["reference"] for row in rows}
    assert len(pairs) == 3 and all(pairs)
    corrector = learnt_corrector(pairs, tiny_tokenizer(tmp_path / "bert"), positions=256)
    run = write_corrector(tmp_path / "run", corrector)
    return {"arguments": [*arguments, "--corrector", str(run)], "scores": scores, "pairs": pairs, "run": run}


def result(case: dict, *more: str) -> dict:
    assert evaluate.main([*case["arguments"], *more]) == 0
    return json.loads(case["scores"].read_text(encoding="utf-8"))


def test_texts_are_repaired_and_both_are_told(case: dict, capsys: pytest.CaptureFixture) -> None:
    found = result(case, "--gate", "open")
    shown = capsys.readouterr().out
    assert "the gate is off" in shown and "corrected                                          3" in shown
    assert {row["before"]: row["hypothesis"] for row in found["transcripts"]} == case["pairs"] and found["wer"] == 0.0
    assert found["corrector"] == str(case["run"]) and found["gate"] == "open"
    assert found["repaired"]["reasons"] == {"accepted": 3} and found["repaired"]["wer"]["before"] > 0
    assert found["repaired"]["sentences"]["helped"] == 3
    [block] = [text for text in shown.split("\n\n") if "before" in text and "WER" in text and "interval" in text]
    assert max(map(len, block.splitlines())) <= 80


def test_the_strict_defaults_leave_what_would_change_too_much(case: dict, capsys: pytest.CaptureFixture) -> None:
    found = result(case)
    shown = capsys.readouterr().out
    assert "has no tuned gate for" not in shown and "the defaults are strict guesses" in shown
    assert all(row["before"] == row["hypothesis"] for row in found["transcripts"])
    assert set(found["repaired"]["reasons"]) == {"edits"} and "nothing was changed" in shown


def test_a_gate_of_its_own_and_protected_words(case: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    gate = tmp_path / "mine.yaml"
    gate.write_text("margin: 0\nmost_edits: 99\nveto: null\n", encoding="utf-8")
    first = next(iter(case["pairs"]))
    (tmp_path / "names.txt").write_text(f"{first}\n", encoding="utf-8")
    found = result(case, "--gate", str(gate), "--protect", str(tmp_path / "names.txt"), "--batch-seconds", "1")
    kept = {row["before"]: row["hypothesis"] for row in found["transcripts"]}
    assert kept == {**case["pairs"], first: first}
    assert found["repaired"]["reasons"] == {"accepted": 2, "protected": 1}
    assert found["protect"] == str(tmp_path / "names.txt")
    gate.write_text("sound: 0\nveto: 0.001\nmost_edits: 99\n", encoding="utf-8")  # it was heard otherwise
    assert set(result(case, "--gate", str(gate))["repaired"]["reasons"]) <= {"sound", "accepted"}


def test_words_of_a_repaired_text_have_their_time(case: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    page = tmp_path / "page.html"
    found = result(case, "--gate", "open", "--confidence", "--report", str(page))
    assert found["confidence"]["words"] == 5 and "no place in time" not in capsys.readouterr().out
    shown = page.read_text(encoding="utf-8")
    rates = found["repaired"]["wer"]
    assert str(case["run"]) in shown
    assert f"WER {100 * rates['before']:.2f} % before, {100 * rates['after']:.2f} % after; " in shown


def test_noise_does_not_count_among_the_repairs(case: dict, tmp_path: Path) -> None:
    found = result(case, "--gate", "open", "--noise", str(tmp_path / "train0.wav"), "--snr", "5")
    assert sum(found["repaired"]["reasons"].values()) == 3 and len(found["conditions"]) == 2


def test_what_a_search_found_is_repaired_too(case: dict) -> None:
    assert evaluate.main([*case["arguments"][:-2], "--beam", "4"]) == 0
    searched = json.loads(case["scores"].read_text(encoding="utf-8"))["transcripts"]
    found = result(case, "--beam", "4", "--gate", "open")["transcripts"]
    assert [row["before"] for row in found] == [row["hypothesis"] for row in searched]
    assert any(row["before"] != row["hypothesis"] for row in found)


def test_a_correction_holds_letters_of_the_network_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The corrector's "k" is none of the network's letters: rules take it out, or the sound forbids the text."""
    model, language = load_model(checkpoint(tmp_path / "m.pt")), find_language("es")
    corrector = learnt_corrector({"a": "b"}, tiny_tokenizer(tmp_path / "bert"), steps=0)
    written = [[Correction("abk", -1.0, -1.0)], [Correction("ba", -1.0, -1.0)]]
    monkeypatch.setattr("postcorrect.repair.candidates", lambda *_, **__: written)
    values = {"ab": -9.0, "abk": -1.0}
    monkeypatch.setattr("postcorrect.repair.log_probs", lambda *given, batch: [values[text] for text in given[2]])
    log_probs, lengths = torch.randn(2, 20, 6).log_softmax(-1), torch.tensor([20, 20])
    heard = [Heard("ab", "ab"), Heard("b a", "BA")]
    for rules, reason in ((language, "sound"), (language.restricted_to(" abcd"), "same")):
        repairer = SpeechRepairer(corrector, OPEN, None, model.alphabet, rules)
        shown, before = repairer(log_probs, lengths, heard)
        assert shown == heard and before == ["ab", "ba"]  # custom words as references are
        assert repairer.done[0].reason == reason and repairer.done[0].text == "ab"


def test_a_gate_that_is_off_computes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postcorrect.repair.candidates", None)
    model, corrector = (
        load_model(checkpoint(tmp_path / "m.pt")),
        learnt_corrector({"a": "b"}, tiny_tokenizer(tmp_path), 0),
    )
    repairer = SpeechRepairer(corrector, GateSettings(is_on=False), None, model.alphabet, find_language("es"))
    heard = [Heard("ab", "ab")]
    assert repairer(torch.zeros(1, 9, 6), torch.tensor([9]), heard) == (heard, ["ab"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--gate", "open"], "--gate is about a corrector; give one with --corrector RUN"),
        (["--protect", "x"], "--protect is about a corrector"),
        (["--corrector", "no"], "no checkpoint no; give the path of a .pt file or of a run folder"),
        (["--corrector", "m.pt"], "m.pt holds a recogniser and no corrector"),
        (["--corrector", "run", "--gate", "no.yaml"], "there is no gate no.yaml; --gate takes a file, insist or open"),
        (["--corrector", "run", "--protect", "no.txt"], "there is no file of protected words no.txt"),
        (["--corrector", "damaged"], "gate.yaml is no gate of postcorrect.tune_gate (unknown key margni"),
        (["--checkpoint", "run", "--corrector", "run"], "holds a network of kind 'corrector' and no recogniser"),
    ],
)
def test_mistakes_get_one_line(
    more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "m.pt", lang="es")
    tones.write_corpus(tmp_path, ("ab",))
    corrector = learnt_corrector({"a": "b"}, tiny_tokenizer(tmp_path / "bert"), steps=0)
    for name in ("run", "damaged"):
        write_corrector(tmp_path / name, corrector)
    gate_file(tmp_path / "damaged").write_text("text: null\nmargni: 1\n", encoding="utf-8")
    monkeypatch.setattr(evaluate, "transcribe_clips", lambda *_: pytest.fail("it was heard first"))
    assert evaluate.main(["--checkpoint", "m.pt", "--data", "train.jsonl", *more]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1 and message in errors


def test_nothing_of_it_is_told_without_a_corrector(tmp_path: Path) -> None:
    options = evaluate.read_options(["--checkpoint", "x", "--data", "y"])
    assert repair_speech.described(options) == {}
