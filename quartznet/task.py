"""What the training loop cannot know and is handed: losses, scores, which weights learn, what identifies the model.

The recogniser, the corrector and the BERT it starts from are trained by one loop. What differs between speech and text
is said here: what a batch holds (seconds of sound or tokens), and what the two rates of an evaluation are called.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from quartznet.finetune import Tuning
from quartznet.step import Gradients, TrainBatch


@dataclass(frozen=True)
class DevResult:
    """A whole evaluation. Rates are fractions."""

    loss: float
    wer: float
    cer: float
    examples: list[tuple[str, str]]  # a few (reference, hypothesis) pairs
    empty: float = 0.0  # share of the clips with an empty hypothesis
    impossible: float = 0.0  # share of the clips whose text needs more frames than there are
    skipped: list[str] = field(default_factory=list)  # one message for each clip of this rank that failed to load


@dataclass(frozen=True)
class Task:
    """What the loop cannot know: how this model computes losses, how it is scored, what identifies it."""

    loss: Callable[[nn.Module, TrainBatch, torch.Generator], Tensor]  # losses of a batch, (len(batch),) fp32
    evaluate: Callable[[nn.Module, Callable[[], bool]], DevResult | None]  # None: stopped because asked to
    seconds: Callable[[TrainBatch], float]  # audio in a batch, or what else ``unit`` says
    identity: dict  # "model_config", "lang": goes into every checkpoint
    tuning: Tuning | None = None  # which weights learn; None: all, always
    evaluate_first: bool = False  # the weights bring something: they are scored, and kept, before the first step
    is_ctc: bool = True  # the losses are those of the evaluation, so the two can be compared
    suspicion: str = ""  # what is wrong with the features, if that was found before training
    unit: str = "s"  # of what ``seconds`` counts: s of audio, or tokens
    measures: tuple[str, str] = ("WER", "CER")  # what ``DevResult.wer`` and ``.cer`` are called
    is_speech: bool = True  # a WER near 100 % is explained as that of a recogniser
    gradients: Gradients | None = None  # how those of a step are computed; None: ``quartznet.step.add_gradients``
    fused_optimizer: bool = False  # NovoGrad as two kernels on a GPU, see ``quartznet.optim``
    watch: Callable[[nn.Module, Callable[[], bool]], dict | None] | None = None  # other sets: name -> (wer, cer)


def train_mode(model: nn.Module, task: Task) -> None:
    """Training mode; what must hold still even then (batch-norm statistics) does."""
    if task.tuning is None:
        model.train()
    else:
        task.tuning.train_mode(model)
