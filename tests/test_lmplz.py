"""KenLM's programs: how they are called, with stand-ins; and, where they are installed, what they make."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from quartznet.arpa import read_arpa
from quartznet.lmplz import find_build_binary, pack, run_lmplz

STAND_IN = """#!/bin/sh
echo "$@" > "{folder}/arguments"
cat > "{folder}/text"
echo 'Statistics:' >&2
echo 'Substituting fallback discounts for order 0: D1=0.5' >&2
echo 'made'
exit {status}
"""


def stand_in(folder: Path, name: str, status: int = 0, script: str = STAND_IN) -> str:
    """A program that keeps its arguments and its input."""
    path = folder / name
    path.write_text(script.format(folder=folder, status=status))
    path.chmod(0o755)
    return str(path)


def test_how_lmplz_is_called(tmp_path: Path) -> None:
    program, out = stand_in(tmp_path, "lmplz"), tmp_path / "es.arpa"
    assert run_lmplz(program, iter(["sí no", "mañana"]), out, 4, (0, 0, 1)) == [
        "Substituting fallback discounts for order 0: D1=0.5"
    ]
    assert (tmp_path / "text").read_text() == "sí no\nmañana\n" and out.read_text() == "made\n"
    arguments = (tmp_path / "arguments").read_text().split()
    assert arguments[:2] == ["--order", "4"] and arguments[-4:] == ["--prune", "0", "0", "1"]
    assert "--discount_fallback" in arguments and arguments[arguments.index("--memory") + 1] == "1G"
    run_lmplz(program, [], out, 2, ())
    assert "--prune" not in (tmp_path / "arguments").read_text()


@pytest.mark.parametrize("script", [STAND_IN, "#!/bin/sh\necho 'D1=0.5' >&2\nexit {status}\n"])
def test_lmplz_fails(tmp_path: Path, script: str) -> None:
    """Also where it does not read its input to the end."""
    program = stand_in(tmp_path, "lmplz", 3, script)
    with pytest.raises(ValueError, match=r"lmplz failed: .*D1=0\.5"):
        run_lmplz(program, ["sí no"] * 20_000, tmp_path / "es.arpa", 4, ())
    assert not list(tmp_path.glob("es*"))


def test_a_text_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def sentences() -> Iterator[str]:
        yield "sí no"
        raise ValueError("the gzip stream breaks off")

    with pytest.raises(ValueError, match="breaks off"):
        run_lmplz(stand_in(tmp_path, "lmplz"), sentences(), tmp_path / "es.arpa", 4, ())
    assert not list(tmp_path.glob("es*"))


def test_build_binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="--binary needs build_binary of KenLM on the PATH"):
        find_build_binary()
    stand_in(tmp_path, "build_binary", script='#!/bin/sh\necho "$1" > "$2"\n')
    assert pack(tmp_path / "es.arpa") == tmp_path / "es.binary"
    assert (tmp_path / "es.binary").read_text() == f"{tmp_path / 'es.arpa'}\n"
    stand_in(tmp_path, "build_binary", 1, "#!/bin/sh\necho no room >&2\nexit {status}\n")
    with pytest.raises(ValueError, match="build_binary failed: no room"):
        pack(tmp_path / "es.arpa")


@pytest.mark.skipif(shutil.which("lmplz") is None, reason="lmplz is not installed; the golden files are its work")
def test_the_real_lmplz(tmp_path: Path) -> None:
    assert len(run_lmplz(shutil.which("lmplz"), ["uno dos", "dos tres"], tmp_path / "a.arpa", 3, ())) == 3
    assert sorted(read_arpa(tmp_path / "a.arpa").vocabulary()) == ["dos", "tres", "uno"]
