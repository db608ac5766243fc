"""Does a corpus fit a network? Measurements on a few clips before hours are spent; ``quartznet.doctor`` tells them.

**Front end.** The first batch norm remembers the mean and variance that its channels had in training. With clips
through the right front end they come back; with another window, hop or normalisation they do not. The distance is

    mean over channels of  (m - m0)^2 / v0 + v / v0 - 1 - log(v / v0)            (m, v measured; m0, v0 remembered)

twice the divergence between two Gaussians. It is computed for the front end as it is and for others; another one that
fits far better names the mistake. Measured on real clips of four corpora: 0.02 to 0.07 with the right one, up to twice
that with a window of 25 in place of 20 ms, 0.25 to 0.6 with the wrong normalisation.

**Transcripts.** A clip's own text should have a higher CTC likelihood than texts of other clips, even under a network
that cannot speak the language yet. Where own and foreign texts win equally often, the pairs are shuffled.

**Sample rate.** Speech recorded at 8 kHz has no energy above 4 kHz. If 8 kHz samples carry a header of 16 kHz, they
play at double speed: too many letters a second, and at half speed the texts fit better.

The surprise: NeMo's three frame rules (0.x, 1.x, 2.5) cannot be told apart this way, and need not be. They differ in
the first and last frame of a clip only, and no error rate shows it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quartznet.config import FeatureConfig
from quartznet.ctc import ctc_losses, frames_needed
from quartznet.features import LogMel
from quartznet.model import QuartzNet

FITS = 0.75  # another front end must have less than this share of the distance to be named
CLEARLY = 0.01  # and be nearer by this much
NARROW = 0.3  # of the sample rate: what was resampled from half of it has nothing above 0.25 and the filter's slope
SILENCE = -50.0  # dB; wide-band clips of three corpora have -11 to -37 above that edge, resampled ones -52 to -100
MISFIT = 0.25  # a distance above this is a misfit even if no other front end explains it


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str  # one word
    level: str  # "ok", "note" or "fault"
    text: str  # what was seen, in figures
    advice: str = ""  # what to do about it


# ---------------------------------------------------------------------------------------------------------------------
# Front end


def other_front_ends(config: FeatureConfig) -> dict[str, FeatureConfig]:
    """Front ends that a checkpoint may have been trained with in place of ``config``, by what differs."""
    rate = config.sample_rate
    changes: dict[str, dict] = {f"a window of {ms} ms": {"window_size": rate * ms // 1000} for ms in (20, 25, 32)}
    changes |= {f"a hop of {ms:g} ms": {"hop": round(rate * ms / 1000)} for ms in (8, 10, 12.5)}
    changes |= {f"normalize {name}": {"normalize": name} for name in ("per_feature", "all_features", "none")}
    changes |= {f"pre-emphasis {value:g}": {"preemphasis": value} for value in (0.97, 0.0)}
    others = {}
    for name, change in changes.items():
        changed = {**dataclasses.asdict(config), **change}
        changed["fft_size"] = max(config.fft_size, 1 << (max(changed["window_size"], changed["hop"]) - 1).bit_length())
        other = FeatureConfig(**changed)
        if other != config:
            others[name] = other
    return others


@torch.no_grad()
def front_end_distance(model: QuartzNet, signals: Sequence[Tensor], config: FeatureConfig) -> float:
    """How far the first batch norm's inputs are from what it remembers; see the module's docstring.

    Args:
        signals: clips, each (samples,), long enough for one frame.
        config: of the front end to try.
    """
    front_end, layer = LogMel(config).eval(), model.encoder.blocks[0].layers[0]
    sums, squares, frames = 0.0, 0.0, 0
    for signal in signals:
        features, lengths = front_end(signal[None], torch.tensor([len(signal)]))
        x = features[:, :, None, : int(lengths)].to(model.device)
        x = layer.pointwise(layer.depthwise(x)) if layer.separable else layer.conv(x)
        x = x[0, :, 0].double()
        sums, squares, frames = sums + x.sum(1), squares + x.square().sum(1), frames + x.shape[1]
    mean = sums / frames
    ratio = (squares / frames - mean.square()).clamp(min=1e-12) / layer.norm.running_var
    shift = (mean - layer.norm.running_mean).square() / layer.norm.running_var
    return (shift + ratio - 1 - ratio.log()).mean().item()


def check_front_end(model: QuartzNet, signals: Sequence[Tensor]) -> Finding:
    """Whether another front end explains the network's memory much better."""
    config = model.config.features
    own = front_end_distance(model, signals, config)
    others = {name: front_end_distance(model, signals, other) for name, other in other_front_ends(config).items()}
    best = min(others, key=others.__getitem__)
    seen = f"distance from the network's memory {own:.3f}; nearest other, {best}: {others[best]:.3f}"
    if others[best] < FITS * own and own - others[best] > CLEARLY:
        return Finding(
            "front-end",
            "fault",
            f"the network was trained with {best}: {seen}",
            "use the checkpoint with its own preprocessor settings, or correct model_config.features",
        )
    if own > MISFIT:
        return Finding(
            "front-end",
            "fault",
            f"the features are not those the network was trained on: {seen}",
            "compare the checkpoint's preprocessor settings, and listen to a few clips",
        )
    return Finding("front-end", "ok", seen)


# ---------------------------------------------------------------------------------------------------------------------
# Transcripts


def text_losses(log_probs: Tensor, lengths: Tensor, ids: Sequence[Sequence[int]], blank: int) -> Tensor:
    """CTC loss a letter of each text under the same row of ``log_probs``; infinite where it does not fit."""
    width = max(1, *(len(text) for text in ids))
    targets = torch.tensor([[*text, *[0] * (width - len(text))] for text in ids])
    target_lengths = torch.tensor([len(text) for text in ids])
    losses = ctc_losses(log_probs, lengths, targets, target_lengths, blank, zero_infinity=False)
    return losses / target_lengths.clamp(min=1)


def own_text_wins(
    log_probs: Tensor, lengths: Tensor, ids: Sequence[Sequence[int]], blank: int, rivals: int = 4
) -> tuple[list[float], list[float]]:
    """For each clip the share of rivals, texts of other clips most like its own in length, that its own text beats.

    Args:
        log_probs: (batch, time, labels) of the clips, in the order of their texts ``ids``.

    Returns:
        the shares, in [0, 1], and each clip's own loss a letter.
    """
    shares, own_losses = [], []
    for index, own in enumerate(ids):
        fitting = [other for other in range(len(ids)) if other != index and list(ids[other]) != list(own)]
        fitting = [other for other in fitting if frames_needed(ids[other]) <= int(lengths[index])]
        fitting.sort(key=lambda other: abs(len(ids[other]) - len(own)))
        texts = [own, *(ids[other] for other in fitting[:rivals])]
        rows = log_probs[index : index + 1].expand(len(texts), -1, -1)
        losses = text_losses(rows, lengths[index].expand(len(texts)), texts, blank)
        own_losses.append(losses[0].item())
        if len(texts) > 1:
            beaten = (losses[0] < losses[1:]).double() + 0.5 * (losses[0] == losses[1:]).double()
            shares.append(beaten.mean().item())
    return shares, own_losses


def check_transcripts(shares: Sequence[float], names: Sequence[str]) -> Finding:
    """Whether clips know their own texts better than those of others."""
    if len(shares) < 8:
        return Finding("transcripts", "note", f"only {len(shares)} clips with rivals; too few to tell")
    mean = sum(shares) / len(shares)
    seen = f"own text beats a stranger's in {mean:.0%} of comparisons ({len(shares)} clips)"
    if mean < 0.65:
        return Finding(
            "transcripts",
            "fault",
            f"{seen}; by chance it is 50 %",
            "the transcripts seem not to belong to their clips, or the network cannot hear this speech at all: "
            "listen to three clips and read their texts",
        )
    if mean < 0.85:
        doubtful = [name for name, share in zip(names, shares, strict=True) if share < 0.5]
        return Finding(
            "transcripts", "note", seen, f"some may be wrong; look at {', '.join(doubtful[:3]) or 'a few clips'}"
        )
    return Finding("transcripts", "ok", seen)


# ---------------------------------------------------------------------------------------------------------------------
# Sample rate


def energy_above(signal: Tensor, sample_rate: int, hertz: float) -> float:
    """Power above ``hertz`` against all power, in dB; about -70 and below where there is nothing but rounding."""
    spectrum = torch.fft.rfft(signal.double() - signal.double().mean()).abs().square()
    edge = round(hertz / sample_rate * len(signal))
    return 10 * torch.log10(spectrum[edge:].sum().clamp(min=1e-20) / spectrum.sum().clamp(min=1e-20)).item()


def slowed(signal: Tensor) -> Tensor:
    """The samples played at half their rate: ``(samples,)`` -> ``(2 samples,)``, linear in between."""
    return torch.nn.functional.interpolate(signal[None, None], scale_factor=2.0, mode="linear")[0, 0]


def check_sample_rate(
    signals: Sequence[Tensor], sample_rate: int, letters: Sequence[int], losses: Mapping[str, float]
) -> Finding:
    """Whether clips are hurried (wrong header) or cut off at 4 kHz (telephone speech, resampled).

    Args:
        letters: of each clip's text.
        losses: "as it is" and "slowed": the mean loss a letter of the clips, and of the clips at half speed.
    """
    seconds = sum(len(signal) for signal in signals) / sample_rate
    speed = sum(letters) / seconds
    edge = NARROW * sample_rate
    share = sum(energy_above(signal, sample_rate, edge) < SILENCE for signal in signals) / len(signals)
    seen = f"{speed:.1f} letters a second; {share:.0%} of the clips have nothing above {edge:.0f} Hz"
    if losses["slowed"] < 0.9 * losses["as it is"] and speed > 18:
        return Finding(
            "sample-rate",
            "fault",
            f"{seen}; at half speed the texts fit better ({losses['slowed']:.2f} for {losses['as it is']:.2f})",
            f"the samples were taken at {sample_rate // 2} Hz and the headers say {sample_rate}: write the true rate "
            "into the headers",
        )
    if share > 0.5:
        return Finding(
            "sample-rate",
            "note",
            seen,
            f"this is {sample_rate // 2} Hz speech in files of {sample_rate} Hz: augment with "
            "--augment.narrow-band.probability 0.5 if the network shall hear other speech too",
        )
    return Finding("sample-rate", "ok", seen)


# ---------------------------------------------------------------------------------------------------------------------
# Can it learn?


def check_overfit(curve: Sequence[float], slower: Sequence[float], wer: float, lr: float, clips: int) -> Finding:
    """What a short training on a few clips says.

    Args:
        curve: losses at the rate of the run, one a step.
        slower: losses of as many steps at a hundredth of that rate; empty where they were not needed.
        wer: on those clips in the end, fraction.
    """
    start, end = curve[0], min(curve[-1], 1e9)
    seen = f"{clips} clips, {len(curve)} steps at rate {lr:g}: loss {start:.0f} to {end:.1f}, WER {100 * wer:.0f} %"
    if wer == 0:
        return Finding("learning", "ok", seen)
    if slower and slower[-1] < 0.5 * curve[min(len(slower), len(curve)) - 1]:
        return Finding(
            "learning",
            "fault",
            f"{seen}; at rate {lr / 100:g} the loss falls to {slower[-1]:.0f} in {len(slower)} steps",
            f"the rate is too high: try --optim.lr {lr / 100:g}, or let --find-lr draw the curve",
        )
    if end > 0.8 * start:
        return Finding(
            "learning", "fault", f"{seen}; the loss does not fall", "see the other lines; if all is well there, raise "
            "--optim.lr"
        )  # fmt: skip
    return Finding("learning", "note", f"{seen}; it falls, but WER 0 was not reached in this time")
