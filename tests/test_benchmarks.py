"""Benchmarks run; what they measure is written down in docs/speed.md, and not asserted on a machine that others use."""

import sys
from pathlib import Path

import pytest
import tones
from test_train import read_settings

from benchmarks import beam, loading, methods


def test_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    manifest = tones.write_corpus(tmp_path)
    monkeypatch.setattr(sys, "argv", ["loading.py", str(manifest), "--seconds", "9", "--runs", "1", "--workers", "1"])
    loading.main()
    first, _, *rows = capsys.readouterr().out.splitlines()
    assert first == "10 clips, 9 s, rates [16000] Hz"
    assert len(rows) == 11 and all(float(row.split()[-1]) > 0 for row in rows)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--for-gpu"])
    loading.main()
    alone = capsys.readouterr().out.splitlines()[2:]
    assert [row.partition("  ")[0] for row in alone[::2]] == ["for a GPU, one core, three speeds", ""]
    assert len(alone) == 4 and all("ratio" in row for row in alone[1::2])


def test_methods_plan_is_made_of_commands_that_train_understands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "en.nemo").touch()
    assert methods.main(["plan", "--init", "en.nemo", "--seeds", "0", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = sum(len(methods.rows_of(language, tuple(methods.ROWS))) for language in methods.LANGUAGES)
    assert len(lines) == 2 * rows and set(methods.ROWS) == set(methods.TITLES)
    found = [read_settings(line.split()[2:]) for line in lines]
    assert {settings.lang for settings in found} == {"ru", "es", "de", "en"}
    assert len({settings.out for settings in found}) == len(found)


def test_methods_run_and_tabulate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    corpus = tmp_path / "corpora" / "es_read"
    manifest = tones.write_corpus(corpus)
    (corpus / "dev.jsonl").write_text(manifest.read_text())
    (corpus / "test.jsonl").write_text(manifest.read_text())
    monkeypatch.setattr(methods, "COMMON", "--data.workers 0 --device cpu --optim.name adamw --allow-char-loss")
    monkeypatch.setitem(methods.LANGUAGES, "es", methods.Corpus("es_read", 1, 1, 1, "es_read", "test"))
    monkeypatch.setitem(methods.ROWS, "scratch", "--from-scratch --preset tiny")
    options = ["--corpora", str(tmp_path / "corpora"), "--out", str(tmp_path / "runs"), "--languages", "es"]
    assert methods.main(["run", *options, "--rows", "scratch"]) == 0
    capsys.readouterr()
    assert methods.main(["table", *options]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith("| from scratch, 15x5 | 1 | ") and printed[-1].count("|") == 8
    assert methods.main(["run", *options, "--rows", "scratch"]) == 0  # there is nothing left to do
    assert methods.main(["draw", *options, "--png", str(tmp_path / "curves.png")]) == 0
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_every_row_has_its_color() -> None:
    assert len({*methods.COLORS, *methods.MORE_COLORS}) >= len(methods.ROWS)


def test_beam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    import quartznet
    from quartznet.config import BlockConfig, ModelConfig

    manifest = tones.write_corpus(tmp_path)
    labels = (" ", *"abcdefghijklmnopqrstuvwxyz")
    quartznet.save_nemo(
        quartznet.QuartzNet(ModelConfig(labels, (BlockConfig(8, 3, stride=2),))).eval(), tmp_path / "a.nemo"
    )
    monkeypatch.setattr(beam, "PyctcDecoder", lambda *_: lambda log_probs, lengths: [[("a", 0.0)]] * len(lengths))
    options = ["beam.py", str(tmp_path / "a.nemo"), str(manifest), "--split", "all", "--beams", "2", "4", "--runs", "1"]
    monkeypatch.setattr(sys, "argv", options)
    monkeypatch.setattr(beam, "word_error_rate", lambda rows, texts: float(len(texts)))
    beam.main()
    first, _, *rows = capsys.readouterr().out.splitlines()
    assert first.startswith("4 clips, ") and [row.split()[2:4] for row in rows] == [["2", "4.00"], ["4", "4.00"]]
    assert all(len(row) <= 80 for row in rows)
