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
def _deflect(x, y, scale, f, q2, core):
    """Deflection in the lens frame (Keeton 2001 eqs 34-35), and psi."""
    psi = math.sqrt(q2 * (core * core + x * x) + y * y)
    if psi == 0.0:
        return 0.0, 0.0, 0.0
    z = f * y / (psi + q2 * core)
    return scale * math.atan(f * x / (psi + core)), scale * 0.5 * math.log1p(2.0 * z / (1.0 - z)), psi


@compiled
def _footprint(x, y, psi, strength, q2, core, P, Q):
    """d u / d X at lens-frame position x, y: the elements of P - Q H, H the Hessian of the potential."""
    r2 = x * x + y * y
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
    out, n_root, fine_level, max_level, pixel, tolerance, lens, P, Q, u0, cos, sin, x0, y0, b, half_power, peak
):
    """Add the light of a Sersic source of unit flux to `out`, flux per fine pixel.

    Args:
        out: (N, N) float64, N = n_root * 2**fine_level fine pixels of `pixel` arcsec, centred on the frame's origin.
        max_level: level below which no cell is split.
        tolerance: error allowed per cell, in units of the unlensed flux; 0 splits everything down to max_level.
        lens: scale (theta_e sqrt(q) / f), f, q^2, core, strength (theta_e sqrt(q)).
        P, Q, u0: the map to the source, see the module.
        cos, sin, x0, y0: the lens frame's angle and origin.
        b, half_power, peak: the profile peak * exp(-b * |u|^(2 half_power)), 1/arcsec^2.
    """
    scale, f, q2, core, strength = lens[0], lens[1], lens[2], lens[3], lens[4]
    # Half the deflection's second derivative is at most bending / r^2 in the source's units: theta_e / sqrt(q) r^-2 / 2.
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
                alpha_x, alpha_y, psi = _deflect(x, y, scale, f, q2, core)
                r2 = x * x + y * y
                if strength == 0.0 or r2 > 4.0 * area:
                    a, c, d, e = _footprint(x, y, psi, strength, q2, core, P, Q)
                    u = P[0, 0] * x + P[0, 1] * y - Q[0, 0] * alpha_x - Q[0, 1] * alpha_y + u0[0]
                    v = P[1, 0] * x + P[1, 1] * y - Q[1, 0] * alpha_x - Q[1, 1] * alpha_y + u0[1]
                    radius = math.sqrt(u * u + v * v)
                    # Sides of the footprint along the stamp's axes, as the Gauss points lie along these.
                    side_x = width * math.hypot(a * cos - c * sin, d * cos - e * sin)
                    side_y = width * math.hypot(a * sin + c * cos, d * sin + e * cos)
                    # Half a diagonal, and what the mapping's curvature adds.
                    reach = 0.5 * (side_x + side_y)
                    if strength > 0.0:
                        reach += 0.5 * bending * area / r2
                    # A cell over the centre: not the centre itself, where a cuspy profile peaks in a negligible area.
                    nearest = max(radius - reach, min(0.1 * reach, 0.3))
                    power = nearest ** (2.0 * half_power)
                    bound = peak * math.exp(-b * power) * area
                    # d ln f / d u where it is larger: at the near side of a cuspy profile, further out in a flat one.
                    steepest = nearest if half_power < 0.5 else max(nearest, radius)
                    steepness = slope * steepest ** (2.0 * half_power - 1.0)
                    bend = slope * power / (nearest * nearest)
                    fourth = steepness**4 + 3.0 * bend * bend
                    error = bound * min(1.0, _GAUSS_ERROR * fourth * (side_x**4 + side_y**4))
                    if error < tolerance:
                        split = False
                        if bound < 1e-3 * tolerance:
                            continue
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
                alpha_x, alpha_y, psi = _deflect(px, py, scale, f, q2, core)
                u = P[0, 0] * px + P[0, 1] * py - Q[0, 0] * alpha_x - Q[0, 1] * alpha_y + u0[0]
                v = P[1, 0] * px + P[1, 1] * py - Q[1, 0] * alpha_x - Q[1, 1] * alpha_y + u0[1]
                value = peak * math.exp(-b * (u * u + v * v) ** half_power)
                _deposit(out, i, j, level, fine_level, quadrant_x, quadrant_y, 0.25 * area * value)


@compiled
def trace_image(
    out, n_root, fine_level, max_level, pixel, tolerance, lens, P, Q, u0, cos, sin, x0, y0, image, blocks, block_size
):
    """Add the light of an image source of unit flux to `out`; arguments as for `trace_sersic`, and

    Args:
        image: (h, w) surface brightness, 1/arcsec^2, with a border of zeros; u counts its pixels from its middle.
        blocks: largest absolute brightness in each block of `block_size` pixels.
    """
    scale, f, q2, core, strength = lens[0], lens[1], lens[2], lens[3], lens[4]
    # Half the deflection's second derivative is at most bending / r^2 in the source's units: theta_e / sqrt(q) r^-2 / 2.
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
                alpha_x, alpha_y, psi = _deflect(x, y, scale, f, q2, core)
                r2 = x * x + y * y
                if strength == 0.0 or r2 > 4.0 * area:
                    a, c, d, e = _footprint(x, y, psi, strength, q2, core, P, Q)
                    u = P[0, 0] * x + P[0, 1] * y - Q[0, 0] * alpha_x - Q[0, 1] * alpha_y + u0[0] + middle_u
                    v = P[1, 0] * x + P[1, 1] * y - Q[1, 0] * alpha_x - Q[1, 1] * alpha_y + u0[1] + middle_v
                    side_x = width * math.hypot(a * cos - c * sin, d * cos - e * sin)
                    side_y = width * math.hypot(a * sin + c * cos, d * sin + e * cos)
                    reach = 0.5 * (side_x + side_y)
                    if strength > 0.0:
                        reach += 0.5 * bending * area / r2
                    if u + reach < 0.0 or v + reach < 0.0 or u - reach > columns - 1.0 or v - reach > rows - 1.0:
                        continue
                    bound = _largest(blocks, block_size, u, v, reach) * area
                    side = max(side_x, side_y)
                    # From trials on noisy, lumpy images: points two pixels apart are off by 0.5% of the brightest pixel.
                    error = bound * min(1.0, 3e-4 * side**4)
                    if error < tolerance:
                        split = False
                        if bound < 1e-3 * tolerance:
                            continue
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
                alpha_x, alpha_y, psi = _deflect(px, py, scale, f, q2, core)
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
def fold(out, spectrum, table, table_step, psf_scale, wave_step, unbox):
    """Multiply a fine image's spectrum by a PSF's transfer function and fold it to the native sampling.

    Sampling every s-th point in space adds the spectrum's aliases: out[k] = sum over m of fine[k + m N].

    Args:
        out: (N, N // 2 + 1) complex128 of zeros: half-plane spectrum of the native image.
        spectrum: (2 R, R) complex128: rows ky = -R..R-1, columns kx = 0..R-1 of the fine image's.
        table, table_step: the transfer function of a PSF of scale 1.
        psf_scale: arcsec. wave_step: rad/arcsec between neighbouring frequencies.
        unbox: (R + 1,) factor along one axis, beside the PSF's.
    """
    n = out.shape[0]
    reach = spectrum.shape[1]
    last = out.shape[1] - 1
    step = wave_step * psf_scale / table_step
    for row in range(2 * reach):
        ky = row - reach
        to_row = ky % n
        partner_row = (-ky) % n
        for kx in range(reach):
            position = step * math.sqrt(kx * kx + ky * ky)
            index = int(position)
            if index >= table.size - 1:
                break
            weight = position - index
            factor = (table[index] * (1.0 - weight) + table[index + 1] * weight) * unbox[kx] * unbox[abs(ky)]
            value = spectrum[row, kx] * factor
            to_column = kx % n
            if to_column <= last:
                out[to_row, to_column] += value
            if kx > 0:
                partner = (-kx) % n
                if partner <= last:
                    out[partner_row, partner] += value.conjugate()


def block_maxima(image: npt.NDArray[np.float64], block_size: int) -> npt.NDArray[np.float64]:
    """Largest absolute value in each (block_size, block_size) block of `image`."""
    rows, columns = (-(-length // block_size) for length in image.shape)
    padded = np.zeros((rows * block_size, columns * block_size))
    padded[: image.shape[0], : image.shape[1]] = np.abs(image)
    return padded.reshape(rows, block_size, columns, block_size).max(axis=(1, 3))
