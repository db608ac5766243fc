"""QuartzNet as NeMo writes it, with our weights: a twin in plain PyTorch, NeMo's own encoder, and ours compiled.

The twin is ``(batch, channels, time)`` in ordinary memory. Every convolution is an ``nn.Conv1d`` that fills what lies
beyond each utterance with zeros first (``conv_mask``), the residual a 1x1 convolution with its own batch norm, batch
norm has eps 1e-3 and momentum 0.1. It stands in the place of a ``QuartzNet``: the same front end, the same augmentation
and loss, our NovoGrad. So what is compared is the network.

The surprise: the twin makes its mask for every convolution anew, from one row of numbers. So does NeMo.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from benchmarks.gpu_ways import Way, with_kernels
from benchmarks.speed import PlainBlock
from quartznet.model import Block, QuartzNet, output_length
from quartznet.nemo_config import jasper_layer
from quartznet.nemo_keys import to_nemo

TWIN = "twin"  # name of the way


class TwinEncoder(nn.Module):
    """All blocks in a row."""

    def __init__(self, blocks: Iterable[Block]):
        super().__init__()
        self.blocks = nn.ModuleList(PlainBlock(block) for block in blocks)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        for block in self.blocks:
            x, lengths = block(x, lengths)
        return x, lengths


class TwinDecoder(nn.Module):
    """A 1x1 ``Conv1d`` with bias, then log-softmax in fp32."""

    def __init__(self, model: QuartzNet):
        super().__init__()
        weight, bias = model.decoder.weight.detach()[:, :, 0].clone(), model.decoder.bias.detach().clone()
        self.conv = nn.Conv1d(weight.shape[1], weight.shape[0], 1, device=weight.device)
        self.conv.weight, self.conv.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, time)`` -> ``(batch, time, labels + 1)``."""
        return self.conv(x).transpose(1, 2).float().log_softmax(2)


class Twin(nn.Module):
    """Stands in for ``model`` in training; ``encoder`` takes ``(batch, mels, frames)`` and lengths."""

    def __init__(self, model: QuartzNet, encoder: nn.Module):
        super().__init__()
        self.config, self.alphabet, self.blocks = model.config, model.alphabet, model.config.blocks
        self.front_end, self.encoder, self.decoder = model.front_end, encoder, TwinDecoder(model)

    @property
    def device(self) -> torch.device:
        return self.decoder.conv.weight.device

    def features(self, signal: Tensor, signal_lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.front_end(signal, signal_lengths)

    def output_length(self, frames: Tensor | int) -> Tensor | int:
        """As ``QuartzNet.output_length``."""
        for block in self.blocks:
            for _ in range(block.repeat):
                frames = output_length(frames, block.stride)
        return frames

    def encode(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """``(batch, mels, frames)`` -> ``(batch, channels, time)`` and lengths."""
        return self.encoder(features, lengths)

    def forward(self, signal: Tensor, signal_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms to log-probabilities, as ``QuartzNet.forward``."""
        encoded, lengths = self.encode(*self.features(signal, signal_lengths))
        return self.decoder(encoded), lengths


class NemoEncoder(nn.Module):
    """NeMo's ``ConvASREncoder`` with the weights of ``model``; ImportError without nemo_toolkit."""

    def __init__(self, model: QuartzNet):
        super().__init__()
        from nemo.collections.asr.modules import ConvASREncoder

        layers = [jasper_layer(block) for block in model.config.blocks]
        self.nemo = ConvASREncoder(layers, "relu", model.config.features.mels, conv_mask=model.config.masked)
        weights = to_nemo({name: value.cpu() for name, value in model.state_dict().items()}, model.config)
        named = {name.removeprefix("encoder."): value for name, value in weights.items()}
        self.nemo.load_state_dict({name: value for name, value in named.items() if name.startswith("encoder.")})
        self.nemo.to(model.device)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.nemo(audio_signal=x, length=lengths)


def as_twin(model: QuartzNet) -> Twin:
    """The twin in plain PyTorch."""
    return Twin(model, TwinEncoder(model.encoder.blocks))


def as_nemo(model: QuartzNet) -> Twin:
    """NeMo's encoder in place of the twin's."""
    return Twin(model, NemoEncoder(model))


def compiled(backend: str) -> Way:
    """Ours, plain, each block compiled for its shapes; equal blocks share what was compiled."""

    def prepare(model: QuartzNet) -> QuartzNet:
        import torch._dynamo

        torch._dynamo.reset()
        with_kernels(model, "plain")
        for block in model.encoder.blocks:
            block.compile(backend=backend, dynamic=False)
        return model

    return Way("compiled", prepare)


def is_nemo_here() -> str:
    """ "" where NeMo's encoder can be imported, else why not, in one line."""
    try:
        from nemo.collections.asr.modules import ConvASREncoder  # noqa: F401
    except ImportError as error:
        return str(error).split("\n")[0]
    return ""


@torch.no_grad()
def difference(model: QuartzNet, other: nn.Module, signal: Tensor, lengths: Tensor) -> float:
    """Largest difference of log-probabilities of real frames, both in evaluation mode and fp32."""
    ours, frames = model.eval()(signal, lengths)
    theirs, _ = other.eval()(signal, lengths)
    real = torch.arange(ours.shape[1], device=ours.device) < frames[:, None]
    return float(((ours - theirs[:, : ours.shape[1]]).abs() * real[:, :, None]).max())
