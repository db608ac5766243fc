"""data.replay: the share of hours that was asked for, every old clip in turn, and the same batches in every epoch."""

import math
from pathlib import Path

import pytest
import tones
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.clips import Clips, with_replay
from data.dataset import SpeechDataset
from data.manifest import Utterance, read_manifest
from data.replay import mix, strata
from data.samplers import BucketSampler
from quartznet.alphabet import Alphabet
from quartznet.config import TrainSettings
from quartznet.text import find_language
from quartznet.tune_config import KeepSettings


def corpus(name: str, durations: list[float]) -> list[Utterance]:
    return [Utterance(Path(f"{name}{i}.wav"), name, duration) for i, duration in enumerate(durations)]


lengths = st.lists(st.floats(0.3, 16.0), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(lengths, lengths, st.floats(0.05, 0.6))
def test_the_share_of_hours_and_everyone_in_turn(new: list[float], old: list[float], share: float) -> None:
    mixture = mix(corpus("new", new), [(corpus("old", old), share)])
    assert mixture.places[: len(new)] == tuple((number,) for number in range(len(new)))
    heard_new, heard_old = mixture.hours()
    assert heard_new * 3600 == pytest.approx(math.fsum(new))
    place = math.fsum(old) / len(old) / 3600
    if len(mixture) - len(new) >= len(
        old
    ):  # every place has one clip; rounding of the number of places, and who is long
        assert heard_old == pytest.approx(share / (1 - share) * heard_new, abs=place + max(old) * len(old) / 3600)
    heard = set()
    most = max(len(turns) for turns in mixture.places)
    for epoch in range(most):
        clips = [mixture.clip(place, epoch) for place in range(len(mixture))]
        assert clips[: len(new)] == list(range(len(new)))
        heard.update(clips[len(new) :])
    if most > 1:
        assert heard == set(range(len(new), len(new) + len(old)))


def test_ten_percent_of_the_hours() -> None:
    mixture = mix(corpus("new", [5.0] * 90), [(corpus("old", [2.0, 3.0, 4.0, 5.0, 6.0] * 40), 0.1)])
    new, old = mixture.hours()
    assert old / (new + old) == pytest.approx(0.1, rel=0.05)
    seconds = [
        sum(mixture.clips[mixture.clip(p, epoch)].duration for p in range(90, len(mixture))) for epoch in (0, 1, 7)
    ]
    assert max(seconds) < 1.1 * min(seconds)  # in each epoch, not only on average
    three = mix(corpus("new", [5.0] * 90), [(corpus("a", [5.0] * 9), 0.2), (corpus("b", [5.0] * 90), 0.3)])
    assert len(three) == 90 + 36 + 54  # of 180 places 20 % and 30 %; nine clips fill 36 places


def test_clips_of_a_place_are_about_equally_long_and_no_batch_is_too_large() -> None:
    durations = [0.5 + 0.07 * (i * 37 % 200) for i in range(200)]
    mixture = mix(corpus("new", [4.0] * 100), [(corpus("old", durations), 0.2)])
    longest = mixture.longest()
    for place, turns in enumerate(mixture.places):
        seconds = [mixture.clips[number].duration for number in turns]
        assert max(seconds) - min(seconds) <= 1.2 and longest[place].duration == max(seconds)
    sampler = BucketSampler([clip.duration for clip in longest], 20.0)
    for epoch in range(4):
        sampler.set_epoch(epoch)
        for batch in sampler:
            heard = [mixture.clips[mixture.clip(place, epoch)].duration for place in batch]
            assert len(heard) * max(heard) <= 20.0


def test_the_turn_depends_on_seed_and_epoch_alone() -> None:
    arguments = (corpus("new", [4.0] * 10), [(corpus("old", [4.0] * 100), 0.3)])
    first, again, other = mix(*arguments, seed=1), mix(*arguments, seed=1), mix(*arguments, seed=2)
    turns = [[mixture.clip(place, 5) for place in range(len(mixture))] for mixture in (first, again, other)]
    assert turns[0] == turns[1] != turns[2]


def test_strata_hold_everyone_once() -> None:
    assert strata([3, 4, 5], [9, 9, 9, 3.0, 1.0, 2.0], 2) == [(4,), (5, 3)]
    assert strata([0, 1], [2.0, 1.0], 5) == [(1,), (1,), (1,), (0,), (0,)]


def test_what_cannot_be_mixed() -> None:
    new = corpus("new", [1.0])
    for shares in ([0.0], [1.0], [0.5, 0.5]):
        with pytest.raises(ValueError, match=r"shares of replay must lie above 0 and add up to 0\.9 at most"):
            mix(new, [(new, share) for share in shares])
    with pytest.raises(ValueError, match="a corpus to replay has no clips left"):
        mix(new, [([], 0.1)])


def test_a_place_is_heard_and_read_as_the_clip_whose_turn_it_is(tmp_path: Path) -> None:
    new, old = (read_manifest(tones.write_corpus(tmp_path, texts, name)) for name, texts in
                (("new", ("abba", "cab")), ("old", ("da", "bad", "dad", "add"))))  # fmt: skip
    mixture = mix(new, [(old, 0.4)])
    dataset = SpeechDataset(mixture.clips, Alphabet(tuple(" abcd")), mixture=mixture)
    heard = set()
    for epoch in range(4):
        dataset.set_epoch(epoch)
        for place in range(len(dataset)):
            item, clip = dataset[place], mixture.clips[mixture.clip(place, epoch)]
            assert (item.text, item.name) == (clip.text, clip.name)
            torch.testing.assert_close(item.signal, torch.from_numpy(tones.sing(clip.text)), atol=1e-4, rtol=0)
            heard.add(item.text)
    assert heard == {"abba", "cab", "da", "bad", "dad", "add"}


def test_of_a_corpus_in_parts_the_training_part_is_replayed(tmp_path: Path) -> None:
    new = read_manifest(tones.write_corpus(tmp_path, ("abba", "cab"), "new"))
    for part in ("train", "dev", "test"):
        tones.write_corpus(tmp_path / "old", ("da", "bad"), part)
    for path, expected in (("old", {"train"}), ("old/test.jsonl", {"test"})):  # a manifest is taken as it is
        settings = TrainSettings(keep=KeepSettings(replay=(f"{tmp_path / path}:0.5",)))
        clips = with_replay(Clips(new, new, [], []), find_language("en"), Alphabet(tuple(" abcd")), 50, settings)
        assert {clip.audio_path.name[:-5] for clip in clips.train.clips[2:]} == expected
