"""Where the time of a training step goes, part by part, beside the least that the part needs.

The profiler knows of each kernel which operation launched it, with the shapes of its inputs. A part is found by the
name of the kernel first (``KERNELS``, our own), then by the operation and what it lies
in: a depthwise convolution is one whose weight has one input channel and several outputs, a mask a product with one
row for each utterance. Two ranges are made with hooks: front end, and what follows it until the encoder begins.

The surprise: the sum of the parts is the time that the device works, not the time that a step takes. What is missing is
the device waiting for the host, and is a row of its own.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.profiler import record_function
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from benchmarks import gpu_clock
from benchmarks.gpu_floor import Ceilings, Floor, ceilings, floor
from benchmarks.gpu_report import Column, Section
from benchmarks.gpu_ways import ENGLISH, Bench, NotOffered, Way, precision
from quartznet.config import ModelConfig, preset_blocks

FRONT_END, AUGMENTATION, WAITING = "front end", "augmentation", "device waits for host"
RANGES = (FRONT_END, AUGMENTATION)

# Our own kernels by name, those of quartznet.kernels, quartznet.ctc_kernel and quartznet.novograd_kernel.
BOTH = "depthwise backward"  # to input and weight in one kernel
KERNELS = {
    "depthwise_forward": "depthwise forward",
    "depthwise_backward": BOTH,
    "statistics": "batch norm",
    "norm_backward": "batch norm",
    "end_forward": "ReLU, dropout, sum",
    "end_backward": "ReLU, dropout, sum",
    "walk": "CTC",
    "share": "CTC",
    "measure": "optimiser",
    "update": "optimiser",
}

# Words in the name of an operation, and its part; convolutions and masks are told by their shapes.
OPERATIONS = (
    ("NovoGrad", "optimiser"),
    ("_foreach", "optimiser"),
    ("zero_grad", "optimiser"),
    ("linalg_vector_norm", "optimiser"),
    ("ctc_loss", "CTC"),
    ("log_softmax", "CTC"),
    ("batch_norm", "batch norm"),
    ("relu", "ReLU, dropout, sum"),
    ("threshold_backward", "ReLU, dropout, sum"),
    ("dropout", "ReLU, dropout, sum"),
    ("masked_fill", "mask"),
    ("mm", "pointwise"),
    ("_to_copy", "copies, other types"),
    ("Memcpy", "copies, other types"),
    ("copy_", "copies, other types"),
)
OTHER = "everything else"

COLUMNS = (
    Column("part", "part", 23, left=True),
    Column("ms", "ms", 9, ".3f"),
    Column("share", "%", 6, ".1f"),
    Column("kernels", "kernels", 9, ",d"),
    Column("gb", "least GB", 10, ".3f"),
    Column("floor_ms", "least ms", 10, ".3f"),
    Column("times", "times", 8, ".1f"),
)

Link = tuple[str, list]  # name of an operation and the shapes of its inputs


def convolution_part(name: str, weight: Sequence[int], kernel: str) -> str:
    """A convolution's part, by the shape of its weight and, of a backward, the name of the kernel."""
    depthwise = len(weight) >= 3 and weight[1] == 1 and weight[0] > 1
    if not depthwise:
        return "pointwise"
    if "backward" not in name:
        return "depthwise forward"
    words = ("wgrad", "grad_weight", "weight")
    return "depthwise weight" if any(word in kernel.lower() for word in words) else "depthwise to input"


def is_mask(shapes: Sequence[Sequence[int]]) -> bool:
    """A product of a signal with one row for each utterance, ``(batch, 1, 1, time)``."""
    if len(shapes) < 2 or len(shapes[0]) != 4 or len(shapes[1]) != 4:
        return False
    return any(tuple(shape[1:3]) == (1, 1) and shape[3] > 1 for shape in shapes[:2])


def part_of(kernel: str, chain: Sequence[Link]) -> str:
    """The part that a kernel belongs to.

    Args:
        kernel: its name; "" on a CPU, where the operation itself is the work.
        chain: the operation that launched it, then what that lies in, up to the outermost.
    """
    if kernel in KERNELS:
        return KERNELS[kernel]
    ranges = [name for name, _ in chain if name in RANGES]
    if ranges:
        return ranges[-1]
    for name, shapes in chain:
        if "convolution" in name or name == "aten::conv2d" or name == "aten::conv1d":
            place = 2 if "backward" in name else 1
            if len(shapes) > place and shapes[place]:
                return convolution_part(name, shapes[place], kernel)
        if name == "_DepthwiseConvolutionBackward":
            return "depthwise weight"
        if name.startswith("aten::mul") and is_mask(shapes):
            return "mask"
    for word, part in OPERATIONS:
        if any(word in name for name, _ in chain) or word in kernel:
            return part
    return OTHER


def chain_of(event: FunctionEvent) -> list[Link]:
    """An operation and all that it lies in."""
    chain, here = [], event
    while here is not None:
        chain.append((here.name, here.input_shapes or []))
        here = here.cpu_parent
    return chain


def by_part(events: Sequence[FunctionEvent], on_device: bool) -> dict[str, tuple[float, int]]:
    """Milliseconds and kernels of each part; on a CPU the operations' own time and their number."""
    found: dict[str, tuple[float, int]] = {}
    for event in events:
        if event.device_type != torch.autograd.DeviceType.CPU or event.is_async:
            continue
        own = [("", event.self_cpu_time_total)]
        for name, microseconds in [(k.name, k.duration) for k in event.kernels] if on_device else own:
            if name == event.name:  # a range, as the device sees it
                continue
            part = part_of(name, chain_of(event))
            time, count = found.get(part, (0.0, 0))
            found[part] = time + microseconds / 1000, count + 1
    return found


@contextmanager
def ranges_in(model: nn.Module) -> Iterator[None]:
    """While it lasts, front end and augmentation are ranges that the profiler sees."""
    opened: list[record_function] = []

    def enter(name: str) -> None:
        opened.append(record_function(name))
        opened[-1].__enter__()

    def leave(*_: object) -> None:
        if opened:
            opened.pop().__exit__(None, None, None)

    def leave_and_enter(*_: object) -> None:
        leave()
        enter(AUGMENTATION)

    encode = model.encode  # not a hook of the encoder, whose forward kernels do not call

    def leave_and_encode(features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        leave()
        return encode(features, lengths)

    hooks = [
        model.front_end.register_forward_pre_hook(lambda *_: enter(FRONT_END)),
        model.front_end.register_forward_hook(leave_and_enter),
    ]
    model.encode = leave_and_encode
    try:
        yield
    finally:
        leave()
        del model.encode
        for hook in hooks:
            hook.remove()


def profiled(call: gpu_clock.Call, device: torch.device, count: int) -> list[FunctionEvent]:
    """The events of ``count`` calls."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    gpu_clock.wait_for(device)
    with profile(activities=activities, record_shapes=True, acc_events=True) as found:
        for number in range(count):
            call(number)
        gpu_clock.wait_for(device)
    return list(found.events())


def least(part: str, limit: Floor, found: Ceilings, seconds: float, name: str) -> tuple[float | None, float | None]:
    """GB that a part must move for so many seconds of audio, and the ms that it must take; None where not counted."""
    if part == "optimiser":
        return limit.optimizer_bytes / 1e9, 1000 * limit.optimizer_bytes / found.copy
    counted = ("depthwise to input", "depthwise weight") if part == BOTH else (part,)
    if counted[0] not in limit.bytes:
        return None, None
    moved, work = (seconds * sum(table[name] for name in counted) for table in (limit.bytes, limit.flop))
    rate = found.rates[name] if part == "pointwise" else float("inf")
    return moved / 1e9, 1000 * max(moved / found.copy, work / rate)


def parts(bench: Bench, section: Section) -> None:
    """Section c."""
    found = ceilings(bench)
    rates = ", ".join(f"{name} {rate / 1e12:.3g}" for name, rate in found.rates.items())
    section.say(f"this device: a copy moves {found.copy / 1e12:.3g} TB/s, matrix products do {rates} TFLOP/s")
    section.tables["ceilings"] = [{"copy": found.copy, "rates": found.rates}]
    sizes, preset = bench.sizes, bench.presets[0]
    clip, padded = sizes.clips[-1], sizes.padded[len(sizes.padded) // 2]
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        limit = floor(ModelConfig(ENGLISH, preset_blocks(preset)), dtype)
        times = limit.training_bytes / found.copy, limit.training_flop / found.rates[name]
        section.say(
            f"{preset} {name}: a second of audio needs {limit.training_flop / 1e9:.2f} GFLOP and moves "
            f"{limit.training_bytes / 1e6:.1f} MB: at most {1 / max(times):,.0f} times real time"
        )
        for way in (way for way in bench.ways if not way.graphs):  # of whose kernels nobody knows who launched them
            if section.is_over(f"parts of {way.name} {name}"):
                return
            try:
                _parts_of(bench, section, way, name, clip, padded, limit, found)
            except NotOffered as error:
                section.say(f"{way.name} {name}: {error}")


def _parts_of(
    bench: Bench, section: Section, way: Way, name: str, clip: float, padded: float, limit: Floor, found: Ceilings
) -> None:
    """One table: the parts of a step, most expensive first."""
    with precision(name) as dtype:
        stepper, batches = bench.stepper(way, bench.presets[0], dtype), bench.batches(clip, padded)

        def call(number: int) -> object:
            return stepper(batches[number % 2])

        whole, count = bench.measure(call).median, min(3, bench.repeat)
        with ranges_in(stepper.training.model):
            call(0)
            events = profiled(call, bench.device, count)
    on_device = bench.device.type == "cuda"
    seconds = len(batches[0]) * clip
    section.say(f"{bench.presets[0]} {way.name} {name}, {clip:g}-s clips, {seconds:g} s, a step of {whole:.2f} ms")
    section.begin(f"parts {way.name} {name}", COLUMNS)
    times = by_part(events, on_device)
    for part, (ms, kernels) in sorted(times.items(), key=lambda item: -item[1][0]):
        gb, floor_ms = least(part, limit, found, seconds, name)
        row = {"part": part, "ms": ms / count, "share": 100 * ms / count / whole, "kernels": round(kernels / count)}
        ratio = ms / count / floor_ms if floor_ms else None
        section.row({**row, "gb": gb, "floor_ms": floor_ms, "times": ratio})
    if on_device:
        idle = max(0.0, whole - sum(ms for ms, _ in times.values()) / count)
        section.row({"part": WAITING, "ms": idle, "share": 100 * idle / whole})
