"""quartznet.claim: a second training in the same folder is refused, a later one is not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quartznet import claim
from quartznet.claim import claimed

OTHER = """
import sys
from pathlib import Path
from quartznet.claim import claimed
with claimed(Path(sys.argv[1])):
    print("claimed", flush=True)
    sys.stdin.read()
"""


def test_a_folder_belongs_to_one_process_until_it_ends(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "es"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", OTHER, str(folder)], **pipes) as other:
        assert other.stdout.readline() == b"claimed\n"
        with pytest.raises(ValueError, match=r"another training is running in .*es; wait for it"), claimed(folder):
            pass
        with claimed(tmp_path / "runs" / "it"):  # another folder
            pass
        other.kill()
    assert not (tmp_path / "runs" / "it").exists()  # nothing came of it
    with claimed(folder):
        (folder / "log").touch()
    with claimed(folder):  # and again
        pass
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "log"]


def test_a_child_that_lives_on_holds_nothing(tmp_path: Path) -> None:
    with claimed(tmp_path):
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
    try:
        with subprocess.Popen([sys.executable, "-c", OTHER, str(tmp_path)], stdin=-1, stdout=-1) as other:
            assert other.stdout.readline() == b"claimed\n"
            other.kill()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_file_systems_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(claim.fcntl, "lockf", refuse)
    with claimed(tmp_path):
        assert "cannot be locked (No locks available)" in caplog.text
    monkeypatch.setattr(claim, "fcntl", None)
    with claimed(tmp_path / "windows"):
        assert not (tmp_path / "windows").exists()
