"""quartznet.watch: sets beside the dev set, before, during and after."""

import copy

import pytest
import torch
from test_finetune import FOUR, batch_of
from test_model import small_model

from quartznet.keep import frozen_head
from quartznet.recognition import recognise, summarise
from quartznet.watch import WatchedSet, forgetting_table, score, watcher


def texts_of(model) -> list:
    batch = batch_of(model)
    batch.texts[:] = [model.alphabet.decode(row[:length].tolist()) for row, length in zip(batch.targets, (3, 2, 3))]  # noqa: B905
    return [batch]


def test_scores_are_those_of_an_evaluation() -> None:
    model = small_model(FOUR).eval()
    batches = texts_of(model)
    result = summarise(recognise(model, batches)[0])
    scores = watcher([WatchedSet("own", batches), WatchedSet("again", batches)])(model, lambda: False)
    assert scores == {"own": (result.wer, result.cer), "again": (result.wer, result.cer)}


def test_the_old_layer_reads_the_present_encoder() -> None:
    old = small_model(FOUR).eval()
    tuned = copy.deepcopy(old)
    with torch.no_grad():
        tuned.decoder.weight.zero_()
    batches = texts_of(old)
    watched = WatchedSet("old", batches, frozen_head(old.state_dict()), old.config.labels)
    assert score(tuned, watched, lambda: False) == score(old, WatchedSet("", batches), lambda: False)
    assert tuned.decoder.weight.abs().max() == 0  # the view did not change the network


def test_a_stop_in_between() -> None:
    model = small_model(FOUR).eval()
    assert watcher([WatchedSet("own", texts_of(model))])(model, lambda: True) is None


def test_nothing_could_be_loaded() -> None:
    with pytest.raises(ValueError, match=r"no clip of keep.watch own could be loaded"):
        score(small_model(FOUR), WatchedSet("own", []), lambda: False)


def test_the_table() -> None:
    history = [
        {"step": 0, "scores": {"en": [0.05, 0.01], "it": [0.9, 0.5]}},
        {"step": 10, "scores": {"en": [0.25, 0.11], "it": [0.4, 0.2]}},
        {"step": 20, "scores": {"en": [0.75, 0.5], "it": [0.45, 0.2]}},
    ]
    table = forgetting_table(history, best_step=10)
    assert all(len(line) <= 80 for line in table.splitlines())
    assert table.splitlines()[1].split() == ["en", "5.00", "%", "25.00", "%", "+20.00", "1.00", "%", "11.00", "%"]
    assert "-50.00" in table
    assert "75.00" in forgetting_table(history, best_step=99)  # no such evaluation: the last
    assert forgetting_table([], 0) == ""


def test_a_set_that_came_later_is_in_the_table() -> None:
    history = [
        {"step": 10, "scores": {"en": [0.25, 0.11]}},
        {"step": 20, "scores": {"en": [0.75, 0.5], "it": [0.45, 0.2]}},
    ]
    lines = forgetting_table(history, best_step=20).splitlines()
    assert lines[-2:] == [
        "en: watched from step 10 on, which stands for before",
        "it: watched from step 20 on, which stands for before",
    ]
    assert [line.split()[0] for line in lines[1:3]] == ["en", "it"]


def test_clips_that_fail_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    model = small_model(FOUR).eval()
    [batch] = texts_of(model)
    batch.skipped += ["a.jsonl:3: cut off", "a.jsonl:4: cut off"]
    assert score(model, WatchedSet("own", [batch]), lambda: False) is not None
    assert caplog.messages == ["2 clips of own could not be loaded; the first: a.jsonl:3: cut off"]
