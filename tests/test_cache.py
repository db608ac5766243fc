"""Caches: what comes out is what went in, the cap holds, and nothing that goes wrong with one costs a clip."""

import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tones
import torch

from data.cache import Cache, DiskCache, MemoryCache, make_cache, to_float, to_int16
from data.dataset import SpeechDataset
from data.loaders import training_loader
from data.manifest import Utterance, read_manifest
from quartznet.alphabet import Alphabet
from quartznet.audio import read_audio
from quartznet.config import AugmentSettings, DataSettings, TrainSettings

ALPHABET = Alphabet(tuple(" abcd"))
BYTES = 2 * 16960  # of a place for a second at 16 kHz


@pytest.fixture
def clips(tmp_path: Path) -> list[Utterance]:
    """Three seconds of noise in three files of 48 kHz."""
    generator = np.random.default_rng(0)
    for index in range(3):
        soundfile.write(tmp_path / f"{index}.wav", 0.3 * generator.standard_normal(48000), 48000, subtype="FLOAT")
    return [Utterance(tmp_path / f"{index}.wav", "a", 1.0) for index in range(3)]


def caches(clips: list[Utterance], limit: int, folder: Path) -> list[Cache]:
    return [MemoryCache(clips, 16000, limit), DiskCache(clips, 16000, limit, folder)]


def test_sixteen_bits_by_hand() -> None:
    signal = torch.tensor([0.0, 0.5, -1.0, 1.0, -1.5, 1 / 32768, 1.4 / 32768])
    assert to_int16(signal).tolist() == [0, 16384, -32768, 32767, -32768, 1, 1]
    every_sample = np.arange(-32768, 32768, dtype=np.int16)
    assert (to_int16(to_float(every_sample)) == every_sample).all()


@pytest.mark.parametrize("kind", [0, 1])
def test_comes_out_as_it_went_in(clips: list[Utterance], tmp_path: Path, kind: int) -> None:
    cache = caches(clips, 10**6, tmp_path / "cache")[kind]
    assert [cache.get(index) for index in range(3)] == [None] * 3
    signals = [read_audio(clip.audio_path) for clip in clips]
    kept = [cache.put(index, signals[index]) for index in (2, 0, 1)]
    assert all(torch.equal(cache.get(index), signal) for index, signal in zip((2, 0, 1), kept, strict=True))
    assert (kept[0] - signals[2].clamp(-1, 32767 / 32768)).abs().max() <= 0.5 / 32768


@pytest.mark.parametrize("kind", [0, 1])
def test_the_cap_leaves_out_the_last_clips_and_rounds_them_all_the_same(
    clips: list[Utterance], tmp_path: Path, kind: int
) -> None:
    cache = caches(clips, 2 * BYTES, tmp_path / "cache")[kind]
    signal = read_audio(clips[2].audio_path)
    rounded = cache.put(2, signal)
    assert cache.has_place.tolist() == [True, True, False] and cache.bytes == 2 * BYTES
    assert cache.get(2) is None and torch.equal(rounded, to_float(to_int16(signal)))


@pytest.mark.parametrize("kind", [0, 1])
def test_a_clip_longer_than_its_place_is_not_kept(clips: list[Utterance], tmp_path: Path, kind: int) -> None:
    cache = caches(clips, 10**6, tmp_path / "cache")[kind]
    assert len(cache.put(0, torch.ones(16961))) == 16961
    assert cache.get(0) is None and cache.get(1) is None


def test_the_dataset_decodes_each_clip_once(clips: list[Utterance], tmp_path: Path) -> None:
    for cache in caches(clips, 2 * BYTES, tmp_path / "cache"):
        dataset = SpeechDataset(clips, ALPHABET, cache=cache)
        first = [dataset[index] for index in range(3)]
        hidden = [clip.audio_path.rename(clip.audio_path.with_suffix(".away")) for clip in clips]
        if isinstance(cache, MemoryCache):
            again = [dataset[index] for index in range(3)]
            assert all(torch.equal(again[index].signal, first[index].signal) for index in (0, 1))
            assert "does not exist" in again[2].problem
        for path in hidden:
            path.rename(path.with_suffix(".wav"))
        assert all(torch.equal(dataset[index].signal, first[index].signal) for index in range(3))


def epochs(clips: list[Utterance], data: DataSettings) -> list[torch.Tensor]:
    """The signals of two epochs, augmented."""
    settings = TrainSettings(data=data, augment=AugmentSettings(speeds=(0.9, 1.1)))
    loader = training_loader(clips, ALPHABET, settings, 16000)
    heard = []
    for epoch in (0, 1):
        loader.dataset.set_epoch(epoch)
        loader.batch_sampler.set_epoch(epoch)
        heard += [batch.signal for batch in loader]
    return heard


@pytest.mark.parametrize("workers", [0, 2])
def test_every_cache_and_cap_trains_on_the_same_samples(
    clips: list[Utterance], tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataSettings(batch_seconds=2.5, workers=workers, cache_folder=str(tmp_path / "cache"))
    whole = epochs(clips, replace(data, cache="memory"))
    for settings in (
        replace(data, cache="memory", cache_gigabytes=BYTES / 1e9),
        replace(data, cache="disk"),
        replace(data, cache="disk"),  # filled by the one before
    ):
        assert all(map(torch.equal, whole, epochs(clips, settings)))
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 3 and not list((tmp_path / "cache").rglob("*.tmp"))
    plain = epochs(clips, data)
    assert not all(map(torch.equal, whole, plain))
    assert max((ours - theirs).abs().max() for ours, theirs in zip(whole, plain, strict=True)) < 2 / 32768


def test_loader_processes_fill_one_memory(clips: list[Utterance]) -> None:
    cache = MemoryCache(clips, 16000, 10**6)
    loader = torch.utils.data.DataLoader(SpeechDataset(clips, ALPHABET, cache=cache), batch_size=None, num_workers=2)
    heard = [item.signal for item in loader]
    assert all(torch.equal(cache.get(index), signal) for index, signal in enumerate(heard))


def test_the_disk_cache_notices_changed_and_damaged_files(clips: list[Utterance], tmp_path: Path) -> None:
    cache = DiskCache(clips, 16000, 10**6, tmp_path / "cache")
    dataset = SpeechDataset(clips, ALPHABET, cache=cache)
    before = dataset[0].signal
    for content in (b"", b"\x93NUMPY half", cache.path(0).read_bytes()[:-100], b"\x80\x04K\x01."):
        cache.path(0).write_bytes(content)
        assert cache.get(0) is None and torch.equal(dataset[0].signal, before) and torch.equal(cache.get(0), before)
    soundfile.write(clips[0].audio_path, np.full(48000, 0.25), 48000)
    assert cache.get(0) is None and not torch.equal(dataset[0].signal, before)
    assert DiskCache(clips, 8000, 10**6, tmp_path / "cache").get(0) is None  # another rate is another file


def test_a_full_disk_costs_no_clip(
    clips: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = DiskCache(clips, 16000, 10**6, tmp_path / "cache")

    def full(_file: object, _samples: np.ndarray) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    items = [SpeechDataset(clips, ALPHABET, cache=cache)[index] for index in range(3)]
    assert [item.problem for item in items] == [""] * 3
    assert len(caplog.messages) == 1 and "No space left" in caplog.messages[0]
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_too_large_a_cache_is_refused(clips: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"the machine has .* lower data.cache_gigabytes or take data.cache disk"):
        MemoryCache([replace(clips[0], duration=1e9)], 16000, 10**15)
    with pytest.raises(ValueError, match=r"are free; lower data.cache_gigabytes or name another data.cache_folder"):
        DiskCache([replace(clips[0], duration=1e9)], 16000, 10**15, tmp_path / "cache")


def test_memory_cannot_be_sent_to_processes_that_are_not_forked(clips: list[Utterance]) -> None:
    with pytest.raises(ValueError, match=r"take data\.cache disk"):
        pickle.dumps(MemoryCache(clips, 16000, 10**6))


def test_what_the_settings_ask_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips = read_manifest(tones.write_corpus(tmp_path))
    caplog.set_level("INFO")
    assert make_cache(clips, 16000, DataSettings()) is None and not caplog.messages
    assert isinstance(make_cache(clips, 16000, DataSettings(cache="memory")), MemoryCache)
    assert caplog.messages[-1].startswith("cache     memory, up to 0.00 GB for 4 of 4 clips")
    settings = DataSettings(cache="disk", cache_folder=os.fspath(tmp_path / "kept"))
    assert isinstance(make_cache(clips, 16000, settings), DiskCache) and (tmp_path / "kept").is_dir()
    with pytest.raises(ValueError, match=r"data\.cache must be none, memory or disk"):
        DataSettings(cache="ram")
