"""quartznet.tuned: what was found lies beside the language model, and is obeyed, or not, in the open."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from quartznet.beam import BeamSettings
from quartznet.config import BlockConfig, ModelConfig
from quartznet.model import QuartzNet
from quartznet.rescore import Weights
from quartznet.tuned import (
    Tuned,
    TunedNeural,
    chosen_settings,
    chosen_weights,
    file_hash,
    network_hash,
    read_tuned,
    save_tuned,
    tuned_file,
)

FOUND = BeamSettings(alpha=0.7, beta=2.0, beam=32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file; its content does not matter here."""
    path = tmp_path / "es.arpa"
    path.write_text("\\data\\\n")
    return path


def tuned(model: Path, helps: bool = True) -> Tuned:
    return Tuned(file_hash(model), helps, FOUND, "corpora/es, dev", 0.58, 0.41)


def test_an_entry_for_each_network(model: Path) -> None:
    assert read_tuned(model) == {}
    path = save_tuned(model, "first", tuned(model))
    save_tuned(model, "second", tuned(model, helps=False))
    save_tuned(model, "first", replace(tuned(model), searched_wer=0.4))
    assert path == tuned_file(model) and path.name == "es.arpa.tuned.yaml"
    assert read_tuned(model) == {"first": replace(tuned(model), searched_wer=0.4), "second": tuned(model, helps=False)}


def test_what_was_tuned_is_used(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_tuned(model, "net", tuned(model))
    assert chosen_settings(model, "net", None, None, None) == FOUND
    assert chosen_settings(model, "net", 200, None, 0.0) == replace(FOUND, beam=200, beta=0.0)
    assert caplog.text == ""


def test_where_it_does_not_help_decoding_is_greedy_unless_asked(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_tuned(model, "net", tuned(model, helps=False))
    assert chosen_settings(model, "net", 100, None, None) is None
    assert "did not help on corpora/es, dev (58.00 % greedy, 41.00 % with it)" in caplog.text
    assert chosen_settings(model, "net", None, 0.3, None) == replace(FOUND, alpha=0.3)


def test_a_search_that_does_not_help_alone_may_be_needed(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_tuned(model, "net", tuned(model, helps=False))
    assert chosen_settings(model, "net", None, None, None, is_needed=True) == FOUND and not caplog.text


def test_another_network_or_none(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert chosen_settings(model, "net", None, None, None) == BeamSettings()
    assert "was not tuned; weights are guesses: run python -m quartznet.lm tune" in caplog.text
    save_tuned(model, "former self", tuned(model))
    assert chosen_settings(model, "net", 5, 1.0, 0.5) == replace(BeamSettings(), beam=5, alpha=1.0, beta=0.5)
    assert "was tuned for other networks only; weights are yours" in caplog.text


def test_a_model_that_changed_is_said(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_tuned(model, "net", tuned(model))
    model.write_text("another")
    with caplog.at_level(logging.WARNING):
        assert chosen_settings(model, "net", None, None, None) == FOUND
    assert "has changed since it was tuned" in caplog.text


@pytest.mark.parametrize("text", ["a: [1", "a: 5", "- a", "net: {alpha: 1}", "5", "[" * 3000])
def test_a_damaged_file_is_named(model: Path, text: str) -> None:
    tuned_file(model).write_text(text)
    with pytest.raises(ValueError, match=r"es\.arpa\.tuned\.yaml is not what quartznet\.lm tune wrote .* tune again"):
        read_tuned(model)


def test_the_hash_knows_encoder_and_output_layer() -> None:
    torch.manual_seed(0)
    config = ModelConfig(tuple(" abcd"), (BlockConfig(8, 5, stride=2), BlockConfig(8, 1, separable=False)))
    model, same, head, letters = (QuartzNet(config) for _ in range(4))
    for network in (same, head, letters):
        network.load_state_dict(model.state_dict())
    with torch.no_grad():
        next(head.decoder.parameters()).add_(1e-3)
    letters.config = replace(letters.config, labels=tuple(" abce"))
    hashes = [network_hash(network) for network in (model, same, head, letters)]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3


# ---------------------------------------------------------------------------------------------------------------------
# A neural model

BEST = Weights(alpha=0.3, beta=1.5, gamma=0.4)


@pytest.fixture
def neural(tmp_path: Path) -> Path:
    """A file; its content does not matter here."""
    path = tmp_path / "lm.pt"
    path.write_bytes(b"a neural model")
    return path


def with_neural(model: Path, neural: Path, helps: bool = True, weights: Weights = BEST) -> Tuned:
    return replace(tuned(model), neural=TunedNeural(file_hash(neural), helps, weights, 0.41, 0.38))


def test_it_is_kept_in_the_entry_of_the_network(model: Path, neural: Path) -> None:
    entries = {"first": with_neural(model, neural), "second": tuned(model)}
    for name, entry in entries.items():
        save_tuned(model, name, entry)
    assert read_tuned(model) == entries


def test_files_from_before_there_was_a_neural_model(model: Path) -> None:
    save_tuned(model, "net", tuned(model))
    content = yaml.safe_load(tuned_file(model).read_text(encoding="utf-8"))
    del content["net"]["neural"]
    tuned_file(model).write_text(yaml.safe_dump(content), encoding="utf-8")
    assert read_tuned(model) == {"net": tuned(model)}


def test_tuned_weights_and_what_was_said_instead(model: Path, neural: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_tuned(model, "net", with_neural(model, neural))
    assert chosen_weights(neural, model, "net", None, None, None) == BEST
    assert chosen_weights(neural, model, "net", 0.1, None, 0.0) == Weights(0.1, 1.5, 0.0)
    assert caplog.text == ""


def test_one_that_does_not_help_is_not_asked_unless_somebody_insists(
    model: Path, neural: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_tuned(model, "net", with_neural(model, neural, helps=False, weights=Weights(0.7, 2.0)))
    assert chosen_weights(neural, model, "net", None, 1.0, None) is None
    assert "lm.pt was no sure help on corpora/es, dev (41.00 % without, 38.00 % with it), so it is not" in caplog.text
    assert "so it is not asked; --gamma 0.25 insists" in caplog.text
    assert chosen_weights(neural, model, "net", None, None, 0.2) == Weights(0.7, 2.0, 0.2)


def test_guesses_are_called_so(model: Path, neural: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = BeamSettings()
    assert chosen_weights(neural, model, "net", None, None, None) == Weights(plain.alpha, plain.beta, 0.25)
    assert (
        "lm.pt was not tuned for this network, alpha 0.5, beta 1, gamma 0.25 is a guess; run python -m" in caplog.text
    )
    assert f"--data DEV --lm {model} --neural {neural}" in caplog.text
    save_tuned(model, "net", with_neural(model, model))  # tuned with another neural model
    caplog.clear()
    assert chosen_weights(neural, model, "net", None, None, None) == Weights(0.7, 2.0, 0.25) and caplog.text
    caplog.clear()
    assert chosen_weights(neural, model, "net", 0.1, 0.2, 0.3) == Weights(0.1, 0.2, 0.3) and not caplog.text
    assert chosen_weights(neural, None, "net", None, 0.2, 0.3) == Weights(0.0, 0.2, 0.3) and not caplog.text
    assert chosen_weights(neural, None, "net", None, None, None) == Weights(0.0, 0.0, 0.5) and caplog.text


def test_without_a_search_nobody_guesses(model: Path, neural: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_tuned(model, "net", tuned(model, helps=False))
    assert chosen_weights(neural, model, "net", None, None, None) is None
    assert "no texts to choose among without a search; --gamma 0.25 insists" in caplog.text
    assert chosen_weights(neural, model, "net", None, None, 0.1) == Weights(0.7, 2.0, 0.1)
