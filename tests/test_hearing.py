"""What is heard in clips: the greedy text, the beam, dropout, speeds, noise; and that nothing is decoded twice."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import tones
import torch

from data.loaders import evaluation_loader
from data.manifest import Utterance, read_manifest
from data.noisy import conditions
from postcorrect import hearing
from postcorrect.hearing import PLAIN, Collection, Hearing, Way, hear, with_dropout
from quartznet.config import BlockConfig, ModelConfig
from quartznet.model import QuartzNet
from quartznet.recognition import recognise


@pytest.fixture
def model() -> QuartzNet:
    """Random, and sure enough of itself to write letters."""
    blocks = (BlockConfig(16, 11, stride=2), BlockConfig(16, 5, residual=True), BlockConfig(16, 1, separable=False))
    model = QuartzNet(ModelConfig(tuple(" abcd"), blocks)).eval()
    with torch.no_grad():
        model.decoder.weight *= 4
        model.decoder.bias[-1] -= 1
    return model


@pytest.fixture
def clips(tmp_path: Path) -> list[Utterance]:
    return read_manifest(tones.write_corpus(tmp_path / "corpus"))


def test_plain_is_what_evaluation_hears(model: QuartzNet, clips: list[Utterance]) -> None:
    rows, _ = recognise(model.for_inference(), evaluation_loader(clips, model.alphabet, 16000, 120.0))
    pairs, skipped = hear(model, clips, Way(PLAIN))
    assert {p.utterance: p.recognised for p in pairs} == {row.name: row.hypothesis.strip() for row in rows}
    assert [(p.said, p.utterance, p.source) for p in pairs] == [(c.text, c.name, PLAIN) for c in clips]
    assert skipped == [] and len({p.recognised for p in pairs}) > 1


def test_texts_of_the_beam(model: QuartzNet, clips: list[Utterance]) -> None:
    pairs, _ = hear(model, clips[:1], Way("speed 0.9", speed=0.9), Hearing(nbest=4, beam=8))
    assert [pair.source for pair in pairs] == ["speed 0.9", *(f"speed 0.9 beam {rank}" for rank in (2, 3, 4))]
    assert len({pair.recognised for pair in pairs}) == 4


def test_dropout_is_of_blocks_alone(model: QuartzNet, clips: list[Utterance]) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    texts = [[p.recognised for p in hear(model, clips, Way("d", dropout=0.3, seed=s))[0]] for s in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert all(
        torch.equal(value, before[name]) for name, value in model.state_dict().items()
    )  # batch norms stood still
    assert not model.training and model.config.blocks[0].dropout == 0
    still = with_dropout(model, 0.0)
    assert torch.equal(still(*signal())[0], model(*signal())[0])
    assert not torch.equal(with_dropout(model, 0.3)(*signal())[0], model(*signal())[0])


def signal() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.sin(torch.arange(8000) / 20)[None], torch.tensor([8000])


def test_other_ways_hear_other_things(tmp_path: Path, model: QuartzNet, clips: list[Utterance]) -> None:
    sound = 0.2 * np.random.default_rng(0).standard_normal(30000)
    soundfile.write(tmp_path / "noise.wav", sound.astype(np.float32), 16000)
    _, noisy = conditions(str(tmp_path / "noise.wav"), None, (0.0,))
    plain, fast, loud = (
        [pair.recognised for pair in hear(model, clips, way)[0]]
        for way in (Way(PLAIN), Way("speed 1.2", speed=1.2), Way("noise 0 dB", condition=noisy))
    )
    assert plain != fast and plain != loud


def test_the_random_numbers_of_others_are_left_alone(model: QuartzNet, clips: list[Utterance]) -> None:
    state = torch.get_rng_state()
    hear(model, clips[:1], Way("d", dropout=0.5))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [({"dropout": 1.0}, r"dropout must be in \[0, 1\)"), ({"speed": 3.0}, "speed must lie between 0.5 and 2")],
)
def test_impossible_ways(settings: dict, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Way("x", **settings)


def test_impossible_nbest() -> None:
    with pytest.raises(ValueError, match="nbest must be from 1 to the beam"):
        Hearing(nbest=9, beam=8)
    with pytest.raises(ValueError, match="a beam holds 10,000 texts at most"):
        Hearing(nbest=9, beam=20_000)


# ---------------------------------------------------------------------------------------------------------------------
# What is decoded stays


def never() -> QuartzNet:
    raise AssertionError("decoded twice")


def test_nothing_is_decoded_twice(
    tmp_path: Path, model: QuartzNet, clips: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "BLOCK", 3)
    Path(clips[1].audio_path).write_bytes(b"no sound")
    first = Collection(tmp_path / "parts", Hearing())
    pairs = first.pairs("train", clips, Way(PLAIN), "key", lambda: model)
    assert [pair.utterance for pair in pairs] == [clips[index].name for index in (0, 2, 3)]
    assert len(list((tmp_path / "parts").glob("train-greedy-*.jsonl"))) == 2 and first.reused == 0
    again = Collection(tmp_path / "parts", Hearing())
    assert again.pairs("train", clips, Way(PLAIN), "key", never) == pairs
    assert again.reused == 4 and again.skipped == first.skipped and "train.jsonl:2" in again.skipped[0]


def test_another_network_way_or_text_is_decoded(tmp_path: Path, model: QuartzNet, clips: list[Utterance]) -> None:
    store = Collection(tmp_path, Hearing())
    store.pairs("train", clips[:1], Way(PLAIN), "key", lambda: model)
    changed = [Utterance(clips[0].audio_path, "abb", clips[0].duration)]
    for part, block, way, key, settings in (
        ("train", clips[:1], Way(PLAIN), "other key", Hearing()),
        ("train", clips[:1], Way(PLAIN), "key", Hearing(nbest=2)),
        ("train", clips[:1], Way(PLAIN, speed=1.1), "key", Hearing()),
        ("train", changed, Way(PLAIN), "key", Hearing()),
        ("dev", clips[:1], Way(PLAIN), "key", Hearing()),
    ):
        with pytest.raises(AssertionError, match="decoded twice"):
            Collection(tmp_path, settings).pairs(part, block, way, key, never)


def test_what_was_interrupted_is_not_there(tmp_path: Path, model: QuartzNet, clips: list[Utterance]) -> None:
    class Stopped(QuartzNet):
        def for_inference(self) -> QuartzNet:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Collection(tmp_path, Hearing()).pairs("train", clips, Way(PLAIN), "key", lambda: Stopped(model.config))
    assert list(tmp_path.glob("train*")) == []
