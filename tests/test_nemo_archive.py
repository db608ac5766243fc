"""Damaged and hostile archives and folders: nothing leaves the archive, nothing fills the memory."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from quartznet import nemo_archive
from quartznet.nemo_archive import open_package, parse_yaml, read_archive


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def archive_of(path: Path, members: list[tarfile.TarInfo], content: bytes = b"") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> tarfile.TarInfo:
    item = tarfile.TarInfo(name)
    item.type, item.size, item.linkname = kind, size, "elsewhere" if kind != tarfile.REGTYPE else ""
    return item


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 and nothing", b"\x80\x02.", b"hello", b"\x1f\x8b junk", b"\0" * 600]
)
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.nemo").write_bytes(content)
    with pytest.raises(ValueError, match=r"m\.nemo (is damaged|holds)"):
        open_package(tmp_path / "m.nemo")


def test_a_cut_archive_is_an_error_at_every_length(tmp_path: Path) -> None:
    config = b"labels: [a]"
    with tarfile.open(tmp_path / "m.nemo", "w:gz") as archive:
        for name, content in (("model_config.yaml", config), ("model_weights.ckpt", saved({"w": torch.rand(99)}))):
            archive.addfile(member(name, size=len(content)), io.BytesIO(content))
    whole = (tmp_path / "m.nemo").read_bytes()
    assert open_package(tmp_path / "m.nemo").settings == {"labels": ["a"]}
    for length in range(0, len(whole) - 60, 37):
        (tmp_path / "cut.nemo").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.nemo"):
            open_package(tmp_path / "cut.nemo")


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../b", "C:\\x", "..\\up"])
def test_members_that_leave_the_archive(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="points outside the archive"):
        read_archive(archive_of(tmp_path / "m.nemo", [member(name)]))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(ValueError, match="a link or device"):
        read_archive(archive_of(tmp_path / "m.nemo", [member("model_weights.ckpt", kind)]))


def test_doubled_and_foreign_members(tmp_path: Path) -> None:
    twice = [member("model_config.yaml"), member("./model_config.yaml")]
    with pytest.raises(ValueError, match=r"holds model_config\.yaml twice"):
        read_archive(archive_of(tmp_path / "a.nemo", twice))
    with pytest.raises(ValueError, match=r"has neither model_config\.yaml .*; it has file readme"):
        open_package(archive_of(tmp_path / "b.nemo", [member("readme")]))


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nemo_archive, "BYTES_LIMIT", 4096)
    path = archive_of(tmp_path / "m.nemo", [member("readme", size=5000)], bytes(5000))
    with pytest.raises(ValueError, match="more than 4 GiB"):
        read_archive(path)
    long = member("x" * 9000)  # a name that tarfile itself would read into memory
    with pytest.raises(ValueError, match="more than 4 GiB"):
        read_archive(archive_of(tmp_path / "n.nemo", [long]))


def test_a_zip_that_is_no_checkpoint(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(ValueError, match="is damaged or no checkpoint"):
        open_package(tmp_path / "m.pt")


def test_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_yaml("a: [ñ]".encode(), "here") == {"a": ["ñ"]}
    for text in (b"a: [", b"\xff\xfe\xff", b"a: !!python/object/apply:os.getcwd []", b"[" * 5000):
        with pytest.raises(ValueError, match="here is not valid YAML"):
            parse_yaml(text, "here")
    with pytest.raises(ValueError, match="must hold 'key: value' lines, got list"):
        parse_yaml(b"- a", "here")
    monkeypatch.setattr(nemo_archive, "YAML_LIMIT", 3)
    with pytest.raises(ValueError, match="a configuration has at most 16"):
        parse_yaml(b"a: 1", "here")


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no JasperEncoder\*\.pt beside"):
        open_package(tmp_path)
    torch.save({"encoder.0.mconv.0.weight": torch.zeros(1)}, tmp_path / "JasperEncoder.pt")
    (tmp_path / "broken.yaml").write_text("a: [")
    assert "left out" in open_package(tmp_path).notes[0]
    for name in ("a.yaml", "b.yml"):
        (tmp_path / name).write_text("JasperEncoder: {}\n")
    with pytest.raises(ValueError, match=r"several configurations: a\.yaml, b\.yml"):
        open_package(tmp_path)
