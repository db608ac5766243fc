"""The fused encoder against ``quartznet.model.Encoder``, in Triton's interpreter: outputs, gradients, statistics."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import triton_cpu
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

triton_cpu.interpreted()
from quartznet import fused  # noqa: E402
from quartznet.config import BlockConfig, FeatureConfig, ModelConfig  # noqa: E402
from quartznet.model import QuartzNet  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BLOCKS = (
    BlockConfig(3, 5, stride=2),
    BlockConfig(3, 7, 2, residual=True),
    BlockConfig(4, 9, 2, residual=True),
    BlockConfig(4, 5, dilation=2),
    BlockConfig(6, 1, separable=False),
)


def network(blocks: tuple[BlockConfig, ...] = BLOCKS, masked: bool = True) -> QuartzNet:
    """Random weights and random statistics, as if it had been trained."""
    model = QuartzNet(ModelConfig(tuple("abc"), blocks, FeatureConfig(mels=4), masked)).to(DEVICE)
    for norm in norms(model):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.3)
        norm.running_mean.normal_(0, 0.2)
        norm.running_var.uniform_(0.5, 2)
    return model


def norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]


def features(frames: int = 53, lengths: tuple[int, ...] = (53, 30, 11)) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor(lengths, device=DEVICE)
    values = torch.randn(len(lengths), 4, frames, device=DEVICE)
    return values * (torch.arange(frames, device=DEVICE) < lengths[:, None, None]), lengths


def distance(this: Tensor, that: Tensor) -> float:
    ratio = (this.double() - that).norm() / that.norm().clamp(min=1e-12)
    return ratio.item() if ratio == ratio else float("inf")


def both(
    model: QuartzNet, x: Tensor, lengths: Tensor, dtype: torch.dtype = torch.float32, recompute: bool = False
) -> tuple[QuartzNet, QuartzNet, Tensor, Tensor]:
    """The plain network in fp64 and the fused one, both with gradients; and their outputs, real frames alone."""
    plain, fast = copy.deepcopy(model).double(), copy.deepcopy(model)
    expected, out_lengths = plain.encoder(x.double()[:, :, None], lengths)
    encoded, fused_lengths = fused.encode(fast.encoder, x, lengths, dtype, recompute)
    assert torch.equal(out_lengths, fused_lengths)
    assert encoded.shape == expected.shape
    is_real = (torch.arange(expected.shape[3], device=DEVICE) < out_lengths[:, None])[:, None, None]
    direction = torch.randn(expected.shape, device=DEVICE, dtype=torch.float64)
    (expected * is_real * direction).sum().backward()
    (encoded.double() * is_real * direction).sum().backward()
    return plain, fast, (expected * is_real).detach(), (encoded * is_real).detach()


def assert_equal(plain: QuartzNet, fast: QuartzNet, expected: Tensor, encoded: Tensor, limit: float) -> None:
    assert distance(encoded, expected) < limit
    for (name, weight), other in zip(plain.encoder.named_parameters(), fast.encoder.parameters(), strict=True):
        assert (weight.grad is None) == (other.grad is None), name
        assert weight.grad is None or distance(other.grad, weight.grad) < 2 * limit, name
    for (name, buffer), other in zip(plain.encoder.named_buffers(), fast.encoder.buffers(), strict=True):
        assert distance(other, buffer.double()) < limit, name


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("recompute", [True, False])
def test_in_training_it_is_the_encoder(masked: bool, recompute: bool) -> None:
    """53 frames are no multiple of 8: what fills the rows must not enter the statistics."""
    assert_equal(*both(network(masked=masked).train(), *features(), recompute=recompute), 1e-6)


def test_with_batch_norms_that_stand_still_it_is_the_encoder() -> None:
    model = network().train()
    for norm in norms(model):
        norm.eval()
    assert_equal(*both(model, *features()), 1e-6)


def test_with_some_weights_that_do_not_learn_it_is_the_encoder() -> None:
    model = network().train()
    for name, weight in model.encoder.named_parameters():
        weight.requires_grad_("norm" in name or "blocks.3" in name)
    norms(model)[2].eval()
    assert_equal(*both(model, *features()), 1e-6)


def test_in_evaluation_it_is_the_encoder_with_and_without_gradients() -> None:
    model = network().eval()
    x, lengths = features()
    plain, fast, expected, encoded = both(model, x, lengths)
    assert_equal(plain, fast, expected, encoded, 1e-6)
    with torch.inference_mode():
        again, out_lengths = fused.encode(model.encoder, x, lengths, torch.float32)
    is_real = torch.arange(again.shape[3], device=DEVICE) < out_lengths[:, None]
    assert torch.equal(again * is_real[:, None, None], encoded)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_it_is_as_near_to_fp64_as_autocast(dtype: torch.dtype) -> None:
    x, lengths = features()
    model = network().train()
    torch.manual_seed(1)
    plain, fast, expected, encoded = both(model, x, lengths, dtype)
    half = copy.deepcopy(model)
    with torch.autocast(DEVICE, dtype):
        other, out_lengths = half.encoder(x[:, :, None], lengths)
    is_real = (torch.arange(other.shape[3], device=DEVICE) < out_lengths[:, None])[:, None, None]
    torch.manual_seed(1)
    direction = torch.randn(other.shape, device=DEVICE, dtype=torch.float64)
    (other.double() * is_real * direction).sum().backward()
    assert encoded.dtype == dtype
    assert distance(encoded, expected) < 1.5 * distance((other * is_real).detach(), expected)

    def gradient(network: QuartzNet) -> Tensor:
        return torch.cat([weight.grad.flatten().double() for weight in network.encoder.parameters()])

    assert distance(gradient(fast), gradient(plain)) < 1.5 * distance(gradient(half), gradient(plain))


def test_an_utterance_alone_gives_what_it_gives_in_a_batch() -> None:
    model = network().eval()
    x, lengths = features(96, (96, 40))
    with torch.inference_mode():
        together, out_lengths = fused.encode(model.encoder, x, lengths, torch.float32)
        alone, _ = fused.encode(model.encoder, x[1:, :, :40], lengths[1:], torch.float32)
    assert torch.allclose(together[1:, ..., : out_lengths[1]], alone[..., : out_lengths[1]], atol=1e-6)


def test_a_gradient_of_the_gradient_is_refused() -> None:
    x, lengths = features()
    encoded, _ = fused.encode(network().train().encoder, x.requires_grad_(), lengths, torch.float32)
    (gradient,) = torch.autograd.grad(encoded.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_dropout_drops_and_its_gradient_is_that_of_what_is_left() -> None:
    """A seed fixes what is dropped, so a small step along the gradient changes the output by what it promises."""
    blocks = (BlockConfig(4, 5, 2, dropout=0.3, residual=True), BlockConfig(4, 3, dropout=0.3))
    model = network(blocks).train()
    for norm in norms(model):
        norm.eval()
    x, lengths = features(40, (40, 24))

    def loss(weights: list[Tensor]) -> Tensor:
        torch.manual_seed(3)
        other = copy.deepcopy(model)
        for weight, value in zip(other.encoder.parameters(), weights, strict=True):
            weight.data = value
        encoded, _ = fused.encode(other.encoder, x, lengths, torch.float32)
        return (encoded.double()[..., :24] ** 2).sum(), other

    start = [weight.detach().clone() for weight in model.encoder.parameters()]
    value, other = loss(start)
    value.backward()
    gradients = [weight.grad for weight in other.encoder.parameters()]
    size = sum((gradient.double() ** 2).sum() for gradient in gradients).item()
    step = 1e-3 * value.item() / size
    after = [loss([w + sign * step * g for w, g in zip(start, gradients, strict=True)])[0].item() for sign in (1, -1)]
    assert (after[0] - after[1]) / (2 * step * size) == pytest.approx(1, abs=0.02)
    torch.manual_seed(4)
    others, _ = fused.encode(model.encoder, x, lengths, torch.float32)
    torch.manual_seed(3)
    assert not torch.equal(others, fused.encode(model.encoder, x, lengths, torch.float32)[0])
    model.eval()
    first, second = (fused.encode(model.encoder, x, lengths, torch.float32)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_kernels_start_on_the_gpu_of_their_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """On another one they would read memory that is not there; in the backward pass PyTorch's engine sees to it."""
    right, inside, seen = fused.calls.depthwise, [], []

    @contextmanager
    def device_of(tensor: Tensor) -> Iterator[None]:
        inside.append(tensor.device)
        yield
        inside.pop()

    def watched(*arguments: object) -> Tensor:
        seen.append(list(inside))
        return right(*arguments)

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    monkeypatch.setattr(fused.calls, "depthwise", watched)
    x, lengths = features()
    fused.encode(network().eval().encoder, x, lengths, torch.float32)
    assert seen == [[x.device]] * 6


class Lengths(TorchDispatchMode):
    """Counts the divisions of lengths by a stride."""

    divisions = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.divisions += "floor_divide" in function.__name__
        return function(*arguments, **(options or {}))


def test_lengths_are_computed_anew_after_a_stride_alone() -> None:
    """On a GPU each is three launches; with one for each of 93 convolutions they were half of all."""
    x, lengths = features()
    with Lengths() as counter:
        fused.encode(network().eval().encoder, x, lengths, torch.float32)
    assert counter.divisions == 2  # as int64 for what follows, as int32 for the kernels


@pytest.mark.filterwarnings("ignore:invalid value encountered", "ignore:overflow encountered")
@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("broken", ["weight", "input"])
def test_what_is_not_finite_is_not_hidden(broken: str, learns: bool) -> None:
    """A ReLU that made NaN zero would give a finite loss, and a step that changes statistics to NaN would count."""
    model, (x, lengths) = network().train(learns), features()
    if broken == "weight":
        model.encoder.blocks[1].layers[0].pointwise.weight.data[0, 0] = torch.nan
    else:
        x[0, 0, 5] = 1e6  # infinite in fp16
    encoded, _ = fused.encode(model.encoder, x, lengths, torch.float16)
    assert encoded[0, :, 0, :5].isnan().any()


def test_the_model_and_its_inference_form_go_through_the_kernels_in_half_precision_alone() -> None:
    model = network().train()
    signal, lengths = 0.1 * torch.randn(2, 9000, device=DEVICE), torch.tensor([9000, 6000], device=DEVICE)
    model.front_end.config = FeatureConfig(mels=4, dither=0.0)
    fast = copy.deepcopy(model).use_kernels("triton")
    with torch.autocast(DEVICE, torch.bfloat16):
        expected, out_lengths = copy.deepcopy(model)(signal, lengths)
        log_probs, _ = fast(signal, lengths)
    is_real = (torch.arange(expected.shape[1], device=DEVICE) < out_lengths[:, None])[..., None]
    assert distance(log_probs * is_real, (expected * is_real).double()) < 0.02
    assert not torch.equal(log_probs, expected)
    assert int(norms(fast)[0].num_batches_tracked) == 1
    assert torch.equal(fast.eval()(signal, lengths)[0], copy.deepcopy(fast).use_kernels("plain")(signal, lengths)[0])

    expected, _ = model.eval().for_inference(kernels="plain")(signal, lengths)
    inference = model.for_inference(torch.bfloat16, "triton")
    assert inference.fused and inference.encoder.blocks[1].layers[0].pointwise.weight.dtype == torch.bfloat16
    log_probs, _ = inference(signal, lengths)
    assert distance(log_probs * is_real, (expected[:, : log_probs.shape[1]] * is_real).double()) < 0.02
