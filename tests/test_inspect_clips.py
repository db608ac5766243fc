"""Decoding once: what is found, what is remembered, and decoders that die."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data import inspect_clips as module
from data.inspect_clips import Inspection, clip_key, inspect_clip, inspect_clips, read_cache, whole_files
from data.manifest import Utterance


def write(path: Path, samples: int = 800, rate: int = 8000, channels: int = 1) -> Utterance:
    sound = (8192 * np.sin(np.arange(samples) / 7 + samples)).astype(np.int16)
    soundfile.write(path, np.stack([sound] * channels, axis=1), rate)
    return Utterance(path, "a", None, origin=f"m:{samples}")


def test_what_is_found_by_hand(tmp_path: Path) -> None:
    found = inspect_clip(write(tmp_path / "a.wav", 1200, 8000, 2))
    assert (found.problem, found.duration, found.sample_rate, found.channels) == ("", 0.15, 8000, 2)
    assert found.peak == pytest.approx(0.25, abs=1e-3)


def test_equal_sound_has_equal_fingerprints(tmp_path: Path) -> None:
    names = ("a.wav", "b.flac", "c.wav")
    prints = [inspect_clip(write(tmp_path / name, 800)).fingerprint for name in names]
    assert len(set(prints)) == 1 and len(prints[0]) == 32
    assert inspect_clip(write(tmp_path / "d.wav", 801)).fingerprint != prints[0]
    assert inspect_clip(write(tmp_path / "e.wav", 800, rate=16000)).fingerprint != prints[0]  # twice as fast


def test_problems_are_results(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    assert "is empty (0 bytes)" in inspect_clip(Utterance(tmp_path / "empty.wav", "a", None)).problem
    assert "does not exist" in inspect_clip(Utterance(tmp_path / "missing.wav", "a", None)).problem


def test_a_duration_is_a_cut_unless_it_is_said_of_the_whole_file(tmp_path: Path) -> None:
    alone = Utterance(tmp_path / "a.wav", "a", 0.01, whole=True)
    parts = [Utterance(tmp_path / "b.wav", "a", 0.05), Utterance(tmp_path / "b.wav", "b", 0.03, offset=0.05)]
    later = Utterance(tmp_path / "c.wav", "a", 0.02, offset=0.01)
    assert [clip.duration for clip in whole_files([alone, *parts, later])] == [None, 0.05, 0.03, 0.02]
    for name in "abc":
        write(tmp_path / f"{name}.wav", 800)
    found = inspect_clips([alone, *parts, later], tmp_path / "cache", jobs=0)
    assert [one.duration for one in found] == [0.1, 0.05, 0.03, 0.02]
    assert inspect_clips(parts[:1], tmp_path / "cache", jobs=0)[0].duration == 0.05  # whatever became of the others


def test_cuts_that_begin_close_together_are_told_apart(tmp_path: Path) -> None:
    clips = [Utterance(tmp_path / "a.wav", "a", 1.0, offset=offset) for offset in (10000.06, 10000.14)]
    assert len({clip_key(clip) for clip in clips}) == len({clip.name for clip in clips}) == 2
    assert clip_key(clips[0]) != clip_key(Utterance(tmp_path / "a.wav", "a", 2.0, offset=10000.06))


def test_a_duration_of_zero_is_not_all_the_rest(tmp_path: Path) -> None:
    clip = write(tmp_path / "a.wav", 8000)
    assert "duration > 0" in inspect_clip(Utterance(clip.audio_path, "a", 0.0, offset=0.5)).problem


def test_what_failed_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    clip = Utterance(tmp_path / "a.wav", "a", None)
    key = clip_key(clip)
    (tmp_path / "cache").write_text(json.dumps({"key": key, **asdict(Inspection(problem="ffmpeg is not here"))}) + "\n")
    assert "empty" in inspect_clips([clip], tmp_path / "cache", jobs=0)[0].problem
    assert read_cache(tmp_path / "cache") == {}


def test_nothing_is_decoded_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [write(tmp_path / f"{number}.wav", 800 + number) for number in range(4)]
    first = inspect_clips(clips, tmp_path / "out" / "cache", jobs=0)
    before = (tmp_path / "out" / "cache").read_bytes()
    decoded = []
    monkeypatch.setattr(module, "inspect_clip", lambda clip: decoded.append(clip) or inspect_clip(clip))
    assert inspect_clips(clips[::-1], tmp_path / "out" / "cache", jobs=0) == first[::-1]
    assert decoded == [] and (tmp_path / "out" / "cache").read_bytes() == before
    write(clips[2].audio_path, 900)  # changed since
    assert inspect_clips(clips, tmp_path / "out" / "cache", jobs=0)[2].duration == 900 / 8000
    assert [clip.audio_path for clip in decoded] == [clips[2].audio_path]


def test_a_stopped_run_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [write(tmp_path / f"{number}.wav", 800 + number) for number in range(5)]
    cache = tmp_path / "cache"

    def stop_at_the_third(clip: Utterance) -> Inspection:
        if clip is clips[3]:
            raise KeyboardInterrupt
        return inspect_clip(clip)

    monkeypatch.setattr(module, "whole_files", list)
    monkeypatch.setattr(module, "inspect_clip", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        inspect_clips(clips, cache, jobs=0)
    cache.write_bytes(cache.read_bytes()[:-20])  # killed while writing
    assert len(read_cache(cache)) == 2
    decoded = []
    monkeypatch.setattr(module, "inspect_clip", lambda clip: decoded.append(clip) or inspect_clip(clip))
    found = inspect_clips(clips, cache, jobs=0)
    assert [one.duration for one in found] == [round((800 + number) / 8000, 4) for number in range(5)]
    assert decoded == clips[2:]
    assert len(read_cache(cache)) == 5


def test_a_strange_cache_is_passed_over(tmp_path: Path) -> None:
    lines = ["", "[1]", '"x"', '{"key": 3}', "{", json.dumps({"key": "k", "problem": "p"}), "\udcff"]
    (tmp_path / "cache").write_text("\n".join(lines), errors="surrogateescape")
    assert read_cache(tmp_path / "cache") == {} and read_cache(tmp_path / "none") == {}


def test_keys_tell_cuts_and_changes_apart(tmp_path: Path) -> None:
    clip = write(tmp_path / "a.wav")
    keys = {clip_key(clip)}
    keys.add(clip_key(Utterance(clip.audio_path, "a", 1.0)))
    keys.add(clip_key(Utterance(clip.audio_path, "a", None, offset=0.5)))
    keys.add(clip_key(Utterance(clip.audio_path, "a", None, start_byte=5, byte_count=9)))
    os.utime(clip.audio_path, ns=(1, 1))
    keys.add(clip_key(clip))
    clip.audio_path.unlink()
    keys.add(clip_key(clip))
    assert len(keys) == 6


def die_of_it(clip: Utterance) -> Inspection:
    """What a decoder with a bug does to some file."""
    if clip.text == "deadly":
        os._exit(139)
    return inspect_clip(clip)


def test_a_decoder_that_dies_costs_one_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [write(tmp_path / f"{number}.wav", 800 + number) for number in range(7)]
    clips[4] = Utterance(clips[4].audio_path, "deadly", None)
    monkeypatch.setattr(module, "inspect_clip", die_of_it)
    found = inspect_clips(clips, tmp_path / "cache", jobs=2)
    assert [bool(one.problem) for one in found] == [number == 4 for number in range(7)]
    assert found[4].problem == f"{clips[4].audio_path}: the decoder crashed on it; {module.CRASHED.split('; ')[1]}"
    assert len(read_cache(tmp_path / "cache")) == 6
