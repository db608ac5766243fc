"""QuartzNet: log-mel frames -> blocks of separable convolutions -> a 1x1 convolution -> log-probabilities (CTC).

Paper: arXiv:1910.10261, figure 1 and table 1. From top to bottom: ``Block``, ``Encoder``, ``Decoder``, ``QuartzNet``.
Masked like NeMo 0.10 to 2.5 (the input of every convolution is zero beyond each utterance), so an utterance gives the
same output alone and in a padded batch. The surprise: only *inputs* are masked. Batch norm and ReLU leave constants in
the padding, the encoder's output there is not zero, and in training batch norm averages over padded frames too.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quartznet.alphabet import Alphabet
from quartznet.backend import uses_triton
from quartznet.config import BlockConfig, ModelConfig
from quartznet.features import LogMel
from quartznet.inference import fold
from quartznet.layers import SubBlock, output_length, time_mask


class Block(nn.Module):
    """``repeat`` sub-blocks and, where the configuration says so, a residual 1x1 convolution with batch norm.

    ReLU and dropout follow every sub-block; in the last one the residual is added before the ReLU::

        x -> [sub-block, ReLU, dropout] x (repeat - 1) -> sub-block -> + -> ReLU -> dropout
        `----------------- 1x1 convolution, batch norm ---------------^
    """

    def __init__(self, in_channels: int, config: BlockConfig, masked: bool = True):
        super().__init__()
        self.config, self.masked = config, masked
        self.layers = nn.ModuleList()
        for index in range(config.repeat):
            channels = in_channels if index == 0 else config.filters
            self.layers.append(
                SubBlock(
                    channels,
                    config.filters,
                    config.kernel_size,
                    config.stride,
                    config.dilation,
                    config.separable,
                    config.groups,
                )
            )
        self.residual = SubBlock(in_channels, config.filters, 1, separable=False) if config.residual else None

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """``(batch, in_channels, 1, time)``, ``(batch,)`` -> ``(batch, filters, 1, time')``, ``(batch,)``.

        ``time' = floor((time - 1) / stride) + 1`` for each of the ``repeat`` sub-blocks; lengths follow the same rule.
        """
        inputs, first_mask = x, self._mask(x, lengths)
        mask = first_mask
        for index, layer in enumerate(self.layers):
            mask_after, lengths = mask, output_length(lengths, layer.stride)
            if layer.stride > 1:
                mask_after = self._mask(x, lengths, output_length(x.shape[3], layer.stride))
            x, mask = layer(x, mask, mask_after), mask_after
            if index == len(self.layers) - 1 and self.residual is not None:
                x = x + self.residual(inputs, first_mask, None)
            x = F.dropout(F.relu(x, inplace=True), self.config.dropout, self.training)
        return x, lengths

    def _mask(self, x: Tensor, lengths: Tensor, frames: int | None = None) -> Tensor | None:
        return time_mask(lengths, x.shape[3] if frames is None else frames, x.dtype) if self.masked else None


class Encoder(nn.Module):
    """All blocks in a row."""

    def __init__(self, in_channels: int, blocks: Sequence[BlockConfig], masked: bool = True):
        super().__init__()
        self.blocks = nn.ModuleList()
        for config in blocks:
            self.blocks.append(Block(in_channels, config, masked))
            in_channels = config.filters
        self.out_channels = in_channels

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """``(batch, mels, 1, frames)`` -> ``(batch, channels, 1, ceil(frames / 2))`` and lengths by the same rule."""
        for block in self.blocks:
            x, lengths = block(x, lengths)
        return x, lengths


class Decoder(nn.Module):
    """A 1x1 convolution to one output for every label and the blank, which is the last; then log-softmax in fp32.

    The weight starts Xavier-uniform, the bias uniform in ``+-1/sqrt(in_channels)``, as in NeMo.
    """

    def __init__(self, in_channels: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-(in_channels**-0.5), in_channels**-0.5))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, in_channels, 1, time)`` -> log-probabilities ``(batch, time, outputs)``, fp32."""
        logits = F.conv2d(x, self.weight, self.bias)[:, :, 0].transpose(1, 2)  # (batch, time, outputs)
        return logits.float().log_softmax(2)


def rounded_frames(frames: int) -> int:
    """The next of few sizes, at most an eighth longer: a multiple of 16, of 32 above 256, of 64 above 512, ...

    On a CPU every new input length compiles new kernels; rounded lengths meet compiled ones.
    """
    step = max(16, 1 << max(0, (frames - 1).bit_length() - 4))
    return -(-frames // step) * step


class QuartzNet(nn.Module):
    """Waveform in, log-probabilities of characters out.

    ``QuartzNet(config)`` has random weights; ``quartznet.load_model(path)`` reads a checkpoint.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.alphabet = Alphabet(config.labels)
        self.front_end = LogMel(config.features)
        self.encoder = Encoder(config.features.mels, config.blocks, config.masked)
        self.decoder = Decoder(self.encoder.out_channels, len(config.labels) + 1)
        self.fused = False  # see use_kernels
        self.recompute = False  # fused, in training: keep half of the activations, and compute the rest twice

    @property
    def device(self) -> torch.device:
        return self.decoder.weight.device

    def use_kernels(self, name: str, dtype: torch.dtype = torch.float32) -> "QuartzNet":
        """This network, its encoder from now on computed as ``quartznet.backend`` says: auto, plain or triton.

        Args:
            dtype: of the activations to come, for the test that auto makes.

        Raises:
            ValueError: for another name, or triton where it cannot be.
        """
        self.fused = uses_triton(name, self.encoder, dtype)
        return self

    def features(self, signal: Tensor, signal_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """``(batch, samples)``, ``(batch,)`` -> log-mel ``(batch, mels, frames)``, fp32, and frames ``(batch,)``."""
        return self.front_end(signal, signal_lengths)

    def output_length(self, frames: Tensor | int) -> Tensor | int:
        """Frames of log-probabilities from ``frames`` of features: ``ceil(frames / 2)`` for the published networks."""
        for block in self.config.blocks:
            for _ in range(block.repeat):
                frames = output_length(frames, block.stride)
        return frames

    @property
    def samples_per_output(self) -> int:
        """How much of the waveform each frame of log-probabilities stands for: the hop times all strides."""
        return round(self.config.features.hop * 1000 / self.output_length(1000))

    def forward_features(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The network after the front end, so that training can mask the features in between.

        Args:
            features: (batch, mels, frames).
            lengths: (batch,), frames that are real.

        Returns:
            log_probs (batch, time, labels + 1) in fp32, ``time = output_length(frames)``, and lengths (batch,).
            A model that is not masked (NeMo's ``conv_mask: false``) reads its padding as if it were silence.
        """
        x, output_lengths = self.encode(features, lengths)
        return self.decoder(x)[:, : self.output_length(features.shape[2])], output_lengths

    def encode(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder alone: as ``forward_features``, but ``(batch, channels, 1, time)`` before the output layer.

        ``time`` is ``output_length(frames)`` in training, and may be longer in evaluation.
        """
        frames = features.shape[2]
        if self.fused:
            from quartznet.fused import encode  # needs Triton

            kind = features.device.type
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.decoder.weight.dtype
            return encode(self.encoder, features, lengths, dtype, self.recompute)
        # More padding changes nothing where it is masked, but in training it would enter the batch norms' statistics.
        if features.device.type == "cpu" and self.config.masked and not self.training:
            features = F.pad(features, (0, rounded_frames(frames) - frames))
        x = features[:, :, None].to(self.decoder.weight.dtype, memory_format=torch.channels_last)
        return self.encoder(x, lengths)

    def forward(self, signal: Tensor, signal_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms to log-probabilities.

        Args:
            signal: (batch, samples), float in [-1, 1] at ``config.features.sample_rate``, zero-padded.
            signal_lengths: (batch,), samples that are real.

        Returns:
            log_probs (batch, time, labels + 1), blank last; lengths (batch,), the frames of ``time`` that are real.
        """
        return self.forward_features(*self.features(signal, signal_lengths))

    @torch.inference_mode()
    def transcribe(self, paths: Sequence[str | Path], batch_seconds: float = 120.0) -> list[str]:
        """Greedy transcripts of sound files of any length, in their order; ``batch_seconds`` bounds a padded batch."""
        from quartznet.recordings import transcribe

        return transcribe(self, paths, batch_seconds)

    def for_inference(self, dtype: torch.dtype = torch.float32, kernels: str = "auto") -> "QuartzNet":
        """A copy for evaluation only, same call, same shapes: batch norms folded into convolutions, ``dtype`` inside.

        On a GPU the fused kernels take the place of the folding, as ``kernels`` says (``quartznet.backend``).

        Frames beyond each utterance hold other values than before (fewer masks are needed); the real ones are equal up
        to rounding. The copy cannot be trained.

        Raises:
            ValueError: for a dtype other than float32, bfloat16 or, on a GPU, float16; for kernels triton where they
                cannot be used.
        """
        return fold(self, dtype, kernels)
