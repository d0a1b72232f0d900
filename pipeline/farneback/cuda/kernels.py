"""Farneback's flow as Triton kernels: `torch_ops` with its steps fused, for CUDA devices.

One kernel makes a level, one expands it, and an iteration takes two: the first sums matrices down
the columns in registers, the second sums along the rows and solves. Per pixel and pair an iteration
moves 48 bytes in and 20 out, then 20 in and 8 out: about 380 over three iterations and all levels,
and about 40 more per frame for an expansion.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from pipeline.farneback.cuda.torch_ops import REACH, Tables

BLOCK = 128  # neighbouring pixels per program
ROWS = 32  # per program; the first costs fifteen rows, the others two


def expand(frames: torch.Tensor, tables: Tables) -> list[torch.Tensor]:
    """Do the same as `torch_ops.expand`."""
    N, H, W = frames.shape
    e = tables.expansion
    weights = torch.tensor([*e.g, *e.xg, *e.xxg], device=frames.device)
    expanded = []
    for level in tables.levels:
        h, w = level.height, level.width
        picture = torch.empty(N, h, w, device=frames.device)
        grid = (N, triton.cdiv(h * w, BLOCK))
        _make_level[grid](
            frames,
            picture,
            level.first_row,
            level.rows,
            level.first_column,
            level.columns,
            H,
            W,
            h,
            w,
            level.rows.shape[1],
            level.columns.shape[1],
            BLOCK,
        )
        coefficients = torch.empty(N, 5, h, w, device=frames.device)
        inverse = (e.ig11, e.ig03, e.ig33, e.ig55)
        _expand_level[grid](picture, coefficients, weights, *inverse, h, w, REACH, BLOCK)
        expanded.append(coefficients)
    return expanded


def flow(one: Sequence[torch.Tensor], two: Sequence[torch.Tensor], tables: Tables) -> torch.Tensor:
    """Do the same as `torch_ops.flow`."""
    field: torch.Tensor | None = None
    for level, first, second in reversed(list(zip(tables.levels, one, two, strict=True))):
        P, (h, w) = len(first), (level.height, level.width)
        if field is None:
            field = first.new_zeros(P, 2, h, w)
        else:
            field = 2 * F.interpolate(field, size=(h, w), mode="bilinear", align_corners=False)
        sums = torch.empty(P, 5, h, w, device=first.device)
        for _ in range(tables.iterations):
            chunks = triton.cdiv(h, ROWS)
            _sum_columns[(P * chunks, triton.cdiv(w, BLOCK))](
                first.contiguous(),
                second.contiguous(),
                field,
                level.border,
                sums,
                h,
                w,
                chunks,
                ROWS,
                BLOCK,
            )
            _solve[(P, triton.cdiv(h * w, BLOCK))](sums, field, h, w, BLOCK)
    assert field is not None
    return field


@triton.jit
def _make_level(
    frames,
    out,
    first_row,
    rows,
    first_column,
    columns,
    H,
    W,
    h,
    w,
    ROW_TAPS: tl.constexpr,
    COLUMN_TAPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Blur and shrink a frame in one step: weighted sums over a few rows and columns."""
    n = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = pixel < h * w
    y, x = pixel // w, pixel % w
    corner = tl.load(first_row + y, there, 0) * W + tl.load(first_column + x, there, 0)
    total = tl.zeros((BLOCK,), tl.float32)
    for i in range(ROW_TAPS):
        line = tl.zeros((BLOCK,), tl.float32)
        for j in range(COLUMN_TAPS):
            brightness = tl.load(frames + n * H * W + corner + i * W + j, there, 0)
            weight = tl.load(columns + x * COLUMN_TAPS + j, there, 0.0)
            line += brightness.to(tl.float32) * weight
        total += line * tl.load(rows + y * ROW_TAPS + i, there, 0.0)
    tl.store(out + n * h * w + pixel, total, there)


@triton.jit
def _expand_level(
    picture,
    out,
    weights,
    ig11,
    ig03,
    ig33,
    ig55,
    h,
    w,
    REACH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute six weighted sums over 11 x 11 pixels; the cache serves the neighbours."""
    n = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = pixel < h * w
    y, x = pixel // w, pixel % w
    ones = tl.zeros((BLOCK,), tl.float32)
    along_x, along_y = ones, ones
    xx, yy, xy = ones, ones, ones
    for i in range(-REACH, REACH + 1):
        row = n * h * w + tl.minimum(tl.maximum(y + i, 0), h - 1) * w
        line, slope, curve = tl.zeros_like(ones), tl.zeros_like(ones), tl.zeros_like(ones)
        for j in range(-REACH, REACH + 1):
            column = tl.minimum(tl.maximum(x + j, 0), w - 1)
            brightness = tl.load(picture + row + column, there, 0.0)
            distance = tl.abs(j)
            line += brightness * tl.load(weights + distance)
            side = tl.where(j < 0, -1.0, 1.0)
            slope += brightness * (side * tl.load(weights + REACH + 1 + distance))
            curve += brightness * tl.load(weights + 2 * (REACH + 1) + distance)
        distance = tl.abs(i)
        g = tl.load(weights + distance)
        side = tl.where(i < 0, -1.0, 1.0)
        xg = side * tl.load(weights + REACH + 1 + distance)
        xxg = tl.load(weights + 2 * (REACH + 1) + distance)
        ones += line * g
        along_x += slope * g
        xx += curve * g
        along_y += line * xg
        xy += slope * xg
        yy += line * xxg
    to = out + n * 5 * h * w + pixel
    plane = h * w
    tl.store(to, along_y * ig11, there)
    tl.store(to + plane, along_x * ig11, there)
    tl.store(to + 2 * plane, ones * ig03 + yy * ig33, there)
    tl.store(to + 3 * plane, ones * ig03 + xx * ig33, there)
    tl.store(to + 4 * plane, xy * ig55, there)


@triton.jit
def _matrices(one, two, flow, border, n, y, x, h, w):
    """Return G11, G12, G22, h1, h2 at a row of pixels; see `torch_ops`."""
    there = x < w
    plane = h * w
    at = y * w + x
    dx = tl.load(flow + n * 2 * plane + at, there, 0.0)
    dy = tl.load(flow + n * 2 * plane + plane + at, there, 0.0)
    px, py = x.to(tl.float32) + dx, y.to(tl.float32) + dy
    left, top = tl.floor(px), tl.floor(py)
    within = there & (left >= 0) & (left < w - 1) & (top >= 0) & (top < h - 1)
    wx, wy = px - left, py - top
    inside_x = tl.where(within, left, 0.0).to(tl.int32)
    inside_y = tl.where(within, top, 0.0).to(tl.int32)
    corner = two + n * 5 * plane + inside_y * w + inside_x
    here = one + n * 5 * plane + at
    w11 = wx * wy
    w01, w10 = wx - w11, wy - w11
    w00 = 1 - wx - w10
    r2 = _bilinear(corner, w, w00, w01, w10, w11, within)
    r3 = _bilinear(corner + plane, w, w00, w01, w10, w11, within)
    r4 = _bilinear(corner + 2 * plane, w, w00, w01, w10, w11, within)
    r5 = _bilinear(corner + 3 * plane, w, w00, w01, w10, w11, within)
    r6 = _bilinear(corner + 4 * plane, w, w00, w01, w10, w11, within)
    q4 = tl.load(here + 2 * plane, there, 0.0)
    q5 = tl.load(here + 3 * plane, there, 0.0)
    q6 = tl.load(here + 4 * plane, there, 0.0)
    a11 = (q4 + tl.where(within, r4, q4)) * 0.5
    a22 = (q5 + tl.where(within, r5, q5)) * 0.5
    a12 = (q6 + tl.where(within, r6, q6)) * 0.25
    b1 = (tl.load(here, there, 0.0) - tl.where(within, r2, 0.0)) * 0.5 + a11 * dy + a12 * dx
    b2 = (tl.load(here + plane, there, 0.0) - tl.where(within, r3, 0.0)) * 0.5 + a12 * dy + a22 * dx
    weight = tl.load(border + at, there, 0.0)
    a11, a22, a12, b1, b2 = a11 * weight, a22 * weight, a12 * weight, b1 * weight, b2 * weight
    return (
        a11 * a11 + a12 * a12,
        (a11 + a22) * a12,
        a22 * a22 + a12 * a12,
        a11 * b1 + a12 * b2,
        a12 * b1 + a22 * b2,
    )


@triton.jit
def _bilinear(corner, w, w00, w01, w10, w11, within):
    upper = w00 * tl.load(corner, within, 0.0) + w01 * tl.load(corner + 1, within, 0.0)
    lower = w10 * tl.load(corner + w, within, 0.0) + w11 * tl.load(corner + w + 1, within, 0.0)
    return upper + lower


@triton.jit
def _sum_columns(
    one,
    two,
    flow,
    border,
    sums,
    h,
    w,
    chunks,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum matrices over 15 rows, for ROWS rows of BLOCK columns: one row enters, one leaves."""
    n = (tl.program_id(0) // chunks).to(tl.int64)
    begin = (tl.program_id(0) % chunks) * ROWS
    x = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = x < w
    g11 = tl.zeros((BLOCK,), tl.float32)
    g12, g22, h1, h2 = g11, g11, g11, g11
    for k in range(-7, 8):
        y = tl.minimum(tl.maximum(begin + k, 0), h - 1)
        m0, m1, m2, m3, m4 = _matrices(one, two, flow, border, n, y, x, h, w)
        g11, g12, g22, h1, h2 = g11 + m0, g12 + m1, g22 + m2, h1 + m3, h2 + m4
    for y in range(begin, tl.minimum(begin + ROWS, h)):
        to = sums + n * 5 * h * w + y * w + x
        tl.store(to, g11, there)
        tl.store(to + h * w, g12, there)
        tl.store(to + 2 * h * w, g22, there)
        tl.store(to + 3 * h * w, h1, there)
        tl.store(to + 4 * h * w, h2, there)
        enters, leaves = tl.minimum(y + 8, h - 1), tl.maximum(y - 7, 0)
        m0, m1, m2, m3, m4 = _matrices(one, two, flow, border, n, enters, x, h, w)
        g11, g12, g22, h1, h2 = g11 + m0, g12 + m1, g22 + m2, h1 + m3, h2 + m4
        m0, m1, m2, m3, m4 = _matrices(one, two, flow, border, n, leaves, x, h, w)
        g11, g12, g22, h1, h2 = g11 - m0, g12 - m1, g22 - m2, h1 - m3, h2 - m4


@triton.jit
def _solve(sums, flow, h, w, BLOCK: tl.constexpr):
    """Sum over 15 columns, and solve for the flow."""
    n = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    plane = h * w
    there = pixel < plane
    y, x = pixel // w, pixel % w
    row = sums + n * 5 * plane + y * w
    g11 = tl.zeros((BLOCK,), tl.float32)
    g12, g22, h1, h2 = g11, g11, g11, g11
    for k in range(-7, 8):
        at = row + tl.minimum(tl.maximum(x + k, 0), w - 1)
        g11 += tl.load(at, there, 0.0)
        g12 += tl.load(at + plane, there, 0.0)
        g22 += tl.load(at + 2 * plane, there, 0.0)
        h1 += tl.load(at + 3 * plane, there, 0.0)
        h2 += tl.load(at + 4 * plane, there, 0.0)
    mean = 1.0 / 225.0
    g11, g12, g22, h1, h2 = g11 * mean, g12 * mean, g22 * mean, h1 * mean, h2 * mean
    inverse = 1.0 / (g11 * g22 - g12 * g12 + 1e-3)
    to = flow + n * 2 * plane + pixel
    tl.store(to, (g11 * h2 - g12 * h1) * inverse, there)
    tl.store(to + plane, (g22 * h1 - g12 * h2) * inverse, there)
