"""GPU kernels of exact pixel contrast: the N x K matrix of logits exists one tile at a time.

Notation: anchors a_i, keys b_j, logit s_ij = <a_i, b_j> / temperature, P_i the keys of anchor i's
class without its own pixel, n_i = |P_i|. Inside the kernels logits carry a factor log2(e), so that
every exponential is one `exp2`. Two losses share the kernels:

* "negatives" (Wang et al., ICCV 2021): nu_i = log of the sum of exp(s_ij) over other classes,
  L_i = mean over P_i of softplus(nu_i - s_ip). With sigma_ip = sigmoid(nu_i - s_ip) and q_i its
  mean over P_i, dL_i/ds_ij = -sigma_ij / n_i on positives and q_i exp(s_ij - nu_i) on negatives.
* "all" (Khosla et al., NeurIPS 2020, eq. 2): nu_i over every key but the own pixel,
  L_i = nu_i - mean over P_i of s_ip, dL_i/ds_ij = exp(s_ij - nu_i) - [j in P_i] / n_i.

**Sorted labels.** Rows and keys arrive sorted by class, so the positives of a row are the columns
[start, end) and no label enters a kernel. The columns of a block of rows fall into tiles that hold
negatives only (a loop without any mask) and the few that touch [first start, last end) or the
ragged end (a loop with masks). `statistics_kernel` skips the tiles that are positive for the whole
block and `positives_kernel` visits only those that hold positives: the two passes of the pair form
together cost one pass, whatever the sizes of the classes.

**Ignored pixels** come last. How many rows and keys are not ignored is read from device memory, so
that the host need not know: a program without such a row ends at once, and its results keep the
zeros they are given.

**Statistics.** The running maximum is always kept. A plain sum would do while |s| stays under
about 87 / 2, which holds for unit vectors and temperatures over 0.03; but whether the input is of
that kind is known only on the device, the maximum costs one operation per pair next to the D
multiplications and the exponential, and with it every input and temperature is right.

**Gradient.** One program owns one block of rows of the gradient and recomputes the tiles it needs:
no atomics, so results are bitwise repeatable. The same kernel gives the gradient of the anchors
(rows act as anchors), of the keys (columns act as anchors), and with both roles at once
(G + G^T) the whole gradient of a set contrasted with itself.

**Few rows.** Columns are split over programs, each writes its part, and the parts are merged in a
fixed order afterwards.

**Precision.** Products of fp16 numbers accumulated in fp32; logits, exponentials and statistics in
fp32, never in a half format. The gradient weights G are rounded to fp16 only as the operand of the
last product, and reach it scaled: with 65,536 keys a typical entry of G is about 1e-5, so the
products with a weight 1/N would be subnormal or zero in fp16.

**Registers.** The tiles with masks of `gradient_kernel` are half as wide as the others: the masks
and both kinds of pairs take so many registers that the wider tile would spill.
"""

import triton
import triton.language as tl

# mypy: disable-error-code="untyped-decorator, no-any-return"


@triton.jit
def _rows(
    ptr: tl.tensor,
    first: tl.tensor,
    count: tl.tensor,
    SIZE: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    MASKED: tl.constexpr,
) -> tl.tensor:
    """(SIZE, BLOCK_D) rows from `first` of a contiguous (count, DIM) matrix, zero outside it."""
    row = tl.arange(0, SIZE)
    dim = tl.arange(0, BLOCK_D)
    # The 64-bit part is one scalar; offsets inside a tile fit 32 bits.
    tile = ptr + first.to(tl.int64) * DIM + (row[:, None] * DIM + dim[None, :])
    if MASKED:
        return tl.load(tile, mask=(first + row < count)[:, None] & (dim < DIM)[None, :], other=0.0)
    if BLOCK_D != DIM:
        return tl.load(tile, mask=(dim < DIM)[None, :], other=0.0)
    return tl.load(tile)


@triton.jit
def _block_range(
    start_ptr: tl.tensor,
    end_ptr: tl.tensor,
    first_row: tl.tensor,
    rows: tl.tensor,
    BLOCK_M: tl.constexpr,
) -> tl.tensor:
    """Columns [low, high) with the positives of a block of rows, and whether it has one class."""
    last_row = tl.minimum(first_row + BLOCK_M, rows) - 1
    low = tl.load(start_ptr + first_row)
    high = tl.load(end_ptr + last_row)
    single = (tl.load(start_ptr + last_row) == low) & (tl.load(end_ptr + first_row) == high)
    return low, high, single


@triton.jit
def _share(count: tl.tensor, part: tl.tensor, parts: tl.tensor) -> tl.tensor:
    """The `part`-th of `parts` nearly equal intervals of range(count)."""
    return count * part // parts, count * (part + 1) // parts


@triton.jit
def _accumulate(peak: tl.tensor, total: tl.tensor, score: tl.tensor) -> tl.tensor:
    """Online sum of exp2: total * 2^peak grows by the sum of 2^score along the columns."""
    new_peak = tl.maximum(peak, tl.max(score, 1))
    # A row whose entries are all masked has no finite peak yet.
    shift = tl.where(new_peak == float("-inf"), 0.0, new_peak)
    total = total * tl.exp2(peak - shift) + tl.sum(tl.exp2(score - shift[:, None]), 1)
    return new_peak, total


@triton.jit(do_not_specialize=["stride", "splits"])
def statistics_kernel(
    row_ptr: tl.tensor,  # (rows, DIM)
    column_ptr: tl.tensor,  # (columns, DIM)
    start_ptr: tl.tensor,  # (rows,) int32: positives of a row are the columns [start, end)
    end_ptr: tl.tensor,
    self_ptr: tl.tensor,  # (rows,) int32: column of the row's own pixel, -1 for none
    scale_ptr: tl.tensor,  # (1,) float32: log2(e) / temperature
    lse_ptr: tl.tensor,  # (splits, stride) float32, written: base-2 log-sum-exp of a split
    count_ptr: tl.tensor,  # (2,) int32: rows and columns that take part; the others come last
    stride: tl.tensor,  # rows of the results, those that take no part included
    splits: tl.tensor,
    NEGATIVES: tl.constexpr,  # over the other classes alone, else over all but the own pixel
    HAS_SELF: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
) -> None:
    """Log-sum-exp of the denominator of every row."""
    rows, columns = tl.load(count_ptr), tl.load(count_ptr + 1)
    first_row = tl.program_id(0) * BLOCK_M
    if first_row >= rows:
        return
    split = tl.program_id(1)
    row = first_row + tl.arange(0, BLOCK_M)
    row_valid = row < rows
    scale = tl.load(scale_ptr)
    start = tl.load(start_ptr + row, mask=row_valid, other=0)
    end = tl.load(end_ptr + row, mask=row_valid, other=0)
    anchor = _rows(row_ptr, first_row, rows, BLOCK_M, DIM, BLOCK_D, True)
    peak = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)

    low, high, single = _block_range(start_ptr, end_ptr, first_row, rows, BLOCK_M)
    low_tile = low // BLOCK_N
    high_tile = tl.cdiv(high, BLOCK_N)
    full_tiles = columns // BLOCK_N

    # Tiles without a positive: [0, low_tile) and [high_tile, full_tiles).
    begin, stop = _share(low_tile + tl.maximum(full_tiles - high_tile, 0), split, splits)
    for step in tl.range(begin, stop):
        tile = tl.where(step < low_tile, step, step - low_tile + high_tile)
        key = _rows(column_ptr, tile * BLOCK_N, columns, BLOCK_N, DIM, BLOCK_D, False)
        score = tl.dot(anchor, key.T) * scale
        peak, total = _accumulate(peak, total, score)

    # Tiles with positives, less those that hold nothing else, and the ragged last one.
    inner_low = tl.cdiv(low, BLOCK_N)
    skipped = tl.maximum(high // BLOCK_N - inner_low, 0)
    skipped = tl.where(single, skipped, 0) if NEGATIVES else 0
    mixed = high_tile - low_tile - skipped
    ragged = ((full_tiles * BLOCK_N < columns) & (high_tile <= full_tiles)).to(tl.int32)
    begin, stop = _share(mixed + ragged, split, splits)
    for step in tl.range(begin, stop):
        tile = low_tile + step
        tile = tl.where(tile >= inner_low, tile + skipped, tile)
        tile = tl.where(step == mixed, full_tiles, tile)
        column = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        key = _rows(column_ptr, tile * BLOCK_N, columns, BLOCK_N, DIM, BLOCK_D, True)
        score = tl.dot(anchor, key.T) * scale
        counted = (column < columns)[None, :]
        if NEGATIVES:
            counted &= (column[None, :] < start[:, None]) | (column[None, :] >= end[:, None])
        elif HAS_SELF:
            own = tl.load(self_ptr + row, mask=row_valid, other=-1)
            counted &= column[None, :] != own[:, None]
        peak, total = _accumulate(peak, total, tl.where(counted, score, float("-inf")))

    # log2(0) = -inf is the sum over nothing.
    peak = tl.where(peak == float("-inf"), 0.0, peak)
    tl.store(lse_ptr + split * stride + row, peak + tl.log2(total), mask=row_valid)


@triton.jit(do_not_specialize=["stride", "splits"])
def positives_kernel(
    row_ptr: tl.tensor,
    column_ptr: tl.tensor,
    start_ptr: tl.tensor,
    end_ptr: tl.tensor,
    self_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    lse_ptr: tl.tensor,  # (rows,) float32: base-2 log-sum-exp of the denominator
    value_ptr: tl.tensor,  # (splits, stride) float32, written: base-2 softplus or logits, summed
    sigma_ptr: tl.tensor,  # (splits, stride) float32, written for "negatives": sigma, summed
    count_ptr: tl.tensor,  # (2,) int32: rows and columns that take part; the others come last
    stride: tl.tensor,  # rows of the results, those that take no part included
    splits: tl.tensor,
    NEGATIVES: tl.constexpr,
    HAS_SELF: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
) -> None:
    """Sums over the positives of every row."""
    rows, columns = tl.load(count_ptr), tl.load(count_ptr + 1)
    first_row = tl.program_id(0) * BLOCK_M
    if first_row >= rows:
        return
    split = tl.program_id(1)
    row = first_row + tl.arange(0, BLOCK_M)
    row_valid = row < rows
    scale = tl.load(scale_ptr)
    start = tl.load(start_ptr + row, mask=row_valid, other=0)
    end = tl.load(end_ptr + row, mask=row_valid, other=0)
    lse = tl.load(lse_ptr + row, mask=row_valid, other=0.0)
    anchor = _rows(row_ptr, first_row, rows, BLOCK_M, DIM, BLOCK_D, True)
    value = tl.zeros((BLOCK_M,), tl.float32)
    sigma = tl.zeros((BLOCK_M,), tl.float32)

    low, high, _ = _block_range(start_ptr, end_ptr, first_row, rows, BLOCK_M)
    low_tile = low // BLOCK_N
    begin, stop = _share(tl.cdiv(high, BLOCK_N) - low_tile, split, splits)
    for step in tl.range(begin, stop):
        tile = low_tile + step
        column = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        key = _rows(column_ptr, tile * BLOCK_N, columns, BLOCK_N, DIM, BLOCK_D, True)
        score = tl.dot(anchor, key.T) * scale
        positive = (column[None, :] >= start[:, None]) & (column[None, :] < end[:, None])
        if HAS_SELF:
            own = tl.load(self_ptr + row, mask=row_valid, other=-1)
            positive &= column[None, :] != own[:, None]
        if NEGATIVES:
            # softplus and sigmoid of gap, both through one exponential that cannot overflow.
            gap = lse[:, None] - score
            tail = tl.exp2(-tl.abs(gap))
            softplus = tl.maximum(gap, 0.0) + tl.log2(1.0 + tail)
            value += tl.sum(tl.where(positive, softplus, 0.0), 1)
            sigmoid = tl.where(gap >= 0.0, 1.0, tail) / (1.0 + tail)
            sigma += tl.sum(tl.where(positive, sigmoid, 0.0), 1)
        else:
            value += tl.sum(tl.where(positive, score, 0.0), 1)

    tl.store(value_ptr + split * stride + row, value, mask=row_valid)
    if NEGATIVES:
        tl.store(sigma_ptr + split * stride + row, sigma, mask=row_valid)


@triton.jit(do_not_specialize=["stride", "splits"])
def gradient_kernel(
    row_ptr: tl.tensor,
    column_ptr: tl.tensor,
    start_ptr: tl.tensor,  # (rows,) int32: columns [start, end) have the row's class
    end_ptr: tl.tensor,
    row_lse_ptr: tl.tensor,  # (rows,) float32, base 2, +inf for an anchor that takes no part
    row_repel_ptr: tl.tensor,  # (rows,) float32: factor of exp2(score - lse) on the denominator
    row_attract_ptr: tl.tensor,  # (rows,) float32: factor of sigma, or of 1 for "all", on positives
    row_self_ptr: tl.tensor,  # (rows,) int32
    column_lse_ptr: tl.tensor,  # the same four of the columns, where they act as anchors
    column_repel_ptr: tl.tensor,
    column_attract_ptr: tl.tensor,
    column_self_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    factor_ptr: tl.tensor,  # (rows,) float32: factor of the finished row
    out_ptr: tl.tensor,  # (splits, stride, DIM) float32, written
    count_ptr: tl.tensor,  # (2,) int32: rows and columns that take part; the others come last
    stride: tl.tensor,  # rows of the results, those that take no part included
    splits: tl.tensor,
    ROWS_ACT: tl.constexpr,  # rows are anchors, columns their keys
    COLUMNS_ACT: tl.constexpr,  # columns are anchors, rows their keys
    NEGATIVES: tl.constexpr,
    HAS_SELF: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
) -> None:
    """Rows of the gradient: sum over columns of (G, its transpose, or both) times the column."""
    rows, columns = tl.load(count_ptr), tl.load(count_ptr + 1)
    first_row = tl.program_id(0) * BLOCK_M
    if first_row >= rows:
        return
    split = tl.program_id(1)
    row = first_row + tl.arange(0, BLOCK_M)
    row_valid = row < rows
    scale = tl.load(scale_ptr)
    start = tl.load(start_ptr + row, mask=row_valid, other=0)
    end = tl.load(end_ptr + row, mask=row_valid, other=0)
    if ROWS_ACT:
        row_lse = tl.load(row_lse_ptr + row, mask=row_valid, other=float("inf"))
        row_repel = tl.load(row_repel_ptr + row, mask=row_valid, other=0.0)
    vector = _rows(row_ptr, first_row, rows, BLOCK_M, DIM, BLOCK_D, True)
    total = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)

    low, high, _ = _block_range(start_ptr, end_ptr, first_row, rows, BLOCK_M)
    low_tile = low // BLOCK_N
    high_tile = tl.cdiv(high, BLOCK_N)
    full_tiles = columns // BLOCK_N

    begin, stop = _share(low_tile + tl.maximum(full_tiles - high_tile, 0), split, splits)
    for step in tl.range(begin, stop):
        tile = tl.where(step < low_tile, step, step - low_tile + high_tile)
        other = _rows(column_ptr, tile * BLOCK_N, columns, BLOCK_N, DIM, BLOCK_D, False)
        score = tl.dot(vector, other.T) * scale
        weight = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        if ROWS_ACT:
            weight += row_repel[:, None] * tl.exp2(score - row_lse[:, None])
        if COLUMNS_ACT:
            column = tile * BLOCK_N + tl.arange(0, BLOCK_N)
            lse = tl.load(column_lse_ptr + column)
            repel = tl.load(column_repel_ptr + column)
            weight += repel[None, :] * tl.exp2(score - lse[None, :])
        total = tl.dot(weight.to(other.dtype), other, total)

    # Half as wide as above, see Registers in the module's docstring.
    HALF: tl.constexpr = BLOCK_N // 2
    mixed = 2 * (high_tile - low_tile)
    ragged = 2 * ((full_tiles * BLOCK_N < columns) & (high_tile <= full_tiles)).to(tl.int32)
    begin, stop = _share(mixed + ragged, split, splits)
    for step in tl.range(begin, stop):
        tail = full_tiles * BLOCK_N + (step - mixed) * HALF
        first = tl.where(step < mixed, low_tile * BLOCK_N + step * HALF, tail)
        column = first + tl.arange(0, HALF)
        column_valid = column < columns
        other = _rows(column_ptr, first, columns, HALF, DIM, BLOCK_D, True)
        score = tl.dot(vector, other.T) * scale
        positive = (column[None, :] >= start[:, None]) & (column[None, :] < end[:, None])
        weight = tl.zeros((BLOCK_M, HALF), tl.float32)
        if ROWS_ACT:
            attract = tl.load(row_attract_ptr + row, mask=row_valid, other=0.0)
            part = _pair_weight(
                score, positive, row_lse[:, None], row_repel[:, None], attract[:, None], NEGATIVES
            )
            if HAS_SELF:
                own = tl.load(row_self_ptr + row, mask=row_valid, other=-1)
                part = tl.where(column[None, :] == own[:, None], 0.0, part)
            weight += part
        if COLUMNS_ACT:
            lse = tl.load(column_lse_ptr + column, mask=column_valid, other=float("inf"))
            repel = tl.load(column_repel_ptr + column, mask=column_valid, other=0.0)
            attract = tl.load(column_attract_ptr + column, mask=column_valid, other=0.0)
            part = _pair_weight(
                score, positive, lse[None, :], repel[None, :], attract[None, :], NEGATIVES
            )
            if HAS_SELF:
                own = tl.load(column_self_ptr + column, mask=column_valid, other=-1)
                part = tl.where(row[:, None] == own[None, :], 0.0, part)
            weight += part
        # A column past the end is zero, but zero times an overflowed weight would not be.
        weight = tl.where(column_valid[None, :], weight, 0.0)
        total = tl.dot(weight.to(other.dtype), other, total)

    dim = tl.arange(0, BLOCK_D)
    total *= tl.load(factor_ptr + row, mask=row_valid, other=0.0)[:, None]
    out = out_ptr + (split.to(tl.int64) * stride + first_row) * DIM
    out += tl.arange(0, BLOCK_M)[:, None] * DIM + dim[None, :]
    tl.store(out, total, mask=row_valid[:, None] & (dim < DIM)[None, :])


@triton.jit
def _pair_weight(
    score: tl.tensor,
    positive: tl.tensor,
    lse: tl.tensor,
    repel: tl.tensor,
    attract: tl.tensor,
    NEGATIVES: tl.constexpr,
) -> tl.tensor:
    """dL/ds of a tile with positives and negatives, own pixels not yet removed."""
    share = tl.exp2(score - lse)
    if NEGATIVES:
        # sigmoid(nu - s) = 1 / (1 + exp(s - nu)), which is 0 where the exponential overflows.
        return tl.where(positive, -attract / (1.0 + share), repel * share)
    return repel * share - tl.where(positive, attract, 0.0)
