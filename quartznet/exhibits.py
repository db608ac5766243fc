"""What can be heard and seen of an utterance on a page of its own: its sound, its spectrogram, its words in time.

    shown = exhibits(model, chosen, signals)        # chosen: (index, reference, words heard); signals: index -> samples

Sound becomes MP3 at about 4 kB a second, which every browser plays, or FLAC at about four times that where libsndfile
was built without MP3. The spectrogram is what the network hears, its own normalised log-mel features, in 32 colours.
The words of the reference are aligned to the network's own output; those that were heard have their times already.

The surprise: a page that holds its own sounds grows without a bound unless it is given one. ``BUDGET`` bytes of sound
and pictures are embedded, the first utterances first; a clip of more than ``LONGEST`` seconds, or one that does not fit
any more, is shown with its words alone and says so.
"""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import soundfile
import torch
from torch import Tensor

from quartznet.model import QuartzNet
from quartznet.words import Word, align_words

BUDGET = 6_000_000  # bytes of data URIs on a page
LONGEST = 60.0  # seconds of a clip that is embedded
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # Hz
COLUMNS = 1500  # of a spectrogram, at most
LEVELS = 32  # colours; fewer compress better, and no eye sees more
LOUDNESS = (-1.5, 2.5)  # of normalised features: the first and the last colour
COLORS = ((0, 0, 4), (49, 18, 89), (114, 31, 129), (183, 55, 121), (241, 96, 93), (254, 176, 120), (252, 253, 191))


@dataclass(frozen=True)
class Exhibit:
    """One utterance; "" for a sound or a picture that is not there, () for words that could not be aligned."""

    seconds: float
    audio: str = ""  # data URI
    spectrogram: str = ""  # data URI of a PNG that is as long as the clip
    said: tuple[Word, ...] = ()
    heard: tuple[Word, ...] = ()
    problem: str = ""  # why there is no sound, for people


def data_uri(kind: str, content: bytes) -> str:
    """``data:audio/mpeg;base64,...``"""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def audio_uri(signal: Tensor, sample_rate: int) -> str:
    """Samples (samples,) in [-1, 1] as a sound that a browser plays; louder ones are cut off there."""
    samples, file = signal.clamp(-1.0, 1.0).cpu().numpy(), io.BytesIO()
    if "MP3" in soundfile.available_formats() and sample_rate in MP3_RATES:
        soundfile.write(file, samples, sample_rate, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.7)
        return data_uri("audio/mpeg", file.getvalue())
    soundfile.write(file, samples, sample_rate, format="FLAC", subtype="PCM_16")
    return data_uri("audio/flac", file.getvalue())


def palette() -> list[int]:
    """``LEVELS`` colours from dark to bright, red, green and blue of each in turn."""
    places = np.linspace(0, len(COLORS) - 1, LEVELS)
    channels = [np.interp(places, range(len(COLORS)), channel) for channel in zip(*COLORS, strict=True)]
    return np.stack(channels, axis=1).round().astype(int).ravel().tolist()


def spectrogram_uri(features: Tensor) -> str:
    """A PNG of features (mels, frames), low bands below; neighbouring frames are averaged to at most ``COLUMNS``."""
    from PIL import Image

    frames = max(2, -(-features.shape[1] // COLUMNS))
    pooled = torch.nn.functional.avg_pool1d(features.float().cpu()[None], frames, ceil_mode=True)[0]
    low, high = LOUDNESS
    levels = ((pooled - low) / (high - low) * LEVELS).floor().clamp(0, LEVELS - 1).to(torch.uint8).flip(0)
    picture = Image.frombytes("P", (levels.shape[1], levels.shape[0]), levels.numpy().tobytes())
    picture.putpalette(palette())
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return data_uri("image/png", file.getvalue())


def _words(model: QuartzNet, log_probs: Tensor, length: int, text: str) -> tuple[Word, ...]:
    """The words of ``text`` in time; none where the text has no place in the clip or a letter the model lacks."""
    frame_seconds = model.samples_per_output / model.config.features.sample_rate
    try:
        return tuple(align_words(log_probs, length, text, model.alphabet, frame_seconds))
    except ValueError:
        return ()


@torch.inference_mode()
def exhibit(model: QuartzNet, signal: Tensor, reference: str, heard: tuple[Word, ...], room: int) -> Exhibit:
    """One utterance, with sound and picture if they take no more than ``room`` bytes."""
    rate = model.config.features.sample_rate
    seconds = len(signal) / rate
    features, lengths = model.front_end.each(
        signal[None].to(model.device), torch.tensor([len(signal)]).to(model.device)
    )
    log_probs, output_lengths = model.forward_features(features, lengths)
    said = _words(model, log_probs[0], int(output_lengths[0]), reference)
    if seconds > LONGEST:
        return Exhibit(seconds, said=said, heard=heard, problem=f"clips of more than {LONGEST:g} s are not embedded")
    audio, picture = audio_uri(signal, rate), spectrogram_uri(features[0, :, : int(lengths[0])])
    if len(audio) + len(picture) > room:
        problem = f"the page holds at most {BUDGET / 1e6:g} MB of sound, and this clip did not fit any more"
        return Exhibit(seconds, said=said, heard=heard, problem=problem)
    return Exhibit(seconds, audio, picture, said, heard)


def exhibits(
    model: QuartzNet,
    chosen: Sequence[tuple[int, str, tuple[Word, ...]]],
    signals: Callable[[int], Tensor],
    budget: int = BUDGET,
) -> dict[int, Exhibit]:
    """The chosen utterances by their index.

    Args:
        model: in evaluation mode.
        chosen: (index, reference, words heard), the most interesting first.
        signals: index -> samples (samples,); where it raises OSError or ValueError, the exhibit tells why.
        budget: bytes of sound and pictures for all of them.
    """
    found, room = {}, budget
    for index, reference, heard in chosen:
        try:
            found[index] = exhibit(model, signals(index), reference, heard, room)
        except (OSError, ValueError) as error:
            found[index] = Exhibit(0.0, problem=str(error))
        room -= len(found[index].audio) + len(found[index].spectrogram)
    return found
