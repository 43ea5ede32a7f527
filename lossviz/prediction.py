"""Fewer points: a point that its neighbours predict need not be computed.

On nested grids each level about halves the step, first in the middles of the cells, then between
them. How far the points computed so far lay from what was predicted for them says how well the next
ones will be predicted. Those that seem to need it are computed; then the next in line are computed
too, as a test: only where all of these were foreseen well is the rest predicted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from lossviz.axes import nested_levels
from lossviz.surface import Surface

__all__ = ["Forecast", "check_tolerance", "fill_predicted", "replay"]

Level = tuple[np.ndarray, ...]

WHOLE = 3  # levels that are computed at every point, so that there is something to learn from
NEIGHBOURS = 32  # that predict a point
WITNESSES = 12  # computed points whose surprise tells what to expect of a point
CARE = 1.4  # by which that is raised
TESTED, MOST_TESTED = 16, 64  # points of a test; after one that failed, of the next
MARGIN = 0.5  # the share of the tolerance that a tested point, among the worst to come, may be off
ROUNDING = 1e-9  # of log loss: what no plane is wanted more exactly than


class Forecast:
    """Which points of a plane to compute, learned while they are computed.

    Parameters
    ----------
    loss
        ``[n0, n1]``; the caller writes there what was asked for.
    tolerance
        The error allowed, as a share of the range of log loss; None: compute all.

    Attributes
    ----------
    asked : bool array
        ``[n0, n1]``: what was asked for so far.

    Raises
    ------
    ValueError
        If the tolerance is not between 0 and 1.
    """

    def __init__(self, loss: np.ndarray, tolerance: float | None):
        check_tolerance(tolerance)
        self.loss, self.tolerance = loss, tolerance
        self.asked = np.zeros(loss.shape, bool)
        self.surprise = np.full(loss.shape, np.nan)  # |computed − predicted|
        self.distance = np.full(loss.shape, np.nan)  # to the nearest point known at that time

    def rounds(self, levels: Sequence[Level]) -> Iterator[np.ndarray]:
        """Yield what to compute at the last of ``levels``, one set of points after the other.

        Parameters
        ----------
        levels
            Nested grids, coarse to fine, up to this one: indices per axis, as
            :func:`lossviz.axes.nested_levels` gives them. To be called for each level in order.

        Yields
        ------
        bool array
            ``[n0, n1]``; computed by the caller before the next is taken.
        """
        middles, whole = _stages(self.loss.shape, levels)
        for stage in (whole,) if self.tolerance is None else (middles, whole):
            left = stage & ~self.asked
            if self.tolerance is None or len(levels) <= WHOLE:
                yield from self._learned(left)
            else:
                yield from self._needed(left)

    def _needed(self, left: np.ndarray) -> Iterator[np.ndarray]:
        """Yield what is expected to be off, then tests, until one of them is passed."""
        tested = TESTED
        while left.any():
            expected, allowed = self._expected(left), self._allowed()
            order = np.argsort(-expected, kind="stable")
            bad = int((CARE * expected > allowed).sum())
            chosen = np.zeros_like(left)
            chosen[tuple(np.argwhere(left)[order[: bad or tested]].T)] = True
            yield from self._learned(chosen)
            left &= ~chosen
            if not bad:
                if self.surprise[chosen].max() <= MARGIN * self._allowed():
                    return
                tested = min(2 * tested, MOST_TESTED)

    def _learned(self, chosen: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the points, and note how far they lie from what was predicted."""
        if not chosen.any():
            return
        known, distance = self.asked.copy(), distance_transform_edt(~self.asked)
        yield chosen
        self.asked |= chosen
        height = _log(self.loss, self.asked)
        if known.any() and self.tolerance is not None:
            with np.errstate(invalid="ignore"):  # ∞ − ∞
                error = np.abs(height[chosen] - predicted(height, known, chosen))
            self.surprise[chosen] = np.where(np.isfinite(error), error, np.inf)
            self.distance[chosen] = distance[chosen]
        holes = self.asked & ~np.isfinite(height)
        self.surprise[holes], self.distance[holes] = np.inf, 1.0

    def _expected(self, left: np.ndarray) -> np.ndarray:
        """Return how far each point may be off: as its witnesses were, shrunk with the distance."""
        witnesses = np.isfinite(self.distance)
        tree, places = cKDTree(np.argwhere(witnesses)), np.argwhere(left)
        apart, who = tree.query(places, k=WITNESSES)
        step = distance_transform_edt(~self.asked)[left][:, None]
        shrunk = np.minimum(1, step / self.distance[witnesses][who])
        near = apart <= np.maximum(2 * step, apart[:, 2:3])
        return np.where(near, self.surprise[witnesses][who] * shrunk, 0).max(axis=1)

    def _allowed(self) -> float:
        height = _log(self.loss, self.asked)[self.asked]
        height = height[np.isfinite(height)]
        return max(self.tolerance * np.ptp(height), ROUNDING) if len(height) else 0.0


def check_tolerance(tolerance: object) -> None:
    """Refuse what is no share.

    Parameters
    ----------
    tolerance
        As a caller gave it; None is allowed.

    Raises
    ------
    TypeError
        If it is no number.
    ValueError
        If it is not between 0 and 1.
    """
    told = f"tolerance is a share, between 0 and 1; got {tolerance!r}: take 0.01."
    if tolerance is None:
        return
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float, np.floating)):
        raise TypeError(told)
    if not 0 < tolerance < 1:
        raise ValueError(told)


def fill_predicted(
    values: dict[str, np.ndarray], done: np.ndarray, levels: Sequence[Level]
) -> None:
    """Fill in, on the last of ``levels``, what was not computed: in place.

    Parameters
    ----------
    values
        Name to ``[n0, n1]``.
    done
        What was computed; not changed.
    levels
        As for :meth:`Forecast.rounds`.
    """
    missing = np.zeros(done.shape, bool)
    missing[np.ix_(*levels[-1])] = True
    missing &= ~done
    if not missing.any() or not done.any():
        return
    for name, array in values.items():
        if name == "loss" and _positive(array[done]):
            array[missing] = np.exp(predicted(_log(array, done), done, missing))
        elif name == "loss":
            array[missing] = predicted(array, done, missing)
        else:  # such as an accuracy: never beyond what was seen
            seen = array[done & np.isfinite(array)]
            guess = predicted(array, done, missing)
            array[missing] = guess.clip(seen.min(), seen.max()) if len(seen) else guess


def replay(surface: Surface, tolerance: float) -> Surface:
    """Return what :func:`lossviz.refine` would have made of a plane that is there in full.

    Parameters
    ----------
    surface
        A plane with every point computed.
    tolerance
        As for :func:`lossviz.refine`.

    Returns
    -------
    Surface
        ``done`` says which points would have been computed; the others hold what their neighbours
        predict.

    Raises
    ------
    ValueError
        If it is no plane, or has points that were not computed.
    """
    if len(surface.axes) != 2 or not surface.done.all():
        raise ValueError("a replay needs a plane with every point computed: give lv.plane(…).")
    values = {name: np.full(surface.shape, np.nan) for name in surface.values}
    forecast, every = Forecast(values["loss"], tolerance), nested_levels(surface.shape)
    for levels in (every[: k + 1] for k in range(len(every))):
        for wanted in forecast.rounds(levels):
            for name, array in values.items():
                array[wanted] = surface.values[name][wanted]
    done = forecast.asked
    fill_predicted(values, done, every)
    meta = {**surface.meta, "predicted": int((~done).sum())}
    return Surface(surface.axes, values, surface.directions, meta, done)


def predicted(height: np.ndarray, known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return what smooth surfaces through the nearest known points hold at the wanted ones.

    Radial cubics |x|³ and a quadratic (Duchon 1977), on the grid's indices.

    Parameters
    ----------
    height
        ``[n0, n1]``.
    known, wanted
        Bool ``[n0, n1]``; known points that are not finite are left out.

    Returns
    -------
    float array
        One per wanted point, in order; nan where too little is known.
    """
    known = known & np.isfinite(height)
    places = np.argwhere(wanted).astype(float)
    count = min(NEIGHBOURS, int(known.sum()))
    try:
        through = RBFInterpolator(
            np.argwhere(known).astype(float),
            height[known],
            neighbors=count,
            kernel="cubic",
            degree=2,
        )
        return through(places)
    except (ValueError, np.linalg.LinAlgError):  # fewer points than a quadratic has terms
        return np.full(len(places), np.nan)


def _stages(shape: tuple[int, ...], levels: Sequence[Level]) -> tuple[np.ndarray, np.ndarray]:
    """Return the middles of the coarser level's cells, and every point of the last level."""
    fine = np.zeros(shape, bool)
    fine[np.ix_(*levels[-1])] = True
    if len(levels) == 1:
        return fine, fine
    new = [~np.isin(np.arange(n), c) for n, c in zip(shape, levels[-2], strict=True)]
    return fine & new[0][:, None] & new[1], fine


def _positive(loss: np.ndarray) -> bool:
    finite = loss[np.isfinite(loss)]
    return bool(finite.size) and bool((finite > 0).all())


def _log(loss: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return log loss where it is known, or the loss itself where some of it is not positive."""
    if not _positive(loss[known]):
        return loss
    return np.log(loss, out=np.full(loss.shape, np.nan), where=known)
