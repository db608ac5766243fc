"""The README says what is so: its commands parse, its example runs, its map lists every module."""

import re
from pathlib import Path

import pytest
import soundfile
import tones

import quartznet
from quartznet.config import BlockConfig, ModelConfig

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
STARTS = ("python train.py ", "python evaluate.py ", "python -m quartznet.transcribe ", "make gpu")


def commands(start: str) -> list[list[str]]:
    """Words of every README line that starts with ``start``."""
    lines = [line.strip() for _, block in BLOCKS for line in block.splitlines()]
    return [line.removeprefix(start).split() for line in lines if line.startswith(start)]


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"^    make (\w+)", README, re.MULTILINE)) == {"demo", "test"} <= set(targets)


def test_training_commands_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_train import read_settings

    monkeypatch.chdir(tmp_path)
    (tmp_path / "stt_en_quartznet15x5.nemo").touch()
    found = commands("python train.py ")
    assert found
    for words in found:
        assert read_settings(words).lang == "es"


def test_commands_for_a_gpu_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of docs/gpu.md; the README has some of them."""
    from test_train import read_settings

    import evaluate
    from quartznet import transcribe

    makefile, text = (ROOT / "Makefile").read_text(encoding="utf-8"), (ROOT / "docs/gpu.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    found = {start: [line.removeprefix(start).split() for line in lines if line.startswith(start)] for start in STARTS}
    assert all(found.values()) and sum(map(len, found.values())) == len(lines)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stt_en_quartznet15x5.nemo").touch()
    assert read_settings(*found["python train.py "]).data.cache == "memory"
    assert evaluate.read_options(*found["python evaluate.py "]).precision == "bf16"
    assert transcribe.read_options(*found["python -m quartznet.transcribe "]).precision == "bf16"
    assert "\ngpu: setup\n" in makefile
    assert all(f"$(if $({word.split('=')[0]})," in makefile for words in found["make gpu"] for word in words)
    for line in lines:
        assert line.startswith("make") or line in README or "transcribe" in line


def test_fine_tuning_commands_parse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from quartznet import adapter, doctor, interpolate

    monkeypatch.chdir(tmp_path)
    (tmp_path / "stt_en_quartznet15x5.nemo").write_bytes(b"nothing")
    for name, main in (("doctor", doctor.main), ("adapter", adapter.main), ("interpolate", interpolate.main)):
        [words] = commands(f"python -m quartznet.{name} ")
        assert main(words) == 2  # a parser that does not know an option would have left through SystemExit
        assert re.search("there is no|no checkpoint|is at prepared", capsys.readouterr().err)


def test_language_model_commands_parse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from quartznet import neural_lm

    monkeypatch.chdir(tmp_path)
    found = commands("python -m quartznet.neural_lm ")
    assert [words[0] for words in found] == ["train", "score"]
    for words in found:
        assert neural_lm.main(words) == 2
        assert re.search("there is no|no language model", capsys.readouterr().err)


def test_ngram_commands_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    from quartznet import lm_command

    monkeypatch.chdir(tmp_path)
    found = commands("python -m quartznet.lm ")
    assert {words[0] for words in found} == {"build", "perplexity", "tune"}
    for words in found:
        assert lm_command.main(words) == 2 and re.search("there is no", capsys.readouterr().err)


def test_pairs_commands_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    from postcorrect import collect, error_model

    monkeypatch.chdir(tmp_path)
    found = commands("python -m postcorrect.collect ")
    assert [collect.read_options(words).folds for words in found] == [None, 5, None]
    [words] = commands("python -m postcorrect.error_model ")
    assert error_model.main(words) == 2 and "there are no errors es.json" in capsys.readouterr().err


def test_text_training_commands_parse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from postcorrect import pretrain, train

    monkeypatch.chdir(tmp_path)
    for main, name in ((pretrain.main, "pretrain"), (train.main, "train")):
        [words] = commands(f"python -m postcorrect.{name} ")
        assert main(words) == 2 and "there is no" in capsys.readouterr().err


def test_correcting_commands_parse() -> None:
    from postcorrect.correct import read_options

    found = [read_options(words) for words in commands("python -m postcorrect.correct ")]
    assert [(options.texts, options.pairs) for options in found] == [(["texts.txt"], None), ([], "pairs/es")]


def test_gate_commands_parse() -> None:
    from postcorrect.tune_gate import read_options

    found = [read_options(words) for words in commands("python -m postcorrect.tune_gate ")]
    assert [options.checkpoint for options in found] == [None, "runs/es"]


def test_evaluation_commands_parse() -> None:
    from evaluate import read_options

    found = [read_options(words) for words in commands("python evaluate.py ")]
    assert {options.lang for options in found} == {"es", None}
    assert {options.lm for options in found} == {None, "es.arpa"}
    assert {options.neural for options in found} == {None, "es_lm.pt"}
    assert {options.corrector for options in found} == {None, "runs/es-corrector"}


def test_preparing_commands_parse() -> None:
    from data.prepare import read_options

    found = commands("python -m data.prepare ")
    assert found
    for words in found:
        assert read_options(words).lang == "es"


def test_transcribing_commands_parse() -> None:
    from quartznet.transcribe import read_options

    found = commands("python -m quartznet.transcribe ")
    found += [line.partition("quartznet.transcribe ")[2].split() for line in README.splitlines() if "arecord" in line]
    assert [read_options(words).stream for words in found] == [False, False, True]


def inline(start: str) -> list[list[str]]:
    """Words of every command within a sentence that starts with ``start``."""
    found = (" ".join(text.split()) for text in re.findall(r"(?<!`)`([^`]+)`(?!`)", README))
    return [text.removeprefix(start).split() for text in found if text.startswith(start)]


def test_commands_within_sentences_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from data.prepare import read_options
    from quartznet import audit_file, augment_preview

    monkeypatch.chdir(tmp_path)
    tones.write_corpus(tmp_path)
    soundfile.write("clip.mp3", tones.sing("abba"), 16000)
    (tmp_path / "FILE").write_text("una frase\n", encoding="utf-8")
    [words] = inline("python -m data.prepare ")
    assert read_options(words).shards == 64
    [words] = inline("python -m quartznet.augment_preview ")
    augment_preview.main(words)
    assert (tmp_path / "preview" / "preview.png").stat().st_size > 10_000
    [words] = inline("python -m quartznet.text ")
    audit_file.main(words)
    assert "100.00%" in capsys.readouterr().out
    [words] = inline("torchrun ")
    assert words[:2] == ["--nproc_per_node", "4"]
    for flags in inline("--data.cache "):
        assert flags == ["memory"]


def test_nemo_commands_exist() -> None:
    assert {words[0] for words in commands("python -m quartznet.nemo ")} == {"inspect", "export"}


def test_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy

    monkeypatch.chdir(tmp_path)
    model = quartznet.QuartzNet(ModelConfig((" ", "a"), (BlockConfig(4, 3, stride=2),))).eval()
    (tmp_path / "runs").mkdir()
    quartznet.save_nemo(model, "runs/es")
    for name in ("a.wav", "b.mp3"):
        soundfile.write(name, numpy.sin(numpy.arange(8000) / 20).astype("float32"), 16000)
    [example] = [block for language, block in BLOCKS if language == "python"]
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    assert len(names["texts"]) == 2
    assert names["log_probs"].shape == (2, 104, 3) and names["lengths"].tolist() == [100, 75]
    assert (tmp_path / "es.nemo").is_file()


@pytest.mark.parametrize("package", ["quartznet", "data", "postcorrect"])
def test_map_lists_every_module(package: str) -> None:
    section = re.split(rf"^{package}/ ", README, flags=re.MULTILINE)[1].split("\n\n")[0]
    for path in (ROOT / package).glob("*.py"):
        if path.name != "__init__.py":
            assert path.stem in section or path.stem.removeprefix("nemo") in section, f"README.md lacks {path.name}"
    for name in re.findall(r"(\w+\.py)", section):
        assert (ROOT / package / name).is_file(), f"README.md lists {package}/{name}, which is not there"
