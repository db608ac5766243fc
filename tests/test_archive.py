"""Unpacking: once, all or nothing, and nothing that leads out of the folder."""

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from data import archive
from data.archive import extract_archive


def pack(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["c.tar.gz", "c.tar"])
def test_unpacked_once_and_found_again(tmp_path: Path, name: str) -> None:
    path = pack(tmp_path / name, special("./cv", tarfile.DIRTYPE), ("./cv/a/b.txt", b"hola"), ("cv/c.txt", b""))
    folder = extract_archive(path)
    assert folder == tmp_path / f"{name}.extracted"
    assert files_below(folder) == {"cv/a/b.txt", "cv/c.txt", ".complete"}
    assert (folder / "cv/a/b.txt").read_bytes() == b"hola"
    before = (folder / "cv/a/b.txt").stat().st_mtime_ns
    assert extract_archive(path) == folder
    assert (folder / "cv/a/b.txt").stat().st_mtime_ns == before
    assert {entry.name for entry in tmp_path.iterdir()} == {name, f"{name}.extracted"}


HOSTILE = [
    (("/etc/evil", b"x"), "leads out of the folder"),
    (("../evil", b"x"), "leads out of the folder"),
    (("a/../../evil", b"x"), "leads out of the folder"),
    (("..\\evil", b"x"), "leads out of the folder"),
    (("C:\\evil", b"x"), "leads out of the folder"),
    (special("link", tarfile.SYMTYPE, "/etc"), "is a link or a device"),
    (special("link", tarfile.LNKTYPE, "ok.txt"), "is a link or a device"),
    (special("null", tarfile.CHRTYPE), "is a link or a device"),
    (special("disk", tarfile.BLKTYPE), "is a link or a device"),
    (special("pipe", tarfile.FIFOTYPE), "is a link or a device"),
    (("ok.txt/below", b"x"), "is both a file and a folder"),
    (("a\0b" + "x" * 200, b"x"), "leads out of the folder"),
    (("x" * 300, b"x"), "cannot be written: File name too long"),
    ((".", b"x"), "is both a file and a folder"),
]


@pytest.mark.parametrize(("member", "reason"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_members_are_refused_and_nothing_stays(tmp_path: Path, member: object, reason: str) -> None:
    path = tmp_path / "in" / "c.tar"
    path.parent.mkdir()
    pack(path, ("ok.txt", b"x"), member)
    with pytest.raises(ValueError, match=f"c.tar: member .* {reason}; not unpacked"):
        extract_archive(path)
    assert files_below(tmp_path) == {"in/c.tar"}
    assert [entry.name for entry in path.parent.iterdir()] == ["c.tar"]


@pytest.mark.parametrize("name", ["c.tar.gz", "c.tar"])
def test_a_damaged_archive_is_named_and_nothing_stays(tmp_path: Path, name: str) -> None:
    path = pack(tmp_path / name, ("a.bin", os.urandom(50_000)))
    path.write_bytes(path.read_bytes()[:30_000])
    with pytest.raises(ValueError, match=r"c\.tar.* is damaged or incomplete \(.*\); download it again"):
        extract_archive(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_text_called_tar_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "c.tar.gz").write_text("<html>404</html>")
    with pytest.raises(ValueError, match="is damaged or incomplete"):
        extract_archive(tmp_path / "c.tar.gz")


def test_a_member_larger_than_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pack(tmp_path / "c.tar", ("a.bin", b"x" * 100))
    usage = shutil.disk_usage(tmp_path)._replace(free=99)
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(ValueError, match=r"no room on the disk for 'a.bin' \(100 bytes\)"):
        extract_archive(path)


def test_an_archive_that_grows_without_measure_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "ROOM", 10_000)
    with pytest.raises(ValueError, match=r"c\.tar\.gz unpacks to more than 50 times its size"):
        extract_archive(pack(tmp_path / "c.tar.gz", *[(f"{number}.txt", bytes(100_000)) for number in range(9)]))
    with pytest.raises(ValueError, match="50 times"):  # nothing but names
        extract_archive(pack(tmp_path / "d.tar.gz", *[(f"{number}", b"") for number in range(900)]))
    assert {entry.name for entry in tmp_path.iterdir()} == {"c.tar.gz", "d.tar.gz"}


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pack(tmp_path / "c.tar", ("a.txt", b"x"))

    def refuse(**_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(archive.tempfile, "mkdtemp", refuse)
    with pytest.raises(PermissionError, match=r"cannot unpack .*c\.tar beside itself \(Permission denied\); unpack it"):
        extract_archive(path)


def test_another_folder_or_another_archive_of_that_name(tmp_path: Path) -> None:
    path = pack(tmp_path / "c.tar", ("a.txt", b"x"))
    (tmp_path / "c.tar.extracted").mkdir()
    with pytest.raises(ValueError, match=r"was not unpacked from this c\.tar; delete or rename"):
        extract_archive(path)
    (tmp_path / "c.tar.extracted").rmdir()
    extract_archive(path)
    pack(path, ("a.txt", b"x" * 20_000))
    with pytest.raises(ValueError, match="was not unpacked from this"):
        extract_archive(path)


def test_the_faster_process_wins_and_leftovers_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = pack(tmp_path / "c.tar", ("a.txt", b"x"))
    (tmp_path / "c.tar.extracted.partial-old").mkdir()
    unpack = archive._unpack

    def slow(source: Path, folder: Path) -> None:
        unpack(source, folder)
        if not (tmp_path / "c.tar.extracted").exists():
            monkeypatch.setattr(archive, "_unpack", unpack)
            extract_archive(path)

    monkeypatch.setattr(archive, "_unpack", slow)
    assert files_below(extract_archive(path)) == {"a.txt", ".complete"}
    assert "c.tar.extracted.partial-old is left from an unpacking" in caplog.text


def members(path: Path, names: tuple[str, ...], mode: str) -> bytes:
    with tarfile.open(path, mode) as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 1500
            archive.addfile(member, io.BytesIO(name.encode() * 1500))
    return path.read_bytes()


@pytest.mark.parametrize("cut", [512 + 1536, 2 * (512 + 1536), 3 * (512 + 1536)])
def test_an_archive_cut_between_two_members_is_not_complete(tmp_path: Path, cut: int) -> None:
    content = members(tmp_path / "x.tar", ("a", "b", "c"), "w")
    assert extract_archive(tmp_path / "x.tar").is_dir()
    (tmp_path / "y.tar").write_bytes(content[:cut])
    with pytest.raises(ValueError, match=r"y\.tar is damaged or incomplete \(it has no end mark"):
        extract_archive(tmp_path / "y.tar")
    assert not (tmp_path / "y.tar.extracted").exists()


@pytest.mark.parametrize("damage", ["trailer", "sum"])
def test_a_gz_archive_is_checked_by_its_sum(tmp_path: Path, damage: str) -> None:
    content = bytearray(members(tmp_path / "x.tar.gz", ("a", "b", "c"), "w:gz"))
    if damage == "sum":
        content[-6] ^= 1
    else:
        del content[-8:]
    (tmp_path / "y.tar.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"y\.tar\.gz is damaged or incomplete .*; download it again"):
        extract_archive(tmp_path / "y.tar.gz")


@pytest.mark.parametrize("kind", ["w:bz2", "w:xz"])
def test_other_compressions(tmp_path: Path, kind: str) -> None:
    members(tmp_path / "x.tar", ("a", "b"), kind)
    assert sorted(path.name for path in extract_archive(tmp_path / "x.tar").iterdir()) == [".complete", "a", "b"]
