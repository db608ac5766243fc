"""What is recorded when, what is forgotten, and what happens when recording fails."""

import logging
from collections.abc import Callable, Sequence

import pytest
import torch
from fake_capture import Again, Tape
from torch import Tensor

from quartznet.graphs import MOST_FAILURES, Function, Graphs, Outputs, shapes

CPU = torch.device("cpu")


class Twice:
    """A function with an effect: counts the runs of its Python, and adds up what it saw."""

    def __init__(self) -> None:
        self.runs, self.seen = 0, torch.zeros(())

    def __call__(self, x: Tensor) -> Tensor:
        self.runs += 1
        self.seen += x.sum()
        return 2 * x


@pytest.mark.parametrize("form", [Again, Tape])
def test_two_calls_warm_up_then_every_call_is_a_replay_and_each_has_its_effect_once(form: type[Again]) -> None:
    function, capture = Twice(), form()
    graphs = Graphs(function, CPU, capture)
    for number in range(1, 6):
        assert graphs(torch.full((3,), float(number))).tolist() == [2.0 * number] * 3
        assert function.seen == 3 * sum(range(1, number + 1))
    assert (capture.warmed, capture.replayed, graphs.recorded) == (2, 3, 1)
    assert function.runs == (3 if form is Tape else 5)  # the tape never asks Python again


def test_shape_type_and_key_each_need_a_recording_of_their_own() -> None:
    graphs = Graphs(Twice(), CPU, Again())
    for x, key in [(torch.ones(2), 0), (torch.ones(3), 0), (torch.ones(2), 1), (torch.ones(2, dtype=torch.double), 0)]:
        for _ in range(3):
            torch.testing.assert_close(graphs(x, key=key), 2 * x)
    assert graphs.recorded == 4


def test_results_last_until_the_next_call_of_any_shape() -> None:
    graphs = Graphs(lambda x: x + 1, CPU, Again(), warm_calls=1)
    for size in (2, 3):
        for _ in range(2):
            graphs(torch.zeros(size))
    first = graphs(torch.zeros(2))
    kept = first.clone()
    graphs(torch.zeros(3))
    assert kept.tolist() == [1.0, 1.0] and first.tolist() != [1.0, 1.0]


def test_the_shape_unused_for_longest_is_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    capture = Again()
    graphs = Graphs(Twice(), CPU, capture, most=2, warm_calls=1)
    with caplog.at_level(logging.INFO):
        for size in (1, 1, 2, 2, 1, 3, 3):
            graphs(torch.ones(size))
    assert [tuple(entry.buffers[0].shape) for entry in graphs.entries.values()] == [(1,), (3,)]
    assert "forgot the CUDA graph of 2: 2 are the most" in caplog.text
    assert "CUDA graph 1 of at most 2, for 1: results 0.0 MB, memory +0.0 MB" in caplog.text
    graphs(torch.ones(2))
    assert graphs.entries[((), (torch.Size([2]), torch.float32))].replay is None


def test_memory_of_the_results_is_counted() -> None:
    class Hungry(Again):
        def memory(self) -> tuple[int, int]:
            return 500 * self.tried, 4000 * self.tried

    graphs = Graphs(Twice(), CPU, Hungry(), warm_calls=1)
    for size in (1, 1, 2, 2):
        graphs(torch.ones(size))
    assert graphs.allocated == 1000 and graphs.recorded == 2


def test_what_cannot_be_recorded_runs_as_before_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    def looks(x: Tensor) -> Tensor:
        return x * float(x.sum())  # a look at a value

    capture = Tape()
    graphs = Graphs(looks, CPU, capture, warm_calls=1)
    for number in range(5):
        assert graphs(torch.full((2,), float(number))).tolist() == [2.0 * number**2] * 2
    assert (capture.tried, graphs.recorded) == (1, 0)
    assert len(caplog.records) == 1
    expected = "no CUDA graph for 2, which runs as without: RuntimeError: operation not permitted when stream"
    assert expected in caplog.text


def test_the_first_of_several_errors_is_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Again):
        def record(self, function: Function, inputs: Sequence[Tensor]) -> Callable[[], Outputs]:
            try:
                raise RuntimeError("a copy to the host")
            finally:
                raise RuntimeError("capture invalidated")

    graphs = Graphs(Twice(), CPU, Broken(), warm_calls=1)
    for _ in range(2):
        graphs(torch.ones(2))
    assert "a copy to the host" in caplog.text and "invalidated" not in caplog.text


def test_a_failed_recording_has_no_effect() -> None:
    function = Twice()
    graphs = Graphs(function, CPU, Again(MemoryError("full")), warm_calls=1)
    for number in range(1, 4):
        graphs(torch.ones(2))
        assert function.seen == 2 * number


def test_after_a_few_failures_no_other_shape_is_tried(caplog: pytest.LogCaptureFixture) -> None:
    capture = Again(RuntimeError("never"))
    graphs = Graphs(Twice(), CPU, capture, warm_calls=1)
    for size in range(1, MOST_FAILURES + 3):
        for _ in range(3):
            torch.testing.assert_close(graphs(torch.ones(size)), 2 * torch.ones(size))
    assert capture.tried == len(caplog.records) == MOST_FAILURES
    assert "no other will be tried" in caplog.records[-1].message


def test_an_error_of_the_function_itself_is_raised() -> None:
    def broken(x: Tensor) -> Tensor:
        raise ValueError("bad input")

    with pytest.raises(ValueError, match="bad input"):
        Graphs(broken, CPU, Again())(torch.ones(2))


def test_without_a_gpu_calls_are_plain() -> None:
    function = Twice()
    graphs = Graphs(function, CPU)
    for _ in range(4):
        graphs(torch.ones(2))
    assert function.runs == 4 and graphs.capture is None and not graphs.entries


def test_buffers_of_one_mode_serve_the_other() -> None:
    graphs = Graphs(lambda x: x + 1, CPU, Again(), warm_calls=1)
    with torch.inference_mode():
        graphs(torch.zeros(2))
    assert graphs(torch.ones(2)).tolist() == [2.0, 2.0]


@pytest.mark.parametrize("settings", [{"most": 0}, {"warm_calls": 0}])
def test_there_is_room_for_one_and_one_call_warms_up(settings: dict) -> None:
    with pytest.raises(ValueError, match="most and warm_calls must be at least 1"):
        Graphs(Twice(), CPU, **settings)


def test_shapes_in_messages() -> None:
    assert shapes([torch.zeros(2, 64, 208), torch.zeros(2), torch.zeros(())]) == "2x64x208, 2, scalar"


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="records on a GPU, and there is none")


@needs_gpu
def test_on_a_gpu_replays_follow_the_inputs_and_draw_anew() -> None:
    graphs = Graphs(lambda x: (2 * x, torch.rand_like(x)), torch.device("cuda"))
    drawn = []
    for number in range(5):
        doubled, uniform = graphs(torch.full((1000,), float(number), device="cuda"))
        assert doubled.tolist() == [2.0 * number] * 1000
        drawn.append(uniform.clone())
    assert graphs.recorded == 1
    assert len({row[0].item() for row in drawn}) == 5


@needs_gpu
def test_on_a_gpu_a_failed_recording_leaves_nothing_broken(caplog: pytest.LogCaptureFixture) -> None:
    device, before = torch.device("cuda"), torch.cuda.current_stream()
    good = Graphs(lambda x: x + torch.rand_like(x), device)
    for _ in range(3):
        good(torch.zeros(4, device=device))
    bad = Graphs(lambda x: x * float(x.sum()), device)
    for _ in range(4):
        assert bad(torch.ones(2, device=device)).tolist() == [2.0, 2.0]
    assert len(caplog.records) == 1 and torch.cuda.current_stream() == before
    torch.rand(3, device=device)  # the generator draws
    torch.cuda.empty_cache()  # the allocator does not wait for the end of a recording
    for size in (4, 5):
        for _ in range(4):
            assert good(torch.zeros(size, device=device)).max() < 1
    assert good.recorded == 2
