"""The CTC loss and its gradient as two Triton kernels that never wait for the device (Graves et al., 2006).

The same numbers as ``quartznet.ctc.ctc_losses``. That one, on a GPU, copies the lengths to the host and waits for them
at every call; this one reads them where they are. So no call holds up the launches of the next step, and a CUDA graph
can hold it. Call it once before the capture, with each power of two of letters and each type: the first call compiles.

Of letter i there are two states, the blank before it and the letter itself; a last blank follows all letters. From one
frame to the next, with emissions e(.) of the new frame and all in base-2 logarithms, "+" below adds probabilities,

    either(i)  =  blank(i) + letter(i - 1)                                    who comes to blank i
    blank'(i)  =  either(i) e(blank)
    letter'(i) = (letter(i) + either(i)) e(letter i)          or blank(i) for either(i) if letter i - 1 is the same one

so a frame needs one neighbour, letter(i - 1), where the usual row of 2L + 1 states needs two. Read backwards, text and
frames, the same lines give the other half of each path. ``walk`` runs both directions at once, one program for each
utterance and direction: 2 x batch programs, each of as many steps as the utterance has frames, and not twice as many
one after the other. ``share`` then has one program for each frame and utterance; only the walk is serial.

The neighbour comes by ``tl.gather``: through shared memory, or by shuffles where one warp holds all states. The other
way, to store the row, ``tl.debug_barrier()`` and to read it again one further on, waits in each step for the cache
behind the multiprocessor; it also leans on no compiler ever moving the load, and Triton's interpreter, which has no
threads, could not tell if one did. What is loaded, the next frame's emissions, is asked for one step ahead. Compiled
for sm_90 with 512 states a step is about 200 instructions a warp and two barriers. Times: not measured.

The rows that ``walk`` keeps (fp32, 16 (letters + 1) bytes for each utterance and frame) are off by a factor of their
frame: every 16 frames the largest state is brought back to about 1, by a whole power of two, or after thousands of
frames an fp32 logarithm would have no digits left behind its point. The factor is gone when ``share`` divides by the
sum over all states, which is one for every frame. Nothing is added by atomics: equal input, equal bits.

The surprise: nothing here can raise for what stands in a tensor, as that would be a wait. An utterance whose length or
letters are out of range has the loss NaN, and so has its gradient, which the training step sees.

Bytes in a training step: 32 x batch x time x (letters + 1) for the rows, written and read, log_probs three times (each
direction, and ``share``), the gradient once. Two launches, or one where no gradient is asked for.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

INTERPRETED = triton.knobs.runtime.interpret  # read here because the decorators below read it now, too

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
NEVER = tl.constexpr(float("-inf"))  # the logarithm of no path
ALL_NAN = tl.constexpr(tl.PropagateNan.ALL)
REST = tl.constexpr(16)  # frames between two returns to about 1: no state outruns the exponent of fp32 in them
SIZES = ("time", "letters", "labels", "blank")  # that vary from call to call: no kernel is compiled for each
STRIDES = ("batch_stride", "time_stride", "label_stride")
OTHER_STRIDES = ("weight_stride", "gradient_batch_stride", "gradient_time_stride", "gradient_label_stride")
CHUNK = tl.constexpr(32)  # letters compared at a time with
LABELS = tl.constexpr(32)  # so many labels


@triton.jit
def either_of(first, second):
    """log2(2^first + 2^second). Two that never are stay never, and NaN stays NaN: maximum would else drop it."""
    top = tl.maximum(first, second, propagate_nan=ALL_NAN)
    gap = tl.minimum(first, second) - tl.where(top == NEVER, 0.0, top)
    return top + tl.log2(1.0 + tl.exp2(gap))


@triton.jit
def read_sizes(lengths, target_lengths, utterance, time, letters):
    """Frames and letters of an utterance, 0 where they cannot be, and whether they could not."""
    length, count = tl.load(lengths + utterance), tl.load(target_lengths + utterance)
    broken = (length < 0) | (length > time) | (count < 0) | (count > letters)
    return tl.where(broken, 0, length).to(tl.int32), tl.where(broken, 0, count).to(tl.int32), broken


@triton.jit
def read(pointer, mask):
    """Log-probabilities to base 2 in fp32, whatever type they are stored in."""
    return tl.load(pointer, mask=mask, other=NEVER).to(tl.float32) * LOG2_E


@triton.jit
def column_of(state, count, backwards):
    """Where in a text of ``count`` letters, or of ``count`` + 1 blanks, walkers from the other end meet a state."""
    return tl.where(backwards, count - 1 - state, state)


@triton.jit
def read_text(text, count, labels, state, backwards):
    """The letter of each state, whether the one before is the same, where there is one, and if any is no label."""
    spelled = state < count
    label = tl.load(text + column_of(state, count, backwards), mask=spelled, other=0)
    former = tl.load(text + column_of(state - 1, count, backwards), mask=spelled & (state > 0), other=-1)
    is_label = (label >= 0) & (label < labels)
    return label, label == former, spelled & is_label, tl.sum((is_label == 0).to(tl.int32)) > 0


@triton.jit
def advance(blanks, spells, state, is_repeat):
    """Who comes to each blank and to each letter in the next frame, before its emissions."""
    left = tl.where(state == 0, NEVER, tl.gather(spells, tl.maximum(state - 1, 0), 0))
    to_blank = either_of(blanks, left)
    return to_blank, either_of(spells, tl.where(is_repeat, blanks, to_blank))


@triton.jit
def keep_row(row, blanks, spells, state, count, letters, backwards):
    """Writes all blanks, and behind the longest text's last one all letters."""
    tl.store(row + column_of(state, count + 1, backwards), blanks, mask=state <= count)
    tl.store(row + letters + 1 + column_of(state, count, backwards), spells, mask=state < count)


@triton.jit
def total_of(blanks, spells, state, count):
    """All paths whose last letter is behind them: those that would come to the last blank in one frame more."""
    to_blank, _ = advance(blanks, spells, state, state < 0)
    return tl.sum(tl.where(state == count, to_blank, 0.0))


@triton.jit
def power_of(blanks, spells):
    """The whole power of two just below the most probable state."""
    top = tl.max(tl.maximum(blanks, spells))
    return tl.where(top == NEVER, 0.0, tl.floor(top))


@triton.jit(do_not_specialize=SIZES + STRIDES)
def walk(
    log_probs,  # (batch, time, labels), any strides
    lengths,  # (batch,)
    targets,  # (batch, letters)
    target_lengths,  # (batch,)
    losses,  # (batch,), written
    rows,  # (direction, batch, time, blank or letter, letters + 1), written if KEEP
    time,
    letters,
    labels,
    blank,
    batch_stride,
    time_stride,
    label_stride,
    KEEP: tl.constexpr,
    ZERO: tl.constexpr,
    STATES: tl.constexpr,
):
    """All states of all frames, forwards (program 0 of an utterance) or backwards (program 1).

    Forwards a kept row has its own frame's emissions in it, backwards not, so that the two multiply to a posterior.
    State i of a backward row stands in the column it has forwards: its letter i is letter count - 1 - i there.
    """
    utterance, backwards = tl.program_id(0).to(tl.int64), tl.program_id(1) == 1
    length, count, broken = read_sizes(lengths, target_lengths, utterance, time, letters)
    state = tl.arange(0, STATES)
    label, is_repeat, spelled, wild = read_text(targets + utterance * letters, count, labels, state, backwards)
    step, start = tl.where(backwards, -1, 1).to(tl.int64), tl.where(backwards, length - 1, 0).to(tl.int64)
    frame = log_probs + utterance * batch_stride + start * time_stride
    row = rows + ((tl.program_id(1) * tl.num_programs(0) + utterance) * time + start) * 2 * (letters + 1)
    blank_at, letter_at = tl.cast(blank, tl.int64) * label_stride, label * label_stride
    blanks = tl.where(state == 0, 0.0, NEVER)  # before the first frame: in the first blank
    spells = tl.full([STATES], NEVER, tl.float32)
    lifted = 0.0
    blank_next = read(frame + blank_at, length > 0)
    letter_next = read(frame + letter_at, spelled & (length > 0))
    to_go = length
    while to_go > 0:
        to_go -= 1
        blank_emission, letter_emission = blank_next, letter_next
        frame += step * time_stride
        blank_next = read(frame + blank_at, to_go > 0)
        letter_next = read(frame + letter_at, spelled & (to_go > 0))
        to_blank, to_letter = advance(blanks, spells, state, is_repeat)
        blanks, spells = to_blank + blank_emission, to_letter + letter_emission
        if KEEP:
            kept_blanks, kept_spells = tl.where(backwards, to_blank, blanks), tl.where(backwards, to_letter, spells)
            keep_row(row, kept_blanks, kept_spells, state, count, letters, backwards)
            row += step * 2 * (letters + 1)
        if to_go % REST == 0:
            power = power_of(blanks, spells)
            blanks, spells, lifted = blanks - power, spells - power, lifted + power
    if not backwards:
        loss = (0.0 - total_of(blanks, spells, state, count) - lifted) * LN_2
        loss = tl.where(broken | wild, float("nan"), loss)
        tl.store(losses + utterance, tl.where((loss == float("inf")) & ZERO, 0.0, loss))


@triton.jit
def through(row, to_come, state, mask):
    """Paths through a state, by what they come from and what they come to; to base 2, up to a factor of the frame."""
    return tl.load(row + state, mask=mask, other=NEVER) + tl.load(row + to_come + state, mask=mask, other=NEVER)


@triton.jit
def sum_by_label(label, text, row, to_come, power, count):
    """Over the letters that are each of the ``label``: paths through them, divided by 2 ** power. A fixed order."""
    sums = tl.zeros([LABELS, CHUNK], tl.float32)
    to_go = count
    while to_go > 0:
        letter = count - to_go + tl.arange(0, CHUNK)
        to_go -= CHUNK
        target = tl.load(text + letter, mask=letter < count, other=-1)
        paths = tl.exp2(through(row, to_come, letter, letter < count) - power)
        sums += tl.where(target[None, :] == label[:, None], paths[None, :], 0.0)
    return tl.sum(sums, 1)


@triton.jit(do_not_specialize=SIZES + STRIDES + OTHER_STRIDES)
def share(
    log_probs,  # (batch, time, labels), any strides
    lengths,
    targets,
    target_lengths,
    losses,
    rows,  # as walk left them
    weights,  # (batch,), gradient of what follows by the losses
    gradient,  # (batch, time, labels), any strides, written
    time,
    letters,
    labels,
    blank,
    batch_stride,
    time_stride,
    label_stride,
    weight_stride,
    gradient_batch_stride,
    gradient_time_stride,
    gradient_label_stride,
    ZERO: tl.constexpr,
    STATES: tl.constexpr,
):
    """Gradient of one frame: probability minus posterior for each label; 0 behind the last frame."""
    frame, utterance = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    length, count, broken = read_sizes(lengths, target_lengths, utterance, time, letters)
    count, loss = tl.where(frame < length, count, 0), tl.load(losses + utterance)
    to_come = tl.num_programs(1).to(tl.int64) * time * 2 * (letters + 1)  # from a forward row to its backward one
    blank_row = rows + (utterance * time + frame) * 2 * (letters + 1)
    letter_row = blank_row + letters + 1
    state = tl.arange(0, STATES)
    blanks = through(blank_row, to_come, state, (frame < length) & (state <= count))
    spells = through(letter_row, to_come, state, state < count)
    power = power_of(blanks, spells)
    in_blank = tl.sum(tl.exp2(blanks - power))
    total = in_blank + tl.sum(tl.exp2(spells - power))

    weight = tl.load(weights + utterance * weight_stride)
    counts = broken | ((frame < length) & ((total != 0.0) | (loss != loss) | (not ZERO)))
    log_prob = log_probs + utterance * batch_stride + frame * time_stride
    slope = gradient + utterance * gradient_batch_stride + frame * gradient_time_stride
    to_go = labels
    while to_go > 0:
        label = labels - to_go + tl.arange(0, LABELS).to(tl.int64)
        to_go -= LABELS
        paths = sum_by_label(label, targets + utterance * letters, letter_row, to_come, power, count)
        posterior = (paths + tl.where(label == blank, in_blank, 0.0)) / tl.where(total == 0.0, float("nan"), total)
        probability = tl.exp2(read(log_prob + label * label_stride, (frame < length) & (label < labels)))
        value = tl.where(counts, weight * (probability - posterior), 0.0)
        tl.store(slope + label * gradient_label_stride, value, mask=label < labels)


class ConnectionistLoss(torch.autograd.Function):
    """``walk`` forwards, ``share`` backwards."""

    @staticmethod
    def forward(
        context: FunctionCtx,
        log_probs: Tensor,
        lengths: Tensor,
        targets: Tensor,
        target_lengths: Tensor,
        blank: int,
        zero_infinity: bool,
        keep: bool,
    ) -> Tensor:
        (batch, time, labels), letters = log_probs.shape, targets.shape[1]
        losses = torch.empty(batch, dtype=torch.float32, device=log_probs.device)
        rows = losses.new_empty((2, batch, time, 2, letters + 1) if keep else 0)
        sizes = (time, letters, labels, blank, *log_probs.stride())
        arguments = (log_probs, lengths, targets, target_lengths, losses, rows, *sizes)
        states = states_of(letters)
        with torch.cuda.device_of(log_probs):
            walk[batch, 2 if keep else 1](
                *arguments, KEEP=keep, ZERO=zero_infinity, STATES=states, num_warps=min(16, states // 64)
            )
        context.save_for_backward(*arguments[:6])
        context.sizes, context.zero_infinity = sizes, zero_infinity
        return losses

    @staticmethod
    @once_differentiable
    def backward(context: FunctionCtx, weights: Tensor) -> tuple[Tensor | None, ...]:
        log_probs = context.saved_tensors[0]
        time, letters, *_ = context.sizes
        gradient = torch.empty_like(log_probs)
        arguments = (*context.saved_tensors, weights, gradient, *context.sizes, *weights.stride(), *gradient.stride())
        with torch.cuda.device_of(log_probs):
            share[time, len(log_probs)](*arguments, ZERO=context.zero_infinity, STATES=states_of(letters), num_warps=4)
        return (gradient, *[None] * 6)


def states_of(letters: int) -> int:
    """Pairs of states that a program holds: those of the longest text and the last blank, as a power of two."""
    return max(64, triton.next_power_of_2(letters + 1))


def check(log_probs: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor, blank: int) -> None:
    """What can be seen without a look into the tensors, which would be a wait."""
    if log_probs.dim() != 3 or not log_probs.is_floating_point():
        raise ValueError(f"log_probs is {describe(log_probs)}: give a float tensor (batch, time, labels)")
    batch, _, labels = log_probs.shape
    if targets.dim() != 2 or len(targets) != batch:
        raise ValueError(f"targets is {describe(targets)}: give (batch, letters), a row for each of {batch} utterances")
    for name, tensor in (("lengths", lengths), ("targets", targets), ("target_lengths", target_lengths)):
        if tensor.dtype != torch.int64 or tensor.device != log_probs.device:
            raise ValueError(f"{name} is {describe(tensor)}: give int64 on {log_probs.device}, where log_probs is")
        if name != "targets" and tensor.shape != (batch,):
            raise ValueError(f"{name} is {describe(tensor)}: give a number for each of {batch} utterances")
    if not 0 <= blank < labels:
        raise ValueError(f"blank is {blank}, and log_probs has {labels} labels: give a number from 0 to {labels - 1}")
    if log_probs.device.type != "cuda" and not INTERPRETED:
        raise ValueError(f"log_probs is on {log_probs.device}, kernels need CUDA: call quartznet.ctc.ctc_losses")


def describe(tensor: Tensor) -> str:
    """Type, shape and place for a message."""
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)} on {tensor.device}"


def ctc_losses(
    log_probs: Tensor,
    lengths: Tensor,
    targets: Tensor,
    target_lengths: Tensor,
    blank: int,
    zero_infinity: bool = True,
) -> Tensor:
    """Loss of each utterance, in fp32; arguments and gradient as in ``quartznet.ctc.ctc_losses``, on one device.

    Args:
        log_probs: (batch, time, labels), output of log-softmax, of any float type and any strides.
        lengths: (batch,) valid frames, int64; what follows is never read, and its gradient is 0.
        targets: (batch, letters), int64, padded with anything.
        target_lengths: (batch,) valid letters, int64.
        zero_infinity: loss and gradient 0 where no path can be; else infinity and NaN.

    Returns:
        (batch,) losses in nats; NaN where a length or a letter is out of range.

    The gradient is torch's, exp(log_probs) minus the posteriors, so right through ``log_softmax`` only.

    Raises:
        ValueError: a shape, type or device does not fit, or the tensors are not on a CUDA device.
    """
    check(log_probs, lengths, targets, target_lengths, blank)
    keep = torch.is_grad_enabled() and log_probs.requires_grad
    lengths, targets, target_lengths = lengths.contiguous(), targets.contiguous(), target_lengths.contiguous()
    return ConnectionistLoss.apply(log_probs, lengths, targets, target_lengths, blank, zero_infinity, keep)
