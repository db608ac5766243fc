"""Unpacks a corpus archive once: ``x.tar.gz`` -> ``x.tar.gz.extracted`` beside it; the next call finds it there.

Unpacking goes to a temporary folder that is renamed at the end, so a folder with that name is complete; a marker inside
holds the size of the archive it came from.

A small archive may also unpack to more than any disk holds. Sound does not compress, so a corpus that grows beyond
what compressed text does is refused on the way.

The surprise: an archive is a list of *commands*. A member may be called ``/etc/passwd`` or ``../x``, may be a link that
a later member writes through, or a device. Nothing of that belongs into a corpus, and each is refused by name before
anything more is written.
"""

import gzip
import logging
import lzma
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Self

from data.lines import shown

SUFFIXES = (".tar.gz", ".tgz", ".tar")
MARKER = ".complete"
GROWTH = 50  # times its own size, and ROOM, that an archive may unpack to; text compresses 3 to 10 times, silence more
ROOM = 2**30  # bytes

logger = logging.getLogger(__name__)


def extract_archive(archive: Path) -> Path:
    """The folder with the contents of ``archive``, unpacked now or by an earlier call.

    Raises:
        ValueError: for an archive that is damaged, larger than the disk or than any corpus of its size, or holds a
            member that is refused; and for a folder of that name that was not made from this archive.
        PermissionError: where the folder of the archive cannot be written.
    """
    target = archive.with_name(archive.name + ".extracted")
    if not target.exists():
        _unpack_beside(archive, target)
    marker = target / MARKER
    if not marker.is_file() or marker.read_text() != str(archive.stat().st_size):
        raise ValueError(f"{target} was not unpacked from this {archive.name}; delete or rename that folder")
    return target


def _unpack_beside(archive: Path, target: Path) -> None:
    for leftover in target.parent.glob(f"{target.name}.partial-*"):
        logger.warning("%s is left from an unpacking that was cut short or still runs; if not, delete it", leftover)
    try:
        partial = Path(tempfile.mkdtemp(prefix=f"{target.name}.partial-", dir=target.parent))
    except OSError as error:
        raise PermissionError(
            f"cannot unpack {archive} beside itself ({error.strerror}); unpack it elsewhere and give that folder"
        ) from error
    try:
        logger.info("unpacking %s to %s (once)", archive, target)
        _unpack(archive, partial)
        (partial / MARKER).write_text(str(archive.stat().st_size))
        partial.chmod(0o755)
        _rename(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _rename(partial: Path, target: Path) -> None:
    try:
        os.rename(partial, target)
    except OSError:
        if not target.is_dir():  # otherwise another process was faster, and its folder is as good
            raise


def _unpack(archive: Path, folder: Path) -> None:
    try:
        left = GROWTH * archive.stat().st_size + ROOM
        with _Stream(archive) as stream, tarfile.open(fileobj=stream, mode="r|*") as members:
            while (member := _next(members)) is not None:
                members.members.clear()  # tarfile remembers every member: a gigabyte for a million clips
                left -= tarfile.BLOCKSIZE + max(0, member.size)
                if left < 0:
                    raise ValueError(
                        f"{archive} unpacks to more than {GROWTH} times its size: no corpus does, do not trust it; if "
                        "it is one nevertheless, unpack it yourself and give the folder"
                    )
                _unpack_member(members, member, folder, archive)
            stream.check_end()
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
        raise ValueError(f"{archive} is damaged or incomplete ({error}); download it again") from error


def _next(members: tarfile.TarFile) -> tarfile.TarInfo | None:
    """The next member; a header that tarfile stumbles over becomes an error of its own kind."""
    try:
        return members.next()
    except (ValueError, OverflowError, RecursionError) as error:
        raise tarfile.ReadError(f"a header that makes no sense: {error}") from error


class _Stream:
    """An archive read from start to end, gzip undone: tarfile by itself checks neither its sum nor that it is whole."""

    def __init__(self, archive: Path) -> None:
        with open(archive, "rb") as file:
            start = file.read(6)
        packed = start.startswith(b"\x1f\x8b")
        self.file = gzip.open(archive, "rb") if packed else open(archive, "rb")  # noqa: SIM115
        self.checked = not start.startswith((b"BZh", b"\xfd7zXZ"))  # those two tarfile undoes, and checks, itself
        self.last = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def read(self, size: int) -> bytes:
        """The next bytes; the last block is remembered."""
        content = self.file.read(size)
        self.last = (self.last + content[-tarfile.BLOCKSIZE :])[-tarfile.BLOCKSIZE :]
        return content

    def check_end(self) -> None:
        """Reads what is left, gzip's sum included; raises EOFError where the zeros are missing that end a tar file."""
        while self.read(2**20):
            pass
        if self.checked and self.last.strip(b"\0"):
            raise EOFError("it has no end mark: members may be missing")


def _unpack_member(members: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, archive: Path) -> None:
    path = PurePosixPath(member.name.replace("\\", "/"))
    kind = None if member.isreg() or member.isdir() else "is a link or a device"
    if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", member.name) or "\0" in member.name:
        kind = "leads out of the folder"
    if kind:
        raise ValueError(f"{archive}: member {member.name!r} {kind}; not unpacked, do not trust this archive")
    if member.size > shutil.disk_usage(folder).free:
        raise ValueError(f"{archive}: no room on the disk for {member.name!r} ({member.size} bytes); free some space")
    target = folder.joinpath(*path.parts)
    try:
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as file:
            shutil.copyfileobj(members.extractfile(member), file)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise ValueError(f"{archive}: member {member.name!r} is both a file and a folder; not unpacked") from error
    except gzip.BadGzipFile:
        raise
    except OSError as error:
        reason = f"cannot be written: {error.strerror}"
        raise ValueError(f"{archive}: member {shown(member.name)} {reason}; not unpacked") from error
