"""quartznet.recordings: any length and any batch give the same words, pauses cut, bad files do not stop good ones."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tones
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quartznet.config import BlockConfig, FeatureConfig, ModelConfig
from quartznet.ctc import greedy_decode
from quartznet.model import QuartzNet
from quartznet.recordings import PieceCutter, Recording, decode_pieces, greedy, recognise, transcribe
from quartznet.windows import windows_for

BLANK = 5


def small_model(rule: str = "2.5") -> QuartzNet:
    blocks = (BlockConfig(32, 5, stride=2), BlockConfig(32, 9, residual=True), BlockConfig(32, 1, separable=False))
    return QuartzNet(ModelConfig(tuple(" abcd"), blocks, FeatureConfig(rule=rule)))


def path_of(text: str) -> torch.Tensor:
    """Log-probs whose best path is ``text``; ``_`` is the blank."""
    labels = torch.tensor([" abcd_".index(letter) for letter in text])
    return (torch.nn.functional.one_hot(labels, 6) * 8.0).log_softmax(1)


def test_pieces_are_cut_amid_pauses() -> None:
    cutter = PieceCutter(small_model(), pause=0.08, longest=100.0)  # 4 frames
    assert cutter.push(path_of("____ab__c")) == []
    [piece] = cutter.push(path_of("_ __d"))
    assert torch.equal(piece.log_probs, path_of("____ab__c_ ")) and piece.first == 0
    [rest] = cutter.finish()
    assert torch.equal(rest.log_probs, path_of("__d")) and rest.first == 11
    assert cutter.finish() == []


def test_without_a_pause_the_longest_gap_is_cut() -> None:
    cutter = PieceCutter(small_model(), pause=1.0, longest=0.2)  # 10 frames
    [piece] = cutter.push(path_of("ab_c_ _d_ab"))
    assert torch.equal(piece.log_probs, path_of("ab_c_ "[:5]))
    cutter = PieceCutter(small_model(), pause=1.0, longest=0.2)
    assert [len(piece.log_probs) for piece in cutter.push(path_of("abcdabcdabcd"))] == [10]


@settings(deadline=None, max_examples=25)
@given(st.text(" ab___", max_size=80), st.lists(st.integers(1, 30), max_size=6), st.sampled_from([0.04, 0.1, 3.0]))
def test_pieces_are_the_whole_however_it_comes(text: str, sizes: list[int], longest: float) -> None:
    log_probs, model = path_of(text) if text else torch.zeros(0, 6), small_model()
    cutter, pieces, start = PieceCutter(model, 0.1, longest), [], 0
    for size in [*sizes, 80]:
        pieces += cutter.push(log_probs[start : start + size])
        start += size
    pieces += cutter.push(log_probs[start:]) + cutter.finish()
    assert torch.equal(torch.cat([piece.log_probs for piece in pieces] or [log_probs]), log_probs)
    assert [piece.first for piece in pieces] == [
        sum(len(before.log_probs) for before in pieces[:index]) for index in range(len(pieces))
    ]
    assert all(len(piece.log_probs) <= max(50 * longest, 80 + 50 * longest) for piece in pieces)
    words = [word for row in decode_pieces(pieces, greedy(model), 0.02) for word in row]
    whole = greedy_decode(log_probs[None], torch.tensor([len(log_probs)]), model.alphabet)[0]
    assert "".join(word.text for word in words) == whole.replace(" ", "")
    assert all(early.end <= late.start + 0.011 for early, late in pairwise(words))


def write_long(path: Path, seconds: float = 12.0) -> Path:
    song = np.concatenate([tones.sing(text) for text in ("abba", "cab dada", "da", "bad cab")])
    soundfile.write(path, np.tile(song, 9)[: round(seconds * 16000)], 16000)
    return path


@pytest.mark.parametrize("rule", ["0.x", "1.x", "2.5"])
def test_the_windowed_pass_is_the_whole_pass(tmp_path: Path, rule: str) -> None:
    from quartznet.audio import read_audio
    from quartznet.windows import full_context, normalized_file, run_windows

    model, path = small_model(rule).eval(), write_long(tmp_path / "a.wav")
    signal = read_audio(path)
    with torch.inference_mode():
        whole, lengths = model(signal[None], torch.tensor([len(signal)]))
    windows = windows_for(model, 1.0, None, None)
    assert windows.before == windows.after == 10 and full_context(model.config.blocks) == 2 + 2 * 4
    parts = [run_windows(model, [window])[0] for window in windows.cut(normalized_file(model, path))]
    assert len(parts) == 12
    torch.testing.assert_close(torch.cat(parts), whole[0, : int(lengths)], rtol=0, atol=2e-4)
    narrow = windows_for(model, 1.0, None, 0.04)
    joined = torch.cat([run_windows(model, [window])[0] for window in narrow.cut(normalized_file(model, path))])
    assert joined.shape == (int(lengths), 6) and (joined - whole[0, : int(lengths)]).abs().max() > 1e-3


def test_a_long_file_is_normalised_in_two_passes_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quartznet import windows

    model, path = small_model(), write_long(tmp_path / "a.wav")
    once = torch.cat(list(windows.normalized_file(model, path)), dim=1)
    monkeypatch.setattr(windows, "HELD", 1.0)
    assert torch.equal(torch.cat(list(windows.normalized_file(model, path)), dim=1), once)


def test_texts_come_back_in_order_whatever_the_batches(tmp_path: Path) -> None:
    tones.write_corpus(tmp_path)
    model = small_model().train()
    paths = [tmp_path / f"train{index}.wav" for index in range(4)]
    alone = [transcribe(model, [path])[0] for path in paths]
    assert len(set(alone)) > 1  # a random network, but not a mute one
    assert transcribe(model, paths, batch_seconds=100) == alone == model.transcribe([str(path) for path in paths])
    assert transcribe(model, paths[::-1], batch_seconds=1.5) == alone[::-1]
    assert model.training
    assert transcribe(model, []) == []


def test_windows_of_several_long_files_share_batches(tmp_path: Path) -> None:
    model = small_model()
    paths = [write_long(tmp_path / f"{seconds}.wav", seconds) for seconds in (2.0, 7.3, 5.1)]
    windows, heard = windows_for(model, 1.0, None, None), []
    alone = [dict(recognise(model, [path]))[0] for path in paths]
    together = dict(recognise(model, paths, None, windows, 5.0, lambda *seconds: heard.append(seconds)))
    assert [together[index].text for index in range(3)] == [recording.text for recording in alone]
    assert heard[-1] == pytest.approx((14.4, 14.4), abs=0.1) and heard == sorted(heard)
    for recording in together.values():
        edges = [edge for word in recording.words for edge in (word.start, word.end)]
        assert all(0.0 <= edge <= recording.duration for edge in edges)
        assert all(early <= late + 1e-9 for early, late in pairwise(edges[::2]))


def test_a_bad_file_does_not_stop_the_others(tmp_path: Path) -> None:
    good = write_long(tmp_path / "good.wav", 3.0)
    soundfile.write(tmp_path / "half.mp3", np.random.default_rng(0).normal(0, 0.1, 160000), 16000)
    (tmp_path / "half.mp3").write_bytes((tmp_path / "half.mp3").read_bytes()[:9000])
    (tmp_path / "empty.wav").touch()
    soundfile.write(tmp_path / "short.wav", np.zeros(100), 16000)
    paths = [tmp_path / name for name in ("half.mp3", "good.wav", "empty.wav", "short.wav", "absent.wav")]
    found = dict(recognise(small_model(), paths, windows=windows_for(small_model(), 1.0)))
    errors = [str(found[index].error) for index in (0, 2, 3, 4)]
    assert ["cut off" in errors[0], "0 bytes" in errors[1], "100 samples" in errors[2], "exist" in errors[3]] == [
        True
    ] * 4
    assert (
        found[1] == dict(recognise(small_model(), [good], windows=windows_for(small_model(), 1.0)))[0] or found[1].words
    )
    assert all(found[index].words == () for index in (0, 2, 3, 4)) and found[1].error is None


def test_errors_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF no sound")
    with pytest.raises(ValueError, match=r"broken\.wav"):
        transcribe(small_model(), [tmp_path / "broken.wav"])
    with pytest.raises(FileNotFoundError, match=r"absent\.wav"):
        transcribe(small_model(), [tmp_path / "absent.wav"])
    with pytest.raises(ValueError, match="batch_seconds must be above 0 and finite, got 0"):
        transcribe(small_model(), [], 0)
    with pytest.raises(ValueError, match="give a list of paths"):
        transcribe(small_model(), "a.wav")
    model = small_model().train()
    soundfile.write(tmp_path / "short.wav", np.zeros(100), 16000)
    with pytest.raises(ValueError, match=r"short\.wav: 100 samples are too short, the network needs 160; leave it out"):
        transcribe(model, [tmp_path / "short.wav"])
    assert model.training


@pytest.mark.parametrize(("keep", "context"), [(0.0, 1.0), (1.0, -1.0)])
def test_windows_have_a_size(keep: float, context: float) -> None:
    with pytest.raises(ValueError, match="keeps more than 0 s and its context is not negative"):
        windows_for(small_model(), keep, context)


def test_any_rate_and_channels_and_next_to_nothing(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "stereo.wav", np.zeros((96000, 2)), 96000)
    soundfile.write(tmp_path / "blink.wav", np.zeros(800), 16000)
    found = dict(recognise(small_model(), [tmp_path / "stereo.wav", tmp_path / "blink.wav"]))
    assert [type(found[index]) for index in range(2)] == [Recording] * 2
    assert [found[index].error for index in range(2)] == [None] * 2 and found[0].duration == 1.0
