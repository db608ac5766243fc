"""How fast QuartzNet runs here, against a plain ``nn.Conv1d`` twin with the same weights, in one process.

    python benchmarks/speed.py [--preset 15x5] [--batch 8] [--seconds 10] [--threads 2] [--checkpoint FILE]

Waveform to log-probabilities, and one training step (forward, CTC, backward). The twin is written as NeMo writes it:
``(batch, channels, time)`` in ordinary memory, ``masked_fill`` and ``Conv1d`` for every convolution. Its outputs are
checked against ours before anything is timed. ``benchmarks/nemo_speed.py`` times NeMo itself, in its own environment.
"""

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import quartznet
from quartznet.config import FeatureConfig, ModelConfig, preset_blocks
from quartznet.model import Block

ENGLISH = tuple(" abcdefghijklmnopqrstuvwxyz'")


class PlainConv(nn.Module):
    """Mask, then ``Conv1d``."""

    def __init__(self, conv: nn.Module):
        super().__init__()
        weight = conv.weight.detach()[:, :, 0].clone()
        self.conv = nn.Conv1d(
            weight.shape[1] * conv.groups,
            weight.shape[0],
            weight.shape[2],
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
            bias=False,
            device=weight.device,
        )
        self.conv.weight = nn.Parameter(weight)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        padded = torch.arange(x.shape[2], device=x.device) >= lengths[:, None]
        x = self.conv(x.masked_fill(padded[:, None], 0.0))
        return x, (lengths - 1) // self.conv.stride[0] + 1


def plain_norm(norm: nn.BatchNorm2d) -> nn.BatchNorm1d:
    plain = nn.BatchNorm1d(norm.num_features, norm.eps, norm.momentum, device=norm.weight.device)
    plain.load_state_dict(norm.state_dict())
    return plain


class PlainBlock(nn.Module):
    """A QuartzNet block in NeMo's style."""

    def __init__(self, block: Block):
        super().__init__()
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        for layer in block.layers:
            parts = [layer.depthwise, layer.pointwise] if layer.separable else [layer.conv]
            self.convolutions.append(nn.ModuleList(PlainConv(part) for part in parts))
            self.norms.append(plain_norm(layer.norm))
        self.residual = None if block.residual is None else PlainConv(block.residual.conv)
        self.residual_norm = None if block.residual is None else plain_norm(block.residual.norm)
        self.dropout = block.config.dropout

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        inputs, input_lengths = x, lengths
        for index, (convolutions, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            for convolution in convolutions:
                x, lengths = convolution(x, lengths)
            x = norm(x)
            if self.residual is not None and index == len(self.norms) - 1:
                x = x + self.residual_norm(self.residual(inputs, input_lengths)[0])
            x = F.dropout(F.relu(x, inplace=True), self.dropout, self.training)
        return x, lengths


class PlainQuartzNet(nn.Module):
    """The twin of a ``QuartzNet``: same front end, same weights, ``Conv1d`` inside."""

    def __init__(self, model: quartznet.QuartzNet):
        super().__init__()
        self.front_end = model.front_end
        self.blocks = nn.ModuleList(PlainBlock(block) for block in model.encoder.blocks)
        self.weight = nn.Parameter(model.decoder.weight.detach()[:, :, 0].clone())
        self.bias = nn.Parameter(model.decoder.bias.detach().clone())

    def forward(self, signal: Tensor, signal_lengths: Tensor) -> tuple[Tensor, Tensor]:
        x, lengths = self.front_end(signal, signal_lengths)
        for block in self.blocks:
            x, lengths = block(x, lengths)
        return F.conv1d(x, self.weight, self.bias).transpose(1, 2).float().log_softmax(2), lengths


def seconds(function: Callable[[], object], runs: int) -> float:
    """Median wall-clock seconds of ``runs`` calls after one that is not counted."""
    function()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return sorted(times)[runs // 2]


def training_step(model: nn.Module, signal: Tensor, lengths: Tensor, dtype: torch.dtype) -> None:
    targets = torch.randint(0, 28, (len(signal), 60), generator=torch.Generator().manual_seed(0))
    model.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        log_probs, output_lengths = model(signal, lengths)
    target_lengths = torch.full((len(signal),), 60)
    losses = F.ctc_loss(log_probs.transpose(0, 1), targets, output_lengths, target_lengths, 28, reduction="none")
    losses.mean().backward()


def compare(model: quartznet.QuartzNet, signal: Tensor, lengths: Tensor, runs: int) -> list[tuple[str, float, float]]:
    """Rows of (what, seconds of ours, seconds of the twin)."""
    twin = PlainQuartzNet(model).eval()
    fast, half = model.for_inference(), model.for_inference(torch.bfloat16)
    rows = []
    with torch.inference_mode():
        difference = (fast(signal, lengths)[0] - twin(signal, lengths)[0]).abs().max().item()
        if difference > 1e-2:
            raise RuntimeError(f"the twin's log-probabilities differ by {difference:.2g}; its time says nothing")
        print(f"largest difference of log-probabilities, ours (fp32, folded) and the twin: {difference:.1e}\n")
        plain = seconds(lambda: twin(signal, lengths), runs)
        rows.append(("inference fp32, for_inference()", seconds(lambda: fast(signal, lengths), runs), plain))
        rows.append(("inference bf16, for_inference(bf16)", seconds(lambda: half(signal, lengths), runs), plain))
    model.train()
    twin.train()
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        ours = seconds(lambda dtype=dtype: training_step(model, signal, lengths, dtype), runs)
        plain = seconds(lambda dtype=dtype: training_step(twin, signal, lengths, dtype), runs)
        rows.append((f"training step {name}", ours, plain))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="15x5")
    parser.add_argument("--checkpoint", help="measure this checkpoint instead of random weights")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = ModelConfig(ENGLISH, preset_blocks(arguments.preset), FeatureConfig(rule="0.x"))
    model = quartznet.load_model(arguments.checkpoint) if arguments.checkpoint else quartznet.QuartzNet(config).eval()
    samples = int(arguments.seconds * 16000)
    signal, lengths = torch.randn(arguments.batch, samples) * 0.1, torch.full((arguments.batch,), samples)
    print(f"torch {torch.__version__}, {arguments.threads} threads, batch {arguments.batch} x {arguments.seconds:g} s")
    rows = compare(model, signal, lengths, arguments.runs)
    print(f"{'':38}{'ours':>10}{'Conv1d twin':>14}{'ratio':>8}")
    for name, ours, plain in rows:
        print(f"{name:38}{ours:8.2f} s{plain:12.2f} s{plain / ours:8.1f}")
    print("\nThe inference rows compare with the twin in fp32; the training rows with the twin in the same precision.")


if __name__ == "__main__":
    main()
