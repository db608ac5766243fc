"""benchmarks/corrector.py: equal work for everybody, and a table that fits the screen."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import corrector
from benchmarks.corrector import OURS, THEIRS, UNCACHED, Case
from postcorrect.config import CorrectorConfig

CPU = torch.device("cpu")
TINY = CorrectorConfig(128, channels=16, heads=2, feed_forward=32, positions=64, **corrector.stacks(1))


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setitem(corrector.SIZES, "small", TINY)
    monkeypatch.setattr(corrector, "is_installed", lambda: False)
    options = ["--device", "cpu", "--threads", "1", "--tokens", "160", "--sentences", "2", "--seconds", "0"]
    monkeypatch.setattr(sys, "argv", ["corrector.py", *options, "--json", str(tmp_path / "figures.json")])
    threads = torch.get_num_threads()
    try:
        corrector.main()
    finally:
        torch.set_num_threads(threads)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[2] == "transformers is not installed, so its columns are left out"
    rows = [line.split() for line in lines if line.startswith("small")]
    assert [row[:3] for row in rows] == [["small", *kind] for kind in (("fp32", "160"), ("bf16", "160"), "12", "42")]
    written = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert [list(row["rates"]) for row in written] == [[OURS]] * 2 + [[OURS, UNCACHED]] * 2
    assert all(rate > 0 for row in written for rate in row["rates"].values())
    assert all(0 < peak < 1e9 for row in written for peak in row["peak_bytes"].values())


def test_a_cache_changes_nothing_that_is_written() -> None:
    for beam in (1, 4):
        case = Case("tiny", TINY, "fp32", 3, beam)
        found = corrector.prepare(case, CPU)()
        assert [len(row) for row in found] == [corrector.WRITTEN] * 3
        assert corrector.prepare(replace(case, who=UNCACHED), CPU)() == found


def test_batches_are_full_and_of_the_promised_lengths() -> None:
    short, long = corrector.pair_batches(TINY, 400, CPU)
    assert short.source.shape[1] < long.source.shape[1]
    for batch in (short, long):
        lengths = torch.cat([batch.source_mask.sum(1), batch.target_mask.sum(1)])
        assert lengths.min() >= corrector.SHORTEST and lengths.max() <= corrector.LONGEST
        assert len(batch) == batch.target_mask[:, 1:].sum()
        assert 0.5 * 400 < batch.tokens <= 400
    assert corrector.units(Case("tiny", TINY, "fp32", 400)) == short.tokens + long.tokens


def test_a_training_step_learns() -> None:
    case = Case("tiny", TINY, "fp32", 160)
    torch.manual_seed(0)
    model, [batch, _] = corrector.build(case, CPU), corrector.pair_batches(TINY, 160, CPU)
    assert corrector.our_loss(model, batch).item() == pytest.approx(torch.tensor(128.0).log().item(), rel=0.1)
    assert corrector.prepare(replace(case, optimizer="novograd", precision="bf16"), CPU)() is None


def test_lines_fit_the_screen_with_large_figures() -> None:
    makers = [OURS, UNCACHED, THEIRS]
    rates, peaks = dict.fromkeys(makers, 1234567.0), dict.fromkeys(makers, 123.4e9)
    row = corrector.row_line(Case("small", TINY, "fp32", 4096, 4), rates, peaks)
    lines = [*corrector.titles("generation, fp32", "sentences a second", "beam", makers), row]
    assert max(map(len, lines)) == len(row) == 80
    assert row.split()[3:] == ["1,234,567"] * 3 + ["1.00"] + ["123,400"] * 3


def test_a_long_first_round_counts_and_nothing_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(corrector, "prepare", lambda case, device: lambda: calls.append(case.who))
    clock = iter(range(100))
    monkeypatch.setattr(corrector.time, "perf_counter", lambda: float(next(clock)))
    case = Case("tiny", TINY, "fp32", 6, 4)
    assert corrector.rates([case], CPU, budget=0.4) == [6.0]
    assert calls == [OURS]


def test_transformers_does_the_same_work() -> None:
    pytest.importorskip("transformers")
    case = Case("tiny", TINY, "fp32", 2, who=THEIRS)
    for beam in (1, 4):
        found = corrector.prepare(replace(case, beam=beam), CPU)()
        assert [len(row) for row in found] == [corrector.WRITTEN] * 2
    [batch, _] = corrector.pair_batches(TINY, 160, CPU)
    loss = corrector.their_loss(corrector.build(case, CPU), batch)
    assert loss.item() == pytest.approx(torch.tensor(128.0).log().item(), rel=0.1)
