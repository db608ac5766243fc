"""Files in Hugging Face's layout: there and back, and what is wrong with them."""

from pathlib import Path

import pytest
import torch

from postcorrect.folder import PICKLE, SAFETENSORS, read_json, read_weights, write_json, write_weights


def test_tables_come_back(tmp_path: Path) -> None:
    table = {"name": "señor", "sizes": [1, 2]}
    write_json(tmp_path / "a.json", table)
    assert read_json(tmp_path / "a.json") == table and "señor" in (tmp_path / "a.json").read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[1]", "must hold a JSON table, got"),
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000, "not valid"),
    ],
)
def test_broken_tables_are_named(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(ValueError, match=message):
        read_json(tmp_path / "config.json")


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no config\.json in"):
        read_json(tmp_path / "config.json")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_both_formats_hold_the_same(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = {"a": torch.randn(3, 2).to(dtype), "b": torch.randn(2, 3).T.to(dtype)}
    write_weights(tmp_path, weights)
    first = read_weights(tmp_path)
    (tmp_path / SAFETENSORS).unlink()
    torch.save(weights, tmp_path / PICKLE)
    second = read_weights(tmp_path)
    for name, value in weights.items():
        assert torch.equal(first[name], value) and torch.equal(second[name], value) and first[name].dtype == dtype


def test_safetensors_are_preferred(tmp_path: Path) -> None:
    write_weights(tmp_path, {"a": torch.ones(1)})
    (tmp_path / PICKLE).write_bytes(b"damaged")
    assert read_weights(tmp_path)["a"] == 1


@pytest.mark.parametrize("name", [SAFETENSORS, PICKLE])
def test_damaged_weights_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=f"{name} cannot be read, it may be damaged"):
        read_weights(tmp_path)


class Harmless:
    """Stands for anything that a pickle could make."""


def test_a_pickle_cannot_bring_code(tmp_path: Path) -> None:
    torch.save({"a": Harmless()}, tmp_path / PICKLE)
    with pytest.raises(ValueError, match="cannot be read"):
        read_weights(tmp_path)


def test_other_things_than_tensors_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(1)}}, tmp_path / PICKLE)
    with pytest.raises(ValueError, match="must hold names and tensors only"):
        read_weights(tmp_path)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no model\.safetensors and no pytorch_model\.bin in"):
        read_weights(tmp_path)
    (tmp_path / f"{SAFETENSORS}.index.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="are in several parts; join them"):
        read_weights(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(weights: dict, path: Path, metadata: dict) -> None:
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    write_weights(tmp_path, {"a": torch.ones(1)})
    monkeypatch.setattr("postcorrect.folder.save_file", half)
    with pytest.raises(OSError, match="No space left"):
        write_weights(tmp_path, {"a": torch.zeros(1)})
    assert read_weights(tmp_path)["a"] == 1
    assert [path.name for path in tmp_path.iterdir()] == [SAFETENSORS]
