"""quartznet.diagnosis: each course of a training gets its own sentence."""

import pytest

from quartznet.diagnosis import named_cause


def course(*losses: float, wer: float = 1.0, cer: float = 1.0, dev: float | None = None) -> list[dict]:
    return [{"wer": wer, "cer": cer, "loss": dev or loss, "train_loss": loss} for loss in losses]


@pytest.mark.parametrize(
    "history, signs, begins",
    [
        (course(300, 200, wer=0.97), {}, ""),
        (course(300, 200, 150), {"empty": 1.0}, "the normal blank plateau: 100% of the clips"),
        (course(300, 150, 150, 150, 150), {"empty": 1.0}, "stuck: 100% of the clips get nothing but blanks"),
        (course(200, 300), {"empty": 1.0}, "rate too high: the training loss rose from 200 to 300"),
        (course(200, 190), {"skipped": 4}, "rate too high: 4 steps left out"),
        (course(200, 190), {"impossible": 0.5}, "labels that do not fit: 50% of the dev texts"),
        (course(200, 190), {"suspicion": "a window of 20 ms"}, "features that differ: a window of 20 ms"),
        (course(200, 190, dev=5000.0), {"empty": 1.0}, "batch norm lags: dev loss 5000, training loss 190"),
        (course(20, 19, dev=500.0), {"empty": 1.0, "is_ctc": False}, "the normal blank plateau"),
        (course(200, 190, cer=0.6), {}, "no fault: letters come (60 % CER)"),
    ],
)
def test_the_cause_is_named(history: list[dict], signs: dict, begins: str) -> None:
    given = {"empty": 0.0, "impossible": 0.0, "skipped": 0} | signs
    cause = named_cause(history, **given)
    assert cause.startswith(begins) and bool(cause) == bool(begins)
