"""LibriSpeech: transcripts beside their clips, parts by folder, speakers by number."""

from pathlib import Path

from test_folder import make

from data.librispeech import LibriSpeech


def test_speakers_and_parts(tmp_path: Path) -> None:
    files = {
        "LibriSpeech/train-clean-100/84/1/84-1.trans.txt": "84-1-0 HELLO THERE\r\n84-1-1 AND\n\n84-1-7 GONE\n",
        "LibriSpeech/train-clean-100/84/1/84-1-0.flac": "",
        "LibriSpeech/train-clean-100/84/1/84-1-1.flac": "",
        "LibriSpeech/train-clean-100/84/1/84-1-2.flac": "",
        "LibriSpeech/dev-other/7/1/7-1.trans.txt": "7-1-0 OTHER\n7-1-0 AGAIN",
        "LibriSpeech/dev-other/7/1/7-1-0.flac": "",
        "LibriSpeech/dev-clean/8/1/8-1.trans.txt": b"8-1-1 CAF\xc9\n\xef\xbb\xbf8-1-0 CLEAN",
        "LibriSpeech/dev-clean/8/1/8-1-0.flac": "",
        "LibriSpeech/test-clean/9/1/9-1.trans.txt": "9-1-0 LAST\n",
        "LibriSpeech/test-clean/9/1/9-1-0.wav": "",
    }
    assert LibriSpeech().recognises(make(tmp_path, files))
    splits = LibriSpeech().read(tmp_path)
    assert [(clip.speaker, clip.text) for clip in splits.train] == [("84", "HELLO THERE"), ("84", "AND")]
    assert [(clip.speaker, clip.text) for clip in splits.dev] == [("8", "CLEAN"), ("7", "OTHER")]
    assert [(clip.speaker, clip.text) for clip in splits.test] == [("9", "LAST")]
    assert splits.description == f"LibriSpeech folder {tmp_path}: 2 train, 2 dev, 1 test"
    reasons = [
        "8-1.trans.txt:1: not UTF-8",
        "7-1-0.flac comes twice",
        "84-1-2.flac: no transcript",
        "no clip is called '84-1-7'",
    ]
    assert len(splits.skipped) == 4
    assert all(reason in message for reason, message in zip(reasons, sorted(splits.skipped), strict=True))


def test_one_part_or_one_speaker_is_train(tmp_path: Path) -> None:
    files = {"dev-clean/84/1/84-1.trans.txt": "84-1-0 HELLO", "dev-clean/84/1/84-1-0.flac": ""}
    make(tmp_path, files)
    assert len(LibriSpeech().read(tmp_path).dev) == 1
    for below in ("dev-clean", "dev-clean/84", "dev-clean/84/1"):
        assert len(LibriSpeech().read(tmp_path / below).train) == 1


def test_other_folders_are_not_librispeech(tmp_path: Path) -> None:
    assert not LibriSpeech().recognises(make(tmp_path, {"a.wav": "", "a.txt": "", "b.trans": ""}))
