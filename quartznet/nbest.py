"""The most probable texts of an utterance by their sound alone, with the exact sum over their paths.

``quartznet.prefix_search`` has the method. Here nothing is left out for being improbable: every label of every frame is
looked at and only the size of the beam limits the search, because ``quartznet.sequence`` learns from the probabilities,
and those of unlikely texts count there too. To write what was said, ``quartznet.beam`` is faster and knows words.

The surprise: the texts are label numbers, and "a b" with one space and with two are different ones.
"""

from torch import Tensor

from quartznet.prefix_search import read_frames, search


def nbest(
    log_probs: Tensor, lengths: Tensor, blank: int, beam: int = 8, count: int = 8
) -> list[list[tuple[list[int], float]]]:
    """For each utterance up to ``count`` different texts with their log probability, the best first.

    The probability is the sum over the paths that stayed in the beam, so never too high; it is exact, and every text is
    found, with a beam that never fills up.

    Args:
        log_probs: (batch, time, labels), output of log-softmax.
        lengths: (batch,) valid frames; later ones are not read. An utterance without frames has the empty text alone.
        beam: texts kept after each frame.

    Raises:
        ValueError: if count is not within 1 to beam, or a frame gives no label a probability (NaN).
    """
    if not 1 <= count <= beam:
        raise ValueError(f"count must be from 1 to beam ({beam}), got {count}")
    return [
        [(prefix.ids(), score + log_scale) for score, prefix in search(frames, log_probs.shape[2], beam)[:count]]
        for frames, log_scale in read_frames(log_probs, lengths, blank)
    ]
