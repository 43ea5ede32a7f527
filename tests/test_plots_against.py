import numpy as np
import pytest

from lossviz.plots import COLORS, against


def rows(values, seed=0, quantity="loss"):
    return [{"depth": d, quantity: v, "seed": seed} for d, v in values.items()]


def test_the_thick_line_is_the_median_at_each_depth():
    found = {8: 1.0, 56: 4.0}, {8: 3.0, 56: 5.0}, {8: 2.0}
    (line,) = against({"skip": [r for s, each in enumerate(found) for r in rows(each, s)]}, "loss")
    assert line.get_xydata().tolist() == [[8, 2.0], [56, 4.5]]


def test_each_seed_is_a_thin_line_in_the_order_of_depth():
    (line,) = against({"skip": rows({56: 4.0, 8: 1.0}) + rows({8: 2.0}, seed=1)}, "loss")
    thin = [each for each in line.axes.lines if each.get_linewidth() == 1]
    assert [each.get_xydata().tolist() for each in thin] == [
        [[8, 1.0], [56, 4.0]],
        [[8, 2.0]],
    ]


def test_skip_and_plain_keep_their_colours():
    lines = against({"plain": rows({8: 1.0}), "skip": rows({8: 1.0})}, "loss")
    assert [line.get_color() for line in lines] == [COLORS["plain"], COLORS["skip"]]


def test_the_scale_is_logarithmic_beyond_two_decades_and_says_so():
    ax = against({"skip": rows({8: 1.0, 56: 1000.0})}, "loss")[0].axes
    assert (ax.get_yscale(), ax.get_ylabel()) == ("log", "loss (log scale)")
    assert against({"skip": rows({8: 1.0, 56: 50.0})}, "loss")[0].axes.get_yscale() == "linear"


def test_depths_that_were_tried_are_the_ticks():
    ax = against({"skip": rows({8: 1.0, 20: 2.0, 110: 3.0})}, "loss")[0].axes
    assert [tick for tick in ax.get_xticks()] == [8, 20, 110]
    assert ax.get_xlabel() == "depth (log scale)"


def test_the_caption_counts_seeds_and_what_is_not_finite():
    found = {
        "skip": rows({8: 1.0, 20: np.nan}) + rows({8: 1.0}, seed=1),
        "plain": rows({8: 2.0}),
    }
    caption = against(found, "loss")[0].axes.texts[-1].get_text().replace("\n", " ")
    for words in ("1 to 2 seeds at a point", "1 not finite", "thick: median"):
        assert words in caption.replace("\N{NO-BREAK SPACE}", " ")


def test_the_caption_counts_what_has_no_place_on_a_log_scale():
    ax = against({"skip": rows({8: 0.0, 20: 1e-3, 56: 1.0})}, "loss")[0].axes
    text = ax.texts[-1].get_text().replace("\n", " ").replace("\N{NO-BREAK SPACE}", " ")
    assert ax.get_yscale() == "log" and "1 at or below 0" in text


@pytest.mark.parametrize("lost", [np.inf, np.nan])
def test_a_median_needs_all_its_seeds_finite(lost):
    found = {8: 1.0, 20: 1.0}, {8: 2.0, 20: 2.0}, {8: lost, 20: 3.0}
    (line,) = against({"skip": [r for s, each in enumerate(found) for r in rows(each, s)]}, "loss")
    np.testing.assert_array_equal(line.get_ydata(), [np.nan, 2.0])


def test_what_is_expected_is_named_in_the_legend():
    ax = against({"skip": rows({8: 1.0})}, "loss", expected={"guessing": 2.3})[0].axes
    assert "guessing" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_row_without_the_number_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match="has no 'ripple': take one of depth, loss, seed"):
        against({"skip": rows({8: 1.0})}, "ripple")
    with pytest.raises(ValueError, match="'skip' has no rows"):
        against({"skip": []}, "loss")
    with pytest.raises(ValueError, match="no 'loss' is finite"):
        against({"skip": rows({8: np.nan})}, "loss")
