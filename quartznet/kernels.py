"""Triton kernels for QuartzNet on a GPU: every activation is read once, and masks, norms and ReLUs cost no pass of it.

A separable layer is bound by memory: 15x5 has 30,720 depthwise channels at 50 frames a second, 3.07 MB in bf16 for each
second of sound and each time they are read or written. In ``(channels, batch, time)`` memory the pointwise convolution
is *one* matrix product, and what stands between two products is one kernel that reads ``z``, the output of the last
product, applies ``h = mask * relu(gamma (z - mean) / sqrt(var + eps) + beta)`` on load, and writes the depthwise sum.

**Depthwise on matrix units.** 128 lanes of fp32 would need k = 33 to 87 multiplications for each number read. Instead
the sums of one channel are a product with a banded matrix. Cut time into columns of S = 32 outputs; column n needs the
inputs ``32 n - pad ... 32 n + 31 + pad``, a window of R = 128 (256 with dilation 2)::

      time    |---- column 0 ----|---- column 1 ----|---- column 2 ----|
      window 0 |=========================|                                      X[n, r] = h[32 n - margin + r]
      window 1                   |=========================|                    W[r, s] = w[r - s - offset]
                                                                                Y[n, s] = sum over r of X W
              R (window)                S (outputs)
          . . . . . . . .            w0 .  .  .
        N . . X (64 of . .     x   R w1 w0 .  .     =   N  Y, written as it lies in memory
          . .  them) . . .           w2 w1 w0 .
                                     .  w2 w1 w0

The band wastes R / k of the arithmetic, which matrix units have to spare, and reads each input R / S = 4 times, of
which three come out of the first-level cache. ``margin`` is the padding rounded up to 8 frames, so that loads are of 16
bytes wherever a column begins; ``offset = margin - pad``.

Backward the same tile of the gradient serves twice: times the band it is the gradient of the inputs, and times the
inputs it is, along its diagonals, the gradient of the kernel. Sums over channels for the batch norm come along.

The surprise: rows of several utterances lie behind each other and columns never care, because all that a window reads
beyond its utterance is masked anyway. So short clips fill tiles as well as long ones.

Activations are bf16 or fp16. In fp32, which the interpreter computes too, the matrix units would round to TF32, and
without them the registers overflow; PyTorch's layers are the way for fp32.

Sums have a fixed order and nothing is added atomically: the same input gives the same bits. ``docs/gpu.md`` has the
count of bytes. In Triton's interpreter (``TRITON_INTERPRET=1``) all of this runs on a CPU, which is how it is tested.
"""

import triton
import triton.language as tl

ALIGN = 8  # frames that one load moves: 16 bytes of bf16
SIZES = ["batch", "in_groups", "out_groups", "row_columns", "tiles"]  # vary: nothing is compiled for each of them
CHUNK = 2048  # numbers that one program of an elementwise kernel handles
ALL_NAN = tl.constexpr(tl.PropagateNan.ALL)


@triton.jit
def _mixed(bits):
    """A permutation of 32-bit numbers without a pattern (C. Wellons' lowbias32)."""
    bits = (bits ^ (bits >> 16)) * 0x7FEB352D
    bits = (bits ^ (bits >> 15)) * 0x846CA68B
    return bits ^ (bits >> 16)


@triton.jit
def _keeps(seed, place, probability):
    """Whether dropout keeps a number. Philox (``tl.rand``) makes four at a time, for which there are no registers."""
    bits = _mixed(_mixed(place.to(tl.uint32)) ^ seed.to(tl.uint32))
    return (bits >> 8).to(tl.float32) >= probability * 16777216.0


@triton.jit
def _relu(h):
    """NaN stays NaN, as in PyTorch: made zero, it would give a finite loss where there must be none."""
    return tl.maximum(h, 0.0, propagate_nan=ALL_NAN)


@triton.jit
def _activated(z, scale, shift, seed, place, probability, ACTIVATE: tl.constexpr, DROPOUT: tl.constexpr):
    """What the depthwise convolution reads: norm, ReLU and dropout of ``z``, or ``z`` as it is."""
    h = z
    if ACTIVATE:
        h = _relu(z * scale + shift)
    if DROPOUT:
        h = tl.where(_keeps(seed, place, probability), h / (1.0 - probability), 0.0)
    return h


@triton.jit
def _is_real(frame, length):
    """``0 <= frame < length`` in one comparison: read without its sign, a negative number is a very large one."""
    return frame.to(tl.uint32, bitcast=True) < length.to(tl.uint32, bitcast=True)


@triton.jit
def _norm_of(gamma_ptr, beta_ptr, mean_ptr, var_ptr, eps, channel, ACTIVATE: tl.constexpr):
    """mean, 1 / sigma, and scale and shift of the norm as ``z scale + shift``; nothing is loaded without ACTIVATE."""
    mean, over, scale, shift = 0.0, 1.0, 1.0, 0.0
    if ACTIVATE:
        mean, over = tl.load(mean_ptr + channel), 1.0 / tl.sqrt_rn(tl.load(var_ptr + channel) + eps)
        scale = tl.load(gamma_ptr + channel) * over
        shift = tl.load(beta_ptr + channel) - mean * scale
    return mean, over, scale, shift


@triton.jit
def _band(w_ptr, reach, TAPS: tl.constexpr, DILATION: tl.constexpr):
    """W from ``reach``, tap times dilation at each place; zero where there is no such tap."""
    is_tap = (reach >= 0) & (reach <= (TAPS - 1) * DILATION) & (reach % DILATION == 0)
    return tl.load(w_ptr + reach // DILATION, mask=is_tap, other=0.0)


@triton.jit
def _columns(tile, batch, row_columns, N: tl.constexpr):
    """Of the N columns of a tile the utterance, the number in its row, and whether there is such a one: (N, 1)."""
    column = (tile * N + tl.arange(0, N))[:, None]
    row = column // row_columns
    return row, column % row_columns, row < batch


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=["seed_ptr"])
def depthwise_forward(
    x_ptr, w_ptr, gamma_ptr, beta_ptr, mean_ptr, var_ptr, eps, seed_ptr, probability, in_lengths_ptr, out_lengths_ptr,
    y_ptr, batch, in_groups, out_groups, row_columns, tiles,
    TAPS: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr, MARGIN: tl.constexpr, PAD: tl.constexpr,
    R: tl.constexpr, S: tl.constexpr, N: tl.constexpr, ALIGN: tl.constexpr,
    ACTIVATE: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """One channel, every ``num_programs(1)``-th tile of N columns: ``Y = X W``. Rows are ``groups`` of 8 frames."""
    channel = tl.program_id(0).to(tl.int64)
    in_row, out_row = in_groups * ALIGN, out_groups * ALIGN
    x_ptr += channel * batch * in_row
    y_ptr += channel * batch * out_row
    _, _, scale, shift = _norm_of(gamma_ptr, beta_ptr, mean_ptr, var_ptr, eps, channel, ACTIVATE)
    seed = 0
    if DROPOUT:
        seed = tl.load(seed_ptr)
    window, outputs = tl.arange(0, R)[None, :], tl.arange(0, S)[None, :]

    reach = tl.arange(0, R)[:, None] - (MARGIN - PAD) - STRIDE * outputs
    band = _band(w_ptr + channel * TAPS, reach, TAPS, DILATION).to(x_ptr.dtype.element_ty)

    for tile in range(tl.program_id(1), tiles, tl.num_programs(1)):
        row, number, exists = _columns(tile, batch, row_columns, N)
        first = number * S
        in_length = tl.load(in_lengths_ptr + row, mask=exists, other=0)
        out_length = tl.load(out_lengths_ptr + row, mask=exists, other=0)

        later = first * STRIDE + window  # frame + MARGIN, which is never negative
        group = later // ALIGN  # whole loads lie inside the row or outside
        inside = exists & (group >= MARGIN // ALIGN) & (group < in_groups + MARGIN // ALIGN)
        frame = later - MARGIN
        place = row * in_row + frame
        z = tl.load(x_ptr + place, mask=inside).to(tl.float32)  # elsewhere anything, and masked below
        place += (channel * batch * in_row).to(tl.int32)  # wraps around in very large batches, which dropout may
        h = _activated(z, scale, shift, seed, place, probability, ACTIVATE, DROPOUT)
        h = tl.where(_is_real(frame, in_length), h, 0.0)

        y = tl.dot(h.to(band.dtype), band, input_precision="ieee")
        frame = first + outputs
        y = tl.where(frame < out_length, y, 0.0)
        tl.store(y_ptr + row * out_row + frame, y.to(band.dtype), mask=exists & (frame // ALIGN < out_groups))


@triton.jit
def _along_diagonals(
    products, TAPS: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr, MARGIN: tl.constexpr, PAD: tl.constexpr,
    R: tl.constexpr, S: tl.constexpr, J: tl.constexpr,
):  # fmt: skip
    """For each of J taps the sum of ``products`` (R, S) over the places where the band holds that tap."""
    tap = tl.arange(0, J)[:, None]
    reach = tl.arange(0, S)[None, :] + PAD + STRIDE * MARGIN - tap * DILATION  # STRIDE times the row of the window
    is_tap = (reach >= 0) & (reach < STRIDE * R) & (reach % STRIDE == 0) & (tap < TAPS)
    diagonal = tl.gather(products, tl.where(is_tap, reach // STRIDE, 0), 0)
    return tl.sum(tl.where(is_tap, diagonal, 0.0), 1)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=["seed_ptr"])
def depthwise_backward(
    g_ptr, x_ptr, w_ptr, gamma_ptr, beta_ptr, mean_ptr, var_ptr, eps, seed_ptr, probability, in_lengths_ptr,
    out_lengths_ptr, dx_ptr, dw_ptr, sums_ptr, batch, in_groups, out_groups, row_columns, tiles,
    TAPS: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr, MARGIN: tl.constexpr, PAD: tl.constexpr,
    R: tl.constexpr, S: tl.constexpr, N: tl.constexpr, J: tl.constexpr, ALIGN: tl.constexpr,
    ACTIVATE: tl.constexpr, DROPOUT: tl.constexpr, FROZEN: tl.constexpr,
):  # fmt: skip
    """One channel, tiles of N columns of S *inputs*: gradients of the inputs, the taps, and the sums for the norm.

    With output p = (u + pad - j dilation) / stride for input u and tap j, ``dh[u] = sum over j of g[p] w[j]`` and
    ``dw[j] = sum over u of g[p] h[u]``: the same window of g, times the band, and times h summed along diagonals.
    Written are du = gradient of ``gamma (z - mean) / sqrt(var + eps) + beta`` (FROZEN: of z, whose statistics are
    constants then; without ACTIVATE: of h), dw, and per channel the sums of du and of du (z - mean) / sqrt(var + eps).
    """
    channel = tl.program_id(0).to(tl.int64)
    in_row, out_row = in_groups * ALIGN, out_groups * ALIGN
    g_ptr += channel * batch * out_row
    x_ptr += channel * batch * in_row
    dx_ptr += channel * batch * in_row
    mean, over, scale, shift = _norm_of(gamma_ptr, beta_ptr, mean_ptr, var_ptr, eps, channel, ACTIVATE)
    seed = 0
    if DROPOUT:
        seed = tl.load(seed_ptr)
    window, inputs = tl.arange(0, R)[None, :], tl.arange(0, S)[None, :]

    reach = inputs + PAD + STRIDE * (MARGIN - tl.arange(0, R)[:, None])  # tap times dilation
    band = _band(w_ptr + channel * TAPS, reach, TAPS, DILATION).to(x_ptr.dtype.element_ty)
    products = tl.zeros((R, S), tl.float32)
    sum_du = tl.zeros((N, S), tl.float32)
    sum_dz = tl.zeros((N, S), tl.float32)

    for tile in range(tl.program_id(1), tiles, tl.num_programs(1)):
        row, number, exists = _columns(tile, batch, row_columns, N)
        in_length = tl.load(in_lengths_ptr + row, mask=exists, other=0)
        out_length = tl.load(out_lengths_ptr + row, mask=exists, other=0)

        later = number * (S // STRIDE) + window
        group = later // ALIGN
        inside = exists & (group >= MARGIN // ALIGN) & (group < out_groups + MARGIN // ALIGN)
        frame = later - MARGIN
        g = tl.load(g_ptr + row * out_row + frame, mask=inside)
        g = tl.where(_is_real(frame, out_length), g, 0.0)
        dh = tl.dot(g, band, input_precision="ieee")

        frame = number * S + inputs
        place = row * in_row + frame
        inside = exists & (frame // ALIGN < in_groups)
        z = tl.load(x_ptr + place, mask=inside).to(tl.float32)
        is_real = frame < in_length
        noise = place + (channel * batch * in_row).to(tl.int32)
        h = _activated(z, scale, shift, seed, noise, probability, ACTIVATE, DROPOUT)
        h = tl.where(is_real, h, 0.0)
        products += tl.dot(tl.trans(g), h.to(g.dtype), input_precision="ieee")

        du = tl.where(is_real, dh, 0.0)
        if DROPOUT:
            du = tl.where(_keeps(seed, noise, probability), du / (1.0 - probability), 0.0)
        if ACTIVATE:
            du = tl.where(z * scale + shift > 0.0, du, 0.0)
            sum_du += du
            sum_dz += tl.where(is_real, du * ((z - mean) * over), 0.0)
            if FROZEN:
                du *= scale
        tl.store(dx_ptr + place, du.to(g.dtype), mask=inside)

    dw = _along_diagonals(products, TAPS, STRIDE, DILATION, MARGIN, PAD, R, S, J)
    program = channel * tl.num_programs(1) + tl.program_id(1)
    tap = tl.arange(0, J)
    tl.store(dw_ptr + program * TAPS + tap, dw, mask=tap < TAPS)
    if ACTIVATE:
        tl.store(sums_ptr + program * 2, tl.sum(sum_du))
        tl.store(sums_ptr + program * 2 + 1, tl.sum(sum_dz))


@triton.jit(do_not_specialize=["batch", "groups", "frames"])
def statistics(
    z_ptr, mean_ptr, var_ptr, running_mean_ptr, running_var_ptr, batch, groups, frames, momentum,
    CHUNK: tl.constexpr, ALIGN: tl.constexpr, FILLED: tl.constexpr,
):  # fmt: skip
    """Mean and biased variance of each channel, one program each, and the running ones moved towards them.

    Of each row ``frames`` count; FILLED: not all. Deviations are from a guess, the mean of the first chunk, because
    E[z^2] - E[z]^2 loses digits where the mean is large.
    """
    channel = tl.program_id(0).to(tl.int64)
    row = groups * ALIGN
    size = batch * row
    z_ptr += channel * size
    place = tl.arange(0, CHUNK)
    counts = place < size
    if FILLED:
        counts = counts & (place % row < frames)
    z = tl.load(z_ptr + place, mask=counts, other=0.0).to(tl.float32)
    guess = tl.sum(z) / tl.sum(counts.to(tl.float32))
    total = tl.zeros((CHUNK,), tl.float32)
    squares = tl.zeros((CHUNK,), tl.float32)
    for start in range(0, size, CHUNK):
        counts = start + place < size
        z = tl.load(z_ptr + start + place, mask=counts, other=0.0).to(tl.float32) - guess
        if FILLED:
            counts = counts & ((start + place) % row < frames)
        z = tl.where(counts, z, 0.0)
        total += z
        squares += z * z
    count = (batch * frames).to(tl.float32)
    shift = tl.sum(total) / count
    mean = guess + shift
    var = _relu(tl.sum(squares) / count - shift * shift)  # rounding may leave it below 0
    tl.store(mean_ptr + channel, mean)
    tl.store(var_ptr + channel, var)
    old = tl.load(running_mean_ptr + channel)
    tl.store(running_mean_ptr + channel, old + momentum * (mean - old))
    old = tl.load(running_var_ptr + channel)
    tl.store(running_var_ptr + channel, old + momentum * (var * (count / tl.maximum(count - 1.0, 1.0)) - old))


@triton.jit(do_not_specialize=["groups", "count", "parts", "step", "first"])
def norm_backward(
    du_ptr, z_ptr, gamma_ptr, mean_ptr, var_ptr, eps, sums_ptr, dz_ptr, dgamma_ptr, dbeta_ptr, groups, count, parts,
    step, first, PARTS: tl.constexpr, CHUNK: tl.constexpr, ALIGN: tl.constexpr, FROZEN: tl.constexpr,
):  # fmt: skip
    """``dz = gamma / sigma (du - mean(du) - unit mean(du unit))``, unit = (z - mean) / sigma; FROZEN: the first alone.

    The means come from ``parts`` partial sums; of ``step`` numbers each, sum du is the first and sum du unit is number
    ``first``. dz may be du itself.
    """
    channel = tl.program_id(0).to(tl.int64)
    size = groups * ALIGN
    part = tl.arange(0, PARTS)
    here = sums_ptr + (channel * parts + part) * step
    sum_du = tl.sum(tl.load(here, mask=part < parts, other=0.0))
    sum_dz = tl.sum(tl.load(here + first, mask=part < parts, other=0.0))
    if tl.program_id(1) == 0:
        tl.store(dbeta_ptr + channel, sum_du)
        tl.store(dgamma_ptr + channel, sum_dz)
    scale = 1.0 / tl.sqrt_rn(tl.load(var_ptr + channel) + eps)
    gamma, mean = tl.load(gamma_ptr + channel), tl.load(mean_ptr + channel)
    place = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    inside = place < size
    du = tl.load(du_ptr + channel * size + place, mask=inside, other=0.0).to(tl.float32)
    if not FROZEN:
        z = tl.load(z_ptr + channel * size + place, mask=inside, other=0.0).to(tl.float32)
        du = du - sum_du / count - (z - mean) * scale * (sum_dz / count)
    tl.store(dz_ptr + channel * size + place, (gamma * scale * du).to(dz_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["batch", "groups"], do_not_specialize_on_alignment=["seed_ptr"])
def end_forward(
    z_ptr, gamma_ptr, beta_ptr, mean_ptr, var_ptr, r_ptr, r_gamma_ptr, r_beta_ptr, r_mean_ptr, r_var_ptr, eps,
    seed_ptr, probability, lengths_ptr, h_ptr, batch, groups,
    CHUNK: tl.constexpr, ALIGN: tl.constexpr, RESIDUAL: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """The end of a block: ``h = mask * dropout(relu(norm(z) + norm(residual)))``; what follows reads h as it is."""
    channel = tl.program_id(0).to(tl.int64)
    row = groups * ALIGN
    size = batch * row
    place = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    inside = place < size
    z = tl.load(z_ptr + channel * size + place, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(gamma_ptr + channel) / tl.sqrt_rn(tl.load(var_ptr + channel) + eps)
    h = (z - tl.load(mean_ptr + channel)) * scale + tl.load(beta_ptr + channel)
    if RESIDUAL:
        r = tl.load(r_ptr + channel * size + place, mask=inside, other=0.0).to(tl.float32)
        scale = tl.load(r_gamma_ptr + channel) / tl.sqrt_rn(tl.load(r_var_ptr + channel) + eps)
        h += (r - tl.load(r_mean_ptr + channel)) * scale + tl.load(r_beta_ptr + channel)
    h = _relu(h)
    if DROPOUT:
        keeps = _keeps(tl.load(seed_ptr), place + (channel * size).to(tl.int32), probability)
        h = tl.where(keeps, h / (1.0 - probability), 0.0)
    length = tl.load(lengths_ptr + place // row, mask=inside, other=0)
    h = tl.where(place % row < length, h, 0.0)
    tl.store(h_ptr + channel * size + place, h.to(h_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["groups", "chunks"])
def end_backward(
    dh_ptr, h_ptr, z_ptr, mean_ptr, var_ptr, r_ptr, r_mean_ptr, r_var_ptr, eps, probability, du_ptr, sums_ptr, groups,
    chunks, CHUNK: tl.constexpr, ALIGN: tl.constexpr, RESIDUAL: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """``du = dh where h > 0``, which knows masks, ReLU and dropout alike, and its sums for the norms of both branches.

    A frame that dropout, the ReLU or the mask set to zero has no gradient, and no other frame of h is zero.
    """
    channel = tl.program_id(0).to(tl.int64)
    size = groups * ALIGN
    sum_du = tl.zeros((CHUNK,), tl.float32)
    sum_dz = tl.zeros((CHUNK,), tl.float32)
    sum_dr = tl.zeros((CHUNK,), tl.float32)
    mean = tl.load(mean_ptr + channel)
    scale = 1.0 / tl.sqrt_rn(tl.load(var_ptr + channel) + eps)
    r_mean, r_scale = 0.0, 1.0
    if RESIDUAL:
        r_mean = tl.load(r_mean_ptr + channel)
        r_scale = 1.0 / tl.sqrt_rn(tl.load(r_var_ptr + channel) + eps)
    for chunk in range(tl.program_id(1), chunks, tl.num_programs(1)):
        place = chunk * CHUNK + tl.arange(0, CHUNK)
        inside = place < size
        place = channel * size + place
        du = tl.load(dh_ptr + place, mask=inside, other=0.0).to(tl.float32)
        h = tl.load(h_ptr + place, mask=inside, other=0.0).to(tl.float32)
        du = tl.where(h > 0.0, du, 0.0)
        if DROPOUT:
            du = du / (1.0 - probability)
        z = tl.load(z_ptr + place, mask=inside, other=0.0).to(tl.float32)
        sum_du += du
        sum_dz += du * ((z - mean) * scale)
        if RESIDUAL:
            r = tl.load(r_ptr + place, mask=inside, other=0.0).to(tl.float32)
            sum_dr += du * ((r - r_mean) * r_scale)
        tl.store(du_ptr + place, du.to(du_ptr.dtype.element_ty), mask=inside)
    sums_ptr += (channel * tl.num_programs(1) + tl.program_id(1)) * 3
    tl.store(sums_ptr, tl.sum(sum_du))
    tl.store(sums_ptr + 1, tl.sum(sum_dz))
    tl.store(sums_ptr + 2, tl.sum(sum_dr))
