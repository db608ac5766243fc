"""Holding out: nothing on both sides, nothing lost in silence, the same for everybody."""

import random
from pathlib import Path

import pytest

from data.manifest import Utterance
from data.splits import Splits, overlaps, sentence_key, with_held_out


def corpus(count: int, speakers: int = 0, sentences: int = 0) -> list[Utterance]:
    return [
        Utterance(
            Path(f"{index}.wav"),
            f"frase {index % (sentences or count)}",
            1.0,
            origin=f"m:{index}",
            speaker=f"s{index % speakers}" if speakers else "",
        )
        for index in range(count)
    ]


def held_out(clips: list[Utterance]) -> Splits:
    return with_held_out(Splits(clips, [], [], [], "corpus"))


def keys(clips: list[Utterance]) -> set[str]:
    return {sentence_key(clip.text) for clip in clips}


@pytest.mark.parametrize(
    ("count", "speakers", "sentences"),
    [
        (3, 0, 0),
        (5, 0, 0),
        (100, 0, 0),
        (100, 40, 0),
        (200, 40, 20),
        (100, 5, 0),
        (300, 0, 30),
        (100, 100, 3),
        (400, 100, 395),
    ],
)
def test_no_sentence_on_two_sides_and_every_clip_accounted_for(count: int, speakers: int, sentences: int) -> None:
    clips = corpus(count, speakers, sentences)
    splits = held_out(clips)
    train, dev, test = keys(splits.train), keys(splits.dev), keys(splits.test)
    assert not (train & dev or train & test or dev & test)
    parts = [*splits.train, *splits.dev, *splits.test]
    assert len(parts) + len(splits.skipped) == count and len(set(parts)) == len(parts)
    assert splits.train and splits.dev and splits.test
    assert len(splits.skipped) <= 0.05 * count
    if count >= 100 and sentences != 3:
        assert 0.04 * count <= len(splits.dev) <= 0.12 * count
        assert 0.04 * count <= len(splits.test) <= 0.12 * count


def test_speakers_stay_together_where_that_is_cheap() -> None:
    splits = held_out(corpus(200, speakers=40))
    voices = [{clip.speaker for clip in part} for part in (splits.train, splits.dev, splits.test)]
    assert sum(map(len, voices)) == len(set.union(*voices)) == 40
    assert splits.description == "corpus; dev (20 clips) and test (20 clips) held out from train by speaker"


def test_training_clips_that_repeat_a_held_out_sentence_are_counted() -> None:
    clips = corpus(400, speakers=100)
    first = held_out(clips)
    again = Utterance(
        Path("again.wav"), first.test[0].text.upper() + "!", 1.0, origin="m:again", speaker=first.train[0].speaker
    )
    splits = held_out([*clips, again])
    assert again not in [*splits.train, *splits.dev, *splits.test]
    assert any(message.startswith("m:again: its sentence was held out") for message in splits.skipped)


def test_sentences_are_held_out_where_everybody_reads_the_same_ones() -> None:
    assert held_out(corpus(200, speakers=40, sentences=20)).description.endswith("by sentence")


def test_order_does_not_matter() -> None:
    clips = corpus(100, speakers=30)
    shuffled = random.Random(0).sample(clips, len(clips))
    assert set(held_out(clips).test) == set(held_out(shuffled).test)
    assert set(held_out(clips).dev) == set(held_out(shuffled).dev)


def test_one_sentence_only_is_split_by_clip_and_says_so() -> None:
    splits = held_out(corpus(10, sentences=1))
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (8, 1, 1)
    assert "they lie on both sides" in splits.description


def test_two_clips_are_not_split() -> None:
    splits = held_out(corpus(2))
    assert len(splits.train) == 2 and not splits.dev and "nothing was held out" in splits.description


def test_rare_sentences_do_not_leave_train_without_any() -> None:
    clips = corpus(28, sentences=1) + [Utterance(Path(f"{word}.wav"), word, 1.0) for word in ("uno", "dos")]
    splits = held_out(clips)
    assert sorted([len(splits.train), len(splits.dev), len(splits.test)]) == [1, 1, 28] and len(splits.train) == 28


def test_one_clip_listed_often_is_not_split() -> None:
    splits = held_out([Utterance(Path("a.wav"), "hola", 1.0, origin=f"m:{line}") for line in range(5)])
    assert len(splits.train) == 5 and "only 1 different clips to train on: nothing was held out" in splits.description


def test_given_parts_stay() -> None:
    clips = corpus(30)
    with_dev = Splits(clips[:20], clips[20:], [])
    assert with_held_out(with_dev) is with_dev
    only_test = Splits([], [], clips)
    assert with_held_out(only_test) is only_test
    splits = with_held_out(Splits(clips[:20], [], clips[20:]))
    assert splits.test == clips[20:] and len(splits.dev) == 2 and len(splits.train) == 18


def test_holding_out_leaves_the_other_lists_alone() -> None:
    clips = corpus(40)
    splits = with_held_out(Splits(clips[:30], [], [], extra=clips[30:33], other=clips[33:36], invalidated=clips[36:]))
    assert splits.dev and (splits.extra, splits.other, splits.invalidated) == (clips[30:33], clips[33:36], clips[36:])


def test_sentence_key_hears_no_case_and_no_punctuation_but_keeps_marks() -> None:
    assert sentence_key("¡Hola,  Ñandú!") == sentence_key("hola n\u0303andú")
    assert sentence_key("हिन्दी") == "हिन्दी"
    assert sentence_key("...") == "..."


def test_overlaps_say_what_nobody_can_tell() -> None:
    def clip(text: str, speaker: str) -> Utterance:
        return Utterance(Path(f"{text}.wav"), text, 1.0, speaker=speaker)

    known = Splits([clip("a", "x"), clip("b", "y")], [clip("b", "x")], [], [], "")
    assert overlaps(known) == {
        "train-dev speakers": 1,
        "train-dev sentences": 1,
        "train-test speakers": 0,
        "train-test sentences": 0,
        "dev-test speakers": 0,
        "dev-test sentences": 0,
    }
    unknown = overlaps(Splits([clip("a", "x")], [clip("b", "")], [], [], ""))
    assert unknown["train-dev speakers"] is None and unknown["train-dev sentences"] == 0
    assert unknown["train-test speakers"] == 0
