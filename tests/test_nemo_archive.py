"""Damaged and hostile archives and folders: nothing leaves the archive, nothing fills the memory."""

import gzip
import io
import os
import tarfile
import zipfile
from itertools import pairwise
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


def test_a_flipped_byte_of_a_weight_is_noticed(tmp_path: Path) -> None:
    content = saved({"w": torch.rand(9999)})
    path = archive_of(tmp_path / "m.nemo", [member("model_weights.ckpt", size=len(content))], content)
    read_archive(path)
    whole = bytearray(gzip.decompress(path.read_bytes()))
    whole[len(whole) // 2] ^= 1
    other = gzip.compress(bytes(whole))  # the checksum of the one, the content of the other
    path.write_bytes(other[:-8] + path.read_bytes()[-8:])
    with pytest.raises(ValueError, match=r"m\.nemo is damaged .*: CRC check failed"):
        read_archive(path)


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
    with pytest.raises(ValueError, match="more than 1 GiB"):
        read_archive(path)
    long = member("x" * 9000)  # a name that tarfile itself would read into memory
    with pytest.raises(ValueError, match="more than 1 GiB"):
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
    with pytest.raises(ValueError, match="a configuration has at most 1"):
        parse_yaml(b"a: 1", "here")


LAUGH = "a: &a [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in pairwise("abcdefgh")
)
MERGE = LAUGH.replace("[ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]", "{x: 1}").replace("[", "{<<: [").replace("]", "]}")


@pytest.mark.parametrize("text", [LAUGH, MERGE, "a: &a [*a]\n", "a: &a {b: *a}\n"])
def test_aliases_that_unfold_without_end(text: str) -> None:
    with pytest.raises(ValueError, match="stands for more than 200,000 values, or holds itself"):
        parse_yaml(text.encode(), "here")


def test_aliases_that_people_write() -> None:
    text = b"d: &d 0.2\nb: &b {drop: *d}\nblocks: [*b, *b, {<<: *b, repeat: 3}]"
    assert parse_yaml(text, "here")["blocks"] == [{"drop": 0.2}, {"drop": 0.2}, {"drop": 0.2, "repeat": 3}]


def test_a_member_of_negative_size_does_not_loop(tmp_path: Path) -> None:
    header = bytearray(member("again").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" + (2**88 - 512).to_bytes(11, "big")  # minus 512 in base 256
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "m.nemo").write_bytes(member("first").tobuf(tarfile.GNU_FORMAT) + bytes(header) + bytes(1024))
    with pytest.raises(ValueError, match="holds 'again' of -512 bytes; the file is refused"):
        read_archive(tmp_path / "m.nemo")


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.nemo")
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(ValueError, match=r"m\.nemo is neither a file nor a folder"):
        open_package(tmp_path / "m.nemo")
    torch.save({"encoder.0.mconv.0.weight": torch.zeros(1)}, tmp_path / "JasperEncoder.pt")
    assert open_package(tmp_path).settings is None


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no checkpoint \(.*JasperEncoder\*\.pt\); give another folder"):
        open_package(tmp_path)
    torch.save({"encoder.0.mconv.0.weight": torch.zeros(1)}, tmp_path / "JasperEncoder.pt")
    (tmp_path / "broken.yaml").write_text("a: [")
    assert "left out" in open_package(tmp_path).notes[0]
    for name in ("a.yaml", "b.yml"):
        (tmp_path / name).write_text("JasperEncoder: {}\n")
    with pytest.raises(ValueError, match=r"several configurations: a\.yaml, b\.yml"):
        open_package(tmp_path)
