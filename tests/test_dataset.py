"""Items, their speeds per epoch, clips that fail, and what is left out before training."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.testing import assert_close
from torch.utils.data import DataLoader

from data.collate import collate
from data.dataset import SpeechDataset, normalised, usable
from data.manifest import Utterance
from data.samplers import BucketSampler
from quartznet.alphabet import Alphabet
from quartznet.audio import read_audio
from quartznet.config import AugmentSettings
from quartznet.speed import change_speed
from quartznet.text import find_language, language_from_texts
from quartznet.waveform import Gain, WaveformAugment, WhiteNoise

ALPHABET = Alphabet((" ", "a", "b", "c"))
SPEEDS = (0.9, 1.0, 1.1)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "a.wav"
    soundfile.write(path, 0.1 * np.sin(np.arange(8000) / 5).astype(np.float32), 16000, subtype="FLOAT")
    return path


def test_an_item_by_hand(clip: Path) -> None:
    item = SpeechDataset([Utterance(clip, "ab c", 0.25, offset=0.125)], ALPHABET)[0]
    assert_close(item.signal, read_audio(clip)[2000:6000])
    assert_close(item.target, torch.tensor([1, 2, 0, 3]))
    assert (item.text, item.name, item.problem) == ("ab c", f"{clip}@0.125s", "")


def speeds(*choices: float) -> WaveformAugment:
    return WaveformAugment(AugmentSettings(speeds=choices), 16000)


def test_augmentation_depends_on_seed_epoch_and_index_alone(clip: Path) -> None:
    augment = WaveformAugment(AugmentSettings(speeds=SPEEDS, gain=Gain(0.5), white_noise=WhiteNoise(0.5)), 16000)

    def heard(seed: int, epoch: int, order: range) -> list[float]:
        dataset = SpeechDataset([Utterance(clip, "a", 0.5)] * 30, ALPHABET, augment=augment, seed=seed)
        dataset.set_epoch(epoch)
        return sorted(dataset[index].signal.square().sum().item() for index in order)

    forwards = range(30)
    assert heard(0, 1, forwards) == heard(0, 1, forwards[::-1])
    assert heard(0, 1, forwards) != heard(0, 2, forwards) and heard(0, 1, forwards) != heard(1, 1, forwards)


def test_every_speed_is_heard(clip: Path) -> None:
    dataset = SpeechDataset([Utterance(clip, "a", None)] * 40, ALPHABET, augment=speeds(*SPEEDS))
    expected = {len(change_speed(read_audio(clip), speed)): change_speed(read_audio(clip), speed) for speed in SPEEDS}
    signals = [dataset[index].signal for index in range(40)]
    assert {len(signal) for signal in signals} == set(expected)
    for signal in signals:
        assert_close(signal, expected[len(signal)])


def test_a_speed_may_come_later(clip: Path) -> None:
    """The same speeds for the same (seed, epoch, index), and the same samples in the end."""
    clips = [Utterance(clip, "a", 0.5)] * 12
    now = SpeechDataset(clips, ALPHABET, augment=speeds(*SPEEDS), seed=3)
    later = SpeechDataset(clips, ALPHABET, augment=speeds(*SPEEDS), seed=3, speed_later=True)
    for epoch in (0, 5):
        now.set_epoch(epoch)
        later.set_epoch(epoch)
        expected, batch = collate([now[index] for index in range(12)]), collate([later[index] for index in range(12)])
        assert expected.speeds is None and set(batch.speeds) == set(SPEEDS)
        assert batch.signal_lengths.tolist() == [8000] * 12 and batch.seconds(16000) == expected.seconds(16000)
        heard = batch.at_speed()
        assert torch.equal(heard.signal_lengths, expected.signal_lengths)
        assert_close(heard.signal, expected.signal, rtol=1e-5, atol=1e-6)


def test_a_speed_does_not_come_later_than_what_hears_it(clip: Path) -> None:
    noisy = WaveformAugment(AugmentSettings(speeds=(0.9,), gain=Gain(0.5)), 16000)
    for augment, samples, speed in ((noisy, 8889, None), (None, 8000, None), (speeds(0.9), 8000, 0.9)):
        item = SpeechDataset([Utterance(clip, "a", 0.5)], ALPHABET, augment=augment, speed_later=True)[0]
        assert (len(item.signal), item.speed) == (samples, speed)


def test_a_clip_is_judged_by_the_length_that_it_will_have(clip: Path) -> None:
    told = [Utterance(clip, "ab" * 6, 0.5, origin="m:1")]
    for speed, outputs in ((1.0, 24), (2.0, 12), (2.0, 11)):
        items = [
            SpeechDataset(told, ALPHABET, augment=speeds(speed), samples_per_output=samples, speed_later=later)[0]
            for later in (False, True)
            for samples in [int(8000 / speed) // outputs]
        ]
        assert items[0].problem == items[1].problem and bool(items[1].problem) == (outputs < 12)
    short = SpeechDataset(told, ALPHABET, augment=speeds(2.0), shortest=4001, speed_later=True)
    assert short[0].problem == "m:1: the clip has 4000 samples, the network needs 4001" and short[0].speed is None


def test_every_failure_is_a_message_with_its_place(clip: Path) -> None:
    (clip.parent / "broken.mp3").write_bytes(b"junk" * 100)
    utterances = [
        Utterance(clip.parent / "missing.wav", "a", 1.0, origin="m:1"),
        Utterance(clip.parent / "broken.mp3", "a", None),
        Utterance(clip, "añb", 0.5, origin="m:3"),
        Utterance(clip, "a", 0.5, offset=50.0, origin="m:4"),
        Utterance(clip, "a", 0.0, origin="m:5"),
    ]
    dataset = SpeechDataset(utterances, ALPHABET, augment=speeds(*SPEEDS))
    problems = [dataset[index].problem for index in range(len(dataset))]
    expected = ["m:1: .*missing", "broken.mp3", "m:3: .*ñ", "m:4: .*a.wav", "m:5: .*duration"]
    assert all(re.search(part, problem) for part, problem in zip(expected, problems, strict=True)), problems


def test_persistent_loader_processes_see_the_epoch(clip: Path) -> None:
    dataset = SpeechDataset([Utterance(clip, "ab", 0.5)] * 12, ALPHABET, augment=speeds(*SPEEDS))
    sampler = BucketSampler([0.5] * 12, batch_seconds=2.0, shuffle=False)
    loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, num_workers=1, persistent_workers=True)
    heard = []
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        heard.append(torch.cat([batch.signal_lengths for batch in loader]).tolist())
        assert heard[-1] == [len(dataset[index].signal) for index in range(12)]
    assert heard[0] != heard[1]


LEFT_OUT = [
    ("a", 0.05, "0.05 s long, shorter than 0.1 s; lower data.min_duration"),
    ("a", 17.0, "17.00 s long, longer than 16.7 s; cut it or raise data.max_duration"),
    (" ", 1.0, "the transcript is empty"),
    ("añ", 1.0, "ñ.*choose a language that has these letters"),
    ("ab" * 12, 0.5, r"its text needs 24 frames and the clip has 22 at its fastest speed"),
    ("aabb" * 4, 0.5, r"its text needs 24 frames and the clip has 22"),
]


@pytest.mark.parametrize(("text", "duration", "reason"), LEFT_OUT)
def test_what_cannot_be_trained_on_is_left_out_with_its_reason(text: str, duration: float, reason: str) -> None:
    good = Utterance(Path("good.wav"), "ab" * 11, 0.5)
    bad = Utterance(Path("bad.wav"), text, duration, origin="m.jsonl:7")
    kept, skipped = usable([good, bad], ALPHABET, 0.1, 16.7)
    assert kept == [good] and len(skipped) == 1
    with pytest.raises(ValueError, match=rf"^m\.jsonl:7: .*{reason}"):
        raise ValueError(skipped[0])


def test_a_slower_limit_keeps_more_and_the_ends_are_allowed() -> None:
    tight = Utterance(Path("a.wav"), "ab" * 12 + "a", 0.5)
    assert usable([tight], ALPHABET, 0.5, 0.5, fastest_speed=1.0) == ([tight], [])


def test_a_clip_of_unknown_length_is_our_mistake() -> None:
    with pytest.raises(ValueError, match=r"a\.wav has no duration; call fill_durations first"):
        usable([Utterance(Path("a.wav"), "a", None)], ALPHABET, 0.1, 16.7)


def test_a_clip_too_short_for_the_front_end_is_a_problem_and_no_error(clip: Path) -> None:
    dataset = SpeechDataset([Utterance(clip, "ab", 0.5, origin="m:1")], ALPHABET, augment=speeds(2.0), shortest=4001)
    assert dataset[0].problem == "m:1: the clip has 4000 samples, the network needs 4001"
    dataset.shortest = 4000
    assert dataset[0].problem == ""


def test_a_manifest_cannot_lie_a_text_into_its_clip(clip: Path) -> None:
    """25 letters are said to have 5 s; there are 24 outputs, and their loss would be a silent zero."""
    told = Utterance(clip, "ab" * 12 + "a", 5.0, origin="m:1")
    assert usable([told], ALPHABET, 0.1, 16.7)[1] == []
    assert "needs 25 frames and the clip has 24" in SpeechDataset([told], ALPHABET, samples_per_output=333)[0].problem
    assert SpeechDataset([told], ALPHABET)[0].problem == ""  # evaluation: the words still count


def test_a_rare_letter_without_a_base_letter_leaves_its_clip_out_by_name() -> None:
    texts = ["ae" * 8000, "é?", "жa", "a ψ a"]
    language = language_from_texts("sw", texts)
    clips = [Utterance(Path("a.wav"), text, 1.0, origin=f"m.jsonl:{n}") for n, text in enumerate([*texts, "aŋ"], 1)]
    kept, skipped = normalised(clips, language)
    assert [clip.text[:3] for clip in kept] == ["aea", "e", "a"]  # ŋ was not in the training text: the audit counts it
    assert [message.partition(" ")[0] for message in skipped] == ["m.jsonl:3:", "m.jsonl:4:"]
    assert "'ψ' in 'a ψ a' is too rare in the corpus to be learnt and has no base letter; correct" in skipped[1]


def test_a_text_that_loses_everything_is_counted_and_silence_stays() -> None:
    spanish = find_language("es")
    clips = [Utterance(Path("a.wav"), text, 1.0, origin=f"m:{n}") for n, text in enumerate(("¡Sí!", "我们", "", "#"))]
    kept, skipped = normalised(clips, spanish)
    assert [clip.text for clip in kept] == ["sí", ""]
    assert [message.split(":")[1] for message in skipped] == ["1", "3"]
    assert "no letter of '我们' is in the alphabet" in skipped[0]


def test_a_whole_clip_is_not_cut_to_what_its_table_says(clip: Path) -> None:
    """It lasts 0.5 s; a little more than was said is read, much more is a problem and not half a sentence."""
    said = [Utterance(clip, "a", seconds, whole=True) for seconds in (0.5, 0.4, 0.2, None, 9.0)]
    items = [SpeechDataset(said, ALPHABET)[index] for index in range(5)]
    assert [len(item.signal) for item in items] == [8000, 8000, 0, 8000, 8000]
    assert "a.wav is longer than the 0.2 s that are said of it" in items[2].problem
    assert len(SpeechDataset([Utterance(clip, "a", 0.2)], ALPHABET)[0].signal) == 3200  # a cut is a cut
