"""From the flow of a level to the initial flow of the next, twice the size and length."""

import numpy as np

from pipeline.farneback.cpu.compiling import kernel
from pipeline.farneback.cpu.vectors import LANES, broadcast, load, store, zip_high, zip_low


@kernel
def enlarge(
    small, small_stride, small_height, small_width, above, down, left, right, large, stride, row
):
    """Resize a component of the flow bilinearly and double it (OpenCV's ``resize`` and ``*=``).

    ``above``, (h,), is the upper of two rows and ``down`` the weight of the lower one; ``left`` and
    ``right``, (w,), are the same for columns. ``row`` is scratch for two rows.
    """
    h, w = len(above), len(left)
    quarter, rest = broadcast(np.float32(0.25)), broadcast(np.float32(0.75))
    half = len(row) // 2
    for y in range(h):
        upper = above[y] * small_stride
        lower = min(above[y] + 1, small_height - 1) * small_stride
        of_upper = broadcast(np.float32(2) - np.float32(2) * down[y])
        of_lower = broadcast(np.float32(2) * down[y])
        for x in range(0, small_width, LANES):
            store(row, x, load(small, upper + x) * of_upper + load(small, lower + x) * of_lower)
        row[small_width] = row[small_width - 1]
        out = y * stride
        if w == 2 * small_width:  # fast path: weights are 1/4 and 3/4 in turn
            for x in range(0, small_width, LANES):
                near_left = load(row, x) * rest + load(row, x + 1) * quarter
                store(row, half + x, near_left)
            large[out] = row[0]
            for x in range(0, small_width, LANES):
                near_right = load(row, x + 1) * rest + load(row, x) * quarter
                store(large, out + 1 + 2 * x, zip_low(load(row, half + x), near_right))
                store(large, out + 1 + 2 * x + LANES, zip_high(load(row, half + x), near_right))
        else:
            for x in range(w):
                q = left[x]
                large[out + x] = row[q] + right[x] * (row[q + 1] - row[q])
