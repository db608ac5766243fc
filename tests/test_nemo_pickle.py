"""Hostile and damaged pickles: nothing runs, and nothing but a ValueError comes back."""

import builtins
import io
import os
import typing
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from quartznet import nemo_pickle
from quartznet.nemo_archive import open_package
from quartznet.nemo_pickle import Inert, plain, plain_settings, read_pickle, tensors_of


def saved(content: object, legacy: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


class Touch:
    """A pickle that would make a file where it is unpickled."""

    def __init__(self, function: object, *arguments: object):
        self.reduced = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.reduced


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("command", ["system", "eval"])
def test_hostile_pickles_do_not_run(tmp_path: Path, legacy: bool, command: str) -> None:
    trap = tmp_path / "trap"
    bomb = Touch(os.mkdir, str(trap)) if command == "system" else Touch(builtins.eval, f"open({str(trap)!r}, 'w')")
    (tmp_path / "m.pt").write_bytes(saved({"weight": torch.zeros(1), "x": bomb}, legacy))
    with pytest.raises(ValueError, match=r"m\.pt (names the code|holds more than weights and is refused)"):
        open_package(tmp_path / "m.pt")
    assert not trap.exists()


def test_a_method_of_a_stub_cannot_be_reached(tmp_path: Path) -> None:
    bomb = Touch(builtins.getattr, dict, "fromkeys")
    (tmp_path / "m.ckpt").write_bytes(saved({"state_dict": {"w": torch.zeros(1)}, "x": bomb}))
    with pytest.raises(ValueError, match=r"names the code (builtins\.)?getattr"):
        open_package(tmp_path / "m.ckpt")


def test_harmless_classes_come_back_inert() -> None:
    content = {"a": Path("x"), "b": typing.Any, "c": defaultdict(dict, {"k": {"l": 1}}), "d": int}
    found = read_pickle(io.BytesIO(saved(content)), "here")
    assert isinstance(found["a"], Inert) and found["b"] is Inert and found["d"] is Inert
    assert found["c"] == {"k": {"l": 1}}


def test_settings_in_inert_objects() -> None:
    node, holder, loop = Inert(), Inert(), Inert()
    node.__setstate__({"_val": 3})
    holder.__setstate__({"_content": {"list": [node, node], "text": "x"}, "_parent": holder})
    loop.__setstate__({"_content": [loop]})
    assert plain({"a": holder, "b": (1,)}) == {"a": {"list": [3, 3], "text": "x"}, "b": [1]}
    with pytest.raises(ValueError, match="more than 64 deep"):
        plain(loop)


def test_settings_that_repeat_themselves() -> None:
    laugh: list = ["ha"] * 10
    for _ in range(9):
        laugh = [laugh] * 10
    with pytest.raises(ValueError, match="here stands for more than 200,000 values"):
        plain_settings({"labels": laugh}, "here")
    assert plain_settings({"a": [1, 1]}, "here") == {"a": [1, 1]}


def test_views_that_repeat_one_number() -> None:
    with pytest.raises(ValueError, match="here unfolds to more than 1 GiB of numbers"):
        tensors_of({"w": torch.zeros(1).expand(10**5, 10**5)}, "here")
    one = torch.zeros(10**6)
    with pytest.raises(ValueError, match="unfolds to more than 1 GiB"):
        tensors_of({str(number): one for number in range(300)}, "here")


def test_flipped_bytes_never_give_anything_but_value_errors(tmp_path: Path) -> None:
    whole = saved({"w": torch.zeros(3), "v": torch.ones(2)})
    generator = torch.Generator().manual_seed(0)
    for legacy in (False, True):
        whole = saved({"w": torch.zeros(3), "v": torch.ones(2)}, legacy)
        for _ in range(60):
            broken = bytearray(whole)
            broken[int(torch.randint(len(whole), (), generator=generator))] ^= 0x55
            try:
                tensors_of(read_pickle(io.BytesIO(bytes(broken)), "here"), "here")
            except ValueError as error:
                assert "here" in str(error)


def test_content_without_tensors() -> None:
    with pytest.raises(ValueError, match="holds a list, not a dictionary of tensors"):
        tensors_of([1], "here")
    with pytest.raises(ValueError, match="holds no tensors under its keys epoch"):
        tensors_of({"epoch": 3}, "here")


def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nemo_pickle, "BYTES_LIMIT", 4096)
    with pytest.raises(ValueError, match="more than 1 GiB"):
        read_pickle(io.BytesIO(saved({"w": torch.zeros(2000)})), "here")
