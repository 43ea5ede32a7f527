import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossviz.axes import grid_axes, nested_levels


def test_a_number_is_a_span_to_both_sides():
    assert grid_axes(0.5, 5, 1)[0].tolist() == [-0.5, -0.25, 0.0, 0.25, 0.5]


def test_a_pair_is_taken_as_it_is():
    assert grid_axes((-0.5, 1.5), 4, 1)[0].tolist() == pytest.approx([-0.5, 1 / 6, 5 / 6, 1.5])


def test_each_axis_may_have_a_span_and_points_of_its_own():
    one, other = grid_axes(((-1, 1), (0, 3)), (3, 4), 2)
    assert one.tolist() == [-1, 0, 1] and other.tolist() == [0, 1, 2, 3]


def test_a_span_for_all_axes_is_no_span_per_axis():
    one, other = grid_axes((-1, 2), 4, 2)
    assert one.tolist() == other.tolist() == [-1, 0, 1, 2]


@given(st.floats(1e-6, 1e6), st.integers(1, 200))
def test_both_ends_are_reached_and_the_centre_is_zero(span, half):
    (axis,) = grid_axes(span, 2 * half + 1, 1)
    assert (axis[0], axis[half], axis[-1]) == (-span, 0.0, span)
    assert axis.dtype == np.float64 and bool((np.diff(axis) > 0).all())


@pytest.mark.parametrize(
    "span", [0, -1, 0.0, math.nan, math.inf, 1e308, (1, 0), (1, 1), (math.nan, 1)]
)
def test_a_span_that_is_empty_or_not_finite_is_refused(span):
    with pytest.raises(ValueError, match=r"above 0, or \(lo, hi\) with lo < hi; got .*take span=1"):
        grid_axes(span, 5, 1)


@pytest.mark.parametrize("span", ["1", None, True, (1, 2, 3), (1, "2"), 1j])
def test_a_span_that_is_no_number_is_refused(span):
    with pytest.raises(TypeError, match=r"a number r for \[−r, r\] or a pair .*take span=1.0"):
        grid_axes(span, 5, 1)


@pytest.mark.parametrize("points", [2, 1, 0, -5])
def test_fewer_than_three_points_are_refused(points):
    with pytest.raises(ValueError, match=rf"at least 3; got {points}: take 33"):
        grid_axes((0, 1), points, 1)


@pytest.mark.parametrize("points", [5.0, "5", None, True])
def test_points_that_are_no_int_are_refused(points):
    with pytest.raises(TypeError, match=rf"must be an int ≥ 3; got {points!r}: take 33"):
        grid_axes(1.0, points, 1)


def test_even_points_are_refused_where_the_centre_would_be_missed():
    with pytest.raises(ValueError, match=r"must be odd .*; got 50: take 49 or 51"):
        grid_axes(1.0, 50, 1)


@pytest.mark.parametrize(("span", "points"), [(((0, 1), (0, 1), (0, 1)), 3), (1.0, (3, 3, 3))])
def test_one_entry_per_axis_is_asked_for(span, points):
    with pytest.raises(ValueError, match=r"one entry per axis \(2 here\)"):
        grid_axes(span, points, 2)


@given(st.integers(3, 120), st.integers(3, 120))
def test_nested_levels_nest_and_keep_the_ends_and_the_middle(one, other):
    lengths = one, other
    every = nested_levels(lengths)
    assert [len(indices) for indices in every[-1]] == list(lengths)
    for coarse, fine in pairwise(every):
        for n, few, more in zip(lengths, coarse, fine, strict=True):
            assert set(few) < set(more) and {0, n // 2, n - 1} <= set(few)
            assert np.diff(few).max() <= 2 * np.diff(more).max()


@given(st.integers(2, 7))
def test_nested_levels_of_a_power_of_two_halve_the_steps(k):
    steps = [np.diff(level[0]) for level in nested_levels((2**k + 1, 2**k + 1))]
    assert [set(step) for step in steps] == [{2**j} for j in range(len(steps))][::-1]
