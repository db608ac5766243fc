"""KenLM's own programs where they are installed: lmplz estimates a model, build_binary packs it.

The surprise: lmplz stops at small texts, whose discounts have no closed form, unless ``--discount_fallback`` is given;
and it takes 80 % of the machine's memory unless told otherwise.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

MEMORY = "1G"  # that lmplz sorts in; what does not fit goes to temporary files


def run_lmplz(program: str, sentences: Iterable[str], path: str | Path, order: int, prune: Sequence[int]) -> list[str]:
    """Feeds sentences to lmplz, which writes an ARPA file; returns its lines about fallback discounts.

    Raises:
        ValueError: lmplz fails; with its last words.
    """
    path = Path(path)
    folder, part = path.absolute().parent, path.with_name(f"{path.name}.part")
    command = [program, "--order", str(order), "--memory", MEMORY, "--temp_prefix", f"{folder}/", "--discount_fallback"]
    command += ["--prune", *map(str, prune)] if prune else []
    with open(part, "wb") as out, tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=messages)
        try:
            with process.stdin as text:
                text.writelines(f"{sentence}\n".encode() for sentence in sentences)
        except BrokenPipeError:
            pass  # it stopped reading; what it says follows
        except BaseException:  # of who makes the sentences; lmplz takes what came for all
            part.unlink()
            raise
        finally:
            status = process.wait()
        messages.seek(0)
        said = messages.read().decode("utf-8", "replace").strip().split("\n")
    if status:
        part.unlink()
        raise ValueError(f"{program} failed: {' '.join(said[-3:])}")
    part.replace(path)
    return [line for line in said if "fallback" in line]


def pack(path: str | Path) -> Path:
    """A KenLM binary beside an ARPA file, by build_binary: it loads at once.

    Raises:
        ValueError: build_binary is not installed, or fails.
    """
    program = find_build_binary()
    binary = Path(path).with_suffix(".binary")
    done = subprocess.run([program, str(path), str(binary)], capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise ValueError(f"{program} failed: {done.stderr.strip()[-300:]}")
    return binary


def find_build_binary() -> str:
    """The path of build_binary; raises ValueError where it is not installed."""
    program = shutil.which("build_binary")
    if program is None:
        raise ValueError(
            "--binary needs build_binary of KenLM on the PATH (build it from KenLM's sources with cmake); "
            "leave --binary out: everything here reads the ARPA file too"
        )
    return program
