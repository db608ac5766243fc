"""One training at a time in a run folder: two would take turns in writing ``last.pt`` and leave a mixture of both.

The kernel's lock on ``.lock`` is used, so nothing stays behind where a process is killed: the file does, the lock does
not. The surprise: not every network file system has such locks; there the training says so and goes on without.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quartznet import distributed

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".lock"

logger = logging.getLogger(__name__)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Inside the ``with`` block no other process can claim ``folder``; of several ranks the first asks.

    The folder is made, and unmade if it stays empty.

    Raises:
        ValueError: on all ranks, where another training has it.
    """
    file, is_taken, is_new = None, False, not folder.exists()
    if distributed.is_main() and fcntl is not None:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # flock's would live on in the loaders' processes
        except (BlockingIOError, PermissionError):
            is_taken = True
        except OSError as error:
            logger.warning("%s cannot be locked (%s); start no second training there", folder, error.strerror)
    try:
        if any(distributed.gather(is_taken)):
            raise ValueError(
                f"another training is running in {folder}; wait for it, stop it, or choose another --out for this one"
            )
        yield
    finally:
        if file is not None:
            file.close()
            if is_new and [path.name for path in folder.iterdir()] == [LOCK]:  # the training never began
                (folder / LOCK).unlink()
                folder.rmdir()
