"""Polynomial expansion of a frame around each of its pixels.

Brightness is approximated by r1 + r2 x + r3 y + r4 x² + r5 y² + r6 xy in least squares weighted by
a Gaussian over 11 x 11 pixels (OpenCV's ``FarnebackPolyExp``; Farnebäck 2003, section 2).
Correlations with 1, x and x² along rows and columns give r2 to r6; r1 is never used.
"""

from pipeline.farneback.cpu.compiling import kernel
from pipeline.farneback.cpu.vectors import LANES, broadcast, load, store

REACH = 5  # pixels on either side


@kernel
def expand(
    level, start, stride, height, width, weights, inverse, coefficients, slack, rows, row_length
):
    """Expand a level of a frame.

    Args:
        weights: (3, 6): g, x g and x² g at distances 0 to 5.
        inverse: (4,): entries 11, 03, 33 and 55 of the inverse moments.
        coefficients: for each row of the level five rows: r3 (along y), r2 (along x), r5, r4, r6.
        rows: scratch for three rows.
    """
    g0 = broadcast(weights[0, 0])
    g1, g2, g3 = broadcast(weights[0, 1]), broadcast(weights[0, 2]), broadcast(weights[0, 3])
    g4, g5 = broadcast(weights[0, 4]), broadcast(weights[0, 5])
    d1, d2, d3 = broadcast(weights[1, 1]), broadcast(weights[1, 2]), broadcast(weights[1, 3])
    d4, d5 = broadcast(weights[1, 4]), broadcast(weights[1, 5])
    s1, s2, s3 = broadcast(weights[2, 1]), broadcast(weights[2, 2]), broadcast(weights[2, 3])
    s4, s5 = broadcast(weights[2, 4]), broadcast(weights[2, 5])
    ig11, ig03 = broadcast(inverse[0]), broadcast(inverse[1])
    ig33, ig55 = broadcast(inverse[2]), broadcast(inverse[3])
    mean, slope, curve = LANES, row_length + LANES, 2 * row_length + LANES  # along y, in scratch
    for y in range(height):
        here = start + y * stride
        u1, l1 = start + max(y - 1, 0) * stride, start + min(y + 1, height - 1) * stride
        u2, l2 = start + max(y - 2, 0) * stride, start + min(y + 2, height - 1) * stride
        u3, l3 = start + max(y - 3, 0) * stride, start + min(y + 3, height - 1) * stride
        u4, l4 = start + max(y - 4, 0) * stride, start + min(y + 4, height - 1) * stride
        u5, l5 = start + max(y - 5, 0) * stride, start + min(y + 5, height - 1) * stride
        for x in range(0, width, LANES):
            a, b = load(level, u1 + x), load(level, l1 + x)
            m, d, c = load(level, here + x) * g0 + (a + b) * g1, (b - a) * d1, (a + b) * s1
            a, b = load(level, u2 + x), load(level, l2 + x)
            m, d, c = m + (a + b) * g2, d + (b - a) * d2, c + (a + b) * s2
            a, b = load(level, u3 + x), load(level, l3 + x)
            m, d, c = m + (a + b) * g3, d + (b - a) * d3, c + (a + b) * s3
            a, b = load(level, u4 + x), load(level, l4 + x)
            m, d, c = m + (a + b) * g4, d + (b - a) * d4, c + (a + b) * s4
            a, b = load(level, u5 + x), load(level, l5 + x)
            m, d, c = m + (a + b) * g5, d + (b - a) * d5, c + (a + b) * s5
            store(rows, mean + x, m)
            store(rows, slope + x, d)
            store(rows, curve + x, c)
        for row in (mean, slope, curve):  # borders repeat
            left, right = rows[row], rows[row + width - 1]
            for n in range(1, REACH + 1):
                rows[row - n] = left
                rows[row + width - 1 + n] = right
        out = slack + y * 5 * stride
        for x in range(0, width, LANES):
            q = mean + x
            a, b = load(rows, q - 1), load(rows, q + 1)
            m, d, c = load(rows, q) * g0 + (a + b) * g1, (b - a) * d1, (a + b) * s1
            a, b = load(rows, q - 2), load(rows, q + 2)
            m, d, c = m + (a + b) * g2, d + (b - a) * d2, c + (a + b) * s2
            a, b = load(rows, q - 3), load(rows, q + 3)
            m, d, c = m + (a + b) * g3, d + (b - a) * d3, c + (a + b) * s3
            a, b = load(rows, q - 4), load(rows, q + 4)
            m, d, c = m + (a + b) * g4, d + (b - a) * d4, c + (a + b) * s4
            a, b = load(rows, q - 5), load(rows, q + 5)
            m, d, c = m + (a + b) * g5, d + (b - a) * d5, c + (a + b) * s5
            q = slope + x
            a, b = load(rows, q - 1), load(rows, q + 1)
            dy, dxy = load(rows, q) * g0 + (a + b) * g1, (b - a) * d1
            a, b = load(rows, q - 2), load(rows, q + 2)
            dy, dxy = dy + (a + b) * g2, dxy + (b - a) * d2
            a, b = load(rows, q - 3), load(rows, q + 3)
            dy, dxy = dy + (a + b) * g3, dxy + (b - a) * d3
            a, b = load(rows, q - 4), load(rows, q + 4)
            dy, dxy = dy + (a + b) * g4, dxy + (b - a) * d4
            a, b = load(rows, q - 5), load(rows, q + 5)
            dy, dxy = dy + (a + b) * g5, dxy + (b - a) * d5
            q = curve + x
            cy = load(rows, q) * g0 + (load(rows, q - 1) + load(rows, q + 1)) * g1
            cy = cy + (load(rows, q - 2) + load(rows, q + 2)) * g2
            cy = cy + (load(rows, q - 3) + load(rows, q + 3)) * g3
            cy = cy + (load(rows, q - 4) + load(rows, q + 4)) * g4
            cy = cy + (load(rows, q - 5) + load(rows, q + 5)) * g5
            store(coefficients, out + x, dy * ig11)
            store(coefficients, out + stride + x, d * ig11)
            store(coefficients, out + 2 * stride + x, m * ig03 + cy * ig33)
            store(coefficients, out + 3 * stride + x, m * ig03 + c * ig33)
            store(coefficients, out + 4 * stride + x, dxy * ig55)
