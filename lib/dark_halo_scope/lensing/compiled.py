"""Compiled ray-shooting: the light of a lensed source in every fine pixel, by an adaptive quadtree.

A cell of the tree carries a bound on the error of integrating it with 2 x 2 Gauss points, from its footprint in the
source plane and the source's steepness there; cells above the tolerance are split. Most of a stamp ends after a few
large cells, an arc at one cell per fine pixel, the middle of a cuspy source far below.

All coordinates are in the lens frame: origin at the lens centre, axes turned to the ellipse's. There
u = P X - Q alpha(X) + u0 is the position in the source's own units (half-light radii or image pixels).
"""

import math

import numpy as np
import numpy.typing as npt

from dark_halo_scope.lensing.jit import compiled

# Error of the two-point Gauss rule on exp(g t), |t| <= 1/2, relative to its value in the middle: g^4 / 4320.
_GAUSS_ERROR = 1.0 / 4320.0
_GAUSS_NODE = 0.5 / math.sqrt(3.0)


@compiled
def _deflect_exactly(x, y, scale, f, q2, core):
    """Deflection in the lens frame (Keeton 2001 eqs 34-35)."""
    psi = math.sqrt(q2 * (core * core + x * x) + y * y)
    if psi == 0.0:
        return 0.0, 0.0
    z = f * y / (psi + q2 * core)
    return scale * math.atan(f * x / (psi + core)), scale * 0.5 * math.log1p(2.0 * z / (1.0 - z))


@compiled
def tabulate(table, scale, f, q2, strength):
    """Fill (N + 1, 4) `table` with the deflection of a singular lens by direction, in one quadrant.

    It does not depend on the radius. Rows run over p = y / (x + y) from 0 to 1: deflection and derivatives by p / N,
    for cubic Hermite interpolation, whose error at N = 64 is 1e-8 of the deflection.
    """
    last = table.shape[0] - 1
    for row in range(last + 1):
        y = row / last
        x = 1.0 - y
        table[row, 0], table[row, 1] = _deflect_exactly(x, y, scale, f, q2, 0.0)
        # d alpha / d p = H (-1, 1), H the Hessian strength / (psi r^2) (-y, x)(-y, x)^T.
        turn = strength * (x + y) / (math.sqrt(q2 * x * x + y * y) * (x * x + y * y) * last)
        table[row, 2] = -y * turn
        table[row, 3] = x * turn


@compiled
def _deflect(x, y, table, scale, f, q2, core):
    """Deflection in the lens frame, from `tabulate`'s table where the lens has no core."""
    if core > 0.0:
        return _deflect_exactly(x, y, scale, f, q2, core)
    total = abs(x) + abs(y)
    if total == 0.0:
        return 0.0, 0.0
    position = abs(y) / total * (table.shape[0] - 1)
    row = min(int(position), table.shape[0] - 2)
    t = position - row
    u = 1.0 - t
    w0 = u * u * (1.0 + 2.0 * t)
    w1 = 1.0 - w0
    d0 = u * u * t
    d1 = -t * t * u
    alpha_x = w0 * table[row, 0] + w1 * table[row + 1, 0] + d0 * table[row, 2] + d1 * table[row + 1, 2]
    alpha_y = w0 * table[row, 1] + w1 * table[row + 1, 1] + d0 * table[row, 3] + d1 * table[row + 1, 3]
    return math.copysign(alpha_x, x), math.copysign(alpha_y, y)


@compiled
def _power(radius, half_power):
    """radius^(2 half_power), fast for the indices 1 and 4 that are asked for most."""
    if half_power == 0.5:
        return radius
    if half_power == 0.125:
        return math.sqrt(math.sqrt(radius))
    return radius ** (2.0 * half_power)


@compiled
def _footprint(x, y, r2, strength, q2, core, P, Q):
    """d u / d X at lens-frame position x, y: the elements of P - Q H, H the Hessian of the potential."""
    psi = math.sqrt(q2 * (core * core + x * x) + y * y)
    if psi == 0.0:
        return P[0, 0], P[0, 1], P[1, 0], P[1, 1]
    factor = strength / (psi * ((1.0 + q2) * core * core + 2.0 * psi * core + r2))
    h_xx = factor * (q2 * core * core + y * y + core * psi)
    h_yy = factor * (core * core + x * x + core * psi)
    h_xy = -factor * x * y
    return (
        P[0, 0] - Q[0, 0] * h_xx - Q[0, 1] * h_xy,
        P[0, 1] - Q[0, 0] * h_xy - Q[0, 1] * h_yy,
        P[1, 0] - Q[1, 0] * h_xx - Q[1, 1] * h_xy,
        P[1, 1] - Q[1, 0] * h_xy - Q[1, 1] * h_yy,
    )


@compiled
def _deposit(out, i, j, level, fine_level, quadrant_x, quadrant_y, value):
    """Add `value` to the fine pixels under one quadrant of cell (i, j) of `level`."""
    if level >= fine_level:
        shift = level - fine_level
        out[j >> shift, i >> shift] += value
        return
    width = 1 << (fine_level - level - 1)
    x0 = (2 * i + quadrant_x) * width
    y0 = (2 * j + quadrant_y) * width
    share = value / (width * width)
    for row in range(y0, y0 + width):
        for column in range(x0, x0 + width):
            out[row, column] += share


@compiled
def trace_sersic(
    out, n_root, fine_level, max_level, pixel, tolerance, lens, table, P, Q, u0, cos, sin, x0, y0, b, half_power, peak
):
    """Add the light of a Sersic source of unit flux to `out`, flux per fine pixel.

    Args:
        out: (N, N) float64, N = n_root * 2**fine_level fine pixels of `pixel` arcsec, centred on the frame's origin.
        max_level: level below which no cell is split.
        tolerance: error allowed per cell, in units of the unlensed flux; 0 splits everything down to max_level.
        lens: scale (theta_e sqrt(q) / f), f, q^2, core, strength (theta_e sqrt(q)).
        table: from `tabulate`.
        P, Q, u0: the map to the source, see the module.
        cos, sin, x0, y0: the lens frame's angle and origin.
        b, half_power, peak: the profile peak * exp(-b * |u|^(2 half_power)), 1/arcsec^2.
    """
    scale, f, q2, core, strength = lens[0], lens[1], lens[2], lens[3], lens[4]
    # The deflection's second derivative is at most 2 bending / r^2, in the source's units.
    bending = 0.5 * strength / math.sqrt(q2) * (abs(Q[0, 0]) + abs(Q[0, 1]) + abs(Q[1, 0]) + abs(Q[1, 1]))
    half_side = 0.5 * pixel * out.shape[0]
    root_width = pixel * 2.0**fine_level
    slope = 2.0 * b * half_power
    stack = np.empty((3 * max_level + 4, 3), np.int64)
    for root in range(n_root * n_root):
        stack[0, 0] = root % n_root
        stack[0, 1] = root // n_root
        stack[0, 2] = 0
        depth = 1
        while depth > 0:
            depth -= 1
            i, j, level = stack[depth, 0], stack[depth, 1], stack[depth, 2]
            width = root_width / (1 << level)
            area = width * width
            dx = (i + 0.5) * width - half_side - x0
            dy = (j + 0.5) * width - half_side - y0
            x = cos * dx + sin * dy
            y = cos * dy - sin * dx
            split = level < max_level
            if split and tolerance > 0.0:
                alpha_x, alpha_y = _deflect(x, y, table, scale, f, q2, core)
                r2 = x * x + y * y
                if strength == 0.0 or r2 > 4.0 * area:
                    a, c, d, e = _footprint(x, y, r2, strength, q2, core, P, Q)
                    u = P[0, 0] * x + P[0, 1] * y - Q[0, 0] * alpha_x - Q[0, 1] * alpha_y + u0[0]
                    v = P[1, 0] * x + P[1, 1] * y - Q[1, 0] * alpha_x - Q[1, 1] * alpha_y + u0[1]
                    radius = math.sqrt(u * u + v * v)
                    # Sides of the footprint along the stamp's axes, as the Gauss points lie along these.
                    side_x = width * math.sqrt((a * cos - c * sin) ** 2 + (d * cos - e * sin) ** 2)
                    side_y = width * math.sqrt((a * sin + c * cos) ** 2 + (d * sin + e * cos) ** 2)
                    # Half a diagonal, and what the mapping's curvature adds.
                    reach = 0.5 * (side_x + side_y)
                    if strength > 0.0:
                        reach += 0.5 * bending * area / r2
                    # A cell over the centre: not the centre itself, where a cuspy profile peaks in a negligible area.
                    nearest = max(radius - reach, min(0.1 * reach, 0.3))
                    power = _power(nearest, half_power)
                    bound = peak * math.exp(-b * power) * area
                    if bound < 1e-3 * tolerance:
                        continue
                    # d ln f / d u where it is larger: at the near side of a cuspy profile, further out in a flat one.
                    steepness = slope * power / nearest
                    bend = steepness / nearest
                    if half_power > 0.5 and radius > nearest:
                        steepness = slope * _power(radius, half_power) / radius
                    fourth = (steepness * steepness) ** 2 + 3.0 * bend * bend
                    sides = (side_x * side_x) ** 2 + (side_y * side_y) ** 2
                    error = bound * min(1.0, _GAUSS_ERROR * fourth * sides)
                    if error < tolerance:
                        split = False
            if split:
                for child in range(4):
                    stack[depth, 0] = 2 * i + (child & 1)
                    stack[depth, 1] = 2 * j + (child >> 1)
                    stack[depth, 2] = level + 1
                    depth += 1
                continue
            node = _GAUSS_NODE * width
            for quadrant in range(4):
                quadrant_x = quadrant & 1
                quadrant_y = quadrant >> 1
                sx = node * (2 * quadrant_x - 1)
                sy = node * (2 * quadrant_y - 1)
                px = x + cos * sx + sin * sy
                py = y + cos * sy - sin * sx
                alpha_x, alpha_y = _deflect(px, py, table, scale, f, q2, core)
                u = P[0, 0] * px + P[0, 1] * py - Q[0, 0] * alpha_x - Q[0, 1] * alpha_y + u0[0]
                v = P[1, 0] * px + P[1, 1] * py - Q[1, 0] * alpha_x - Q[1, 1] * alpha_y + u0[1]
                value = peak * math.exp(-b * _power(math.sqrt(u * u + v * v), half_power))
                _deposit(out, i, j, level, fine_level, quadrant_x, quadrant_y, 0.25 * area * value)


@compiled
def trace_image(
    out,
    n_root,
    fine_level,
    max_level,
    pixel,
    tolerance,
    lens,
    table,
    P,
    Q,
    u0,
    cos,
    sin,
    x0,
    y0,
    image,
    blocks,
    block_size,
):
    """Add the light of an image source of unit flux to `out`; arguments as for `trace_sersic`, and

    Args:
        image: (h, w) surface brightness, 1/arcsec^2, with a border of zeros; u counts its pixels from its middle.
        blocks: largest absolute brightness in each block of `block_size` pixels.
    """
    scale, f, q2, core, strength = lens[0], lens[1], lens[2], lens[3], lens[4]
    # The deflection's second derivative is at most 2 bending / r^2, in the source's units.
    bending = 0.5 * strength / math.sqrt(q2) * (abs(Q[0, 0]) + abs(Q[0, 1]) + abs(Q[1, 0]) + abs(Q[1, 1]))
    half_side = 0.5 * pixel * out.shape[0]
    root_width = pixel * 2.0**fine_level
    rows, columns = image.shape
    middle_u = 0.5 * (columns - 1)
    middle_v = 0.5 * (rows - 1)
    stack = np.empty((3 * max_level + 4, 3), np.int64)
    for root in range(n_root * n_root):
        stack[0, 0] = root % n_root
        stack[0, 1] = root // n_root
        stack[0, 2] = 0
        depth = 1
        while depth > 0:
            depth -= 1
            i, j, level = stack[depth, 0], stack[depth, 1], stack[depth, 2]
            width = root_width / (1 << level)
            area = width * width
            dx = (i + 0.5) * width - half_side - x0
            dy = (j + 0.5) * width - half_side - y0
            x = cos * dx + sin * dy
            y = cos * dy - sin * dx
            split = level < max_level
            if split and tolerance > 0.0:
                alpha_x, alpha_y = _deflect(x, y, table, scale, f, q2, core)
                r2 = x * x + y * y
                if strength == 0.0 or r2 > 4.0 * area:
                    a, c, d, e = _footprint(x, y, r2, strength, q2, core, P, Q)
                    u = P[0, 0] * x + P[0, 1] * y - Q[0, 0] * alpha_x - Q[0, 1] * alpha_y + u0[0] + middle_u
                    v = P[1, 0] * x + P[1, 1] * y - Q[1, 0] * alpha_x - Q[1, 1] * alpha_y + u0[1] + middle_v
                    side_x = width * math.sqrt((a * cos - c * sin) ** 2 + (d * cos - e * sin) ** 2)
                    side_y = width * math.sqrt((a * sin + c * cos) ** 2 + (d * sin + e * cos) ** 2)
                    reach = 0.5 * (side_x + side_y)
                    if strength > 0.0:
                        reach += 0.5 * bending * area / r2
                    if u + reach < 0.0 or v + reach < 0.0 or u - reach > columns - 1.0 or v - reach > rows - 1.0:
                        continue
                    bound = _largest(blocks, block_size, u, v, reach) * area
                    if bound < 1e-3 * tolerance:
                        continue
                    side = max(side_x, side_y)
                    # From trials on noisy, lumpy images.
                    error = bound * min(1.0, 1.2e-3 * side**4)
                    if error < tolerance:
                        split = False
            if split:
                for child in range(4):
                    stack[depth, 0] = 2 * i + (child & 1)
                    stack[depth, 1] = 2 * j + (child >> 1)
                    stack[depth, 2] = level + 1
                    depth += 1
                continue
            node = _GAUSS_NODE * width
            for quadrant in range(4):
                quadrant_x = quadrant & 1
                quadrant_y = quadrant >> 1
                sx = node * (2 * quadrant_x - 1)
                sy = node * (2 * quadrant_y - 1)
                px = x + cos * sx + sin * sy
                py = y + cos * sy - sin * sx
                alpha_x, alpha_y = _deflect(px, py, table, scale, f, q2, core)
                u = P[0, 0] * px + P[0, 1] * py - Q[0, 0] * alpha_x - Q[0, 1] * alpha_y + u0[0] + middle_u
                v = P[1, 0] * px + P[1, 1] * py - Q[1, 0] * alpha_x - Q[1, 1] * alpha_y + u0[1] + middle_v
                if u <= 0.0 or v <= 0.0 or u >= columns - 1.0 or v >= rows - 1.0:
                    continue
                column = int(u)
                row = int(v)
                right = u - column
                up = v - row
                value = (1.0 - up) * (image[row, column] * (1.0 - right) + image[row, column + 1] * right) + up * (
                    image[row + 1, column] * (1.0 - right) + image[row + 1, column + 1] * right
                )
                _deposit(out, i, j, level, fine_level, quadrant_x, quadrant_y, 0.25 * area * value)


@compiled
def _largest(blocks, block_size, u, v, reach):
    """Largest entry of the blocks that a square of half-width `reach` about pixel (u, v) touches."""
    rows, columns = blocks.shape
    first_column = max(int((u - reach - 1.0) / block_size), 0)
    last_column = min(int((u + reach + 1.0) / block_size), columns - 1)
    first_row = max(int((v - reach - 1.0) / block_size), 0)
    last_row = min(int((v + reach + 1.0) / block_size), rows - 1)
    largest = 0.0
    for row in range(first_row, last_row + 1):
        for column in range(first_column, last_column + 1):
            largest = max(largest, blocks[row, column])
    return largest


@compiled
def spread(out, values, first, weights):
    """Spread fine pixels onto the coarser periodic grid `out` of zeros with cubic B-splines; whether all are >= 0.

    Args:
        out: (M, M) float64 of zeros.
        values: (N, N) fine image.
        first, weights: (N,) int64 and (N, 4): along either axis, fine pixel i adds weights[i] to the four grid points
            from first[i] on (from -2 to M + 1: the grid is periodic).
    """
    length = out.shape[0]
    row_sums = np.empty(length + 4)
    positive = True
    for i in range(values.shape[0]):
        start = -1
        stop = 0
        for j in range(values.shape[1]):
            if values[i, j] != 0.0:
                if start < 0:
                    start = j
                stop = j + 1
        if start < 0:
            continue
        low = first[start]
        high = first[stop - 1] + 4
        row_sums[low + 2 : high + 2] = 0.0
        for j in range(start, stop):
            value = values[i, j]
            if value < 0.0:
                positive = False
            column = first[j] + 2
            for k in range(4):
                row_sums[column + k] += weights[j, k] * value
        for k in range(4):
            row = (first[i] + k) % length
            weight = weights[i, k]
            for column in range(low, high):
                wrapped = column
                if column < 0:
                    wrapped += length
                elif column >= length:
                    wrapped -= length
                out[row, wrapped] += weight * row_sums[column + 2]
    return positive


@compiled
def filter_and_fold(out, spectrum, table, step, correction):
    """Multiply a spectrum by a PSF's transfer function and fold it to the stamp's sampling.

    Sampling every second point in space adds the spectrum's aliases: out[k] = coarse[k] + coarse[k - N].

    Args:
        out: (N, N // 2 + 1) complex128 of zeros: half-plane spectrum of the stamp, N even.
        spectrum: (M, M // 2 + 1) complex128, M = N or 2 N.
        table, step: the transfer function, `step` entries to a frequency; zero beyond its end.
        correction: (M // 2,) factor along each axis, beside the PSF's.
    """
    n = out.shape[0]
    last = n // 2
    rows = spectrum.shape[0]
    reach = correction.size
    for ky in range(reach):
        partner_row = n - ky if ky > 0 else 0
        for kx in range(reach):
            position = step * math.sqrt(kx * kx + ky * ky)
            index = int(position)
            if index >= table.size - 1:
                break
            weight = position - index
            factor = (table[index] * (1.0 - weight) + table[index + 1] * weight) * correction[kx] * correction[ky]
            upper = spectrum[ky, kx] * factor
            if kx <= last:
                out[ky, kx] += upper
            # The spectrum of a real image is symmetric: frequency (-kx, -ky) has the conjugate value.
            folded = n - kx
            if kx > 0 and folded <= last:
                out[partner_row, folded] += upper.conjugate()
            if ky > 0:
                lower = spectrum[rows - ky, kx] * factor
                if kx <= last:
                    out[partner_row, kx] += lower
                if kx > 0 and folded <= last:
                    out[ky, folded] += lower.conjugate()


def block_maxima(image: npt.NDArray[np.float64], block_size: int) -> npt.NDArray[np.float64]:
    """Largest absolute value in each (block_size, block_size) block of `image`."""
    rows, columns = (-(-length // block_size) for length in image.shape)
    padded = np.zeros((rows * block_size, columns * block_size))
    padded[: image.shape[0], : image.shape[1]] = np.abs(image)
    return padded.reshape(rows, block_size, columns, block_size).max(axis=(1, 3))
