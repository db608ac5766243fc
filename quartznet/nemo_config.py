"""NeMo's configuration <-> ``ModelConfig``, for every generation of NeMo, and the rule of the front end.

Four layouts hold the same numbers: 0.8 to 0.10 (``JasperEncoder: jasper: [...]`` at the top), 0.11 (``init_params:
encoder_params: init_params``), 1.0 beta (``encoder: {cls, params: {...}}``) and 1.x (``encoder: {_target_, ...}``).
``read_settings`` brings them to the last. What our network does not do is an error here, never a silent change.

The surprise: no configuration says how many frames a signal has. That depends on the NeMo that trained the model, which
``front_end_rule`` takes from ``nemo_version`` (see ``quartznet/features.py`` for the three rules).
"""

import math
import re
from dataclasses import dataclass
from string import ascii_lowercase

import torch
from torch import Tensor

from quartznet.config import BlockConfig, FeatureConfig, ModelConfig

ENGLISH_LABELS = (" ", *ascii_lowercase, "'")  # every English QuartzNet of NVIDIA
VERSION_OF_RULE = {
    "0.x": "1.0.0rc1",
    "1.x": "1.23.0",
    "2.5": "2.5.3",
}  # what save_nemo writes, read back as the same rule


@dataclass(frozen=True)
class Sections:
    """The parts of a configuration that matter, in the layout of 1.x; an empty dictionary where one is missing."""

    version: str | None
    encoder: dict
    decoder: dict
    preprocessor: dict
    labels: list | None


# ---------------------------------------------------------------------------------------------------------------------
# Layouts


def _flat(section: object) -> dict:
    """``{cls, params: {...}}`` and ``{header, init_params: {...}}`` as one flat dictionary with ``_target_``."""
    if not isinstance(section, dict):
        return {}
    for inner in ("params", "init_params"):
        if isinstance(section.get(inner), dict):
            return {"_target_": section.get("cls"), **section[inner]}
    return section


def read_settings(settings: dict) -> Sections:
    """Finds the sections of any of the four layouts.

    Raises:
        ValueError: for a model that does not put out characters.
    """
    if isinstance(settings.get("model"), dict):
        settings = {**settings, **settings["model"]}
    inner = settings.get("init_params") if isinstance(settings.get("init_params"), dict) else settings
    if settings.get("tokenizer") or inner.get("tokenizer"):
        raise ValueError("the model puts out word pieces (it has a tokenizer); only character models are read")
    names = {
        "encoder": ("encoder", "encoder_params", "JasperEncoder"),
        "decoder": ("decoder", "decoder_params", "JasperDecoderForCTC"),
        "preprocessor": (
            "preprocessor", "preprocessor_params", "AudioToMelSpectrogramPreprocessor", "AudioPreprocessing"
        ),
    }  # fmt: skip
    found = {part: _flat(next((inner[key] for key in keys if key in inner), {})) for part, keys in names.items()}
    if found["preprocessor"] and "sample_rate" not in found["preprocessor"] and "sample_rate" in settings:
        found["preprocessor"] = {**found["preprocessor"], "sample_rate": settings["sample_rate"]}
    _check_targets(found)
    labels = found["decoder"].get("vocabulary")
    if not isinstance(labels, list):
        labels = settings.get("labels")
    version = settings.get("nemo_version")
    return Sections(str(version) if version else None, **found, labels=labels if isinstance(labels, list) else None)


def _check_targets(found: dict[str, dict]) -> None:
    """Classes of NeMo whose settings look alike and mean something else (classifiers, MFCC) are errors."""
    classes = {
        "encoder": "ConvASREncoder",
        "decoder": "ConvASRDecoder",
        "preprocessor": "AudioToMelSpectrogramPreprocessor",
    }
    for part, name in classes.items():
        target = str(found[part].get("_target_") or name)
        if target.rsplit(".", 1)[-1] != name:
            raise ValueError(f"the {part} is a {target}; only {name} is read")


def read_labels(labels: list | tuple) -> tuple[str, ...]:
    """The alphabet; YAML reads the label ``1`` as a number, which becomes text again.

    Raises:
        ValueError: for a label that is no text.
    """
    for label in labels:
        if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
            raise ValueError(f"the label {label!r} of the configuration is not a character; put it in quotes")
    return tuple(str(label) for label in labels)


def _number(table: dict, key: str, default: float | None, where: str) -> float:
    value = table.get(key, default)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError(f"{where}.{key} must be a number, got {value!r}")
    return number


def _whole(table: dict, key: str, default: int | None, where: str) -> int:
    number = _number(table, key, default, where)
    if number != int(number) or abs(number) > 10**6:
        raise ValueError(f"{where}.{key} must be a whole number up to a million, got {number}")
    return int(number)


def _require(table: dict, expected: dict[str, tuple], where: str) -> None:
    """Every key of ``expected`` is absent or has one of its values.

    Raises:
        ValueError: naming the key, its value, and what is possible.
    """
    for key, values in expected.items():
        value = table.get(key, values[0])
        if not any(value == item and isinstance(value, bool) == isinstance(item, bool) for item in values):
            shown = " or ".join(repr(item) for item in values)
            raise ValueError(f"{where}.{key} is {value!r}, which QuartzNet here does not do; it can be {shown}")


# ---------------------------------------------------------------------------------------------------------------------
# Blocks


def _block(table: object, where: str, early: bool) -> BlockConfig:
    if not isinstance(table, dict):
        raise ValueError(f"{where} must be a table, got {table!r}")
    possible = {
        "residual_dense": (False, None),
        "residual_mode": ("add", None),
        "se": (False, None),
        "heads": (-1, None),
        "quantize": (False, None),
    }
    _require(table, possible, where)
    if _whole(table, "future_context", -1, where) >= 0:
        raise ValueError(f"{where}.future_context makes a causal network, which QuartzNet here does not do")
    stride, repeat = _whole(table, "stride", 1, where), _whole(table, "repeat", None, where)
    if table.get("stride_last") and stride > 1 and repeat > 1:
        raise ValueError(f"{where}.stride_last with repeat {repeat} is not something QuartzNet here does")
    factor = _number(table, "kernel_size_factor", 1.0, where)
    kernel_size = max(int(_whole(table, "kernel", None, where) * factor), 1)
    kernel_size += kernel_size % 2 == 0  # NeMo makes an even kernel odd, also without a factor
    if early and _whole(table, "dilation", 1, where) > 3:
        raise ValueError(f"{where}.dilation above 3 was padded otherwise before NeMo 1.0, which is not done here")
    try:
        return BlockConfig(
            filters=_whole(table, "filters", None, where),
            kernel_size=kernel_size,
            repeat=repeat,
            stride=stride,
            dilation=_whole(table, "dilation", 1, where),
            dropout=_number(table, "dropout", 0.0, where),
            residual=bool(table.get("residual", True)),
            separable=bool(table.get("separable", False)),
            groups=_whole(table, "groups", 1, where),
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def read_blocks(encoder: dict, early: bool = False) -> tuple[BlockConfig, ...]:
    """The table of blocks; ``early``: of NeMo before 1.0.

    Raises:
        ValueError: for anything that our blocks do not do, naming the entry.
    """
    possible = {
        "activation": ("relu",),
        "normalization_mode": ("batch", None),
        "residual_mode": ("add", None),
        "frame_splicing": (1, None),
        "quantize": (False, None),
    }
    _require(encoder, possible, "encoder")
    jasper = encoder.get("jasper")
    if not isinstance(jasper, list) or not jasper:
        raise ValueError("encoder.jasper must be a list of blocks; this is no QuartzNet")
    return tuple(_block(table, f"encoder.jasper[{index}]", early) for index, table in enumerate(jasper))


# ---------------------------------------------------------------------------------------------------------------------
# Front end


def front_end_rule(version: str | None, era: str) -> tuple[str, str]:
    """``0.x``, ``1.x`` or ``2.5``, and the reason in one line.

    Raises:
        ValueError: for a version that is no version.
    """
    if version is None:
        reasons = {
            "0.10": "a file of NeMo 0.8 to 0.10",
            "0.11": "a file of NeMo 0.11",
            "weights": "no version in the file; the published English models have this rule",
        }
        return "0.x", reasons.get(era, "no nemo_version, which NeMo writes since 1.0.0")
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?(.*)", version)
    if not match:
        raise ValueError(f"nemo_version {version!r} is not a version such as 1.23.0")
    major_minor = (int(match.group(1)), int(match.group(2)))
    early = major_minor == (1, 0) and match.group(3) in ("0", None) and re.match(r"\.?(a|b|rc)", match.group(4))
    if major_minor < (1, 0) or early:
        return "0.x", f"nemo_version {version}: up to 1.0.0rc1"
    if major_minor < (2, 5):
        return "1.x", f"nemo_version {version}: 1.0.0 to 2.4"
    return "2.5", f"nemo_version {version}: since 2.5"


def _is_periodic(sections: Sections, era: str, weights: dict[str, Tensor], size: int) -> tuple[bool, str]:
    window = weights.get("preprocessor.featurizer.window")
    if window is not None and window.numel() == size:
        for periodic, name in ((False, "symmetric"), (True, "periodic")):
            if torch.allclose(window.float().flatten(), torch.hann_window(size, periodic=periodic), atol=1e-4):
                return periodic, f"{name} Hann window, the one in the weights"
        return False, "the window in the weights is no Hann window; it is used as it is"
    if not sections.preprocessor:
        if era in ("0.10", "0.11"):
            return True, "periodic Hann window, as in every configuration of NeMo 0.10 and 0.11"
        return False, "symmetric Hann window assumed"
    match = re.match(r"(\d+)\.(\d+)", sections.version or "0.0")
    if sections.preprocessor.get("stft_conv") and match and (int(match[1]), int(match[2])) < (1, 10):
        return True, "periodic Hann window, since stft_conv is true"
    return False, "symmetric Hann window"


def read_features(sections: Sections, era: str, weights: dict[str, Tensor]) -> tuple[FeatureConfig, str, list[str]]:
    """The front end, the reason for its rule, and notes; ``weights`` under canonical names may carry the window.

    Raises:
        ValueError: for a front end that ours cannot equal.
    """
    rule, reason = front_end_rule(sections.version, era)
    table, where = sections.preprocessor or _table_from_shapes(weights), "preprocessor"
    possible = {
        "window": ("hann",),
        "log": (True,),
        "mag_power": (2.0,),
        "log_zero_guard_type": ("add",),
        "log_zero_guard_value": (2.0**-24, 5.96e-08),
        "exact_pad": (False, None),
        "use_torchaudio": (False, None),
        "mel_norm": ("slaney",),
        "feat_type": ("logfbank",),
        "pad_value": (0, None),
        "frame_splicing": (1, None),
    }
    _require(table, possible, where)
    normalize = table.get("normalize", "per_feature") or "none"
    if normalize not in ("per_feature", "all_features", "none"):
        raise ValueError(f"preprocessor.normalize is {normalize!r}; per_feature, all_features and none are possible")
    rate = _whole(table, "sample_rate", 16000, where)
    size = _samples(table, "window_size", 0.02, rate)
    high = None if table.get("highfreq") is None else _number(table, "highfreq", None, where)
    periodic, window_note = _is_periodic(sections, era, weights, size)
    features = FeatureConfig(
        sample_rate=rate,
        window_size=size,
        hop=_samples(table, "window_stride", 0.01, rate),
        fft_size=_whole(table, "n_fft", None, where) if table.get("n_fft") else 1 << (size - 1).bit_length(),
        mels=_whole(table, "features", 64, where),
        low_hertz=_number(table, "lowfreq", 0.0, where),
        high_hertz=None if high is not None and high * 2 == rate else high,
        preemphasis=_number(table, "preemph", 0.97, where),
        dither=_number(table, "dither", 1e-5, where),
        pad_to=_whole(table, "pad_to", 16, where),
        normalize=normalize,
        rule=rule,
        periodic_window=periodic,
    )
    notes = [] if sections.preprocessor else ["no front end in the file; took the usual settings"]
    return features, f"{reason}; {window_note}", notes


def _table_from_shapes(weights: dict[str, Tensor]) -> dict:
    """What the shapes of canonical weights say about a front end whose configuration is lost."""
    table: dict[str, object] = {}
    first, bank = weights.get("encoder.encoder.0.mconv.0.conv.weight"), weights.get("preprocessor.featurizer.fb")
    if first is not None and first.dim() == 3:
        table["features"] = first.shape[0] if first.shape[1] == 1 else first.shape[1]
    if bank is not None and bank.dim() == 3:
        table["n_fft"] = 2 * (bank.shape[2] - 1)
    return table


def _samples(table: dict, key: str, default: float, rate: int) -> int:
    """Seconds under ``window_size``, or samples under ``n_window_size``; given both, NeMo stops as well."""
    if table.get(f"n_{key}") and not table.get(key):
        return _whole(table, f"n_{key}", None, "preprocessor")
    return int(_number(table, key, default, "preprocessor") * rate)


# ---------------------------------------------------------------------------------------------------------------------
# To NeMo


def _seconds(samples: int, rate: int, key: str) -> dict:
    """NeMo computes ``int(seconds * rate)``; where that would round down to another number, samples are given."""
    if int(samples / rate * rate) == samples:
        return {key: samples / rate}
    return {key: None, f"n_{key}": samples}


def jasper_layer(block: BlockConfig) -> dict:
    """A block as NeMo's configuration files have it."""
    table = {
        "filters": block.filters,
        "repeat": block.repeat,
        "kernel": [block.kernel_size],
        "stride": [block.stride],
        "dilation": [block.dilation],
        "dropout": block.dropout,
        "residual": block.residual,
        "separable": block.separable,
    }
    return table | ({"groups": block.groups} if block.groups > 1 else {})


def write_settings(config: ModelConfig) -> dict:
    """The configuration that NeMo 1.0 to 2.5 restores strictly, and that reads back as ``config``."""
    features, labels, modules = config.features, list(config.labels), "nemo.collections.asr.modules"
    jasper = [jasper_layer(block) for block in config.blocks]
    return {
        "target": "nemo.collections.asr.models.ctc_models.EncDecCTCModel",
        "nemo_version": VERSION_OF_RULE[features.rule],
        "sample_rate": features.sample_rate,
        "labels": labels,
        "preprocessor": {
            "_target_": f"{modules}.AudioToMelSpectrogramPreprocessor",
            "sample_rate": features.sample_rate,
            **_seconds(features.window_size, features.sample_rate, "window_size"),
            **_seconds(features.hop, features.sample_rate, "window_stride"),
            "window": "hann",
            "n_fft": features.fft_size,
            "features": features.mels,
            "lowfreq": features.low_hertz,
            "highfreq": features.high_hertz,
            "preemph": features.preemphasis,
            "normalize": features.normalize,
            "dither": features.dither,
            "pad_to": features.pad_to,
            "frame_splicing": 1,
        },
        "encoder": {
            "_target_": f"{modules}.ConvASREncoder",
            "feat_in": features.mels,
            "activation": "relu",
            "conv_mask": config.masked,
            "jasper": jasper,
        },
        "decoder": {
            "_target_": f"{modules}.ConvASRDecoder",
            "feat_in": config.blocks[-1].filters,
            "num_classes": len(labels),
            "vocabulary": labels,
        },
    }
