"""Pictures of correlations show the numbers that they were given."""

import numpy as np
import pytest

import lossviz as lv
from lossviz.correlation import RankCorrelation

NUMBERS = {"small batch": [1.0, 2.0, 3.0], "large batch, weight decay": [10.0, 500.0, np.inf]}
ERRORS = {"small batch": [2.0, 2.5, 3.0], "large batch, weight decay": [5.0, 6.0, 7.0]}


def test_each_net_is_a_dot_where_its_two_numbers_are():
    drawn = lv.plots.scatter_panels({"raw": NUMBERS}, ERRORS, name="test error, %")
    assert np.array_equal(drawn[0].get_offsets(), [[1, 2], [2, 2.5], [3, 3]])
    assert drawn[0].axes.get_xscale() == "log"
    assert drawn[0].axes.get_xlabel() == "raw (log scale)"


def test_nets_that_have_no_place_on_an_axis_are_counted():
    numbers = {"small batch": [0.0, 1.0, np.nan], "large batch": [1e-3, 2.0, 3.0]}
    errors = {"small batch": [1.0, 2.0, np.inf], "large batch": [1.0, 2.0, 3.0]}
    drawn = lv.plots.scatter_panels({"raw": numbers}, errors, name="error")
    text = drawn[0].figure.alternative_text.replace("\N{NO-BREAK SPACE}", " ")
    assert "raw: 1 not finite · raw: 1 at or below 0 · error: 1 not finite" in text


def test_panels_share_the_number_that_is_drawn_upwards():
    drawn = lv.plots.scatter_panels({"a": NUMBERS, "b": NUMBERS}, ERRORS, name="test error, %")
    left, right = drawn[0].axes, drawn[-1].axes
    assert left.get_ylim() == right.get_ylim() and left.get_ylabel() == "test error, %"


def test_an_interval_reaches_from_its_low_to_its_high_end():
    rows = {"raw": {"all": RankCorrelation(0.5, -0.1, 0.8, 20)}}
    (bars,) = lv.plots.intervals(rows, name="ρ")
    (line,) = bars[2][0].get_segments()
    assert np.allclose(line[:, 0], [-0.1, 0.8])


def test_nothing_to_draw_is_said():
    with pytest.raises(ValueError, match="at least one curve; got none"):
        lv.plots.scatter_panels({}, {}, name="x")
    with pytest.raises(ValueError, match="at least one curve; got none"):
        lv.plots.intervals({}, name="x")
