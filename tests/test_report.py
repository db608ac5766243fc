"""Tables and curves of made-up runs and transcripts."""

import json
import math
from pathlib import Path

import pytest

from quartznet.report import (
    COLUMNS,
    align_texts,
    comparison_table,
    draw_curves,
    evaluate_texts,
    evaluation_json,
    evaluation_table,
    held_out_table,
    main,
    read_run,
    smooth,
    spans_decades,
)


def write_run(folder: Path, wers: list[float | None], extra: str = "", **train: float) -> Path:
    """A run folder with one training and one dev record for each rate, at the steps 100, 200, ..."""
    folder.mkdir(parents=True)
    lines = []
    for step, wer in enumerate(wers, 1):
        loss = 50.0 / step
        record = {"kind": "train", "step": 100 * step, "epoch": step, "loss": loss, "lr": 0.01, "grad_norm": 1.0}
        lines.append(json.dumps({**record, "audio_seconds_per_second": 90.0, "seconds": 1900.0 * step, **train}))
        scores = {"loss": loss + 1, "wer": wer, "cer": None if wer is None else wer / 4}
        lines.append(json.dumps({"kind": "dev", "step": 100 * step, "epoch": step, **scores, "seconds": 1900.0 * step}))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n" + extra, encoding="utf-8")
    return folder


def fits_a_terminal(text: str) -> bool:
    return all(len(line) <= COLUMNS for line in text.splitlines())


# ---------------------------------------------------------------------------------------------------------------------
# One evaluation

NAMES = ["a.mp3", "b.mp3", "c.mp3", "d.mp3"]
REFERENCES = ["uno dos tres", "la casa", "", "bien"]
HYPOTHESES = ["uno tres cuatro", "la cosa", "ruido", "bien"]


def test_evaluation_by_hand() -> None:
    evaluation = evaluate_texts(NAMES, REFERENCES, HYPOTHESES, loss=1.5)
    words = evaluation.words  # a: two substitutions; b: one substitution; c: one insertion
    assert (words.errors, words.reference_length) == (4, 6)
    assert evaluation.wer_interval[0] <= words.rate <= evaluation.wer_interval[1]
    assert [utterance.name for utterance in evaluation.worst(10)] == ["a.mp3", "c.mp3", "b.mp3"]
    assert [utterance.name for utterance in evaluation.worst(1)] == ["a.mp3"]


def test_evaluation_table_shows_everything() -> None:
    table = evaluation_table(evaluate_texts(NAMES, REFERENCES, HYPOTHESES, loss=1.5), worst=2)
    assert "4 utterances, loss 1.500" in table
    wer = next(line for line in table.splitlines() if line.startswith("WER"))
    assert "66.67 %" in wer and wer.endswith("6 words")
    assert "the 2 worst" in table and "c.mp3: 1 error in 0 words" in table and "b.mp3" not in table
    assert fits_a_terminal(table)


def test_evaluation_without_errors_or_loss() -> None:
    table = evaluation_table(evaluate_texts(["a"], ["si"], ["si"]))
    assert "1 utterance\n" in table and "worst" not in table and "0.00 %" in table


def test_wide_evaluations_fit_a_terminal() -> None:
    names = [f"clips/{'x' * 100}/{i}.mp3" for i in range(3)]
    evaluation = evaluate_texts(names, ["palabra " * 60] * 3, ["palabras " * 60] * 3)
    table = evaluation_table(evaluation)
    assert fits_a_terminal(table) and "x/0.mp3: 60 errors in 60 words" in table


def test_alignment_by_hand() -> None:
    assert align_texts("la casa verde", "la cosa", indent=2).splitlines() == [
        "  ref  la CASA VERDE",
        "  hyp  la COSA ***",
    ]
    assert align_texts("", "ruido", indent=0) == "ref  ***\nhyp  RUIDO"


def test_alignment_wraps_both_texts_together() -> None:
    lines = align_texts("aa bb cc", "aa bb cc", width=12, indent=0).splitlines()
    assert lines == ["ref  aa bb", "hyp  aa bb", "ref  cc", "hyp  cc"]


def test_json_has_no_infinity() -> None:
    result = evaluation_json(evaluate_texts(["a"], [""], ["ruido"], loss=math.inf))
    assert result["wer"] is None and result["loss"] is None and result["transcripts"][0]["wer"] is None
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize(
    ("heard", "said"), [(["un ruido", "si"], "3 words"), (["", "si"], "1 word"), (["", ""], "0 words")]
)
def test_silence_has_no_rate(heard: list[str], said: str) -> None:
    evaluation = evaluate_texts(["a", "b"], ["", ""], heard)
    wer, cer, note, *_ = evaluation_table(evaluation).splitlines()[2:]
    assert wer.startswith("WER           no reference words ") and wer.endswith(f"{said.split()[0]:>10}        0 words")
    assert cer.startswith("CER      no reference characters ") and note == f"{said} heard in silence"
    result = json.loads(json.dumps(evaluation_json(evaluation), allow_nan=False))
    assert result["wer"] is result["cer"] is None and result["wer_interval"] == result["cer_interval"] == [None, None]
    assert result["wer_counts"]["insertions"] == int(said.split()[0])
    assert fits_a_terminal(evaluation_table(evaluation)) and "heard in silence" not in evaluation_table(
        evaluate_texts(NAMES, REFERENCES, HYPOTHESES)
    )


def test_json_holds_fractions() -> None:
    result = evaluation_json(evaluate_texts(NAMES, REFERENCES, HYPOTHESES, loss=1.5))
    assert result["wer"] == pytest.approx(4 / 6) and result["loss"] == 1.5 and result["utterances"] == 4
    assert result["wer_counts"] == {"substitutions": 3, "deletions": 0, "insertions": 1, "reference_length": 6}
    assert [transcript["hypothesis"] for transcript in result["transcripts"]] == HYPOTHESES


def test_evaluation_refuses_unequal_lists() -> None:
    with pytest.raises(ValueError, match="1 names but 2 references"):
        evaluate_texts(["a"], ["x", "y"], ["x", "y"])
    with pytest.raises(ValueError, match="no utterances"):
        evaluate_texts([], [], [])


# ---------------------------------------------------------------------------------------------------------------------
# Runs side by side


def test_comparison_by_hand(tmp_path: Path) -> None:
    runs = [
        read_run(write_run(tmp_path / "fine", [0.5, 0.2, 0.3]), "fine-tuned"),
        read_run(write_run(tmp_path / "scratch", [0.9])),
    ]
    heads, fine, scratch = comparison_table(runs).splitlines()
    assert heads.split() == ["best", "dev", "WER", "%", "CER", "%", "at", "step", "last", "loss", "steps", "time"]
    assert fine.split() == ["fine-tuned", "20.00", "5.00", "200", "17.667", "300", "1:35:00"]
    assert scratch.split() == ["scratch", "90.00", "22.50", "100", "51.000", "100", "0:31:40"]


def test_comparison_fits_a_terminal(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", [0.5] * 3, audio_hours=12.25), "a very long name " * 10)
    table = comparison_table([run])
    assert fits_a_terminal(table) and "12.25" in table


def write_test(folder: Path, wer: float) -> None:
    result = evaluation_json(evaluate_texts(NAMES, REFERENCES, HYPOTHESES, loss=1.5))
    (folder / "test.json").write_text(json.dumps({**result, "wer": wer, "wer_interval": [wer / 2, 2 * wer]}))


def test_results_on_the_test_split_stand_beside_each_other(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folders = [write_run(tmp_path / name, [0.5]) for name in ("fine", "a very long name " * 10)]
    write_test(folders[0], 0.2)
    main([str(folder) for folder in folders])
    assert "95 %" not in capsys.readouterr().out  # not all runs were tested
    write_test(folders[1], 0.5)
    table = held_out_table([read_run(folder) for folder in folders])
    assert fits_a_terminal(table)
    heads, fine, scratch = table.splitlines()
    assert fine.split()[:5] == ["fine", "20.00", "10.00", "-", "40.00"] and fine.split()[-1] == "4"
    assert "  50.00  25.00 - 100.00  " in scratch
    main([str(folder) for folder in folders])
    assert heads in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["{", '{"wer": null}', '{"wer": 1, "cer": 1, "utterances": 1, "wer_interval": 3}', "[]"]
)
def test_a_broken_test_result_is_named(tmp_path: Path, text: str) -> None:
    folder = write_run(tmp_path / "run", [0.5])
    (folder / "test.json").write_text(text)
    run = read_run(folder)
    assert run.test is None and run.problems[0].startswith(f"{folder / 'test.json'}:1: not a result of evaluate.py")


def test_unscored_runs_have_dashes(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "nan", [None]))
    assert run.best is None and comparison_table([run]).splitlines()[1].split()[1:4] == ["-"] * 3
    empty = read_run(write_run(tmp_path / "empty", []))
    assert comparison_table([empty]).splitlines()[1].split() == ["empty", "-", "-", "-", "-", "-", "0:00:00"]


def test_missing_folder_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"metrics.jsonl is not there; give the folder"):
        read_run(tmp_path)


def test_broken_lines_are_named(tmp_path: Path) -> None:
    broken = '{"kind": "skipped", "step": 7, "clips": []}\n\n{"kind": "dev", "st\n[1]\n{"kind": "new", "step": 1}\n'
    run = read_run(write_run(tmp_path / "run", [0.5], broken))
    assert run.skipped_steps == 1 and len(run.problems) == 3
    assert run.problems[0].startswith(f"{tmp_path / 'run' / 'metrics.jsonl'}:5: ")


def test_smooth_and_scale() -> None:
    assert smooth([1.0, 2.0, 6.0], 1) == [1.5, 3.0, 4.0]
    assert smooth([1.0, 2.0], 0) == [1.0, 2.0] and smooth([], 3) == []
    assert spans_decades([600.0, 2.0]) and not spans_decades([600.0, 20.0])
    assert not spans_decades([1.0, 0.0]) and not spans_decades([])


def test_curves_are_a_picture(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / "a", [0.5, None, 0.3])), read_run(write_run(tmp_path / "b", []))]
    draw_curves(runs, tmp_path / "new" / "curves.png")
    assert (tmp_path / "new" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    first = write_run(tmp_path / "a", [0.5], '{"kind": "skipped", "step": 7}\nbroken\n')
    second = write_run(tmp_path / "b", [0.9])
    assert main([str(first), str(second), "--labels", "one,two", "--png", str(tmp_path / "curves.png")]) == 0
    printed = capsys.readouterr().out
    assert "one" in printed and "two" in printed and (tmp_path / "curves.png").exists()
    assert "one: 1 step skipped while training" in printed
    assert f"one: 1 line left out; the first: {first / 'metrics.jsonl'}:4" in printed


def test_command_line_errors(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = write_run(tmp_path / "a", [0.5])
    for arguments, message in (
        ([str(tmp_path)], "metrics.jsonl is not there"),
        ([str(run), "--labels", "one,two"], "1 runs but 2 labels"),
        ([str(run), "--pgn", "x"], "unknown option --pgn; did you mean --png?"),
        ([], "required: RUN; --help says more"),
    ):
        assert main(arguments) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: ") and message in told and told.count("\n") == 1


def test_ctrl_c_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("quartznet.report.read_run", stop)
    assert main([str(tmp_path)]) == 130 and capsys.readouterr().err == "aborted\n"
