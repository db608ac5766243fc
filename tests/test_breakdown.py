"""Tables by field and by condition: by hand, groups that add up to the whole, and what is not possible."""

import json
import random

import numpy as np
import pytest

from quartznet.breakdown import (
    Clip,
    Group,
    breakdown_table,
    check_fields,
    conditions_json,
    conditions_table,
    groups,
    groups_json,
    rise,
    shown,
)
from quartznet.metrics import ErrorCounts, bootstrap_interval, total


def clip(errors: int = 0, words: int = 10, seconds: float = 6.0, **said: str | float | bool) -> Clip:
    """``errors`` words and twice as many letters are wrong; a word has five letters."""
    counts = ErrorCounts(errors, 0, 0, words - errors, words)
    return Clip(said, seconds, counts, ErrorCounts(2 * errors, 0, 0, 5 * words - 2 * errors, 5 * words))


def sizes(name: str, clips: list[Clip]) -> dict[str, int]:
    return {group.value: len(group.clips) for group in groups(name, clips)}


# ---------------------------------------------------------------------------------------------------------------------
# By hand


def test_a_table_by_hand() -> None:
    clips = [
        clip(1, accent="andino"),
        clip(3, accent="andino"),
        clip(2, accent="andino"),
        clip(4, accent="caribe"),
        clip(0, seconds=30),
    ]
    low, high = bootstrap_interval([one.words for one in clips])
    # of three clips the best is drawn three times in 1 of 27 samples, more than 2.5 %: the interval ends at 1 in 10
    assert breakdown_table("accent", clips).splitlines() == [
        "by accent                     clips  minutes    WER %     95 % interval    CER %",
        "andino                            3      0.3    20.00    10.00 .. 30.00     8.00",
        "caribe                            1      0.1    40.00                 -    16.00",
        "(none)                            1      0.5     0.00                 -     0.00",
        f"all                               5      0.9    20.00{f'{100 * low:.2f} .. {100 * high:.2f}':>18}     8.00",
    ]


def test_where_nothing_was_said_there_is_no_rate() -> None:
    def silence(heard: int) -> Clip:
        return Clip({"accent": "none"}, 6.0, ErrorCounts(insertions=heard), ErrorCounts(insertions=5 * heard))

    head, *rows = breakdown_table("accent", [silence(2), silence(0), clip(1, accent="x")]).splitlines()
    assert [row.split()[3:] for row in rows] == [["-"] * 3, ["10.00", "-", "4.00"], ["30.00", *rows[2].split()[4:]]]
    assert {len(row) for row in rows} == {len(head)}
    silent = [
        Group(name, (silence(heard), silence(heard))) for name, heard in (("clean", 2), ("10 dB", 1), ("0 dB", 0))
    ]
    head, first, *rows = conditions_table(silent).splitlines()
    assert first.split() == ["clean", *"---"] and [row.split()[2:] for row in rows] == [[*"-----"]] * 2
    assert {len(row) for row in (head, first, *rows)} == {len(head)}
    for row in json.loads(json.dumps(conditions_json(silent), allow_nan=False)):
        assert (
            row["wer"] is row["cer"] is row["rise"] is None
            and row["rise_interval"] == row["wer_interval"] == [None] * 2
        )


def test_conditions_by_hand() -> None:
    clean = Group("clean", tuple(clip(errors) for errors in (0, 0, 2, 2)))
    noisy = Group("room, 10 dB", tuple(clip(errors) for errors in (3, 3, 5, 5)))
    # drawn with four clips, WER goes from 0 to 20 and from 30 to 50 %; the rise is 3 words in 10 in every clip
    assert conditions_table([clean, noisy]).splitlines() == [
        "4 clips each         WER %     95 % interval     rise     95 % interval    CER %",
        "clean                10.00     0.00 .. 20.00                                4.00",
        "room, 10 dB          40.00    30.00 .. 50.00   +30.00    30.00 .. 30.00    16.00",
    ]
    assert rise(clean, noisy) == (pytest.approx(0.3), (pytest.approx(0.3), pytest.approx(0.3)))
    row = conditions_json([clean, noisy])[1]
    assert (row["value"], row["clips"], row["words"]) == ("room, 10 dB", 4, 40)
    assert (row["wer"], row["cer"], row["rise"]) == (pytest.approx(0.4), pytest.approx(0.16), pytest.approx(0.3))


def test_better_in_noise_is_a_negative_rise() -> None:
    assert "   -20.00  -20.00 .. -20.00" in conditions_table([Group("a", (clip(4),) * 2), Group("b", (clip(2),) * 2)])


def test_durations_have_fixed_bounds_that_belong_to_the_upper_group() -> None:
    seconds = (0.5, 1.999, 2.0, 3.9, 4.0, 7.0, 10.9, 11.0, 500.0)
    found = sizes("duration", [clip(duration=value) for value in seconds])
    assert list(found.items()) == [("0-2 s", 2), ("2-4 s", 2), ("4-7 s", 1), ("7-11 s", 2), ("11+ s", 2)]
    assert list(sizes("duration", [clip(duration=12.0)])) == ["11+ s"]


def test_few_numbers_are_groups_in_ascending_order() -> None:
    clips = [clip(snr=value) for value in (10, "-5", 10.0, "100", 20, " 10 ")]
    assert list(sizes("snr", clips).items()) == [("-5", 1), ("10", 3), ("20", 1), ("100", 1)]


def test_many_numbers_are_binned_at_their_quantiles() -> None:
    clips = [clip(snr=value / 2) for value in range(50)]
    random.Random(0).shuffle(clips)
    found = sizes("snr", clips)
    assert list(found) == ["0 to 4.5", "4.5 to 9.5", "9.5 to 14.5", "14.5 to 19.5", "19.5 to 24.5"]
    assert list(found.values()) == [9, 10, 10, 10, 11]
    skewed = [clip(snr=value) for value in [0.0] * 90 + [float(value) for value in range(1, 12)]]
    assert sizes("snr", skewed) == {"0 to 11": 101}  # edges that fall together are one


def test_names_go_by_number_of_clips_then_by_name() -> None:
    clips = [clip(age=age) for age in ("teens", "fifties", "twenties", "fifties", "twenties", "x 1")]
    assert list(sizes("age", clips)) == ["fifties", "twenties", "teens", "x 1"]
    assert sizes("native", [clip(native=True), clip(native=False), clip(native=True)]) == {"True": 2, "False": 1}


@pytest.mark.parametrize("name", ["speaker", "id", "book_id"])
def test_speakers_are_names_though_they_look_like_numbers(name: str) -> None:
    clips = [clip(**{name: str(number)}) for number in range(30) for _ in range(2)]
    assert len(groups(name, clips)) == 30


def test_words_that_python_takes_for_numbers_are_names() -> None:
    assert list(sizes("set", [clip(set=value) for value in ("nan", "1", "inf", "nan")])) == ["nan", "1", "inf"]


def test_clips_that_do_not_say_come_last() -> None:
    clips = [clip(), clip(accent=""), clip(accent="b"), clip(accent=" \n"), clip(accent="b"), clip(accent="a")]
    assert list(sizes("accent", clips).items()) == [("b", 2), ("a", 1), ("(none)", 3)]
    assert list(sizes("snr", [clip(), clip(snr=3)]).items()) == [("3", 1), ("(none)", 1)]


def test_most_values_are_shown_and_the_others_counted() -> None:
    clips = [clip(speaker=f"s{number:02}") for number in range(25) for _ in range(2)] + [clip()]
    rows = breakdown_table("speaker", clips).splitlines()
    assert len(rows) == 1 + 20 + 1 + 1 + 1
    assert rows[20].startswith("s19 ") and rows[21].startswith(f"{'others, 5 values':28}     10 ")
    assert rows[22].startswith("(none)") and rows[23].startswith("all ")
    found = groups("speaker", clips)
    assert sum(len(group.clips) for group in shown(found)) == len(clips) and len(found) == 26
    assert shown(found[:21]) == found[:21]  # a row "others" for one value would save nothing


# ---------------------------------------------------------------------------------------------------------------------
# Invariants


def drawn(seed: int, count: int) -> list[Clip]:
    draw = random.Random(seed)
    clips = []
    for _ in range(count):
        said = {
            "accent": draw.choice(["", "a", "b", "c"]),
            "snr": draw.uniform(-5, 30),
            "speaker": str(draw.randrange(40)),
            "duration": draw.uniform(0, 20),
            "votes": draw.randrange(4),
        }
        if draw.random() < 0.2:
            del said[draw.choice(list(said))]
        clips.append(clip(draw.randrange(6), draw.randrange(6, 12), draw.uniform(0.1, 20), **said))
    return clips


@pytest.mark.parametrize("name", ["accent", "snr", "speaker", "duration", "votes", "absent"])
@pytest.mark.parametrize("seed", range(3))
def test_groups_add_up_to_the_whole(name: str, seed: int) -> None:
    clips = drawn(seed, 120)
    for found in (groups(name, clips), shown(groups(name, clips))):
        assert sorted(id(clip) for group in found for clip in group.clips) == sorted(map(id, clips))
        assert all(group.clips for group in found)
        assert total(group.words for group in found) == total(clip.words for clip in clips)
        assert total(group.characters for group in found) == total(clip.characters for clip in clips)
        assert sum(group.seconds for group in found) == pytest.approx(sum(clip.seconds for clip in clips))
    order = random.Random(seed).sample(clips, len(clips))
    assert sizes(name, order) == sizes(name, clips)


@pytest.mark.parametrize("name", ["accent", "snr", "speaker", "duration"])
def test_every_clip_lies_between_the_bounds_of_its_group(name: str) -> None:
    for group in groups("snr", drawn(5, 200)):
        if group.value != "(none)":
            low, high = (float(part) for part in group.value.split(" to "))
            assert all(low - 0.01 <= clip.said["snr"] <= high + 0.01 for clip in group.clips)
            assert 20 <= len(group.clips) <= 50


def test_the_row_of_all_clips_is_that_of_the_evaluation() -> None:
    clips = drawn(1, 60)
    low, high = bootstrap_interval([clip.words for clip in clips])
    last = breakdown_table("accent", clips).splitlines()[-1]
    assert f"{100 * total(clip.words for clip in clips).rate:.2f}" in last
    assert f"{100 * low:.2f} .. {100 * high:.2f}" in last


def test_the_interval_of_a_rise_is_that_of_the_paired_difference() -> None:
    draw = np.random.default_rng(0)
    before = draw.integers(0, 5, 80)
    after = before + draw.integers(0, 4, 80)
    clean, noisy = (Group(name, tuple(clip(int(n)) for n in counts)) for name, counts in (("a", before), ("b", after)))
    more, (low, high) = rise(clean, noisy)
    assert more == pytest.approx((after - before).sum() / 800)
    error = (after - before).std() / 10 / np.sqrt(80)  # of the mean difference, by the book
    assert low == pytest.approx(more - 1.96 * error, abs=0.01) and high == pytest.approx(more + 1.96 * error, abs=0.01)


def test_tables_fit_the_screen() -> None:
    clips = [clip(10, 1, seconds=1e6, **{"x" * 90: "y" * 100 + str(number)}) for number in range(30)]
    assert max(map(len, breakdown_table("x" * 90, clips).splitlines())) <= 80
    heard = [Group("room, -12.345678 dB and more", tuple(clips)) for _ in range(2)]
    assert max(map(len, conditions_table(heard).splitlines())) <= 80


# ---------------------------------------------------------------------------------------------------------------------
# JSON and mistakes


def test_json_holds_every_group_and_no_infinity() -> None:
    unsaid = Clip({"speaker": "x"}, 1.0, ErrorCounts(insertions=2), ErrorCounts(insertions=5))
    clips = [unsaid, *(clip(1, speaker=f"s{number:02}") for number in range(30) for _ in range(2))]
    rows = json.loads(json.dumps(groups_json(groups("speaker", clips)), allow_nan=False))
    assert len(rows) == 31
    assert rows[0] == {
        "value": "s00", "clips": 2, "seconds": 12.0, "words": 20, "wer": 0.1, "wer_interval": [0.1, 0.1], "cer": 0.04,
    }  # fmt: skip
    assert rows[-1]["value"] == "x" and rows[-1]["wer"] is rows[-1]["wer_interval"] is None
    two = json.loads(json.dumps(groups_json([Group("x", (unsaid, unsaid))]), allow_nan=False))
    assert two[0]["wer_interval"] == [None, None]


def test_a_field_that_no_clip_has_names_those_that_there_are() -> None:
    said = [{"duration": 1.0, "accent": "a"}, {"duration": 2.0, "age": "x"}]
    check_fields(["accent", "duration", "age"], said)
    with pytest.raises(ValueError, match=r"^--by acent: no clip has such a field; choose among accent, age, duration$"):
        check_fields(["accent", "acent"], said)
    with pytest.raises(ValueError, match="--by snr: no clip has such a field; give --noise FOLDER to have noise mixed"):
        check_fields(["snr"], said)
    check_fields(["snr"], [{"snr": 3.0}])


@pytest.mark.parametrize("others", [(clip(),), (clip(), clip(words=11))])
def test_conditions_hold_the_same_clips(others: tuple[Clip, ...]) -> None:
    with pytest.raises(ValueError, match="'5 dB' does not hold the same clips as 'clean'; compare what is in both"):
        conditions_table([Group("clean", (clip(), clip())), Group("5 dB", others)])


def test_values_do_not_steer_the_terminal() -> None:
    zero = ErrorCounts(hits=1, reference_length=1)
    clips = [Clip({"accent": "a\x1b[31mb\u202ec"}, 1.0, zero, zero)] * 2
    assert "a?[31mb?c " in breakdown_table("accent", clips)
