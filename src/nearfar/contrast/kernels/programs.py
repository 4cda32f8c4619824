"""Triton programs of the softmax family: log-sums of rows, and the derivative of their cost with respect to the scores.

Both compute tiles of scores ``row_factor_i * column_factor_j * (q_i . k_j)`` by blocks of the dimension, accumulated in
float32 whatever the precision of the embeddings, and compare ids to tell who is near, far or ignored; neither scores
nor masks are written to memory. Importing this module needs triton.
"""

import triton
import triton.language as tl


@triton.jit
def _scores(
    query, key, query_factor, key_factor, row_start, column_start, n, m, d,
    ragged: tl.constexpr, widen: tl.constexpr, precision: tl.constexpr,
    block_m: tl.constexpr, block_n: tl.constexpr, block_d: tl.constexpr,
):  # fmt: skip
    """The scores ``[block_m, block_n]`` from there on; beyond the last row or column, its own again.

    ``ragged``: the dimension is not a multiple of ``block_d``.
    """
    row = tl.minimum(tl.arange(0, block_m), n - 1 - row_start)
    column = tl.minimum(tl.arange(0, block_n), m - 1 - column_start)
    part = tl.arange(0, block_d)
    # places within a block take few bits, which leaves registers to the products
    query += tl.cast(row_start, tl.int64) * d
    key += tl.cast(column_start, tl.int64) * d
    left_at = row[:, None] * d + part[None, :]
    right_at = column[None, :] * d + part[:, None]
    products = tl.zeros([block_m, block_n], dtype=tl.float32)
    for start in range(0, d, block_d):
        if ragged:
            left = tl.load(query + start + left_at, mask=part[None, :] < d - start, other=0.0)
            right = tl.load(key + start + right_at, mask=part[:, None] < d - start, other=0.0)
        else:
            left = tl.load(query + start + left_at)
            right = tl.load(key + start + right_at)
        if widen:
            left, right = left.to(tl.float32), right.to(tl.float32)
        products = tl.dot(left, right, products, input_precision=precision)
    row_factor = tl.load(query_factor + row_start + row)
    column_factor = tl.load(key_factor + column_start + column)
    return products * row_factor[:, None] * column_factor[None, :]


@triton.jit
def _near_and_far(
    rows, columns, n, m, first, query_id, key_id, query_exclude, key_exclude, query_within, key_within,
    has_exclude: tl.constexpr, has_within: tl.constexpr, self_contrast: tl.constexpr,
):  # fmt: skip
    """Which pairs are near and which are far, for columns up to ``m``; ``first``: which item the first row is."""
    row_inside = rows < n
    column_inside = columns < m
    left = tl.load(query_id + rows, mask=row_inside, other=0)
    right = tl.load(key_id + columns, mask=column_inside, other=-3)
    near = left[:, None] == right[None, :]
    far = (near == 0) & column_inside[None, :]
    if has_exclude:
        left = tl.load(query_exclude + rows, mask=row_inside, other=0)
        right = tl.load(key_exclude + columns, mask=column_inside, other=0)
        far = far & (left[:, None] != right[None, :])
    if has_within:
        left = tl.load(query_within + rows, mask=row_inside, other=0)
        right = tl.load(key_within + columns, mask=column_inside, other=0)
        far = far & (left[:, None] == right[None, :])
    if self_contrast:
        other = (rows + first)[:, None] != columns[None, :]
        near = near & other
        far = far & other
    return near, far


@triton.jit
def log_sums(
    query, key, query_factor, key_factor, query_id, key_id, query_exclude, key_exclude, query_within, key_within,
    peaks, sums, targets, n, m, d, first, columns_a_part,
    has_exclude: tl.constexpr, has_within: tl.constexpr, self_contrast: tl.constexpr, only_far: tl.constexpr,
    ragged: tl.constexpr, widen: tl.constexpr, precision: tl.constexpr,
    block_m: tl.constexpr, block_n: tl.constexpr, block_d: tl.constexpr,
):  # fmt: skip
    """One block of rows against one part of the columns; the scores are in units of log 2."""
    row_start = tl.program_id(0) * block_m
    rows = row_start + tl.arange(0, block_m)
    part = tl.program_id(1)
    peak = tl.full([block_m], float("-inf"), dtype=tl.float32)
    total = tl.zeros([block_m], dtype=tl.float32)
    target = tl.zeros([block_m], dtype=tl.float32)
    for start in range(part * columns_a_part, tl.minimum(m, (part + 1) * columns_a_part), block_n):
        scores = _scores(
            query, key, query_factor, key_factor, row_start, start, n, m, d, ragged, widen, precision,
            block_m, block_n, block_d,
        )  # fmt: skip
        near, far = _near_and_far(
            rows, start + tl.arange(0, block_n), n, m, first, query_id, key_id, query_exclude, key_exclude,
            query_within, key_within, has_exclude, has_within, self_contrast,
        )  # fmt: skip
        target += tl.sum(tl.where(near, scores, 0.0), 1)
        scores = tl.where(far if only_far else near | far, scores, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        reference = tl.where(higher == float("-inf"), 0.0, higher)
        total = total * tl.exp2(peak - reference) + tl.sum(tl.exp2(scores - reference[:, None]), 1)
        peak = higher
    place = part * n + rows
    inside = rows < n
    tl.store(peaks + place, peak, mask=inside)
    tl.store(sums + place, total, mask=inside)
    tl.store(targets + place, target, mask=inside)


@triton.jit
def derivatives(
    query, key, query_factor, key_factor, query_id, key_id, query_exclude, key_exclude, query_within, key_within,
    row_log_sum, row_weight, row_pull, column_log_sum, column_weight, column_pull, out,
    row_start, row_end, column_start, column_end, d, first,
    has_exclude: tl.constexpr, has_within: tl.constexpr, self_contrast: tl.constexpr, only_far: tl.constexpr,
    both_sides: tl.constexpr, ragged: tl.constexpr, widen: tl.constexpr, precision: tl.constexpr,
    block_m: tl.constexpr, block_n: tl.constexpr, block_d: tl.constexpr, group_rows: tl.constexpr,
):  # fmt: skip
    """``weight_i * softmax_ij - pull_i * near_ij``, and the same of the columns where both sides count."""
    # neighbouring programs share rows and columns, so that what they load is still in the cache
    program = tl.program_id(0)
    blocks_m = tl.cdiv(row_end - row_start, block_m)
    blocks_n = tl.cdiv(column_end - column_start, block_n)
    group = program // (group_rows * blocks_n)
    height = tl.minimum(blocks_m - group * group_rows, group_rows)
    within_group = program % (group_rows * blocks_n)
    first_row = row_start + (group * group_rows + within_group % height) * block_m
    first_column = column_start + (within_group // height) * block_n

    scores = _scores(
        query, key, query_factor, key_factor, first_row, first_column, row_end, column_end, d, ragged, widen,
        precision, block_m, block_n, block_d,
    )  # fmt: skip
    rows = first_row + tl.arange(0, block_m)
    columns = first_column + tl.arange(0, block_n)
    near, far = _near_and_far(
        rows, columns, row_end, column_end, first, query_id, key_id, query_exclude, key_exclude, query_within,
        key_within, has_exclude, has_within, self_contrast,
    )  # fmt: skip
    counted = far if only_far else near | far
    row_inside = rows < row_end
    column_inside = columns < column_end
    # where nothing counts the log-sum is infinite, and the weight 0
    log_sum = tl.load(row_log_sum + rows, mask=row_inside, other=0.0)
    weight = tl.load(row_weight + rows, mask=row_inside, other=0.0)
    pull = tl.load(row_pull + rows, mask=row_inside, other=0.0)
    found = tl.where(counted, tl.exp2(scores - log_sum[:, None]) * weight[:, None], 0.0)
    found -= tl.where(near, pull[:, None], 0.0)
    if both_sides:
        log_sum = tl.load(column_log_sum + columns, mask=column_inside, other=0.0)
        weight = tl.load(column_weight + columns, mask=column_inside, other=0.0)
        pull = tl.load(column_pull + columns, mask=column_inside, other=0.0)
        found += tl.where(counted, tl.exp2(scores - log_sum[None, :]) * weight[None, :], 0.0)
        found -= tl.where(near, pull[None, :], 0.0)
    width = column_end - column_start
    out += tl.cast(first_row - row_start, tl.int64) * width + (first_column - column_start)
    place = tl.arange(0, block_m)[:, None] * width + tl.arange(0, block_n)[None, :]
    tl.store(out + place, found.to(out.dtype.element_ty), mask=row_inside[:, None] & column_inside[None, :])
