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

logger = logging.getLogger(__name__)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Inside the ``with`` block no other process can claim ``folder``, which is made; of several ranks the first asks.

    Raises:
        ValueError: on all ranks, where another training has it.
    """
    file, is_taken = None, False
    if distributed.is_main() and fcntl is not None:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
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
