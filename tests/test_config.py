"""Settings: round trips, errors that name the full path, presets, overrides."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from quartznet.config import (
    AugmentSettings,
    BlockConfig,
    DataSettings,
    FeatureConfig,
    ModelConfig,
    OptimSettings,
    ScheduleSettings,
    TrainSettings,
    preset_blocks,
)
from quartznet.settings import from_dict, load_yaml, override, save_yaml, to_dict
from quartznet.tune_config import KeepSettings, TuneSettings

BLOCK = BlockConfig(8, 3)


def parameters_of(blocks: tuple[BlockConfig, ...], mels: int = 64, outputs: int = 29) -> int:
    """Weights and batch norms (2 each) counted from the block list alone."""
    count, channels = 0, mels
    for block in blocks:
        if block.residual:
            count += channels * block.filters + 2 * block.filters
        for _ in range(block.repeat):
            if block.separable:
                count += channels * block.kernel_size + channels * block.filters // block.groups
            else:
                count += channels * block.kernel_size * block.filters
            count += 2 * block.filters
            channels = block.filters
    return count + channels * outputs + outputs


# ---------------------------------------------------------------------------------------------------------------------
# Round trips


def test_one_setting_of_a_table_leaves_the_defaults_of_the_dataclass_around_it() -> None:
    """Two levels deep: the outermost dataclass that has a default decides."""

    @dataclass(frozen=True)
    class Middle:
        optim: OptimSettings = field(default_factory=lambda: OptimSettings(name="adamw", lr=0.5))

    @dataclass(frozen=True)
    class Outer:
        middle: Middle = field(default_factory=lambda: Middle(OptimSettings(name="adamw", lr=0.25, grad_clip=3.0)))

    assert from_dict(Middle, {"optim": {"eps": 0.1}}).optim == OptimSettings(name="adamw", lr=0.5, eps=0.1)
    wanted = OptimSettings(name="adamw", lr=0.25, grad_clip=3.0, eps=0.1)
    assert from_dict(Outer, {"middle": {"optim": {"eps": 0.1}}}).middle.optim == wanted
    assert from_dict(Outer, {}, base=Outer(Middle())).middle.optim.lr == 0.5
    with pytest.raises(ValueError, match=r"middle\.optim: optim\.name must be"):
        from_dict(Outer, {"middle": {"optim": {"name": "x"}}})


def test_model_config_round_trip() -> None:
    config = ModelConfig((" ", "a", "ñ"), preset_blocks("15x5"), FeatureConfig(rule="0.x", high_hertz=4000.0), False)
    assert from_dict(ModelConfig, to_dict(config)) == config


def test_train_settings_round_trip_through_yaml(tmp_path: Path) -> None:
    settings = TrainSettings(
        lang="es",
        steps=100,
        optim=OptimSettings(lr=1e-5, betas=(0.8, 0.5)),
        schedule=ScheduleSettings("square", warmup_steps=7),
        augment=AugmentSettings(speeds=()),
        data=DataSettings(train=("a.jsonl", "b ñ.jsonl")),
    )
    save_yaml(settings, tmp_path / "settings.yaml")
    assert from_dict(TrainSettings, load_yaml(tmp_path / "settings.yaml")) == settings
    assert list(load_yaml(tmp_path / "settings.yaml"))[:3] == ["lang", "init", "preset"]  # the order of the fields


def test_defaults_need_no_keys() -> None:
    assert from_dict(TrainSettings, {}) == TrainSettings()


# ---------------------------------------------------------------------------------------------------------------------
# Types


def test_numbers_that_yaml_reads_as_text() -> None:
    mapping = yaml.safe_load("optim: {lr: 1e-3}")
    assert mapping == {"optim": {"lr": "1e-3"}}  # the surprise
    assert from_dict(TrainSettings, mapping).optim.lr == 0.001


def test_command_line_text_becomes_the_type_of_the_field() -> None:
    mapping = {
        "epochs": "3",
        "sync_batchnorm": "True",
        "steps": "none",
        "optim": {"betas": "0.8, 0.5", "lr": 1},
        "data": {"train": "a.jsonl,b.jsonl"},
        "augment": {"speeds": ""},
    }
    settings = from_dict(TrainSettings, mapping)
    assert (settings.epochs, settings.sync_batchnorm, settings.steps) == (3, True, None)
    assert settings.optim.betas == (0.8, 0.5) and isinstance(settings.optim.lr, float)
    assert settings.data.train == ("a.jsonl", "b.jsonl") and settings.augment.speeds == ()


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"optm": {}}, r"unknown setting optm; TrainSettings has lang, init"),
        ({"optim": {"rate": 1}}, r"unknown setting optim\.rate; OptimSettings has name, lr"),
        ({"optim": {"lr": "fast"}}, r"optim\.lr must be a number, got 'fast'"),
        ({"optim": {"lr": True}}, r"optim\.lr must be a number, got True"),
        ({"optim": {"lr": float("nan")}}, r"optim\.lr must be a number, got nan"),
        ({"optim": {"lr": 10**400}}, r"optim\.lr must be a number, got 1000"),
        ({"epochs": 10**400}, "epochs must be a whole number, got 1000"),
        ({"epochs": 1.5}, r"epochs must be a whole number, got 1\.5"),
        ({"optim": {"betas": [0.9]}}, r"optim\.betas must have 2 values, got 1"),
        ({"optim": {"betas": [0.9, "x"]}}, r"optim\.betas\[1\] must be a number, got 'x'"),
        ({"augment": {"speeds": 1.0}}, r"augment\.speeds must be a list, got 1\.0"),
        ({"sync_batchnorm": "maybe"}, r"sync_batchnorm must be true or false, got 'maybe'"),
        ({"lang": 7}, r"lang must be text, got 7"),
        ({"optim": 3}, "optim must be a table of settings, got 3"),
    ],
)
def test_errors_name_the_full_path(mapping: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_dict(TrainSettings, mapping)


def test_a_value_that_repeats_itself_is_not_written_out() -> None:
    laugh: list = ["ha"] * 10
    for _ in range(30):
        laugh = [laugh] * 10  # 10^31 items in a few hundred bytes, as an alias of YAML or a pickle makes them
    for mapping in ({"optim": laugh}, {"lang": laugh}, {"sync_batchnorm": laugh}, {"optim": {"betas": laugh}}):
        with pytest.raises(ValueError, match="must"):
            from_dict(TrainSettings, mapping)


def test_errors_inside_a_list_of_blocks() -> None:
    mapping = {"labels": ["a"], "blocks": [to_dict(BLOCK), {**to_dict(BLOCK), "kernel_size": 4}]}
    with pytest.raises(ValueError, match=r"blocks\[1\]: kernel_size must be odd"):
        from_dict(ModelConfig, mapping)
    with pytest.raises(ValueError, match=r"blocks\[0\]: .*missing 1 required positional argument: 'kernel_size'"):
        from_dict(ModelConfig, {"labels": ["a"], "blocks": [{"filters": 8}]})


# ---------------------------------------------------------------------------------------------------------------------
# Impossible values


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (BlockConfig, {"filters": 0, "kernel_size": 3}, "filters must be at least 1, got 0"),
        (BlockConfig, {"filters": 8, "kernel_size": 32}, "kernel_size must be odd .* got 32"),
        (BlockConfig, {"filters": 8, "kernel_size": 3, "stride": 2, "dilation": 2}, "cannot be combined"),
        (BlockConfig, {"filters": 8, "kernel_size": 3, "dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        (BlockConfig, {"filters": 8, "kernel_size": 3, "stride": 2, "residual": True}, "must have stride 1"),
        (FeatureConfig, {"rule": "3"}, r"features\.rule must be 0\.x, 1\.x or 2\.5, got '3'"),
        (FeatureConfig, {"normalize": "no"}, r"features\.normalize must be"),
        (FeatureConfig, {"hop": 0}, r"features\.hop must be at least 1"),
        (FeatureConfig, {"window_size": 600}, "600 is longer than fft_size 512"),
        (FeatureConfig, {"hop": 513}, "hop 513 is longer than fft_size 512"),
        (FeatureConfig, {"fft_size": 513}, "fft_size must be even, got 513"),
        (FeatureConfig, {"dither": -1.0}, "dither not negative, got 16 and -1.0"),
        (FeatureConfig, {"pad_to": 1_000_000}, "pad_to must be 0 to 1024"),
        (FeatureConfig, {"mels": 258}, "mels at most 1024 and fft_size / 2"),
        (FeatureConfig, {"fft_size": 2**30, "mels": 64}, "fft_size can be at most 32768"),
        (FeatureConfig, {"low_hertz": 8000.0}, "need 0 <= low_hertz < high_hertz <= 8000 .* got 8000 and None"),
        (FeatureConfig, {"high_hertz": 9000.0}, "got 0 and 9000"),
        (ModelConfig, {"labels": ("a",), "blocks": ()}, "at least one block"),
        (ModelConfig, {"labels": ("a",), "blocks": (BlockConfig(10**9, 1),) * 2}, "no QuartzNet, which has 19 million"),
        (ModelConfig, {"labels": ("a",), "blocks": (BlockConfig(256, 1, 10**9),)}, "no QuartzNet"),
        (ModelConfig, {"labels": (), "blocks": (BLOCK,)}, "non-empty list"),
        (ModelConfig, {"labels": ("a", "a"), "blocks": (BLOCK,)}, r"repeated: \['a'\]"),
        (OptimSettings, {"name": "sgd"}, r"optim\.name must be novograd or adamw, got 'sgd'"),
        (OptimSettings, {"lr": 0.0}, "lr > 0"),
        (ScheduleSettings, {"name": "step"}, r"schedule\.name must be"),
        (ScheduleSettings, {"warmup_ratio": 1.0}, r"warmup_ratio must be in \[0, 1\)"),
        (AugmentSettings, {"speeds": (3.0,)}, r"speeds must lie between 0\.5 and 2"),
        (AugmentSettings, {"cutout_masks": -1}, "cannot be negative"),
        (DataSettings, {"max_batch": 0}, "max_batch >= 1"),
        (TrainSettings, {"precision": "fp8"}, "precision must be"),
        (TrainSettings, {"tune": TuneSettings("lora"), "keep": KeepSettings(l2sp=1)}, "hold weights that would move"),
        (TrainSettings, {"tune": TuneSettings("head"), "keep": KeepSettings(lwf=1)}, "with tune.train head those"),
        (TrainSettings, {"freeze_encoder": -1}, "counts epochs and cannot be negative, got -1"),
        (TrainSettings, {"ema": 1.0}, r"ema must be in \[0, 1\)"),
        (TrainSettings, {"log_every": 0}, "log_every must be at least 1"),
        (TrainSettings, {"save_every": 0.0}, "save_every above 0"),
        (TrainSettings, {"evaluate_steps": 0}, "evaluate_steps must be at least 1, got 0"),
        (TrainSettings, {"steps": 0}, "must be at least 1, got epochs 50, steps 0"),
    ],
)
def test_impossible_values(kind: type, values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**values)


# ---------------------------------------------------------------------------------------------------------------------
# Presets, files, overrides


@pytest.mark.parametrize(
    ("name", "blocks", "parameters"),
    [("15x5", 18, 18_924_381), ("10x5", 13, 12_818_781), ("5x5", 8, 6_713_181), ("5x3", 8, 6_407_005)],
)
def test_presets_have_the_published_sizes(name: str, blocks: int, parameters: int) -> None:
    assert len(preset_blocks(name)) == blocks
    assert parameters_of(preset_blocks(name)) == parameters


def test_every_preset_halves_the_frames_once() -> None:
    for name in ("15x5", "10x5", "5x5", "5x3", "tiny"):
        assert [block.stride for block in preset_blocks(name)].count(2) == 1


def test_unknown_preset() -> None:
    with pytest.raises(ValueError, match=r"no preset '20x5'; there are 15x5, 10x5, 5x5, 5x3, tiny"):
        preset_blocks("20x5")


def test_override_makes_the_tables_on_the_way() -> None:
    mapping: dict = {"optim": {"name": "adamw"}}
    override(mapping, "optim.weight-decay", "0.1")
    override(mapping, "augment.time_masks", "2")
    override(mapping, "lang", "it")
    assert mapping == {
        "optim": {"name": "adamw", "weight_decay": "0.1"},
        "augment": {"time_masks": "2"},
        "lang": "it",
    }
    settings = from_dict(TrainSettings, mapping)
    assert (settings.optim.weight_decay, settings.augment.time_masks) == (0.1, 2)


def test_yaml_errors_name_the_file_and_the_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("lang: es\noptim: {lr: [\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"broken\.yaml is not valid YAML: (?s:.*)line 3"):
        load_yaml(path)
    path.write_text("- a\n- b\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"broken\.yaml must hold 'key: value' lines, got list"):
        load_yaml(path)
