"""quartznet.writing: whose rules apply, and what a network cannot write."""

from pathlib import Path

import pytest
from test_evaluate import checkpoint

from quartznet.writing import choose_language, trained_language


def test_language_comes_from_option_then_checkpoint_then_labels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = tuple(" abcd")
    known = checkpoint(tmp_path / "known.pt", lang="it")
    assert choose_language(None, str(known), labels, []).code == "it"
    assert not caplog.messages
    assert choose_language("es", str(known), labels, []).code == "es"
    assert caplog.messages == ["--lang es: the network was trained with the rules of it"]
    assert choose_language("xx", str(known), labels, ["abc"]).labels == labels
    english = tuple(" abcdefghijklmnopqrstuvwxyz'")
    assert choose_language(None, str(tmp_path / "foreign.nemo"), english, []).labels == english
    assert trained_language(str(known)) == "it" and trained_language(str(tmp_path / "foreign.nemo")) is None


def test_a_network_of_other_letters_must_say_its_language(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not say its language; give it with --lang"):
        choose_language(None, str(tmp_path / "foreign.nemo"), tuple(" abcd"), [])
