"""``gate.yaml``: what is kept, which gate is taken and what is said of it, and files that are none."""

import logging
import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tiny_bert import tiny_corrector

from postcorrect.gate import OPEN, GateSettings
from postcorrect.gate_file import Gates, TunedGate, chosen_gate, corrector_hash, gate_file, read_gates, save_gate
from postcorrect.model import Corrector

SETTINGS = GateSettings(1.0, 0.3, 0.5, None)


@pytest.fixture
def corrector() -> Corrector:
    return tiny_corrector()


def tuned(corrector: Corrector, settings: GateSettings = SETTINGS, decoding: str = "") -> TunedGate:
    return TunedGate(settings, corrector_hash(corrector), "pairs, dev", decoding, 40, 200, 30, 20, 25, 9, 6, 2, 0.97)


def test_it_comes_back_and_kinds_lie_side_by_side(tmp_path: Path, corrector: Corrector) -> None:
    text, heard = tuned(corrector), tuned(corrector, GateSettings(), "greedy")
    assert save_gate(tmp_path, text) == tmp_path / "gate.yaml" == gate_file(tmp_path / "best.pt")
    save_gate(tmp_path, heard, "1e5")  # a hash that YAML would take for a number
    save_gate(tmp_path, heard, "abc")
    save_gate(tmp_path, replace(text, errors=7))
    assert read_gates(gate_file(tmp_path)) == Gates(replace(text, errors=7), {"1e5": heard, "abc": heard})
    assert [path.name for path in tmp_path.iterdir()] == ["gate.yaml"]
    written = gate_file(tmp_path).read_text(encoding="utf-8")
    assert "errors_held_out: 25" in written and "harmed: 2" in written and "20" + "2" not in written


@pytest.mark.parametrize("settings", [OPEN, GateSettings(math.inf, veto=math.inf), GateSettings(most_edits=math.inf)])
def test_what_has_no_end_comes_back(tmp_path: Path, corrector: Corrector, settings: GateSettings) -> None:
    save_gate(tmp_path, tuned(corrector, settings))
    save_gate(tmp_path, tuned(corrector, settings), "net")
    assert ".inf" in gate_file(tmp_path).read_text(encoding="utf-8")
    assert read_gates(gate_file(tmp_path)) == Gates(tuned(corrector, settings), {"net": tuned(corrector, settings)})
    mine = tmp_path / "mine.yaml"
    mine.write_text("margin: .inf\nmost_edits: 0.3\nveto: .inf\n", encoding="utf-8")
    assert read_gates(mine) == GateSettings(math.inf, 0.3, veto=math.inf)


def test_the_hash_is_that_of_all_weights(corrector: Corrector) -> None:
    before = corrector_hash(corrector)
    assert corrector_hash(corrector) == before
    corrector.bias.data[-1] += 1.0
    assert corrector_hash(corrector) != before


def test_which_gate(tmp_path: Path, corrector: Corrector, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def choose(*asked: str | None) -> tuple[GateSettings, str]:
        caplog.clear()
        return chosen_gate(tmp_path, corrector, *asked), caplog.text

    settings, said = choose()
    assert settings == GateSettings() and "has no tuned gate; the defaults are strict guesses (margin 3, " in said
    assert f"--corrector {tmp_path} --data PAIRS" in said
    assert choose("open")[0] == OPEN and "all that the corrector finds more probable is taken" in caplog.text
    save_gate(tmp_path, tuned(corrector, GateSettings(5.0), "greedy"), "net")
    settings, said = choose()
    assert settings == GateSettings() and "has no tuned gate for texts alone; " in said
    settings, said = choose(None, "other")
    assert settings == GateSettings() and "has no tuned gate for this recogniser or for texts alone" in said
    save_gate(tmp_path, tuned(corrector))
    assert choose() == (SETTINGS, said := caplog.text) and "sound 0.5, no veto, tuned on pairs, dev\n" in said
    assert choose(None, "net", "greedy")[0].margin == 5.0 and "WARNING" not in caplog.text
    assert choose(None, "net", "--lm x.arpa")[0].margin == 5.0 and "on texts of other decoding: greedy" in caplog.text
    assert choose(None, "other", "greedy")[0] == SETTINGS and "has the audio's say tuned as well" in caplog.text


def test_one_that_was_no_help_is_obeyed_unless_somebody_insists(
    tmp_path: Path, corrector: Corrector, caplog: pytest.LogCaptureFixture
) -> None:
    save_gate(tmp_path, tuned(corrector, replace(SETTINGS, is_on=False)))
    assert not chosen_gate(tmp_path, corrector).is_on
    assert "no sure help on pairs, dev (15.00 % without it, 12.50 % with it), so all texts stay" in caplog.text
    caplog.set_level(logging.INFO)
    assert chosen_gate(tmp_path, corrector, "insist") == SETTINGS
    assert "no sure help there (15.00 % without it, 12.50 % with it), but taken as asked" in caplog.text


def test_one_of_another_corrector_is_not_taken_in_silence(
    tmp_path: Path, corrector: Corrector, caplog: pytest.LogCaptureFixture
) -> None:
    save_gate(tmp_path, replace(tuned(corrector), corrector="another"))
    assert chosen_gate(tmp_path, corrector) == GateSettings()
    assert "has changed since its gate was tuned; the defaults are strict guesses" in caplog.text.replace(
        f"{tmp_path} ", "has "
    )
    for asked in ("insist", str(gate_file(tmp_path))):
        caplog.clear()
        assert chosen_gate(tmp_path, corrector, asked) == SETTINGS
        assert "was tuned for another corrector; taken as asked" in caplog.text


def test_one_made_by_hand(tmp_path: Path, corrector: Corrector) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("margin: 2\nveto: null\n", encoding="utf-8")
    assert chosen_gate(tmp_path, corrector, str(path)) == GateSettings(2.0, veto=None)
    path.rename(gate_file(tmp_path))
    assert chosen_gate(tmp_path, corrector).margin == 2.0
    with pytest.raises(ValueError, match="was made by hand and would be overwritten; move it"):
        save_gate(tmp_path, tuned(corrector))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("margin: [", "is not valid YAML"),
        ("- 1", "must hold 'key: value' lines"),
        ("margin: -1", "margin must be 0 or more"),
        ("margin: 1\nmargni: 2", "unknown setting margni"),
        ("text: {margin: 1}", "unknown setting text.margin"),
        ("text: 3", "text must be a table"),
        ("audio: 3", "no attribute"),
        ("audio: {net: {data: x}}", "(audio.net lacks settings, corrector, decoding, sentences, words, errors, "),
        ("text: {settings: {}}", "(text lacks corrector, data, decoding, "),
        ("margin: -.inf", "margin must be a number, got -inf"),
        ("margin: .nan", "margin must be a number, got nan"),
        ("sound: .inf", "sound must be a number, got inf"),
        ("text: null\nother: 1", "unknown key other; there are text, audio"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, corrector: Corrector, content: str, message: str) -> None:
    gate_file(tmp_path).write_text(content, encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"gate\.yaml is no gate of postcorrect\.tune_gate .*delete it and tune"
    ) as found:
        chosen_gate(tmp_path, corrector)
    assert message in str(found.value) and "\n" not in str(found.value)


def test_unreadable_and_missing_files(tmp_path: Path, corrector: Corrector) -> None:
    gate_file(tmp_path).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is no gate of"):
        read_gates(gate_file(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"there is no gate .*no\.yaml; --gate takes a file, insist or open"):
        chosen_gate(tmp_path, corrector, str(tmp_path / "no.yaml"))


def test_an_entry_lacks_something(tmp_path: Path, corrector: Corrector) -> None:
    save_gate(tmp_path, tuned(corrector))
    mapping = yaml.safe_load(gate_file(tmp_path).read_text(encoding="utf-8"))
    del mapping["text"]["words"]
    gate_file(tmp_path).write_text(yaml.safe_dump(mapping), encoding="utf-8")
    with pytest.raises(ValueError, match=r"gate\.yaml is no gate of postcorrect.tune_gate \(text lacks words\); "):
        read_gates(gate_file(tmp_path))
