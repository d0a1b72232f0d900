"""The levels of the pyramid: blurred and shrunk copies of the frame.

OpenCV blurs the whole frame for every level and then shrinks it (``GaussianBlur`` and ``resize`` in
``FarnebackOpticalFlowImpl::calc``). Here both are one weighted sum per pixel. Frames are flat uint8
with ``pitch`` bytes a row; ``row`` is scratch, two vectors longer than a row.
"""

import numpy as np

from pipeline.farneback.cpu.compiling import kernel
from pipeline.farneback.cpu.vectors import LANES, broadcast, even, load, load_bytes, odd, store


@kernel
def blur(frame, height, width, pitch, level, start, stride, row):
    """Make the lowest level: blur by [1/4 1/2 1/4] along both axes, mirrored at borders."""
    quarter, half = broadcast(np.float32(0.25)), broadcast(np.float32(0.5))
    at = LANES  # where the row begins in the scratch
    for y in range(height):
        above = (y - 1 if y > 0 else 1) * pitch
        here = y * pitch
        below = (y + 1 if y < height - 1 else height - 2) * pitch
        for x in range(0, width, LANES):
            ends = load_bytes(frame, above + x) + load_bytes(frame, below + x)
            store(row, at + x, ends * quarter + load_bytes(frame, here + x) * half)
        row[at - 1] = row[at + 1]
        row[at + width] = row[at + width - 2]
        for x in range(0, width, LANES):
            ends = load(row, at + x - 1) + load(row, at + x + 1)
            store(level, start + y * stride + x, ends * quarter + load(row, at + x) * half)


@kernel
def shrink(frame, width, pitch, first_row, rows, first_column, columns, level, start, stride, row):
    """Make a higher level by weighted sums of rows, then of columns.

    Each sum has its first frame row, (h,), and weights, (h, taps); or column, (w,) and (w, taps).
    """
    h, w = len(first_row), len(first_column)
    halves = columns.shape[1] == 4 and width == 2 * w
    for y in range(h):
        top = first_row[y] * pitch
        for x in range(0, width, LANES):
            total = load_bytes(frame, top + x) * broadcast(rows[y, 0])
            for t in range(1, rows.shape[1]):
                total = total + load_bytes(frame, top + t * pitch + x) * broadcast(rows[y, t])
            store(row, x, total)
        out = start + y * stride
        done = 0
        if halves and w > 2 * LANES:  # fast path: four taps, two pixels apart
            done = LANES
            while done < w - LANES:
                at = 2 * done - 1
                a, b = load(row, at), load(row, at + LANES)
                c, d = load(row, at + 2), load(row, at + 2 + LANES)
                total = even(a, b) * broadcast(columns[LANES, 0])
                total = total + odd(a, b) * broadcast(columns[LANES, 1])
                total = total + even(c, d) * broadcast(columns[LANES, 2])
                total = total + odd(c, d) * broadcast(columns[LANES, 3])
                store(level, out + done, total)
                done += LANES
        for n in range(w if done == 0 else LANES + w - done):
            x = n if done == 0 or n < LANES else done + n - LANES
            left = first_column[x]
            total_here = np.float32(0)
            for t in range(columns.shape[1]):
                total_here += row[left + t] * columns[x, t]
            level[out + x] = total_here
