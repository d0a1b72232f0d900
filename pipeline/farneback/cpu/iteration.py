"""The iterations of one level, in a single pass over its rows.

If the second frame's neighbourhood at p + d is the first one's at p, moved, then A d = b with

    A = (A1(p) + A2(p + d)) / 2,    b = (b1(p) - b2(p + d)) / 2 + A d

where A holds the quadratic and b the linear coefficients (Farnebäck 2003, section 4). One iteration
takes G = AᵀA and h = Aᵀb at every pixel (OpenCV's ``FarnebackUpdateMatrices``), averages both over
a window of 15 x 15 and solves for d (``FarnebackUpdateFlow_Blur``).

A row of iteration i + 1 needs those of iteration i down to seven below it. So iterations run seven
rows apart, and each keeps sixteen rows of G and h, which fit the processor's cache.
"""

import numpy as np

from pipeline.farneback.cpu.compiling import inlined, kernel
from pipeline.farneback.cpu.vectors import (
    LANES,
    all_are,
    broadcast,
    first,
    floor,
    from1,
    from2,
    from3,
    from6,
    from9,
    from12,
    greatest,
    inside,
    lane_numbers,
    least,
    load,
    magnitude_of,
    positive,
    square_root,
    store,
    to_floats,
    to_ints,
    where,
)

HALF = 7  # of the window of 15 x 15
RING = 16  # rows of G and h: the window, and the one that leaves it
RESTART = 16  # rows between fresh column sums, to bound rounding errors
REGULARISATION = 1e-3  # added to the determinant
MAX_WEIGHED = 36  # pixels per vector; with more, lane by lane is faster


@kernel
def update_row(
    one, two, slack, stride, height, width, y, fx, fy, at, ring, pitch, border_x, border_y, lanes
):
    """Compute G and h for row y.

    The second frame is interpolated bilinearly at p + d. Where the 16 pixels of a vector move by
    the same whole pixels, as most do, they are read contiguously; else all pixels near them are
    weighed, or lanes are read alone. Outside, only the first frame counts.

    Args:
        one, two: coefficients from `expand`.
        fx, fy: flow of this row from ``at`` on.
        ring: to write to: G11, G12, G22, h1, h2 of row y, ``pitch`` floats apart.
        border_x, border_y: (width + 16,) and (height,) weights.
        lanes: scratch of nine vectors.
    """
    number = to_floats(lane_numbers())
    zero, unit = broadcast(np.float32(0)), broadcast(np.float32(1))
    half, quarter = broadcast(np.float32(0.5)), broadcast(np.float32(0.25))
    row_of_two, here = 5 * stride, slack + y * 5 * stride
    out = (y % RING) * 5 * pitch
    weighted = border_y[y] != np.float32(1)
    x = 0
    while True:
        dx, dy = load(fx, at + x), load(fy, at + x)
        px, py = broadcast(np.float32(x)) + number + dx, broadcast(np.float32(y)) + dy
        floor_x, floor_y = floor(px), floor(py)
        whole_x, whole_y = to_ints(floor_x), to_ints(floor_y)
        shift = whole_x - lane_numbers()
        left, top = np.int64(first(shift)), np.int64(first(whole_y))
        if (
            0 <= left < width - LANES
            and 0 <= top < height - 1
            and all_are(shift, np.int32(left), whole_y, np.int32(top))
        ):
            wx, wy = px - floor_x, py - floor_y
            w11 = wx * wy
            w01, w10 = wx - w11, wy - w11
            w00 = unit - wx - w10
            q = slack + top * row_of_two + left
            b = q + row_of_two
            r2 = w00 * load(two, q) + w01 * load(two, q + 1)
            r2 = r2 + w10 * load(two, b) + w11 * load(two, b + 1)
            q, b = q + stride, b + stride
            r3 = w00 * load(two, q) + w01 * load(two, q + 1)
            r3 = r3 + w10 * load(two, b) + w11 * load(two, b + 1)
            q, b = q + stride, b + stride
            r4 = w00 * load(two, q) + w01 * load(two, q + 1)
            r4 = r4 + w10 * load(two, b) + w11 * load(two, b + 1)
            q, b = q + stride, b + stride
            r5 = w00 * load(two, q) + w01 * load(two, q + 1)
            r5 = r5 + w10 * load(two, b) + w11 * load(two, b + 1)
            q, b = q + stride, b + stride
            r6 = w00 * load(two, q) + w01 * load(two, q + 1)
            r6 = r6 + w10 * load(two, b) + w11 * load(two, b + 1)
        else:
            r2, r3, r4, r5, r6 = zero, zero, zero, zero, zero
            within = inside(whole_x, np.int32(width - 1), whole_y, np.int32(height - 1))
            left, right = np.int64(least(shift, within)), np.int64(greatest(shift, within))
            top, bottom = np.int64(least(whole_y, within)), np.int64(greatest(whole_y, within))
            if right < left or (right - left + 2) * (bottom - top + 2) <= MAX_WEIGHED:
                relative_x = px - number
                for j in range(top, bottom + 2):
                    wy = positive(unit - magnitude_of(py - broadcast(np.float32(j))))
                    for i in range(left, right + 2):
                        wx = positive(unit - magnitude_of(relative_x - broadcast(np.float32(i))))
                        q, w = slack + j * row_of_two + i, wx * wy
                        r2 = r2 + w * load(two, q)
                        r3 = r3 + w * load(two, q + stride)
                        r4 = r4 + w * load(two, q + 2 * stride)
                        r5 = r5 + w * load(two, q + 3 * stride)
                        r6 = r6 + w * load(two, q + 4 * stride)
            else:
                store(lanes, 0, floor_x)
                store(lanes, LANES, floor_y)
                store(lanes, 2 * LANES, px - floor_x)
                store(lanes, 3 * LANES, py - floor_y)
                for n in range(LANES):
                    if not (0 <= lanes[n] < width - 1 and 0 <= lanes[LANES + n] < height - 1):
                        continue
                    wx_n, wy_n = lanes[2 * LANES + n], lanes[3 * LANES + n]
                    both = wx_n * wy_n
                    q = slack + np.int64(lanes[LANES + n]) * row_of_two + np.int64(lanes[n])
                    for c in range(5):
                        lanes[(4 + c) * LANES + n] = (
                            (np.float32(1) - wx_n - (wy_n - both)) * two[q]
                            + (wx_n - both) * two[q + 1]
                            + (wy_n - both) * two[q + row_of_two]
                            + both * two[q + row_of_two + 1]
                        )
                        q += stride
                r2, r3 = load(lanes, 4 * LANES), load(lanes, 5 * LANES)
                r4, r5 = load(lanes, 6 * LANES), load(lanes, 7 * LANES)
                r6 = load(lanes, 8 * LANES)
            q = here + x
            r2, r3 = where(within, r2, zero), where(within, r3, zero)
            r4 = where(within, r4, load(one, q + 2 * stride))
            r5 = where(within, r5, load(one, q + 3 * stride))
            r6 = where(within, r6, load(one, q + 4 * stride))
        q = here + x
        a11 = (load(one, q + 2 * stride) + r4) * half  # along y, as OpenCV orders them
        a22 = (load(one, q + 3 * stride) + r5) * half
        a12 = (load(one, q + 4 * stride) + r6) * quarter
        b1 = (load(one, q) - r2) * half + a11 * dy + a12 * dx
        b2 = (load(one, q + stride) - r3) * half + a12 * dy + a22 * dx
        if weighted or x < LANES or x + LANES > width - LANES:
            weight = load(border_x, x) * broadcast(border_y[y])
            a11, a22, a12 = a11 * weight, a22 * weight, a12 * weight
            b1, b2 = b1 * weight, b2 * weight
        q = out + x
        store(ring, q, a11 * a11 + a12 * a12)
        store(ring, q + pitch, (a11 + a22) * a12)
        store(ring, q + 2 * pitch, a22 * a22 + a12 * a12)
        store(ring, q + 3 * pitch, a11 * b1 + a12 * b2)
        store(ring, q + 4 * pitch, a12 * b1 + a22 * b2)
        if x == width - LANES:
            break
        x = min(x + LANES, width - LANES)  # the last vector overlaps the one before


@kernel
def solve_row(ring, pitch, height, width, y, sums, fx, fy, at):
    """Compute the flow of row y, which come in order, from means of G and h over the window.

    Column sums move down with the row: one row enters, one leaves. Sums of fifteen along the row
    are five of three. Borders repeat.
    """
    unit = 5 * pitch
    for c in range(5):
        row, total = c * pitch + LANES, c * pitch
        if y % RESTART == 0:
            for x in range(0, width, LANES):
                column = broadcast(np.float32(0))
                for k in range(y - HALF, y + HALF + 1):
                    nearest = min(max(k, 0), height - 1)
                    column = column + load(ring, (nearest % RING) * unit + total + x)
                store(sums, row + x, column)
        else:
            enters = (min(y + HALF, height - 1) % RING) * unit + total
            leaves = (max(y - HALF - 1, 0) % RING) * unit + total
            for x in range(0, width, LANES):
                change = load(ring, enters + x) - load(ring, leaves + x)
                store(sums, row + x, load(sums, row + x) + change)
        left, right = sums[row], sums[row + width - 1]
        for n in range(1, HALF + 1):
            sums[row - n] = left
            sums[row + width - 1 + n] = right
    mean, unit_vector = broadcast(np.float32(1 / 225)), broadcast(np.float32(1))
    regularisation = broadcast(np.float32(REGULARISATION))
    q0 = LANES - HALF
    q1, q2, q3, q4 = q0 + pitch, q0 + 2 * pitch, q0 + 3 * pitch, q0 + 4 * pitch
    v0, v1, v2 = load(sums, q0), load(sums, q1), load(sums, q2)
    v3, v4 = load(sums, q3), load(sums, q4)
    n0, n1, n2 = load(sums, q0 + LANES), load(sums, q1 + LANES), load(sums, q2 + LANES)
    n3, n4 = load(sums, q3 + LANES), load(sums, q4 + LANES)
    s0, s1, s2 = threes(v0, n0), threes(v1, n1), threes(v2, n2)
    s3, s4 = threes(v3, n3), threes(v4, n4)
    for x in range(0, width, LANES):
        ahead = x + 2 * LANES
        m0, m1, m2 = load(sums, q0 + ahead), load(sums, q1 + ahead), load(sums, q2 + ahead)
        m3, m4 = load(sums, q3 + ahead), load(sums, q4 + ahead)
        t0, t1, t2 = threes(n0, m0), threes(n1, m1), threes(n2, m2)
        t3, t4 = threes(n3, m3), threes(n4, m4)
        g11, g12, g22 = fives(s0, t0) * mean, fives(s1, t1) * mean, fives(s2, t2) * mean
        h1, h2 = fives(s3, t3) * mean, fives(s4, t4) * mean
        s0, s1, s2, s3, s4 = t0, t1, t2, t3, t4
        n0, n1, n2, n3, n4 = m0, m1, m2, m3, m4
        inverse = unit_vector / (g11 * g22 - g12 * g12 + regularisation)
        store(fx, at + x, (g11 * h2 - g12 * h1) * inverse)
        store(fy, at + x, (g22 * h1 - g12 * h2) * inverse)


@inlined
def threes(x, following):
    """Return sums of three neighbours."""
    return x + from1(x, following) + from2(x, following)


@inlined
def fives(x, following):
    """Return sums of fifteen neighbours from those of three."""
    total = x + from3(x, following) + from6(x, following)
    return total + from9(x, following) + from12(x, following)


@kernel
def improve(
    one,
    two,
    slack,
    stride,
    height,
    width,
    iterations,
    guess_x,
    guess_y,
    fx,
    fy,
    magnitude,
    rings,
    pitch,
    sums,
    row_x,
    row_y,
    border_x,
    border_y,
    lanes,
):
    """Run all iterations of a level; write flow, or its magnitude if that is not empty.

    ``rings``, (iterations, 16 * 5 * pitch), and ``sums``, (iterations, 5 * pitch), are scratch.
    """
    writes_magnitude = len(magnitude) > 0
    for t in range(height + HALF * iterations):
        if t < height:
            update_row(
                one,
                two,
                slack,
                stride,
                height,
                width,
                t,
                guess_x,
                guess_y,
                t * stride,
                rings[0],
                pitch,
                border_x,
                border_y,
                lanes,
            )
        for i in range(iterations):
            y = t - HALF * (i + 1)
            if y < 0 or y >= height:
                continue
            if i < iterations - 1:
                solve_row(rings[i], pitch, height, width, y, sums[i], row_x, row_y, 0)
                update_row(
                    one,
                    two,
                    slack,
                    stride,
                    height,
                    width,
                    y,
                    row_x,
                    row_y,
                    0,
                    rings[i + 1],
                    pitch,
                    border_x,
                    border_y,
                    lanes,
                )
            elif writes_magnitude:
                solve_row(rings[i], pitch, height, width, y, sums[i], row_x, row_y, 0)
                for x in range(0, width, LANES):
                    u, v = load(row_x, x), load(row_y, x)
                    store(magnitude, y * stride + x, square_root(u * u + v * v))
            else:
                solve_row(rings[i], pitch, height, width, y, sums[i], fx, fy, y * stride)
