"""Why is the word error rate still 100 %? One sentence with the most likely cause, from what an evaluation saw.

Most trainings begin with nothing but blanks, and that is normal: writing nothing is the cheapest way to be wrong. Users
give up there, or wait for days on a run that can never learn. The signs that part the cases, in the order asked:

    texts longer than their clips      labels that do not fit
    features far from the checkpoint's memory, found before training (``quartznet.checkup``)      features that differ
    training loss rises again, steps left out      rate too high
    dev loss far above training loss      batch norm's statistics lag behind weights that move fast
    letters, but no whole word      a word needs all of its letters; the letter error rate tells more
    only blanks, loss falls      the plateau, normal
    only blanks, loss does not fall any more      stuck: too little speech, or too low a rate

The surprise: a plateau and a rate that is too high look alike on paper, all blanks, and only the course of the training
loss tells them apart.
"""

from collections.abc import Mapping, Sequence

HOPELESS = 0.98  # WER from which on a cause is named


def named_cause(
    history: Sequence[Mapping], empty: float, impossible: float, skipped: int, suspicion: str = "", is_ctc: bool = True
) -> str:
    """The cause, with figures; empty where the newest WER is below 98 %.

    Args:
        history: evaluations, each with "wer", "cer", "loss" and "train_loss", the mean since the one before.
        empty: share of the dev clips with an empty hypothesis.
        impossible: share of the dev clips whose text needs more frames than there are.
        skipped: steps left out because loss or gradient were not finite.
        is_ctc: training and dev loss are the same quantity.
        suspicion: what was found wrong with the features before training; empty where nothing was.
    """
    now = history[-1]
    if now["wer"] < HOPELESS:
        return ""
    losses = [record["train_loss"] for record in history if record.get("train_loss") is not None]
    last, least = (losses[-1], min(losses)) if losses else (float("nan"), float("nan"))
    if impossible > 0.2:
        return (
            f"labels that do not fit: {impossible:.0%} of the dev texts are longer than their clips have room for; do "
            "texts and clips belong together? python -m quartznet.doctor looks"
        )
    if suspicion:
        return f"features that differ: {suspicion}"
    if not losses:  # nothing has been trained yet
        return ""
    if skipped >= 3 or (len(losses) > 1 and last > 1.25 * least):
        course = (
            f"the training loss rose from {least:.0f} to {last:.0f}" if last > least else f"{skipped} steps left out"
        )
        return f"rate too high: {course}; try a third of --optim.lr, or --find-lr"
    if is_ctc and now["loss"] > 5 * last:
        return (
            f"batch norm lags: dev loss {now['loss']:.0f}, training loss {last:.0f}; weights move faster than running "
            "statistics follow, and it goes when the rate falls"
        )
    if empty < 0.5 and now["cer"] < 0.9:
        return f"no fault: letters come ({100 * now['cer']:.0f} % CER), whole words follow below about 50 %"
    if len(losses) > 4 and last > 0.98 * losses[-4]:
        return (
            f"stuck: {empty:.0%} of the clips get nothing but blanks and the training loss stays at {last:.0f}; more "
            "speech, --init, or a higher rate (--find-lr) are the ways out"
        )
    return f"the normal blank plateau: {empty:.0%} of the clips get nothing but blanks so far; the loss still falls"
