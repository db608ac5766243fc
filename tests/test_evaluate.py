"""evaluate.py: any checkpoint on any data, with clips that fail and letters that the model lacks."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tones
import torch

import evaluate
from data.manifest import Utterance
from quartznet import decoding, load_model
from quartznet.checkpoint import save_checkpoint
from quartznet.config import BlockConfig, ModelConfig
from quartznet.model import QuartzNet
from quartznet.settings import to_dict
from quartznet.text import find_language


def checkpoint(path: Path, labels: str = " abcd", **more: str) -> Path:
    model = QuartzNet(ModelConfig(tuple(labels), (BlockConfig(8, 5, stride=2), BlockConfig(8, 1, separable=False))))
    save_checkpoint(path, {"model_config": to_dict(model.config), "weights": model.state_dict(), **more})
    return path


def test_scores_survive_bad_clips_and_lost_letters(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    manifest = tones.write_corpus(tmp_path, ("abba", "cab dada", "d a", "abcd"))
    text = manifest.read_text(encoding="utf-8").replace('"cab dada"', '"Cab, DÁDA!"').replace('"abcd"', '"abcd xyz"')
    manifest.write_text(text, encoding="utf-8")
    (tmp_path / "train2.wav").write_bytes(b"RIFF no sound")
    scores = tmp_path / "scores.json"
    arguments = ["--checkpoint", str(checkpoint(tmp_path / "m.pt", lang="es")), "--data", str(manifest)]
    assert evaluate.main([*arguments, "--json", str(scores), "--show", "2", "--precision", "bf16"]) == 0
    output = capsys.readouterr().out
    result = json.loads(scores.read_text(encoding="utf-8"))
    assert [row["reference"] for row in result["transcripts"]] == ["abba", "cab dada", "abcd"]
    assert len(result["skipped"]) == 1 and "train.jsonl:3" in result["skipped"][0]
    assert result["lang"] == "es" and result["cer_interval"][0] <= result["cer"] <= result["cer_interval"][1]
    assert math.isfinite(result["loss"])
    assert "letters outside the model's alphabet" in output and "1 clips left out" in output


def test_references_without_room_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    manifest = tones.write_corpus(tmp_path, ("abba", "ab"))
    manifest.write_text(manifest.read_text().replace('"ab"', f'"{"ab" * 99}"'), encoding="utf-8")
    assert evaluate.main(["--checkpoint", str(checkpoint(tmp_path / "m.pt", lang="es")), "--data", str(manifest)]) == 0
    output = capsys.readouterr().out
    assert "1 references have more letters" in output and "train1.wav" in output and "2 utterances" in output


def test_minutes_are_those_of_the_clips_that_were_heard(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    manifest = tones.write_corpus(tmp_path, ("abba", "ab"))
    soundfile.write(tmp_path / "long.flac", tones.sing("ab"), 16000)
    content = bytearray((tmp_path / "long.flac").read_bytes())
    content[22:26] = b"\x7f\xff\xff\xff"  # says that it lasts for 37 hours
    (tmp_path / "long.flac").write_bytes(content)
    with manifest.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"audio_filepath": "long.flac", "text": "ab"}) + "\n")
    assert evaluate.main(["--checkpoint", str(checkpoint(tmp_path / "m.pt", lang="es")), "--data", str(manifest)]) == 0
    printed = capsys.readouterr().out
    assert "1 clips left out" in printed and "\n0.0 minutes of audio in " in printed


def told(folder: Path, said: list[dict]) -> Path:
    """A corpus whose lines say more of their clips."""
    manifest = tones.write_corpus(folder, ("abba", "cab dada", "da", "bad cab")[: len(said)])
    lines = manifest.read_text(encoding="utf-8").splitlines()
    manifest.write_text("\n".join(json.dumps(json.loads(a) | b) for a, b in zip(lines, said, strict=True)), "utf-8")
    return manifest


def test_tables_by_field(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    said = [{"accent": "andino", "snr": 3}, {"speaker": "ana"}, {"accent": "caribe", "snr": 3}, {"accent": "andino"}]
    manifest, scores = told(tmp_path, said), tmp_path / "scores.json"
    arguments = ["--checkpoint", str(checkpoint(tmp_path / "m.pt", lang="es")), "--data", str(manifest)]
    assert evaluate.main([*arguments, "--json", str(scores), "--by", "accent, duration,snr,speaker"]) == 0
    output, result = capsys.readouterr().out, json.loads(scores.read_text(encoding="utf-8"))
    assert {name: [(row["value"], row["clips"]) for row in rows] for name, rows in result["by"].items()} == {
        "accent": [("andino", 2), ("caribe", 1), ("(none)", 1)],
        "duration": [("0-2 s", 4)],
        "snr": [("3", 2), ("(none)", 2)],
        "speaker": [("ana", 1), ("(none)", 3)],
    }
    for rows in result["by"].values():  # the groups make the whole
        words = sum(row["words"] for row in rows)
        assert words == result["wer_counts"]["reference_length"] == 6
        assert sum(row["wer"] * row["words"] for row in rows) / words == pytest.approx(result["wer"])
    assert "conditions" not in result
    tables = output[output.index("by accent") :]
    assert max(map(len, tables.splitlines())) <= 80 and tables.count("\nall ") == 4


def test_noise_and_rooms_whatever_the_batches(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    draw = np.random.default_rng(0)
    for name, samples in (("noise", 20000), ("room", 2000)):
        sound = 0.1 * draw.standard_normal(samples) * np.exp(-np.arange(samples) / 400 * (name == "room"))
        soundfile.write(tmp_path / f"{name}.wav", sound.astype(np.float32), 16000)
    manifest, scores = told(tmp_path / "c", [{}, {}, {}]), tmp_path / "scores.json"
    arguments = ["--checkpoint", str(checkpoint(tmp_path / "m.pt", lang="es")), "--data", str(manifest)]
    arguments += ["--noise", str(tmp_path / "noise.wav"), "--rir", str(tmp_path / "room.wav"), "--json", str(scores)]
    found = []
    for more in (["--by", "snr"], ["--batch-seconds", "2"], ["--batch-seconds", "2", "--seed", "1", "--snr", "0,-20"]):
        assert evaluate.main([*arguments, *more]) == 0
        found.append(json.loads(scores.read_text(encoding="utf-8"))["conditions"])
    output = capsys.readouterr().out
    assert found[0] == found[1]
    labels = ["clean", "room", *(f"room, {ratio} dB" for ratio in (20, 10, 5, 0))]
    assert [row["value"] for row in found[0]] == labels and {row["clips"] for row in found[0]} == {3}
    assert [row["value"] for row in found[2]] == ["clean", "room", "room, 0 dB", "room, -20 dB"]
    assert found[0][0]["rise"] == 0.0 and found[0][0]["wer"] == found[2][0]["wer"]
    assert output.count("3 clips each") == 3 and "by snr" not in output


def test_a_clip_that_takes_no_noise_is_in_no_row(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    manifest = told(tmp_path, [{}, {}, {}])
    soundfile.write(tmp_path / "train1.wav", np.zeros(9000, dtype=np.float32), 16000)
    arguments = ["--checkpoint", str(checkpoint(tmp_path / "m.pt", lang="es")), "--data", str(manifest)]
    assert evaluate.main([*arguments, "--noise", str(tmp_path / "train0.wav"), "--snr", "5"]) == 0
    output = capsys.readouterr().out
    assert "3 utterances" in output and "\n2 clips each" in output
    assert "1 clips are left out of the next table; the first: " in output and "train.jsonl:2: no noise can" in output
    soundfile.write(tmp_path / "silence.wav", np.zeros(9000, dtype=np.float32), 16000)
    assert evaluate.main([*arguments, "--noise", str(tmp_path / "silence.wav"), "--snr", "5"]) == 2
    assert "no clip could be evaluated in every condition; the first problem: " in capsys.readouterr().err


def test_cuts_that_begin_together_are_told_apart(tmp_path: Path) -> None:
    rows = [evaluate.Transcript("a.wav", text, "ab", 1.0) for text in ("ab", "ba", "ab")]
    said = [("short", "ab"), ("long", "ba"), ("longer", "ab")]
    clips = [Utterance(Path("a.wav"), text, 1.0, fields=(("cut", name),)) for name, text in said]
    scores = list(evaluate.scored(clips, rows).values())
    assert [(clip.said["cut"], clip.words.errors) for clip in scores] == [("short", 0), ("long", 1), ("longer", 0)]


def test_a_page_against_another_result(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    said = [{"accent": "andino"}, {"accent": "andino"}, {"accent": "caribe"}, {"accent": "<i>"}]
    manifest, scores, page = told(tmp_path, said), tmp_path / "scores.json", tmp_path / "page.html"
    (tmp_path / "train2.wav").write_bytes(b"RIFF no sound")
    arguments = ["--checkpoint", str(checkpoint(tmp_path / "m.pt", lang="es")), "--data", str(manifest)]
    assert evaluate.main([*arguments, "--json", str(scores)]) == 0
    result = json.loads(scores.read_text(encoding="utf-8"))
    result["transcripts"] = [{**row, "hypothesis": row["reference"]} for row in result["transcripts"][1:]]
    scores.write_text(json.dumps(result), encoding="utf-8")
    capsys.readouterr()
    assert evaluate.main([*arguments, "--report", str(page), "--against", str(scores), "--by", "accent"]) == 0
    output, made = capsys.readouterr().out, page.read_text(encoding="utf-8")
    assert "left out: 0 only in the first, 1 only in the second" in output and "P(better)" in output
    assert f"{page}: a page of 0." in output
    assert made.count("<audio controls") == made.count('src="data:image/png') == 3  # every clip is wrong
    assert "By accent" in made and "&lt;i&gt;" in made and "<i>" not in made.split("<main")[1].split("<script")[0]
    assert "1 clips are in none of the figures" in made and "The other system: " in made
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".tmp", ".html")] == ["page.html"]


def test_how_sure_the_words_are(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    manifest, scores = told(tmp_path, [{}, {}, {}, {}]), tmp_path / "scores.json"
    arguments = ["--checkpoint", str(checkpoint(tmp_path / "m.pt", lang="es")), "--data", str(manifest)]
    assert evaluate.main([*arguments, "--json", str(scores)]) == 0
    plain = json.loads(scores.read_text(encoding="utf-8"))
    assert "confidence  " not in capsys.readouterr().out and "confidence" not in plain
    assert evaluate.main([*arguments, "--json", str(scores), "--confidence"]) == 0
    output, result = capsys.readouterr().out, json.loads(scores.read_text(encoding="utf-8"))
    assert result["transcripts"] == plain["transcripts"]  # the words of a text change nothing in it
    words = sum(len(row["hypothesis"].split()) for row in result["transcripts"])
    assert result["confidence"]["words"] == words == sum(row["words"] for row in result["confidence"]["bins"]) > 0
    assert f"{words} words, " in output and "calibration error" in output


def test_custom_words_are_heard_at_a_time(tmp_path: Path) -> None:
    """``D-A`` is written so and counts as the normalised "d a"; both of its words are where it was heard."""
    model, language = load_model(checkpoint(tmp_path / "m.pt")), find_language("es")
    log_probs = torch.full((12, 6), -9.0)
    log_probs[range(12), [1, 5, 0, 4, 5, 1, 5, 0, 2, 5, 5, 5]] = -0.1
    heard = decoding.Heard("a da b", "a D-A b")
    found = evaluate.answer(log_probs, 12, heard, model, language, True)
    assert found.text == "a d a b" and [word.text for word in found.words] == ["a", "d", "a", "b"]
    times = [(word.start, word.end) for word in found.words]
    assert times[0] < times[1] == times[2] < times[3]
    assert evaluate.answer(log_probs, 12, heard, model, language, False) == evaluate.Answer("a d a b")


def test_ctrl_c_is_one_line(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(path: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "load_model", interrupted)
    assert evaluate.main(["--checkpoint", "x", "--data", "y"]) == 130
    assert capsys.readouterr().err == "aborted\n"


def test_data_in_another_alphabet_is_an_error_and_no_score(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    manifest = tones.write_corpus(tmp_path, ("да", "нет"))
    assert evaluate.main(["--checkpoint", str(checkpoint(tmp_path / "m.pt", lang="es")), "--data", str(manifest)]) == 2
    output = capsys.readouterr()
    assert "the first problem: " in output.err and "no letter of 'да' is in the alphabet" in output.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--checkpoint is missing"),
        (["--checkpoint", "absent.pt", "--data", "absent"], "there is no checkpoint at absent.pt"),
        (["--checkpoint", "m.pt", "--data", "absent"], "there is no absent"),
        (["--checkpoint", "m.pt", "--data", "train.jsonl"], "does not say its language; give it with --lang"),
        (["--checkpoint", "m.pt", "--data", "train.jsonl", "--lang", "es", "--split", "dev"], "has no dev clips"),
        (["--checkpoint", "m.pt", "--data", "x", "--precision", "fp8"], "invalid choice: 'fp8'"),
        (
            ["--checkpoint", "no.pt", "--data", "x", "--beam", "1000000"],
            "a beam holds 10,000 texts at most, got 1,000,0",
        ),
        (["--checkpoint", "m.pt", "--data", "x", "--json", "no/a.json"], "there is no folder no; make it first"),
        (["--checkpoint", "m.pt", "--data", "x", "--worst", "-1"], "--worst is a number from 0 on, got -1"),
        (["--checkpoint", "m.pt", "--data", "x", "--batch-seconds", "inf"], "must be above 0 and finite, got inf"),
        (["--checkpoint", "m.pt", "--data", "x", "--json", "."], "--json . is a folder; name a file"),
        (["--checkpoint", "m.pt", "--data", "x", "--json", "r", "--against", "./r"], "would replace the result of"),
        (["--checkpoint", "m.pt", "--data", "x", "--report", "no/a.html"], "there is no folder no; make it first"),
        (["--checkpoint", "m.pt", "--data", "x", "--against", "no.json"], "there is no result no.json"),
        (["--checkpoint", "m.pt", "--data", "x", "--against", "train.jsonl"], "is not a result of evaluate.py --json"),
        (["--checkpoint", "m.pt", "--data", "x", "--sbow", "3"], "unknown option --sbow; did you mean --show"),
        (["--checkpoint", "m.pt", "--data", "broken.jsonl", "--lang", "es"], "no clip of broken.jsonl"),
        (["--checkpoint", "m.pt", "--data", "x", "--snr", "5"], "--snr says how loud the noise is, and there is none"),
        (["--checkpoint", "m.pt", "--data", "x", "--noise", ".", "--snr", "5;0"], "invalid ratios value: '5;0'"),
        (["--checkpoint", "m.pt", "--data", "x", "--noise", ".", "--snr", "500"], "--snr needs ratios of -50 to 150"),
        (["--checkpoint", "m.pt", "--data", "x", "--noise", "no"], "--noise no: there is no such folder"),
        (["--checkpoint", "m.pt", "--data", "x", "--rir", "no"], "--rir no: there is no such folder"),
        (
            ["--checkpoint", "m.pt", "--data", "train.jsonl", "--lang", "es", "--by", "duration,age"],
            "--by age: no clip has such a field; choose among duration",
        ),
        (
            ["--checkpoint", "m.pt", "--data", "train.jsonl", "--lang", "es", "--by", "snr", "--rir", "."],
            "--by snr: no clip has such a field; give --noise FOLDER to have noise mixed in, or choose among duration",
        ),
    ],
)
def test_mistakes_get_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "m.pt")
    tones.write_corpus(tmp_path, ("ab",))
    tones.write_corpus(tmp_path, ("ab",), "broken")
    (tmp_path / "broken0.wav").write_bytes(b"RIFF no sound")
    assert evaluate.main(arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1 and message in errors


def test_real_checkpoint_reaches_its_published_figures(shared: Path, tmp_path: Path) -> None:
    """The first twelve clips; all of them take a minute and give 3.12 / 0.92 %."""
    source = shared / "corpora" / "en_kathleen" / "test.jsonl"
    lines = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()[:12]]
    for line in lines:
        line["audio_filepath"] = str(source.parent / line["audio_filepath"])
    manifest, scores = tmp_path / "some.jsonl", tmp_path / "scores.json"
    manifest.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    arguments = ["--checkpoint", str(shared / "checkpoints" / "quartznet15x5_en.nemo"), "--data", str(manifest)]
    with torch.inference_mode():
        assert evaluate.main([*arguments, "--json", str(scores), "--precision", "bf16"]) == 0
    assert json.loads(scores.read_text(encoding="utf-8"))["wer"] < 0.06
