"""The loss of a corrector: cross-entropy for each token that it should have written, smoothed as NeMo smooths it.

With V rows of the table of tokens, y the right one and label smoothing e,

    s    = e V / (V - 1)
    loss = -[ (1 - s) ln P(y) + s mean_v ln P(v) ]

(NeMo 0.10, nemo/collections/nlp/nm/losses/smoothed_cross_entropy_loss.py). The mean runs over all V rows, the right one
and those that only fill up the table among them: with V / (V - 1) the right token keeps just 1 - e of the target.

The surprise: NeMo divides by the tokens of a batch, so a token of a short batch weighs more than one of a long batch.
Here each token has a loss of its own, and the training loop takes their mean over all batches of a step and all ranks.
"""

from torch import Tensor

from postcorrect.model import Corrector


def smoothed_losses(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """(tokens,) in nats, fp32.

    Args:
        logits: (tokens, rows), scores before softmax; computed on in fp32.
        targets: (tokens,) the right rows.
        smoothing: e, at least 0 and below 1; 0: plain cross-entropy.

    Raises:
        ValueError: for a smoothing outside that range.
    """
    if not 0.0 <= smoothing < 1.0:
        raise ValueError(f"label smoothing must be in [0, 1), got {smoothing}")
    rows = logits.shape[-1]
    share = smoothing * rows / max(1, rows - 1)
    log_probs = logits.float().log_softmax(-1)
    right = log_probs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return -((1 - share) * right + share * log_probs.mean(-1)) if share else -right


def token_losses(
    corrector: Corrector, source: Tensor, source_mask: Tensor, target: Tensor, target_mask: Tensor, smoothing: float
) -> Tensor:
    """The losses of all tokens after ``begin``, text after text: (number of them,), fp32.

    Args:
        source, target: (batch, time) numbers of tokens, from begin to end, padded.
        source_mask, target_mask: (batch, time), True = token.
    """
    wanted = target_mask[:, 1:]
    logits = corrector(source, source_mask, target[:, :-1])
    return smoothed_losses(logits[wanted], target[:, 1:][wanted], smoothing)
