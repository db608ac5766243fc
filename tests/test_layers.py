"""Convolutions against hand arithmetic, ``nn.Conv1d`` and PyTorch's own gradient."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from quartznet.layers import (
    Conv,
    SubBlock,
    depthwise_weight_gradient,
    output_length,
    same_padding,
    shuffle_channels,
    time_mask,
)


def test_convolution_by_hand() -> None:
    conv = Conv(1, 1, 3)
    conv.weight.data[:] = torch.tensor([1.0, 10.0, 100.0])
    x = torch.tensor([1.0, 2.0, 3.0, 4.0])[None, None, None]
    # y[t] = x[t-1] + 10 x[t] + 100 x[t+1], zeros outside
    assert conv(x).flatten().tolist() == [210.0, 321.0, 432.0, 43.0]


def test_depthwise_keeps_channels_apart() -> None:
    conv = Conv(2, 2, 1, groups=2)
    conv.weight.data[:] = torch.tensor([2.0, 3.0])[:, None, None, None]
    assert conv(torch.ones(1, 2, 1, 2)).flatten().tolist() == [2.0, 2.0, 3.0, 3.0]


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(33, 1, 1), (33, 2, 1), (87, 1, 2), (1, 1, 1), (3, 2, 1)])
def test_equals_conv1d(kernel: int, stride: int, dilation: int) -> None:
    conv = Conv(6, 6, kernel, stride, dilation, groups=6)
    plain = nn.Conv1d(6, 6, kernel, stride, same_padding(kernel, dilation), dilation, groups=6, bias=False)
    plain.weight.data.copy_(conv.weight.data[:, :, 0])
    x = torch.randn(2, 6, 50)
    torch.testing.assert_close(conv(x[:, :, None])[:, :, 0], plain(x))


@pytest.mark.parametrize("length", [1, 2, 7, 8])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_output_length_is_what_comes_out(length: int, stride: int) -> None:
    frames = Conv(1, 1, 5, stride)(torch.zeros(1, 1, 1, length)).shape[3]
    assert output_length(length, stride) == frames
    assert output_length(torch.tensor([length, 0]), stride).tolist() == [frames, 0]


@pytest.mark.parametrize("time", [1, 31, 32, 33, 100])
@pytest.mark.parametrize("kernel", [3, 33, 75])
def test_depthwise_weight_gradient_is_pytorchs(time: int, kernel: int) -> None:
    inputs, gradient = torch.randn(2, 5, 1, time), torch.randn(2, 5, 1, time)
    weight = torch.randn(5, 1, 1, kernel, requires_grad=True)
    F.conv2d(inputs, weight, padding=(0, kernel // 2), groups=5).backward(gradient)
    torch.testing.assert_close(depthwise_weight_gradient(inputs, gradient, kernel), weight.grad)


def test_depthwise_backward_is_exact_in_double() -> None:
    conv = Conv(3, 3, 5, groups=3).double()
    x = torch.randn(2, 3, 1, 40, dtype=torch.double, requires_grad=True)
    assert conv._learns_slowly(x)
    assert torch.autograd.gradcheck(lambda x, _: conv(x), (x, conv.weight))


@pytest.mark.parametrize("stride", [1, 2])
def test_gradient_under_autocast_is_near_fp32(stride: int) -> None:
    conv, x = Conv(8, 8, 33, stride, groups=8), torch.randn(2, 8, 1, 64)
    conv(x).square().mean().backward()
    exact, conv.weight.grad = conv.weight.grad, None
    with torch.autocast("cpu", torch.bfloat16):
        y = conv(x)
    assert y.dtype == torch.bfloat16
    y.float().square().mean().backward()
    # bf16 carries 8 bits: half a percent of the largest value
    torch.testing.assert_close(conv.weight.grad, exact, rtol=0.02, atol=0.005 * exact.abs().max().item())


def test_frozen_depthwise_gets_no_gradient() -> None:
    conv, x = Conv(4, 4, 3, groups=4).requires_grad_(False), torch.randn(1, 4, 1, 9, requires_grad=True)
    conv(x).sum().backward()
    assert conv.weight.grad is None and x.grad is not None


def test_time_mask_by_hand() -> None:
    mask = time_mask(torch.tensor([1, 3]), 3, torch.float32)
    assert mask.shape == (2, 1, 1, 3)
    assert mask.flatten().tolist() == [1.0, 0.0, 0.0, 1.0, 1.0, 1.0]


def test_shuffle_channels_by_hand() -> None:
    x = torch.arange(6.0)[None, :, None, None]
    assert shuffle_channels(x, 2).flatten().tolist() == [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]


def test_xavier_bound_of_a_depthwise_weight() -> None:
    # bound sqrt(6 / (k + C k)) = 0.02659 for C 256, k 33
    weight = Conv(256, 256, 33, groups=256).weight
    assert 0.0260 < weight.abs().max() <= 0.02660


def test_sub_block_masks_its_input() -> None:
    layer = SubBlock(2, 4, 3).eval()
    x = torch.randn(1, 2, 1, 8)
    mask = time_mask(torch.tensor([5]), 8, x.dtype)
    noisy = x.clone()
    noisy[..., 5:] = 100.0
    torch.testing.assert_close(layer(x, mask, mask), layer(noisy, mask, mask), rtol=0, atol=0)


def test_sub_block_without_padding_needs_no_mask() -> None:
    layer, x = SubBlock(2, 4, 3, separable=False, groups=2).eval(), torch.randn(1, 2, 1, 8)
    mask = time_mask(torch.tensor([8]), 8, x.dtype)
    torch.testing.assert_close(layer(x, None, None), layer(x, mask, mask), rtol=0, atol=0)


def test_groups_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be split in 4 groups"):
        Conv(6, 8, 3, groups=4)
