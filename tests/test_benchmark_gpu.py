"""benchmarks/gpu.py: what is counted by hand, a twin that computes the same, and a whole run at tiny sizes.

There is no GPU here, so what is measured means nothing; that it is measured, told and kept does.
"""

import json
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import tones
import torch

import quartznet
from benchmarks import gpu, gpu_clock, gpu_inference, gpu_parts, gpu_real, gpu_report, gpu_train, gpu_ways
from benchmarks.gpu_clock import Timing, Wait
from benchmarks.gpu_report import Column, Report, Section, Task
from benchmarks.gpu_ways import ENGLISH, SMALL, Bench, Stepper
from quartznet.config import BlockConfig, ModelConfig, TrainSettings
from quartznet.ctc import greedy_decode
from quartznet.model import QuartzNet

CPU = torch.device("cpu")
BLOCKS = (
    BlockConfig(16, 5, stride=2),
    BlockConfig(16, 7, repeat=2, residual=True),
    BlockConfig(24, 9, residual=True),
    BlockConfig(24, 5, dilation=2),
    BlockConfig(32, 1, separable=False),
)


def small(labels: tuple[str, ...] = ENGLISH, masked: bool = True) -> QuartzNet:
    return QuartzNet(ModelConfig(labels, BLOCKS, masked=masked))


def bench(**changes: object) -> Bench:
    options = gpu.read_options(["--out", "x", "--device", "cpu", "--preset", "tiny", "--repeat", "1"])
    found = gpu_ways.bench_of(options, CPU)
    return Bench(**{**vars(found), **changes})


def section(seconds: float = 100.0) -> Section:
    return Section("x", time.monotonic() + seconds)


# ---------------------------------------------------------------------------------------------------------------------
# Clock and inputs


def test_figures_of_measured_calls() -> None:
    found = gpu_clock.timing([float(value) for value in range(11)])
    assert found == Timing(5.0, 1.0, 9.0, 11) and found.spread == 80.0
    assert gpu_clock.timing([2.0]).spread == 0.0


def test_calls_are_warmed_up_and_few_where_they_are_slow() -> None:
    numbers: list[int] = []
    assert gpu_clock.measure(numbers.append, CPU, repeat=5).calls == 5
    assert numbers == [0, 1, 2, 0, 1, 2, 3, 4]
    found = gpu_clock.measure(lambda _: time.sleep(0.01), CPU, repeat=50, seconds=0.001)
    assert found.calls == 3 and found.median >= 10.0


def test_launches_by_hand() -> None:
    def row(key: str, device: str, count: int, microseconds: float, annotation: bool = False) -> SimpleNamespace:
        kind = getattr(torch.autograd.DeviceType, device)
        return SimpleNamespace(
            key=key, device_type=kind, count=count, self_device_time_total=microseconds, is_user_annotation=annotation
        )

    rows = [
        row("cudaLaunchKernel", "CPU", 5, 0.0),
        row("cuLaunchKernelEx", "CPU", 2, 0.0),
        row("cudaMemcpyAsync", "CPU", 1, 0.0),
        row("aten::mm", "CPU", 9, 77.0),
        row("gemm", "CUDA", 4, 500.0),
        row("novograd_kernel", "CUDA", 3, 1500.0),
        row("Memcpy HtoD (Pinned -> Device)", "CUDA", 1, 9.0),
        row("front end", "CUDA", 1, 400.0, annotation=True),
    ]
    assert gpu_clock.counted(rows) == gpu_clock.Launches(kernels=7, calls=8, busy=2.0)
    assert gpu_clock.launches(lambda _: None, CPU) == gpu_clock.Launches(None, None, None)


def test_waits_are_noted_with_time_and_place() -> None:
    def call(_: int) -> None:
        time.sleep(0.01)
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)

    first, second = gpu_clock.noted(call)
    assert 10 <= first.milliseconds <= second.milliseconds
    assert first.place.startswith("test_benchmark_gpu.py:") and first.place != second.place
    assert gpu_clock.waits(call, CPU) == [] and gpu_clock.host_time(call, CPU, [Wait(1.0, "x")]) is None


def test_random_batches_are_full_fresh_and_padded() -> None:
    first, second = bench().batches(0.5, 4.0)
    for batch in (first, second):
        assert batch.signal.shape == (8, 8000) and batch.signal_lengths[0] == 8000
        assert batch.signal_lengths.min() >= 7200
        for row, length in zip(batch.signal, batch.signal_lengths, strict=True):
            assert (row[:length] != 0).all() and (row[length:] == 0).all()
        assert batch.targets.max() < len(ENGLISH) and batch.target_lengths.tolist() == [
            int(12 * length / 16000) for length in batch.signal_lengths
        ]
    assert not torch.equal(first.signal, second.signal)
    assert gpu_clock.audio_seconds(first) == pytest.approx(float(first.signal_lengths.sum()) / 16000)


def test_precision_is_put_back() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with gpu_ways.precision("tf32") as dtype:
        assert dtype == "fp32" and torch.get_float32_matmul_precision() == "high" and torch.backends.cudnn.allow_tf32
    with pytest.raises(KeyError), gpu_ways.precision("fp32"):
        assert not torch.backends.cudnn.allow_tf32
        raise KeyError
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


# ---------------------------------------------------------------------------------------------------------------------
# Ways


def test_ways_of_a_cpu_and_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [way.name for way in bench().ways] == ["plain"]
    assert [way.name for way in gpu_ways.our_ways(torch.device("cuda"))] == ["plain", "triton", "graphs"]
    chosen: list[str] = []
    monkeypatch.setattr(QuartzNet, "use_kernels", lambda self, name: chosen.append(name))
    for way in gpu_ways.our_ways(torch.device("cuda")):
        way.prepare(small())
    assert chosen == ["plain", "triton", "triton"]


@pytest.mark.parametrize("name", ["plain", "graphs"])
def test_ways_answer_the_same(name: str) -> None:
    batch = gpu_clock.random_batch(0.5, 1.0, len(ENGLISH), CPU, 0)
    model = gpu_ways.speaking(small(), batch)
    expected = greedy_decode(*model(batch.signal, batch.signal_lengths), model.alphabet)
    assert gpu_ways.recogniser(gpu_ways.OURS[name], model, torch.float32)(batch) == expected
    assert all(expected)


def test_what_the_product_refuses_is_said_in_the_table(capsys: pytest.CaptureFixture) -> None:
    def refuse(_: QuartzNet) -> QuartzNet:
        raise ValueError(f"kernels triton cannot be used: {reason}; take precision bf16, or kernels auto")

    reason = "they compute in bf16 or fp16, not in fp32"
    here, found = section(), bench(ways=(gpu_ways.Way("triton", refuse),))
    gpu_train.steps(found, here)
    assert [row["note"] for row in here.tables["steps tiny"]] == [reason] * 3
    gpu_parts.parts(found, here)
    assert here.lines[-1] == f"triton fp32: {reason}"
    assert "triton   fp32 they compute in bf16 or fp16, not in fp32\n" in capsys.readouterr().out
    here.begin("latency", gpu_inference.LATENCY)
    assert gpu_inference.made(bench(), here, gpu_ways.OURS["plain"], "fp16", gpu_ways.for_inference) is None
    assert "for_inference takes float32, bfloat16 on cpu" in here.rows[0]["note"]


def test_a_step_that_was_left_out_is_no_figure() -> None:
    found = bench()
    stepper = Stepper(found.ways[0], small(), TrainSettings(precision="fp32"))
    batch, _ = found.batches(0.5, 1.0)
    batch.signal[0, 0] = torch.inf
    with pytest.raises(RuntimeError, match="a step was left out: the loss is nan"):
        stepper(batch)


def test_the_largest_batch_is_found_by_doubling(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[float] = []

    def two_steps(_bench: Bench, _stepper: Stepper, padded: float) -> dict:
        tried.append(padded)
        if padded > 10_240:
            raise torch.OutOfMemoryError
        if padded > fits:
            raise RuntimeError("no kernel for so many\nmore")
        return {"padded": padded, "peak_gb": padded / 100}

    monkeypatch.setattr(gpu_train, "_two_steps", two_steps)
    found = bench(sizes=gpu_ways.Sizes())
    stepper = Stepper(found.ways[0], small(), TrainSettings())
    fits = 11_000.0
    row = gpu_train.find_largest(found, stepper, section())
    assert row["padded"] == 10240 and row["stopped_by"] == "20480 s: out of memory"
    assert tried == [2560, 5120, 10240, 20480]
    fits = 100.0
    with pytest.raises(torch.OutOfMemoryError, match="a batch of 2560 s: no kernel for so many"):
        gpu_train.find_largest(found, stepper, section())


def test_expected_batch_by_hand() -> None:
    rows = [{"padded": 1000.0, "peak_gb": 30.0}, {"padded": 2000.0, "peak_gb": 50.0}]  # 10 GB, and 20 each 1000 s
    assert gpu_train.expected(rows, total=100.0) == pytest.approx(4250.0)


def test_a_full_memory_is_said_in_the_table(capsys: pytest.CaptureFixture) -> None:
    here = section()
    here.begin("steps", gpu_train.STEP)

    def work() -> dict:
        raise torch.OutOfMemoryError

    gpu_train.guarded(bench(), here, {"way": "plain", "precision": "bf16"}, work)
    assert capsys.readouterr().out.splitlines()[-1] == "plain    bf16 out of memory"


def test_what_the_compiler_cannot_do_is_said_in_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    import torch._dynamo

    def fails(*_: object) -> dict:
        raise torch._dynamo.exc.TorchDynamoException("no compiler\nmore")

    monkeypatch.setattr(gpu_train, "beside", fails)
    here = section()
    here.begin("others", gpu_train.OTHER)
    gpu_train.with_compiler(bench(), here, gpu_train.Cell("bf16", 0.5, 1.0), 1.0)
    assert capsys.readouterr().out.splitlines()[-1] == "compiled bf16 TorchDynamoException: no compiler"


def test_ours_compiled(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(gpu_ways, "preset_blocks", lambda _: BLOCKS[:3])
    here = section()
    here.begin("others", gpu_train.OTHER)
    gpu_train.with_compiler(bench(compiler="eager"), here, gpu_train.Cell("fp32", 0.3, 0.3), 1.0)
    [row] = here.rows
    assert row["ms"] > 0 and row["times"] == pytest.approx(1.0 / row["ms"])
    assert "compiling took" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------------------------------
# Report


def test_tables_fit_the_screen_with_large_figures() -> None:
    tables = (gpu_train.STEP, gpu_train.OTHER, gpu_train.LARGEST, gpu_parts.COLUMNS, gpu_inference.LATENCY)
    for columns in (*tables, gpu_inference.THROUGHPUT, gpu_inference.LONG):
        assert len(gpu_report.heading(columns)) <= 80
        row = {column.key: "text that is far too long" if not column.format else 12345 for column in columns}
        assert len(gpu_report.line(columns, row)) <= 80
        titles = [column.title for column in columns]
        assert all(title in gpu_report.heading(columns) for title in titles)
    assert len(gpu_report.line(gpu_train.STEP, {"way": "plain", "note": "x" * 100})) == 80
    with pytest.raises(ValueError, match="a table of 90 columns does not fit the screen"):
        gpu_report.heading([Column("a", "a", 90)])


def test_cells_and_folded_lines() -> None:
    assert Column("a", "a", 8, ",.1f").cell(1234.56) == " 1,234.6" and Column("a", "a", 4).cell(None) == "   -"
    assert (
        Column("a", "a", 5, ".1f").cell(float("nan")) == "    -" and Column("a", "a", 5, left=True).cell("b") == "b    "
    )
    lines = gpu_report.fold("word " * 40 + "x" * 100)
    assert all(len(line) <= 80 for line in lines) and "".join("".join(lines).split()) == "word" * 40 + "x" * 100


def test_a_failing_section_costs_no_other(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def fails(here: Section) -> None:
        here.begin("t", [Column("a", "a", 5, "d")])
        here.row({"a": 1})
        raise KeyError("nothing there")

    tasks = [Task("a", "first", 1, fails), Task("b", "second", 1, lambda here: here.say("fine"))]
    assert Report(tmp_path, 1.0, {"x": float("nan")}).run(tasks) == 1
    assert "section a failed: KeyError: 'nothing there'" in capsys.readouterr().out
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["x"] is None
    first, second = found["sections"]["a"], found["sections"]["b"]
    assert first["state"] == "failed: KeyError: 'nothing there'" and "raise KeyError" in first["traceback"]
    assert first["tables"] == {"t": [{"a": 1}]} and second["state"] == "done" and second["lines"] == ["fine"]


def test_what_has_no_time_left_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tasks = [Task("a", "first", 1, lambda here: here.say("x") if here.is_over("all") else None)]
    assert Report(tmp_path, 0.0, {}).run(tasks) == 0
    assert "section a left out: the 0 minutes are over" in capsys.readouterr().out
    assert section(-1.0).is_over("the rest") and not section(100.0).is_over("the rest")
    assert "left out, the time of this section is over: the rest" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------------------------------
# The command


def run_tiny(folder: Path, *more: str) -> int:
    options = ["--device", "cpu", "--preset", "tiny", "--batches", "2", "--repeat", "1", "--compiler", "off"]
    return gpu.main([*options, "--out", str(folder / "out"), *more])


def test_a_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    for module in (gpu_ways, gpu_parts):
        monkeypatch.setattr(module, "preset_blocks", lambda _: BLOCKS)  # smaller still
    manifest = tones.write_corpus(tmp_path, tones.TEXTS * 2)
    torch.manual_seed(0)
    quartznet.save_nemo(small(), tmp_path / "en.nemo")
    data = ["--data", str(manifest), "--init", str(tmp_path / "en.nemo"), "--workers", "0"]
    assert run_tiny(tmp_path, *data) == 0
    lines = capsys.readouterr().out.splitlines()
    *lines, last = lines
    assert last == f"all figures  {tmp_path / 'out' / 'gpu.json'}"
    assert all(len(line) <= 80 for line in lines), max(lines, key=len)
    assert any(line.startswith("no GPU is used: sizes are tiny") for line in lines)
    found = json.loads((tmp_path / "out" / "gpu.json").read_text())["sections"]
    assert [(name, part["state"]) for name, part in found.items()] == [(name, "done") for name in "abcde"]
    tables = {name: rows for part in found.values() for name, rows in part["tables"].items()}
    names = {"steps tiny", "largest", "others", "ceilings", "parts plain bf16", "parts plain fp32", "latency"}
    assert tables.keys() == names | {"throughput", "long file", "learning", "epoch"}
    assert {row["precision"] for row in tables["steps tiny"]} == {"fp32", "tf32", "bf16"}
    assert all(row["ms"] > 0 and row["realtime"] > 0 for row in tables["steps tiny"])
    assert {row["way"] for row in tables["others"]} == {"plain", "twin"}
    assert [len(row["losses"]) for row in tables["learning"]] == [2, 2, 2]
    assert tables["learning"][1]["apart"] > 0 and tables["learning"][2]["verdict"]
    assert tables["epoch"][0]["steps"] > 0 and 0 < tables["epoch"][0]["busy"] <= 100
    assert max(row["padded"] for row in tables["largest"] if "ms" in row) <= SMALL.most_padded


def test_a_section_that_fails_is_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setitem(gpu.SECTIONS, "b", ("against others", 1, fails))
    assert run_tiny(tmp_path, "--sections", "b,e") == 1
    printed = capsys.readouterr().out
    assert "section b failed: RuntimeError: no kernel image is available" in printed
    assert "real clips need --data MANIFEST --init CHECKPOINT" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sections", "a,z"], "--sections are some of a,b,c,d,e, got 'a,z'; --help says what they are"),
        (["--minutes", "0"], "--minutes must be above 0, got 0"),
        (["--out", __file__], "is a file; name a folder, gpu.json is written into it"),
        (["--data", "none.jsonl", "--init", __file__], "--data none.jsonl: there is no such file or folder"),
        (["--data", __file__, "--init", "none.nemo"], "--init none.nemo: there is no such file or folder"),
        (["--repeat", "0"], "--repeat and --batches must be at least 1"),
        (["--data", "x.jsonl"], "--data and --init belong together"),
        (["--preset", "16x5"], "no preset '16x5'"),
    ],
)
def test_bad_options_are_one_line(options: list[str], message: str, tmp_path: Path, capsys) -> None:
    assert gpu.main(["--device", "cpu", "--out", str(tmp_path), *options]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and message in errors[0]


def test_clips_that_cannot_be_loaded_are_no_training(tmp_path: Path) -> None:
    manifest = tones.write_corpus(tmp_path, tones.TEXTS * 2)
    for sound in tmp_path.glob("*.wav"):
        sound.write_bytes(b"nothing")
    quartznet.save_nemo(small(), tmp_path / "en.nemo")
    found = bench(data=manifest, init=tmp_path / "en.nemo", workers=0, steps=2)
    with pytest.raises(ValueError, match=r"not one clip of .* could be loaded"):
        gpu_real.learning(found, gpu_real.read(found), section())
