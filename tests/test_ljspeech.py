"""Tables without a header: columns divided by bars or tabs, clips found by name."""

from pathlib import Path

from test_folder import make

from data.ljspeech import LJSpeech


def test_metadata_csv_prefers_the_normalised_text(tmp_path: Path) -> None:
    table = 'L1|Dr. "A"|doctor a\nL2|dos|\nL3|tres\nL9|nadie|nadie\nno bar\n'
    wavs = {f"deep/wavs/L{n}.wav": "" for n in (1, 2, 3, 4)}
    splits = LJSpeech().read(make(tmp_path, {"deep/metadata.csv": table, **wavs}))
    assert [(clip.audio_path.name, clip.text) for clip in splits.train] == [
        ("L1.wav", "doctor a"), ("L2.wav", "dos"), ("L3.wav", "tres"),
    ]  # fmt: skip
    problems = "\n".join(splits.skipped)
    assert len(splits.skipped) == 3
    assert "metadata.csv:4: no clip is called 'L9'" in problems and "metadata.csv:5: no '|' in this line" in problems
    assert "L4.wav: no line of a table names it" in problems


def test_transcripts_tsv_names_clips_with_or_without_folder(tmp_path: Path) -> None:
    files = {"x/a.wav": "", "y/a.wav": "", "b.c.mp3": "", "transcripts.tsv": "x/a.wav\tuno\nb.c\tdos\na\ttres\n\n"}
    splits = LJSpeech().read(make(tmp_path, files))
    assert [(clip.audio_path, clip.text) for clip in splits.train] == [
        (tmp_path / "x/a.wav", "uno"), (tmp_path / "b.c.mp3", "dos"),
    ]  # fmt: skip
    assert "transcripts.tsv:3: several clips are called 'a'" in splits.skipped[0]


def test_several_tables_each_beside_its_clips(tmp_path: Path) -> None:
    files = {f"by_book/{who}/wavs/{n}.wav": "" for who in ("ana", "ben") for n in (1, 2)}
    files |= {
        f"by_book/{who}/metadata.csv": f"1|{who} uno|{who} uno\n2|{who} dos\n1|otra vez\n" for who in ("ana", "ben")
    }
    assert LJSpeech().recognises(make(tmp_path, files))
    splits = LJSpeech().read(tmp_path)
    folders = {clip.text: clip.audio_path.parent.parent.name for clip in splits.train}
    assert folders == {"ana uno": "ana", "ana dos": "ana", "ben uno": "ben", "ben dos": "ben"}
    assert len(splits.skipped) == 2 and "metadata.csv:3: " in splits.skipped[0] and "twice" in splits.skipped[0]


def test_hostile_lines(tmp_path: Path) -> None:
    table = b'\xef\xbb\xbfa|"uno\r\nb|caf\xe9|caf\xe9\r\n\xef\xbb\xbfc|tres|\r\n|\r\n../../etc/passwd|x\r\n\0|y\r\n'
    splits = LJSpeech().read(make(tmp_path, {"metadata.csv": table, "a.wav": "", "b.wav": "", "c.wav": ""}))
    assert [clip.text for clip in splits.train] == ['"uno', "tres"]
    reasons = [
        "csv:2: not UTF-8",
        "csv:4: no sound file is named",
        "csv:5: no clip",
        "csv:6: no sound",
        "b.wav: no line",
    ]
    assert len(splits.skipped) == len(reasons)
    assert all(reason in message for reason, message in zip(reasons, splits.skipped, strict=True))


def test_without_a_table_it_is_not_ljspeech(tmp_path: Path) -> None:
    assert not LJSpeech().recognises(make(tmp_path, {"a.wav": "", "table.csv": "a|b"}))
