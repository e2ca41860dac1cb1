"""Where the microphones of an array really are, and how late their channels, by what they heard.

Beside direction finding: in come the delays of many far impulses whose directions nobody knows, out
go places and delays to write into the array's file (`node.capture.geometry`). Pure.

Method (signal.md §3). Impulse k reaches the microphone at p_i, whose channel is late by tau_i, at
b_k + tau_i - p_i · s_k, of which all on the right is unknown; what makes it solvable is that every
slowness s_k has the length 1 / c, and that each impulse brings as many delays as there are
microphones. Gauss and Newton's steps over all of it, each impulse's own unknowns eliminated, with
a prior round the nominal array. Where the array is, how it is turned, and how late it is altogether
no impulse tells: of these what was nominal stays, so a heading that was off stays off. Its size is
as right as the speed of sound that is given; a direction in three dimensions needs neither.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from node.detect.arrival import Arrival
from node.detect.direction import FLAT, LEAST_COHERENCE, SOUND_SPEED_M_S
from node.errors import CalibrationError

Float64Array = npt.NDArray[np.float64]

# Of capsules placed with a ruler, and of channels that were never measured.
PRIOR_POSITION_M: Final = 5e-3
PRIOR_DELAY_S: Final = 10e-6
# From impulse to impulse, by the day's temperature and by wind.
SPEED_SIGMA: Final = 0.01
# What the noise does not explain: turbulence, and the steps of the correlation.
LEAST_SIGMA_S: Final = 0.5e-6

FEWEST_MICROPHONES: Final = 4
FEWEST_IMPULSES: Final = 30
# An impulse off by more of its sigma than this, root mean square, was no single far source; if more
# than this share is, the array is not the one that is written down.
OFF: Final = 4.0
MOST_OFF: Final = 1 / 3
# Of what was not known at most this share may be left, in every respect. Where directions do not
# spread, heights and delays, say, change places unnoticed, and the prior alone decides.
LEFT: Final = 0.8
# Farther from the nominal place than this many prior sigmas, and it is another array.
FAR: Final = 5.0
STEPS: Final = 30
SETTLED: Final = 1e-4  # of a prior sigma
RIDGE: Final = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What an array is like, as the sounds tell it.

    Attributes
    ----------
    positions_m
        Shape [channels, 3], in the axes and round the middle of the nominal ones.
    delays_s
        By how much each channel is late, shape [channels]; their mean is zero.
    position_sigma_m, delay_sigma_s
        Root mean square standard errors, of one axis and of one channel. Of the array's shape: a
        common shift or turn is not told, and in its size it is as wrong as the speed of sound.
    timing_sigma_s
        Of a channel's delay as places and delays together give it, root mean square over where
        the impulses came from: what `DirectionFinder` should take as `delay_sigma_s`, with a
        `position_sigma_m` of zero. It is less than both say, since errors of a place that
        impulses do not show are made up for by those of a delay.
    used
        Indices of the impulses that it rests on.
    nominal_residual_s, residual_s
        Root mean square of what plane waves at the mean speed of sound leave of their delays, by
        the nominal array and by this one; the latter has the speed's variation in it.
    """

    positions_m: Float64Array
    delays_s: Float64Array
    position_sigma_m: float
    delay_sigma_s: float
    timing_sigma_s: float
    used: tuple[int, ...]
    nominal_residual_s: float
    residual_s: float


def calibrate(
    positions_m: npt.ArrayLike,
    arrivals: Sequence[Arrival],
    *,
    delays_s: npt.ArrayLike | None = None,
    position_sigma_m: float = PRIOR_POSITION_M,
    delay_sigma_s: float = PRIOR_DELAY_S,
    sound_speed_m_s: float = SOUND_SPEED_M_S,
    sound_speed_sigma: float = SPEED_SIGMA,
) -> Calibration:
    """Find places and delays from far impulses of unknown directions.

    Parameters
    ----------
    positions_m, delays_s
        Nominal, shapes [channels, 3] and [channels]; no delays are zeros.
    arrivals
        One of each impulse, as `DirectionFinder.explain` tells them; delays that are NaN, and
        impulses that are in doubt, are left out.
    position_sigma_m, delay_sigma_s
        How well the nominal ones are known, along each axis and of each channel.
    sound_speed_m_s, sound_speed_sigma
        Mean speed of sound, and how far it varies from impulse to impulse, relative.

    Raises
    ------
    CalibrationError
        The array is planar or has too few microphones, the impulses are too few, fit no array
        like the nominal one, or come from too few sides to tell what it is like.
    """
    nominal_m = np.array(positions_m, np.float64)
    late_s = np.zeros(len(nominal_m)) if delays_s is None else np.array(delays_s, np.float64)
    check_array(nominal_m, late_s)
    impulses = _impulses(arrivals, len(nominal_m))
    given = len(impulses)
    if given < FEWEST_IMPULSES:
        raise CalibrationError(
            f"{given} of {len(arrivals)} impulses are heard well by {FEWEST_MICROPHONES} "
            f"microphones; {FEWEST_IMPULSES} are needed: let the node listen for longer"
        )
    middle_m = nominal_m.mean(axis=0)
    prior = _Prior(
        np.column_stack((nominal_m - middle_m, sound_speed_m_s * (late_s - late_s.mean()))),
        np.array([position_sigma_m] * 3 + [sound_speed_m_s * delay_sigma_s]),
        sound_speed_m_s,
        sound_speed_sigma,
    )
    while True:
        fit = _fit(prior, impulses)
        keep = fit.off <= max(OFF, 0.5 * float(fit.off.max()))
        if keep.all():
            break
        # The worst first: one that is far off makes others look so.
        impulses = [one for one, kept in zip(impulses, keep.tolist(), strict=True) if kept]
        if len(impulses) < max(FEWEST_IMPULSES, (1 - MOST_OFF) * given):
            raise CalibrationError(
                f"{given - len(impulses)} of {given} impulses fit no array like the nominal one: "
                "see its places, the order of its channels, and what stands close to it"
            )
    return _told(prior, fit, impulses, middle_m)


def check_array(nominal_m: Float64Array, late_s: Float64Array) -> None:
    """Refuse, before anything is heard, what `calibrate` could not calibrate.

    Raises
    ------
    CalibrationError
        The array is planar, has too few microphones, or is no array.
    """
    if nominal_m.ndim != 2 or nominal_m.shape[1] != 3 or late_s.shape != (len(nominal_m),):
        raise CalibrationError("an array has a place (x, y, z) and a delay for each microphone")
    if not (np.isfinite(nominal_m).all() and np.isfinite(late_s).all()):
        raise CalibrationError("the nominal places and delays have to be finite numbers")
    if len(nominal_m) < FEWEST_MICROPHONES:
        raise CalibrationError(
            f"{len(nominal_m)} microphones cannot calibrate each other: "
            f"{FEWEST_MICROPHONES} or more can, not all in a plane"
        )
    spread_m = np.linalg.svd(nominal_m - nominal_m.mean(axis=0), compute_uv=False)
    if spread_m[2] <= FLAT * spread_m[0]:
        raise CalibrationError(
            "the microphones stand in a plane: impulses tell its size and shape only where some "
            "stand outside it; measure it with a ruler"
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Impulse:
    """An arrival as it is fitted: the microphones that heard it, their delays in s, and sigma."""

    index: int
    used: npt.NDArray[np.intp]
    delays_s: Float64Array
    sigma_s: float


@dataclass(frozen=True, slots=True, eq=False)
class _Prior:
    """The nominal array: a row x, y, z, c · delay for each microphone, in m; sigmas of a row."""

    rows_m: Float64Array
    sigma_m: Float64Array
    speed_m_s: float
    speed_sigma: float


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """Rows as in `_Prior`, the information on them, how far off each impulse is, in sigma."""

    rows_m: Float64Array
    towards: Float64Array  # c · slowness of each impulse
    information: Float64Array
    off: Float64Array
    scale: float  # of all sigmas, by what the residuals say


def _impulses(arrivals: Sequence[Arrival], channels: int) -> list[_Impulse]:
    impulses = []
    for index, arrival in enumerate(arrivals):
        if len(arrival.delays_s) != channels:
            raise CalibrationError(
                f"impulse {index} has {len(arrival.delays_s)} channels, the array {channels}: "
                "give the array that heard it"
            )
        used = np.flatnonzero(np.isfinite(arrival.delays_s))
        well = arrival.coherence >= LEAST_COHERENCE and math.isfinite(arrival.sigma_s)
        if well and len(used) >= FEWEST_MICROPHONES:
            sigma_s = math.hypot(arrival.sigma_s, arrival.closure_s, LEAST_SIGMA_S)
            impulses.append(_Impulse(index, used, arrival.delays_s[used], sigma_s))
    return impulses


def _fit(prior: _Prior, impulses: Sequence[_Impulse]) -> _Fit:
    rows_m = prior.rows_m.copy()
    own = np.stack([_alone(prior, impulse, rows_m) for impulse in impulses])
    width = np.tile(prior.sigma_m, len(rows_m))
    for _ in range(STEPS):
        information = np.diag(width**-2)
        slope = ((prior.rows_m - rows_m) / prior.sigma_m**2).ravel()
        parts = []
        for impulse, mine in zip(impulses, own, strict=True):
            part = _linear(prior, impulse, rows_m, mine)
            parts.append(part)
            # The impulse's own unknowns are eliminated: Schur's complement.
            information[part.at] += part.shared - part.both @ part.solved
            slope[part.at[0][:, 0]] += part.shared_slope - part.solved.T @ part.own_slope
        step = np.linalg.solve(information, slope)
        rows_m = rows_m + step.reshape(rows_m.shape)
        for mine, part in zip(own, parts, strict=True):
            slope_left = part.own_slope - part.both.T @ step[part.at[0][:, 0]]
            mine += np.linalg.solve(part.own, slope_left)
        if np.max(np.abs(step) / width) < SETTLED:
            break
    left = [_left(prior, one, rows_m, mine) for one, mine in zip(impulses, own, strict=True)]
    free = np.array([max(len(one.used) - 3, 1) for one in impulses])
    chi2 = np.array([float(weighted @ weighted) for weighted in left])
    scale = math.sqrt(max(1.0, float(chi2.sum()) / max(float(free.sum()) - width.size, 1.0)))
    return _Fit(rows_m, own[:, 1:], information, np.sqrt(chi2 / free), scale)


def _alone(prior: _Prior, impulse: _Impulse, rows_m: Float64Array) -> Float64Array:
    """Give offset and c · slowness of an impulse by an array that is taken as it is."""
    design, late_m = _design(prior, impulse, rows_m)
    return np.asarray(np.linalg.lstsq(design, late_m, rcond=None)[0])


def _residual_s(prior: _Prior, impulses: Sequence[_Impulse], rows_m: Float64Array) -> float:
    """Give what plane waves at the mean speed leave of the delays, root mean square."""
    left_m = []
    for impulse in impulses:
        design, late_m = _design(prior, impulse, rows_m)
        slowness = _alone(prior, impulse, rows_m)[1:]
        in_m = late_m - design[:, 1:] @ slowness / max(float(np.linalg.norm(slowness)), 1e-6)
        left_m.append(in_m - in_m.mean())
    return float(np.sqrt(np.mean(np.concatenate(left_m) ** 2))) / prior.speed_m_s


def _design(
    prior: _Prior, impulse: _Impulse, rows_m: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """Give what an impulse's own unknowns are multiplied with, and what they have to explain."""
    rows = rows_m[impulse.used]
    design = np.column_stack((np.ones(len(rows)), -rows[:, :3]))
    return design, prior.speed_m_s * impulse.delays_s - rows[:, 3]


def _left(
    prior: _Prior, impulse: _Impulse, rows_m: Float64Array, own: Float64Array
) -> Float64Array:
    """Give an impulse's residuals in sigma, and that of its slowness's length."""
    design, late_m = _design(prior, impulse, rows_m)
    length = float(np.linalg.norm(own[1:]))
    sigma_m = prior.speed_m_s * impulse.sigma_s
    return np.append((late_m - design @ own) / sigma_m, (1 - length) / prior.speed_sigma)


@dataclass(frozen=True, slots=True, eq=False)
class _Linear:
    """An impulse's part of the normal equations: of the array, of its own unknowns, of both."""

    at: tuple[npt.NDArray[np.intp], ...]
    shared: Float64Array
    both: Float64Array
    own: Float64Array
    shared_slope: Float64Array
    own_slope: Float64Array
    solved: Float64Array


def _linear(prior: _Prior, impulse: _Impulse, rows_m: Float64Array, own: Float64Array) -> _Linear:
    count = len(impulse.used)
    sigma_m = prior.speed_m_s * impulse.sigma_s
    design, _ = _design(prior, impulse, rows_m)
    length = max(float(np.linalg.norm(own[1:])), 1e-6)
    of_length = np.concatenate(([0.0], own[1:] / length)) / prior.speed_sigma
    of_own = np.vstack((design / sigma_m, of_length))
    of_shared = np.zeros((count + 1, 4 * count))
    for i in range(count):
        of_shared[i, 4 * i : 4 * i + 4] = [*(-own[1:] / sigma_m), 1 / sigma_m]
    weighted = _left(prior, impulse, rows_m, own)
    # Four microphones that happen to lie in a plane do not tell what is across it.
    mine = of_own.T @ of_own + RIDGE * np.eye(4)
    both = of_shared.T @ of_own
    columns = (4 * impulse.used[:, None] + np.arange(4)).ravel()
    return _Linear(
        at=np.ix_(columns, columns),
        shared=of_shared.T @ of_shared,
        both=both,
        own=mine,
        shared_slope=of_shared.T @ weighted,
        own_slope=of_own.T @ weighted,
        solved=np.linalg.solve(mine, both.T),
    )


def _told(
    prior: _Prior, fit: _Fit, impulses: Sequence[_Impulse], middle_m: Float64Array
) -> Calibration:
    """Take what no impulse tells out of the errors, judge what is left, and hand it over."""
    channels = len(fit.rows_m)
    off_m = np.abs(fit.rows_m - prior.rows_m)
    if np.any(off_m > FAR * prior.sigma_m):
        worst = int(np.argmax((off_m / prior.sigma_m).max(axis=1)))
        raise CalibrationError(
            f"microphone {worst} would stand {1e3 * off_m[worst, :3].max():.0f} mm off and be "
            f"{1e6 * off_m[worst, 3] / prior.speed_m_s:.0f} µs late: see the nominal places and "
            "the order of the channels"
        )
    width = np.tile(prior.sigma_m, channels)
    shape = _shape(fit.rows_m[:, :3], width)
    covariance = fit.scale**2 * np.linalg.inv(fit.information * np.outer(width, width))
    known = shape.T @ covariance @ shape  # in prior sigmas
    unlearnt = math.sqrt(float(np.linalg.eigvalsh(known)[-1]))
    if unlearnt > LEFT:
        raise CalibrationError(
            f"{len(impulses)} impulses leave {100 * unlearnt:.0f} % of what was not known of the "
            f"array, at most {100 * LEFT:.0f} % are taken: they come from too few sides; listen "
            "for longer, from all round and from high above, or tilt the array in between"
        )
    covariance = width[:, None] * (shape @ known @ shape.T) * width
    variance = np.diag(covariance).reshape(channels, 4)
    rows_m = fit.rows_m - np.append(fit.rows_m[:, :3].mean(axis=0), fit.rows_m[:, 3].mean())
    return Calibration(
        positions_m=rows_m[:, :3] + middle_m,
        delays_s=rows_m[:, 3] / prior.speed_m_s,
        position_sigma_m=math.sqrt(float(variance[:, :3].mean())),
        delay_sigma_s=math.sqrt(float(variance[:, 3].mean())) / prior.speed_m_s,
        timing_sigma_s=_timing_sigma_m(covariance, fit.towards) / prior.speed_m_s,
        used=tuple(impulse.index for impulse in impulses),
        nominal_residual_s=_residual_s(prior, impulses, prior.rows_m),
        residual_s=_residual_s(prior, impulses, fit.rows_m),
    )


def _timing_sigma_m(covariance: Float64Array, towards: Float64Array) -> float:
    """Give the error of c · delay of a channel against the others', over directions."""
    channels = len(covariance) // 4
    by_row = np.column_stack((-towards, np.ones(len(towards))))
    apart = np.eye(channels) - 1 / channels
    blocks = covariance.reshape(channels, 4, channels, 4)
    of_channels = np.einsum("kr,irjs,ks->kij", by_row, blocks, by_row, optimize=True)
    return math.sqrt(float(np.einsum("ij,kij->k", apart, of_channels).mean()) / channels)


def _shape(places_m: Float64Array, width: Float64Array) -> Float64Array:
    """Give a basis, in prior sigmas, of all but common shifts, turns and delays."""
    channels = len(places_m)
    common = np.zeros((7, channels, 4))
    for axis in range(3):
        common[axis, :, axis] = 1.0
        common[3 + axis, :, :3] = np.cross(np.eye(3)[axis], places_m)
    common[6, :, 3] = 1.0
    _, _, basis = np.linalg.svd(common.reshape(7, -1) / width)
    return np.asarray(basis[7:].T)
