"""The convolutions of QuartzNet, with lengths, masks and padding arithmetic.

The interface speaks of ``(batch, channels, time)``; inside, a signal is ``(batch, channels, 1, time)`` in channels-last
memory, that is time-major rows of channels, and every 1D convolution runs as a ``conv2d`` of height 1. On a CPU the
depthwise kernels are then vectorised over channels: 1 to 3 ms where ``conv1d`` takes 80 to 110 ms
(``benchmarks/speed.py``).

The surprise is the depthwise *weight* gradient, which PyTorch computes many times slower than everything else in the
layer; ``depthwise_weight_gradient`` writes it as a batched matrix product instead.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

BLOCK = 32  # frames in a row of the matrix form below; 16 to 64 measured alike


def same_padding(kernel_size: int, dilation: int) -> int:
    """Zeros on either side that keep ``output_length`` equal to the input's for stride 1 and an odd kernel."""
    return dilation * (kernel_size - 1) // 2


def output_length(lengths: Tensor | int, stride: int) -> Tensor | int:
    """Frames after one "same" convolution: ``floor((length - 1) / stride) + 1``, and 0 for an empty input."""
    return (lengths - 1) // stride + 1


def time_mask(lengths: Tensor, frames: int, dtype: torch.dtype) -> Tensor:
    """Ones where a frame is real: ``(batch, 1, 1, frames)`` from ``lengths`` ``(batch,)``."""
    return (torch.arange(frames, device=lengths.device) < lengths[:, None]).to(dtype)[:, None, None]


def depthwise_weight_gradient(inputs: Tensor, gradient: Tensor, kernel_size: int) -> Tensor:
    r"""Weight gradient of a depthwise "same" convolution with stride 1 and dilation 1.

    For every channel it is the correlation ``dw[j] = sum_t g[t] x[t + j]``, x padded. Cut time into rows of S frames,
    ``t = n S + s``, let row n of G hold ``g[n S : n S + S]`` and row n of X the window ``x[n S : n S + S + k - 1]``::

        M = G^T X      M[s, s + j] = sum_n g[n S + s] x[n S + s + j]      dw[j] = sum_s M[s, s + j]

    One small matrix product a channel, then a sum along its diagonals.

    Args:
        inputs: (batch, channels, 1, time), what the convolution read, not yet padded.
        gradient: (batch, channels, 1, time), gradient of its output.
        kernel_size: taps k, odd.

    Returns:
        (channels, 1, 1, kernel_size), summed over the batch in the dtype of the inputs.
    """
    batch, channels, _, time = inputs.shape
    padding, rows = kernel_size // 2, -(-time // BLOCK)
    window = BLOCK + kernel_size - 1
    padded = inputs.new_zeros(channels, batch, rows * BLOCK + kernel_size - 1)
    padded[..., padding : padding + time] = inputs[:, :, 0].contiguous().transpose(0, 1)
    blocks = gradient.new_zeros(channels, batch, rows * BLOCK)
    blocks[..., :time] = gradient[:, :, 0].contiguous().transpose(0, 1)
    windows = rearrange(padded.unfold(2, window, BLOCK), "channel batch row frame -> channel (batch row) frame")
    blocks = rearrange(blocks, "channel batch (row frame) -> channel frame (batch row)", frame=BLOCK)
    products = torch.bmm(blocks, windows)  # (channels, BLOCK, window)
    diagonals = products.as_strided((channels, BLOCK, kernel_size), (BLOCK * window, window + 1, 1))
    return diagonals.sum(1)[:, None, None]


class _DepthwiseConvolution(torch.autograd.Function):
    """A depthwise "same" convolution whose weight gradient is ``depthwise_weight_gradient`` (CPU, stride 1)."""

    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, inputs: Tensor, weight: Tensor) -> Tensor:
        context.save_for_backward(inputs, weight)
        return F.conv2d(inputs, weight, padding=(0, weight.shape[3] // 2), groups=weight.shape[0])

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        inputs, weight = context.saved_tensors
        to_inputs = to_weight = None
        if context.needs_input_grad[0]:
            # The transpose of a "same" convolution is the same convolution with its kernel reversed in time.
            to_inputs = F.conv2d(gradient, weight.flip(3), padding=(0, weight.shape[3] // 2), groups=weight.shape[0])
        if context.needs_input_grad[1]:
            to_weight = depthwise_weight_gradient(inputs, gradient, weight.shape[3])
        return to_inputs, to_weight


class Conv(nn.Module):
    """A 1D convolution with "same" padding and no bias, on ``(batch, channels, 1, time)``.

    ``groups`` equal to both channel counts makes it depthwise, a kernel of 1 pointwise. The weight is
    ``(out_channels, in_channels / groups, 1, kernel_size)``, Xavier-uniform. PyTorch's rule gives a depthwise weight
    the bound ``sqrt(6 / (k + channels k))``, as in NeMo.

    Raises:
        ValueError: where the channels cannot be divided into the groups.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, dilation: int = 1, groups: int = 1
    ):
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"{in_channels} and {out_channels} channels cannot be split in {groups} groups")
        self.stride, self.dilation, self.groups = stride, dilation, groups
        self.padding = same_padding(kernel_size, dilation)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, 1, kernel_size))
        nn.init.xavier_uniform_(self.weight)

    def _learns_slowly(self, x: Tensor) -> bool:
        """Whether PyTorch's own weight gradient would be the slow one."""
        depthwise = self.weight.shape[1] == 1 and self.weight.shape[0] == self.groups > 1
        learns = self.weight.requires_grad and torch.is_grad_enabled()
        return depthwise and learns and x.device.type == "cpu" and self.stride == 1 and self.dilation == 1

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, in_channels, 1, time)`` -> ``(batch, out_channels, 1, floor((time - 1) / stride) + 1)``."""
        if self._learns_slowly(x):
            weight = self.weight
            if torch.is_autocast_enabled("cpu"):
                x, weight = x.to(torch.get_autocast_dtype("cpu")), weight.to(torch.get_autocast_dtype("cpu"))
            return _DepthwiseConvolution.apply(x, weight)
        return F.conv2d(x, self.weight, None, (1, self.stride), (0, self.padding), (1, self.dilation), self.groups)


def shuffle_channels(x: Tensor, groups: int) -> Tensor:
    """Deals the channels of ``groups`` groups out in turn, so that the next grouped convolution mixes all of them."""
    return rearrange(x, "batch (group channel) one time -> batch (channel group) one time", group=groups)


class SubBlock(nn.Module):
    """Depthwise, pointwise (or one full convolution), batch norm, channel shuffle where grouped. ReLU is the caller's.

    There is nothing between the depthwise and the pointwise convolution, and each is masked on its *input*.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        separable: bool = True,
        groups: int = 1,
    ):
        super().__init__()
        self.separable, self.groups, self.stride = separable, groups, stride
        if separable:
            self.depthwise = Conv(in_channels, in_channels, kernel_size, stride, dilation, groups=in_channels)
            self.pointwise = Conv(in_channels, out_channels, 1, groups=groups)
        else:
            self.conv = Conv(in_channels, out_channels, kernel_size, stride, dilation, groups=groups)
        self.norm = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.1)

    def forward(self, x: Tensor, mask: Tensor | None, mask_after: Tensor | None) -> Tensor:
        """One sub-block.

        Args:
            x: (batch, in_channels, 1, time).
            mask: (batch, 1, 1, time), multiplied into the input; None: nothing is padded, or the model is not masked.
            mask_after: the same after the stride.

        Returns:
            (batch, out_channels, 1, floor((time - 1) / stride) + 1). Padded frames are not zero.
        """
        x = x if mask is None else x * mask
        if self.separable:
            x = self.depthwise(x)
            x = self.pointwise(x if mask_after is None else x * mask_after)
        else:
            x = self.conv(x)
        x = self.norm(x)
        return x if self.groups == 1 else shuffle_channels(x, self.groups)
