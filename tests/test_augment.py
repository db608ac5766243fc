"""Holes in the spectrogram: by hand with a fixed generator, and by the statistics of their extents."""

import pytest
import torch
from torch import Tensor

from quartznet.augment import SpecAugment, SpecCutout, augment_features, in_spans
from quartznet.config import AugmentSettings

MELS, FRAMES = 64, 300


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ones(batch: int, frames: int = FRAMES) -> tuple[Tensor, Tensor]:
    return torch.ones(batch, MELS, frames), torch.full((batch,), frames)


def extents(holes: Tensor) -> tuple[Tensor, Tensor]:
    """(batch, mels, frames) bool with one rectangle each -> its bands and its frames, (batch,)."""
    return holes.any(dim=2).sum(dim=1), holes.any(dim=1).sum(dim=1)


def test_in_spans_by_hand() -> None:
    spans = in_spans(torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 0.0]]), 4)
    assert spans.tolist() == [[[False, True, True, False], [False, False, False, False]]]


@pytest.mark.parametrize("swapped", [False, True])
def test_cutout_equals_loops(swapped: bool) -> None:
    """The same uniform numbers, one rectangle after the other, in plain Python."""
    features, lengths = torch.randn(3, MELS, FRAMES), torch.tensor([FRAMES, 200, 150])
    holed = SpecCutout(5, 120, 50, swapped)(features, lengths, generator(7))
    uniform = torch.rand(4, 3, 5, generator=generator(7))
    expected = features.clone()
    for item in range(3):
        for mask in range(5):
            band, frame, tall, long = uniform[:, item, mask].tolist()
            if swapped:
                low, first = int(band * (MELS - 50)), int(frame * (FRAMES - 120))
                height, width = int(tall * 120), int(long * 50)
            else:
                low, first = int(band * (MELS - 50 + 1)), int(frame * (FRAMES - 120 + 1))
                height, width = int(tall * 51), int(long * 121)
            expected[item, low : low + height, first : first + width] = 0.0
    assert torch.equal(holed, expected)


def test_cutout_extents() -> None:
    features, lengths = torch.ones(4000, 8, 30), torch.full((4000,), 30)
    bands, frames = extents(SpecCutout(1, 12, 5)(features, lengths, generator()) == 0)
    cut = bands > 0
    assert bands.max() == 5 and frames.max() == 12  # inclusive
    assert cut.float().mean().item() == pytest.approx(5 / 6 * 12 / 13, abs=0.02)  # neither width is 0
    assert bands[cut].float().mean().item() == pytest.approx(3.0, abs=0.1)  # 1..5
    assert frames[cut].float().mean().item() == pytest.approx(6.5, abs=0.2)  # 1..12


def test_swapped_cutout_extents() -> None:
    features, lengths = torch.ones(4000, 8, 30), torch.full((4000,), 30)
    bands, frames = extents(SpecCutout(1, 12, 5, swapped=True)(features, lengths, generator()) == 0)
    assert bands.max() == 8  # 11 clipped at the top
    assert frames.max() == 4  # exclusive


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("frames", [1, 40, 120, 121])
def test_cutout_of_short_utterances(frames: int, swapped: bool) -> None:
    holes = SpecCutout(5, 120, 50, swapped)(*ones(50, frames), generator()) == 0
    assert holes.shape == (50, MELS, frames) and holes.any()


def test_spec_augment_equals_loops() -> None:
    features, lengths = torch.randn(3, MELS, FRAMES), torch.tensor([FRAMES, 200, 90])
    holed = SpecAugment(2, 0.2, 3, 27)(features, lengths, generator(5))
    draws = generator(5)
    uniform_time, uniform_freq = torch.rand(2, 3, 2, generator=draws), torch.rand(2, 3, 3, generator=draws)
    expected = features.clone()
    for item, length in enumerate(lengths.tolist()):
        for mask in range(2):
            width = int(uniform_time[0, item, mask].item() * 0.2 * length)
            start = int(uniform_time[1, item, mask].item() * (length - width))
            expected[item, :, start : start + width] = 0.0
        for mask in range(3):
            width = int(uniform_freq[0, item, mask].item() * 27)
            start = int(uniform_freq[1, item, mask].item() * (MELS - width))
            expected[item, start : start + width] = 0.0
    assert torch.equal(holed, expected)


def test_time_masks_follow_the_length_of_the_item() -> None:
    features, _ = ones(400)
    lengths = torch.tensor([300, 100]).repeat(200)
    holes = (SpecAugment(1, 0.1, 0, 0)(features, lengths, generator()) == 0).any(dim=1)
    assert holes[0::2].sum(dim=1).max() == 29 and holes[1::2].sum(dim=1).max() == 9  # floor(U W) < W
    assert not holes[1::2, 100:].any()


def test_frequency_masks_span_all_frames() -> None:
    holes = SpecAugment(0, 0.0, 1, 10)(*ones(300), generator()) == 0
    bands, frames = extents(holes)
    assert bands.max() == 9 and set(frames.tolist()) == {0, FRAMES}
    wide = SpecAugment(0, 0.0, 1, 1000)(*ones(300), generator()) == 0  # wider than there are bands
    assert extents(wide)[0].max() < MELS


@pytest.mark.parametrize("augment", [SpecCutout(5, 120, 50), SpecAugment(2, 0.1, 2, 10)])
def test_same_seed_same_holes_and_the_input_stays(augment: SpecCutout | SpecAugment) -> None:
    features, lengths = torch.randn(4, MELS, FRAMES), torch.full((4,), FRAMES)
    before = features.clone()
    first = augment(features, lengths, generator(1))
    assert torch.equal(first, augment(features, lengths, generator(1)))
    assert not torch.equal(first, augment(features, lengths, generator(2)))
    assert torch.equal(features, before)
    assert not torch.equal(first[0] == 0, first[1] == 0)  # each utterance has its own holes


def test_settings_choose_what_happens() -> None:
    features, lengths = torch.randn(2, MELS, FRAMES), torch.tensor([FRAMES, FRAMES])
    nothing = augment_features(features, lengths, AugmentSettings(cutout_masks=0), generator())
    assert torch.equal(nothing, features)
    recipe = augment_features(features, lengths, AugmentSettings(), generator())
    assert torch.equal(recipe, SpecCutout(5, 120, 50)(features, lengths, generator()))
    both = augment_features(features, lengths, AugmentSettings(time_masks=1, freq_masks=1), generator())
    draws = generator()
    cutout_first = SpecCutout(5, 120, 50)(features, lengths, draws)
    assert torch.equal(both, SpecAugment(1, 0.05, 1, 10)(cutout_first, lengths, draws))
    swapped = augment_features(features, lengths, AugmentSettings(cutout_swapped=True), generator())
    assert torch.equal(swapped, SpecCutout(5, 120, 50, swapped=True)(features, lengths, generator()))


def test_gradient_passes_outside_the_holes() -> None:
    features = torch.randn(2, MELS, FRAMES, requires_grad=True)
    holed = SpecCutout(5, 120, 50)(features, torch.tensor([FRAMES, FRAMES]), generator())
    holed.sum().backward()
    assert torch.equal(features.grad, (holed != 0).float())


def test_adaptive_masks_spare_short_utterances() -> None:
    """0.02 masks a frame: none in 40 frames, one in 60, two in 100, and never more than three."""
    features, lengths = torch.ones(4, MELS, FRAMES), torch.tensor([40, 60, 100, 300])
    counts = torch.zeros(4)
    for seed in range(200):
        holed = SpecAugment(3, 0.5, 0, 10, masks_per_frame=0.02)(features, lengths, generator(seed))
        frames = holed[:, 0] == 0
        starts = frames & ~torch.nn.functional.pad(frames, (1, 0))[:, :-1]
        counts = torch.maximum(counts, starts.sum(dim=1))
    assert counts.tolist() == [0, 1, 2, 3]


def test_adaptive_masks_are_the_first_of_all_masks() -> None:
    features, lengths = torch.ones(1, MELS, FRAMES), torch.tensor([FRAMES])
    every = SpecAugment(2, 0.2, 2, 10)(features, lengths, generator(1))
    enough = SpecAugment(2, 0.2, 2, 10, masks_per_frame=0.5)(features, lengths, generator(1))
    one = SpecAugment(2, 0.2, 2, 10, masks_per_frame=1 / FRAMES)(features, lengths, generator(1))
    assert torch.equal(every, enough)
    assert ((one == 0) & (every != 0)).sum() == 0 and (one == 0).sum() < (every == 0).sum()
