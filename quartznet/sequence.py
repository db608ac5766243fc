"""Training on what is counted in the end: the expected error rate of the texts that a network may output.

CTC raises the probability of the reference whatever the network would have said instead. The risk does not: with W(y)
the error rate of a text y,

    R = sum over all texts  P(y) W(y)        dR = sum  P(y) (W(y) - R) d log P(y)

so a text better than the average rises and a worse one falls. There are too many texts to sum; two estimates:

    mwer    the n best texts stand for all: L = sum q_i (W_i - mean W), q = their P scaled to sum to one
            (Prabhavalkar et al., arXiv:1712.01818, there for attention models)
    policy  paths drawn by chance: L = mean (W_i - b_i) log p(path_i), whose gradient is dR on average for any b that
            does not depend on path i; a good b makes it less noisy (Rennie et al., arXiv:1612.00563; for CTC Zhou et
            al., arXiv:1712.07101)

Both are for networks that have converged with CTC, at a small rate and with some CTC kept: they only reorder texts that
are likely already. The gradient of mwer is 1/50 of that of CTC with errors in words and 1/250 in characters, that of
policy with four samples four times as large and most of it noise (English 15x5, 48 clips it reads with 4 % WER). The
values of L are of use to the optimiser only: with the mean taken off they do not say how large the risk is.

The surprise: a text too long for its frames has probability zero, but with ``zero_infinity`` a loss of 0, which reads
as probability one. Without care the n-best shares would all go to the impossible.
"""

from collections.abc import Callable, Sequence

import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from quartznet.alphabet import Alphabet
from quartznet.ctc import Losses, ctc_losses, frames_needed, greedy_ids, read_paths
from quartznet.nbest import nbest
from quartznet.tune_config import SequenceSettings

Errors = Callable[[int, Sequence[int]], float]  # (number of the utterance, label numbers of a text) -> errors

# ---------------------------------------------------------------------------------------------------------------------
# Errors


def split_words(ids: Sequence[int], space: int | None) -> list[tuple[int, ...]]:
    """The runs of labels between spaces; several spaces in a row, or at an end, make no empty words."""
    words, word = [], []
    for label in [*ids, space]:
        if label != space:
            word.append(label)
        elif word:
            words.append(tuple(word))
            word = []
    return words


def split_units(ids: Sequence[int], unit: str, space: int | None) -> list[tuple[int, ...]] | list[int]:
    """What errors are counted in, as quartznet/metrics.py does: words, or characters with one space between words.

    Raises:
        ValueError: for another unit, or words without a space.
    """
    if unit not in ("word", "character"):
        raise ValueError(f"unit must be word or character, got {unit!r}")
    if unit == "word" and space is None:
        raise ValueError("words need a space among the labels to end them; use unit character")
    words = split_words(ids, space)
    if unit == "word":
        return words
    return [label for word in words for label in (*word, space)][:-1]


def error_rate(reference: Sequence[int], hypothesis: Sequence[int], unit: str, space: int | None) -> float:
    """Levenshtein distance by unit of the reference: 0.5 is half of it wrong, more than 1 is possible.

    An empty reference counts as one unit, so what is heard in silence costs its number of units, and not infinity.
    """
    said, heard = split_units(reference, unit, space), split_units(hypothesis, unit, space)
    return Levenshtein.distance(said, heard) / max(1, len(said))


# ---------------------------------------------------------------------------------------------------------------------
# The n best texts


def text_log_probs(
    log_probs: Tensor, lengths: Tensor, candidates: Sequence[Sequence[Sequence[int]]], blank: int
) -> tuple[Tensor, Tensor]:
    """log P of texts, and which of them are possible at all; ``candidates`` holds a list of texts for each utterance.

    Returns:
        (batch, most candidates) log probabilities, fp32, 0 where impossible; the same shape, True where possible.
    """
    places = [(row, column) for row, texts in enumerate(candidates) for column in range(len(texts))]
    texts = [text for group in candidates for text in group]
    rows, columns = torch.tensor(places, device=log_probs.device).T
    targets = pad_sequence([torch.tensor([*text, 0]) for text in texts], batch_first=True)
    target_lengths = torch.tensor([len(text) for text in texts])
    limits = lengths.tolist()
    fits = torch.tensor([frames_needed(text) <= limits[row] for (row, _), text in zip(places, texts, strict=True)])
    targets, target_lengths, fits = (each.to(log_probs.device) for each in (targets, target_lengths, fits))
    losses = ctc_losses(log_probs[rows], lengths.to(log_probs.device)[rows], targets, target_lengths, blank)
    shape = (len(candidates), max(len(group) for group in candidates))
    scores = losses.new_zeros(shape).index_put((rows, columns), -losses)
    return scores, torch.zeros(shape, dtype=torch.bool, device=scores.device).index_put((rows, columns), fits)


def mwer_losses(
    log_probs: Tensor,
    lengths: Tensor,
    candidates: Sequence[Sequence[Sequence[int]]],
    errors: Sequence[Sequence[float]],
    blank: int,
    temperature: float = 1.0,
) -> Tensor:
    """sum q_i (W_i - mean W) of each utterance, q = softmax(log P / temperature) over its possible candidates.

    Subtracting the mean leaves the gradient as it is. With all texts as candidates and temperature 1 the gradient is
    that of the expected error rate.

    Args:
        log_probs: (batch, time, labels), straight out of log-softmax (see quartznet/ctc.py).
        lengths: (batch,) valid frames; later ones get no gradient.
        candidates: for each utterance at least one text, all different.
        errors: W of each candidate.

    Returns:
        (batch,) losses, fp32; 0 without gradient where fewer than two candidates fit into the frames.

    Raises:
        ValueError: for an utterance without candidates, or numbers of candidates and errors that differ.
    """
    for index, (texts, costs) in enumerate(zip(candidates, errors, strict=True)):
        if not texts or len(texts) != len(costs):
            raise ValueError(
                f"utterance {index} has {len(texts)} candidates and {len(costs)} errors; give one error for each of at "
                "least one candidate"
            )
    scores, possible = text_log_probs(log_probs, lengths, candidates, blank)
    costs = pad_sequence([torch.tensor(row, dtype=torch.float32) for row in errors], batch_first=True)
    costs = costs.to(scores.device)
    shares = (scores / temperature).masked_fill(~possible, torch.finfo(scores.dtype).min).softmax(dim=1)
    mean = (costs * possible).sum(dim=1, keepdim=True) / possible.sum(dim=1, keepdim=True).clamp(min=1)
    return (shares * (costs - mean) * possible).sum(dim=1)


# ---------------------------------------------------------------------------------------------------------------------
# Sampled paths


def sample_paths(log_probs: Tensor, samples: int, generator: torch.Generator) -> Tensor:
    """Labels drawn frame by frame: (batch, time, labels) -> (batch, samples, time), on the CPU like ``generator``.

    A frame of NaN, after a network diverged, draws from all labels alike; its loss is NaN all the same.
    """
    batch, time, labels = log_probs.shape
    probabilities = log_probs.detach().cpu().float().nan_to_num(nan=0.0).exp()
    drawn = torch.multinomial(probabilities.reshape(-1, labels), samples, replacement=True, generator=generator)
    return drawn.reshape(batch, time, samples).transpose(1, 2)


def path_log_probs(log_probs: Tensor, lengths: Tensor, paths: Tensor) -> Tensor:
    """log p of paths (batch, samples, time): the sum over the valid frames, (batch, samples)."""
    chosen = log_probs.gather(2, paths.transpose(1, 2).to(log_probs.device))  # (batch, time, samples)
    is_valid = torch.arange(log_probs.shape[1], device=log_probs.device) < lengths.to(log_probs.device).unsqueeze(1)
    return chosen.masked_fill(~is_valid.unsqueeze(2), 0.0).sum(dim=1)


def path_errors(paths: Tensor, lengths: Tensor, errors: Errors, blank: int) -> Tensor:
    """W of the texts of paths (batch, samples, time): (batch, samples) float32 on the CPU."""
    batch, samples, time = paths.shape
    texts = read_paths(paths.reshape(-1, time), lengths.cpu().repeat_interleave(samples), blank)
    return torch.tensor([errors(index // samples, text) for index, text in enumerate(texts)]).reshape(batch, samples)


def leave_one_out(costs: Tensor) -> Tensor:
    """For each sample of (batch, samples) the mean of the other samples, of which there must be at least one."""
    return (costs.sum(dim=1, keepdim=True) - costs) / (costs.shape[1] - 1)


def path_losses(log_probs: Tensor, lengths: Tensor, paths: Tensor, advantages: Tensor) -> Tensor:
    """mean of advantage x log p over the paths (batch, samples, time); ``advantages`` (batch, samples) is W - b."""
    return (advantages.to(log_probs.device) * path_log_probs(log_probs, lengths, paths)).mean(dim=1)


def policy_losses(
    log_probs: Tensor,
    lengths: Tensor,
    errors: Errors,
    blank: int,
    generator: torch.Generator,
    samples: int = 4,
    temperature: float = 1.0,
    baseline: str = "leave-one-out",
) -> Tensor:
    """mean (W_i - b_i) log p(path_i) of each utterance, over sampled paths; on average its gradient is the risk's.

    A temperature other than 1 divides the log probabilities before everything else, in drawing and in log p alike, so
    the risk is then that of the sharper (below 1) or flatter network, and the estimate stays free of bias.

    Args:
        log_probs: (batch, time, labels), output of log-softmax.
        lengths: (batch,) valid frames; later ones get no gradient.
        errors: W of a text of an utterance; any number that should become small.
        generator: on the CPU.
        baseline: "leave-one-out": b_i is the mean W of the other samples; "greedy": W of the greedy text.

    Returns:
        (batch,) losses, fp32.

    Raises:
        ValueError: for another baseline, or fewer than 2 samples with leave-one-out.
    """
    if baseline not in ("leave-one-out", "greedy"):
        raise ValueError(f"baseline must be leave-one-out or greedy, got {baseline!r}")
    if samples < 2 and baseline == "leave-one-out":
        raise ValueError(f"leave-one-out compares samples and needs at least 2, got {samples}")
    log_probs = (log_probs.float() / temperature).log_softmax(dim=2)
    paths = sample_paths(log_probs, samples, generator)
    costs = path_errors(paths, lengths, errors, blank)
    if baseline == "leave-one-out":
        base = leave_one_out(costs)
    else:
        greedy = greedy_ids(log_probs.detach(), lengths, blank)
        base = torch.tensor([[errors(index, text)] for index, text in enumerate(greedy)])
    return path_losses(log_probs, lengths, paths, costs - base)


# ---------------------------------------------------------------------------------------------------------------------
# The whole


def best_texts(
    log_probs: Tensor, lengths: Tensor, references: Sequence[Sequence[int]], blank: int, settings: SequenceSettings
) -> list[list[list[int]]]:
    """The n best texts of each utterance, with its reference if the settings say so."""
    log_probs = log_probs.detach().nan_to_num(nan=0.0)  # a network that diverged shows by its loss, not in the search
    found = nbest(log_probs, lengths, blank, settings.beam, settings.candidates)
    texts = [[text for text, _ in group] for group in found]
    if settings.include_reference:
        for group, reference in zip(texts, references, strict=True):
            group += [] if reference in group else [reference]
    return texts


def sequence_losses(
    log_probs: Tensor,
    lengths: Tensor,
    targets: Tensor,
    target_lengths: Tensor,
    alphabet: Alphabet,
    settings: SequenceSettings,
    generator: torch.Generator,
    plain: Losses = ctc_losses,
) -> Tensor:
    """``ctc_weight`` x CTC + ``weight`` x estimate of the expected error rate; CTC alone for the method "none".

    Args:
        log_probs: (batch, time, labels), straight out of log-softmax.
        lengths: (batch,) valid frames.
        targets: (batch, letters), padded with anything.
        target_lengths: (batch,) valid letters.
        generator: on the CPU; the method "policy" draws from it.
        plain: what computes CTC.

    Returns:
        (batch,) losses, fp32.

    Raises:
        ValueError: for errors in words with an alphabet without a space.
    """
    ctc = plain(log_probs, lengths, targets, target_lengths, alphabet.blank)
    if settings.method == "none":
        return ctc
    space = alphabet.labels.index(" ") if " " in alphabet.labels else None
    references = [row[:length] for row, length in zip(targets.tolist(), target_lengths.tolist(), strict=True)]

    def errors(index: int, text: Sequence[int]) -> float:
        return error_rate(references[index], text, settings.unit, space)

    if settings.method == "mwer":
        texts = best_texts(log_probs, lengths, references, alphabet.blank, settings)
        costs = [[errors(index, text) for text in group] for index, group in enumerate(texts)]
        risk = mwer_losses(log_probs, lengths, texts, costs, alphabet.blank, settings.temperature)
    else:
        samples, temperature, baseline = settings.candidates, settings.temperature, settings.baseline
        risk = policy_losses(log_probs, lengths, errors, alphabet.blank, generator, samples, temperature, baseline)
    return settings.ctc_weight * ctc + settings.weight * risk
