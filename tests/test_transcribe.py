"""Transcribing files: order, batches by length, errors that name the file."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import tones

from quartznet.config import BlockConfig, ModelConfig
from quartznet.model import QuartzNet
from quartznet.transcribe import batches_by_length, transcribe


def small_model() -> QuartzNet:
    return QuartzNet(ModelConfig(tuple(" abcd"), (BlockConfig(32, 5, stride=2), BlockConfig(32, 1, separable=False))))


def test_batches_by_hand() -> None:
    assert list(batches_by_length([1.0, 5.0, 2.0, 2.0, 9.0], 6.0)) == [[4], [1], [2, 3, 0]]
    assert list(batches_by_length([], 6.0)) == []


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


def test_errors_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF no sound")
    with pytest.raises(ValueError, match=r"broken\.wav"):
        transcribe(small_model(), [tmp_path / "broken.wav"])
    with pytest.raises(FileNotFoundError, match=r"absent\.wav"):
        transcribe(small_model(), [tmp_path / "absent.wav"])
    with pytest.raises(ValueError, match="batch_seconds must be above 0, got 0"):
        transcribe(small_model(), [], 0)
    with pytest.raises(ValueError, match="give a list of paths"):
        transcribe(small_model(), "a.wav")
    model = small_model().train()
    soundfile.write(tmp_path / "short.wav", np.zeros(100), 16000)
    with pytest.raises(ValueError, match=r"short\.wav has 100 samples, the network needs 160; leave it out"):
        transcribe(model, [tmp_path / "short.wav"])
    assert model.training
