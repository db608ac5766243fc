"""Checkpoints: written whole or not at all, read without running code, refused with a reason."""

import math
import random
from pathlib import Path

import numpy
import pytest
import torch

from quartznet.checkpoint import (
    copy_checkpoint,
    find_checkpoint,
    is_checkpoint,
    load_checkpoint,
    model_from_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
)
from quartznet.config import BlockConfig, FeatureConfig, ModelConfig
from quartznet.model import QuartzNet
from quartznet.settings import to_dict


def tiny_model() -> QuartzNet:
    return QuartzNet(ModelConfig((" ", "a"), (BlockConfig(8, 3, stride=2), BlockConfig(8, 3)), FeatureConfig(mels=8)))


def test_a_model_comes_back_from_its_checkpoint(tmp_path: Path) -> None:
    model = tiny_model().eval()
    path = tmp_path / "deep" / "model.pt"
    save_checkpoint(path, {"model_config": to_dict(model.config), "weights": model.state_dict(), "lang": "es"})
    assert is_checkpoint(path) and load_checkpoint(path)["lang"] == "es"
    twin = model_from_checkpoint(path)
    assert twin.config == model.config and not twin.training
    signal, lengths = torch.randn(1, 4000), torch.tensor([4000])
    assert torch.equal(twin(signal, lengths)[0], model(signal, lengths)[0])


def test_a_failing_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"lang": "es"})
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(path, {"lang": lambda: None})
    assert load_checkpoint(path)["lang"] == "es"
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_a_copy_survives_its_source(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", {"lang": "es"})
    copy_checkpoint(tmp_path / "a.pt", tmp_path / "b.pt")
    copy_checkpoint(tmp_path / "a.pt", tmp_path / "b.pt")
    (tmp_path / "a.pt").unlink()
    assert load_checkpoint(tmp_path / "b.pt")["lang"] == "es"


def test_a_run_folder_means_its_best_and_else_its_last(tmp_path: Path) -> None:
    assert not is_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no best\.pt and no last\.pt"):
        find_checkpoint(tmp_path)
    save_checkpoint(tmp_path / "last.pt", {"lang": "last"})
    assert is_checkpoint(tmp_path) and load_checkpoint(tmp_path)["lang"] == "last"
    save_checkpoint(tmp_path / "best.pt", {"lang": "best"})
    assert load_checkpoint(tmp_path)["lang"] == "best"


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_checkpoint(tmp_path / "absent.pt")
    damaged, foreign, later = (tmp_path / name for name in ("damaged.pt", "foreign.pt", "later.pt"))
    save_checkpoint(damaged, {"weights": torch.zeros(1000)})
    damaged.write_bytes(damaged.read_bytes()[:2000])
    torch.save({"weights": torch.zeros(1)}, foreign)
    torch.save({"format": "quartznet-9"}, later)
    with pytest.raises(ValueError, match="may be damaged"):
        load_checkpoint(damaged)
    with pytest.raises(ValueError, match=r"not a quartznet-1 checkpoint .* quartznet\.load_model"):
        load_checkpoint(foreign)
    with pytest.raises(ValueError, match="update this program"):
        load_checkpoint(later)
    assert [is_checkpoint(path) for path in (damaged, foreign, later, tmp_path / "absent.pt")] == [
        False,
        False,
        True,
        False,
    ]


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"format": "quartznet-1", "model_config": Path("x")}, tmp_path / "code.pt")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "code.pt")
    assert not is_checkpoint(tmp_path / "code.pt")


def test_flipped_bytes_give_value_errors_and_nothing_else(tmp_path: Path) -> None:
    model = tiny_model()
    save_checkpoint(tmp_path / "a.pt", {"model_config": to_dict(model.config), "weights": model.state_dict()})
    whole, draw = (tmp_path / "a.pt").read_bytes(), random.Random(0)
    for _ in range(80):
        broken = bytearray(whole)
        for _ in range(draw.choice([1, 3, 20])):
            broken[draw.randrange(len(whole))] = draw.randrange(256)
        (tmp_path / "b.pt").write_bytes(broken)
        is_checkpoint(tmp_path / "b.pt")
        try:
            model_from_checkpoint(tmp_path / "b.pt")
        except ValueError as error:
            assert "b.pt" in str(error) or "model_config" in str(error)


def test_weights_must_fit_the_configuration(tmp_path: Path) -> None:
    model = tiny_model()
    save_checkpoint(tmp_path / "a.pt", {"model_config": to_dict(model.config), "weights": {}})
    with pytest.raises(ValueError, match=r"(?s)contradict each other.*Missing"):
        model_from_checkpoint(tmp_path / "a.pt")
    save_checkpoint(tmp_path / "b.pt", {"lang": "es"})
    save_checkpoint(tmp_path / "c.pt", {"kind": "corrector", "weights": {}})
    with pytest.raises(ValueError, match=r"c\.pt holds a network of kind 'corrector' and no recogniser"):
        model_from_checkpoint(tmp_path / "c.pt")
    with pytest.raises(ValueError, match="no model_config and no weights"):
        model_from_checkpoint(tmp_path / "b.pt")


def test_random_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    def draw() -> list[float]:
        legacy = numpy.random.standard_normal()
        return [
            random.random(),
            random.gauss(0, 1),
            legacy,
            float(torch.rand(())),
            float(torch.rand((), generator=own)),
        ]

    own = torch.Generator().manual_seed(5)
    draw()
    save_checkpoint(tmp_path / "state.pt", random_state(own))  # plain enough for weights_only
    expected = draw()
    restore_random_state(load_checkpoint(tmp_path / "state.pt"), own)
    assert draw() == expected


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_says_so_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"weights": 1})
    (tmp_path / "last.pt.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"last\.pt cannot be written \(No space left on device\); what was saved before"):
        save_checkpoint(path, {"weights": torch.zeros(1000)})
    assert load_checkpoint(path)["weights"] == 1


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.decoder.bias[0] = math.nan
    save_checkpoint(tmp_path / "m.pt", {"model_config": to_dict(model.config), "weights": model.state_dict()})
    with pytest.raises(ValueError, match=r"m\.pt: decoder\.bias is not finite"):
        model_from_checkpoint(tmp_path / "m.pt")


@pytest.mark.parametrize("key", ["lang", "init", "base_sha256"])
def test_what_a_file_says_of_itself_is_text(tmp_path: Path, key: str) -> None:
    save_checkpoint(tmp_path / "a.pt", {key: 5})
    with pytest.raises(ValueError, match=f"{key} must be text, got 5; the file is broken"):
        load_checkpoint(tmp_path / "a.pt")


def test_weights_that_repeat_one_number_are_refused(tmp_path: Path) -> None:
    """A file of a kilobyte can name a tensor of any size whose strides are 0."""
    save_checkpoint(tmp_path / "c.pt", {"weights": {"a": torch.zeros(1).expand(1000, 1000)}})
    with pytest.raises(ValueError, match="a says it is larger than what is stored of it"):
        load_checkpoint(tmp_path / "c.pt")
