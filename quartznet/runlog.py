"""What a run tells while it trains: metrics.jsonl, TensorBoard, a progress bar. Only rank 0 writes.

metrics.jsonl holds one JSON object a line: ``{"kind": "train", "step", "epoch", "loss", "lr", "grad_norm",
"audio_seconds_per_second", "seconds", "audio_hours"}`` every ``log_every`` steps, ``{"kind": "dev", "step", "epoch",
"loss", "wer", "cer", "seconds"}`` after each evaluation, ``{"kind": "skipped", "step", "reason", "clips"}`` for a step
that was left out, ``{"kind": "watch", "step", "name", "wer", "cer"}`` for each watched set. ``seconds`` is the time by
the clock from step 0 to the end of that step, over all resumptions: evaluating and saving count, but an evaluation's
own line has the time at which it began. ``audio_seconds_per_second`` is about the steps since the line before,
evaluations not counted. Text has ``tokens_per_second`` and ``tokens``; rates bear the names that the task gives them.

The surprise: a resumed run first deletes the lines written after the checkpoint that it continues from; otherwise those
steps would stand there twice.
"""

import json
import logging
import math
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tqdm import tqdm

from quartznet import distributed
from quartznet.checkpoint import replace_atomically

logger = logging.getLogger(__name__)


@dataclass
class Window:
    """Sums since the last line of the log."""

    loss: float = 0.0
    utterances: float = 0.0
    audio_seconds: float = 0.0
    started: float = 0.0  # time.monotonic()

    def mean_loss(self) -> float:
        return self.loss / self.utterances if self.utterances else math.nan


def truncate_metrics(path: Path, last_step: int, evaluation_due: bool = False) -> None:
    """Drops the records after ``last_step``, and lines that a crash or a full disk left unfinished.

    With ``evaluation_due`` also the evaluation of ``last_step``, which is about to be repeated.
    """
    kept = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.split("\n")[:-1]:  # what follows the last line end is unfinished
        try:
            record = json.loads(line)
            repeated = evaluation_due and record["step"] == last_step and record["kind"] in ("dev", "watch")
            if record["step"] <= last_step and not repeated:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    replace_atomically(path, lambda temporary: temporary.write_text("".join(kept), encoding="utf-8"))


class RunLog:
    """Receives every step and every evaluation; a context manager that closes its files."""

    def __init__(
        self,
        out: Path,
        first_step: int,
        total_steps: int,
        evaluation_due: bool = False,
        unit: str = "s",
        measures: tuple[str, str] = ("WER", "CER"),
    ) -> None:
        """Opens the files of the run folder ``out``; a run that continues gives the steps already done.

        Args:
            unit, measures: see ``quartznet.task.Task``.
        """
        self.unit, self.measures = unit, measures
        self.window = Window(started=time.monotonic())
        self.total_steps = total_steps
        self.out = out
        self.wer = math.nan
        self.writer = self.bar = None
        self.skipped_clips: set[str] = set()
        if not distributed.is_main():
            return
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and only rank 0 needs it

        truncate_metrics(out / "metrics.jsonl", first_step, evaluation_due)
        self.writer = SummaryWriter(str(out / "tensorboard"), purge_step=first_step + 1)
        if sys.stderr.isatty():
            self.bar = tqdm(total=total_steps, initial=first_step, unit="step", dynamic_ncols=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def add(self, loss: float, utterances: float, audio_seconds: float, left_out: bool) -> None:
        """Counts one step: the sum of its losses, over how many utterances, of how many seconds of audio.

        The loss of a step that was left out is not counted.
        """
        if not left_out:
            self.window.loss += loss
            self.window.utterances += utterances
        self.window.audio_seconds += audio_seconds
        if self.bar is not None:
            self.bar.update()

    def train(self, step: int, epoch: int, lr: float, grad_norm: float, seconds: float, audio_seconds: float) -> None:
        """Writes the window's means and opens a new window."""
        elapsed = max(time.monotonic() - self.window.started, 1e-9)
        loss, speed = self.window.mean_loss(), self.window.audio_seconds / elapsed
        record = {"kind": "train", "step": step, "epoch": epoch, "loss": loss, "lr": lr, "grad_norm": grad_norm}
        if self.unit == "s":
            amounts = {"audio_seconds_per_second": speed, "seconds": seconds, "audio_hours": audio_seconds / 3600}
        else:
            amounts = {f"{self.unit}_per_second": speed, "seconds": seconds, self.unit: audio_seconds}
        self._write({**record, **amounts})
        self._scalars(step, {"train/loss": loss, "train/lr": lr, "train/grad_norm": grad_norm, "train/speed": speed})
        if self.bar is not None:
            self.bar.set_postfix_str(
                f"loss {loss:.3f}, {self.measures[0]} {100 * self.wer:.2f} %, {speed:.0f} {self.unit}/s"
            )
        else:
            left = seconds / max(step, 1) * (self.total_steps - step)
            self._say(
                f"step {step}/{self.total_steps}  epoch {epoch}  loss {loss:.3f}  lr {lr:.2g}  norm {grad_norm:.2g}  "
                f"{speed:.0f} {self.unit}/s  {left / 60:.0f} min left"
            )
        self.window = Window(started=time.monotonic())

    @contextmanager
    def not_training(self) -> Iterator[None]:
        """What happens inside the ``with`` block does not count as time of the present window."""
        began = time.monotonic()
        yield
        self.window.started += time.monotonic() - began

    def dev(self, record: dict, examples: list[tuple[str, str]]) -> None:
        """Writes an evaluation and a few (reference, hypothesis) pairs."""
        self.wer = record["wer"]
        names = dict(zip(("wer", "cer"), (measure.lower() for measure in self.measures), strict=True))
        told = {names.get(name, name): value for name, value in record.items()}
        self._write({"kind": "dev", **told})
        self._scalars(record["step"], {f"dev/{name}": told[name] for name in ("loss", *names.values())})
        if self.writer is not None:
            for index, (reference, hypothesis) in enumerate(examples):
                self.writer.add_text(f"dev/{index}", f"{reference}  \n{hypothesis}", record["step"])
        rates = zip(self.measures, (record["wer"], record["cer"]), strict=True)
        scores = "  ".join(f"{measure} {100 * rate:.2f} %" for measure, rate in rates)
        self._say(f"step {record['step']}/{self.total_steps}  dev loss {record['loss']:.4f}  {scores}")

    def watched(self, step: int, scores: dict[str, tuple[float, float]]) -> None:
        """Writes the scores of the watched sets, after step 0 or an evaluation."""
        for name, (wer, cer) in scores.items():
            self._write({"kind": "watch", "step": step, "name": name, "wer": wer, "cer": cer})
            self._scalars(step, {f"watch/{name}/wer": wer, f"watch/{name}/cer": cer})
        listed = "; ".join(f"{name} {100 * wer:.2f} %" for name, (wer, _) in scores.items())
        self.say(f"step {step}/{self.total_steps}  watched WER: {listed}")

    def skipped_step(self, step: int, reason: str, clips: list[str]) -> None:
        """Tells that a step was left out, and with which clips it happened."""
        self._write({"kind": "skipped", "step": step, "reason": reason, "clips": clips})
        named = f"; {'clips' if self.unit == 's' else 'texts'}: {', '.join(clips[:5])}" if clips else ""
        more = f" and {len(clips) - 5} more" if len(clips) > 5 else ""
        self._say(f"step {step} skipped: {reason}{named}{more}", logging.WARNING)

    def clips_left_out(self, messages: list[str]) -> None:
        """Clips that failed to load: all of them go to skipped.txt, each once, the first five to the screen."""
        new = [message for message in dict.fromkeys(messages) if message not in self.skipped_clips]
        if not new:
            return
        before = len(self.skipped_clips)
        self.skipped_clips.update(new)
        with open(self.out / "skipped.txt", "a", encoding="utf-8") as file:
            file.writelines(message + "\n" for message in new)
        for message in new[: max(0, 5 - before)]:
            self._say(f"clip left out: {message}", logging.WARNING)

    def say(self, message: str) -> None:
        """A message for the reader, above the progress bar; in lines of at most 80 columns."""
        for line in textwrap.wrap(message, 80, subsequent_indent="    ", break_long_words=False):
            self._say(line)

    def close(self) -> None:
        """Flushes and closes; counts once more what was left out."""
        if self.skipped_clips:
            self._say(
                f"{len(self.skipped_clips)} clips failed to load; see {self.out / 'skipped.txt'}", logging.WARNING
            )
        if self.writer is not None:
            self.writer.close()
        if self.bar is not None:
            self.bar.close()

    def _say(self, message: str, level: int = logging.INFO) -> None:
        if self.bar is not None:
            self.bar.clear()
        if distributed.is_main() or level > logging.INFO:
            logger.log(level, message)
        if self.bar is not None:
            self.bar.refresh()

    def _write(self, record: dict) -> None:
        if not distributed.is_main():
            return
        plain = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in record.items()}
        with open(self.out / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(plain, ensure_ascii=False) + "\n")

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)
