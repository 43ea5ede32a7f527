import numpy as np
import pytest
from matplotlib import pyplot

from lossviz.directions import Direction
from lossviz.plots.palette import COLORS
from lossviz.plots.repeats import curve_panels, curves, dot_panels, dots, profiles
from lossviz.surface import Surface


def surface(*loss):
    meta = {"data": "digits", "n_samples": 4, "batch_norm": "stored", "center": {"loss": 0.0}}
    return Surface(
        (np.linspace(0, 1, len(loss)),), {"loss": loss}, (Direction({}, label="d"),), meta
    )


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


def test_each_seed_is_a_dot_over_the_place_of_its_setting():
    drawn = dots({"small batch": [1, 2, 3], "large batch": [4, 5]}, name="norm")
    assert [len(each.get_offsets()) for each in drawn] == [3, 2]
    assert np.sort(drawn[1].get_offsets()[:, 1]).tolist() == [4, 5]
    assert drawn[1].get_offsets()[:, 0].mean() == pytest.approx(1)


def test_a_setting_keeps_its_colour():
    (drawn,) = dots({"large batch, weight decay": [1.0, 2.0]}, name="norm")
    colour = "#{:02X}{:02X}{:02X}".format(*(round(255 * c) for c in drawn.get_facecolor()[0][:3]))
    assert colour == COLORS["large batch"]


def test_numbers_over_two_decades_get_a_log_scale_that_is_named():
    (drawn,) = dots({"a": [0.001, 1.0]}, name="rise")
    assert drawn.axes.get_yscale() == "log"
    assert drawn.axes.get_ylabel() == "rise (log scale)"


def test_a_number_that_is_not_finite_is_counted_under_its_label():
    (drawn,) = dots({"a": [1.0, np.inf]}, name="rise")
    assert drawn.axes.get_xticklabels()[0].get_text() == "a\n1 not finite"


def test_a_number_without_a_logarithm_is_counted_under_its_label():
    empty, drawn = dots({"a": [0, 0, 0], "b": [1e-3, 1, 0]}, name="err")
    ticks = [tick.get_text() for tick in drawn.axes.get_xticklabels()]
    assert ticks == ["a\n3 at or below 0", "b\n1 at or below 0"]
    assert [len(each.get_offsets()) for each in (empty, drawn)] == [0, 2]
    (bar,) = drawn.axes.collections[-1].get_segments()
    assert bar[:, 1].tolist() == [1e-3, 1e-3]  # the median of all three


def test_a_setting_has_no_median_where_a_number_is_not_finite():
    (drawn,) = dots({"a": [1.0, 2.0, np.inf]}, name="err")
    assert drawn.axes.collections[:] == [drawn]


def test_the_caption_of_panels_counts_what_has_no_place():
    columns = {"rise": {"a": [0.0, 1e-3], "b": [1.0, np.nan]}, "norm": {"a": [1, 2], "b": [3, 4]}}
    drawn = dot_panels(columns)
    text = drawn[0].figure.alternative_text.replace("\N{NO-BREAK SPACE}", " ")
    assert "rise: 1 not finite · rise: 1 at or below 0" in text and "norm:" not in text


def test_dots_need_a_number():
    with pytest.raises(ValueError, match="at least one"):
        dots({"a": []}, name="rise")


def test_curves_of_one_label_get_a_median():
    x = np.arange(3)
    ys = [x, x + 2, x + 10]
    lines = curves([x] * 3, ys, names=("epoch", "norm"), labels=["small batch"] * 3)
    assert len(lines) == 4
    assert lines[-1].get_ydata().tolist() == [2, 3, 4]


def test_axes_say_what_they_are_and_in_which_scale():
    x = np.array([1.0, 10.0, 1000.0])
    (line,) = curves([x], [1 / x], names=("batch size", "noise"), log=(True, True))
    assert line.axes.get_xlabel() == "batch size (log scale)"
    assert line.axes.get_ylabel() == "noise (log scale)"


def test_curves_count_what_a_log_axis_has_no_place_for():
    (line,) = curves([[0, 1, 10]], [[1.0, np.nan, 2.0]], names=("step", "loss"), log=(True, False))
    text = line.axes.figure.alternative_text.replace("\N{NO-BREAK SPACE}", " ")
    assert "step: 1 at or below 0 · loss: 1 not finite" in text
    panels = {("step", "loss"): ([[0, 1]], [[1.0, 2.0]])}
    drawn = curve_panels(panels, log=(True, False), caption="one seed")
    assert "one seed · step: 1 at or below 0" in drawn[0].figure.alternative_text.replace(
        "\N{NO-BREAK SPACE}", " "
    )


def test_curve_panels_share_labels_and_legend():
    x = np.arange(3)
    panels = {("epoch", "loss"): ([x, x], [x, x + 1]), ("step", "norm"): ([x, x], [x, 2 * x])}
    lines = curve_panels(panels, labels=["small batch", "large batch"])
    assert [line.axes.get_xlabel() for line in lines] == ["epoch", "epoch", "step", "step"]
    assert [line.axes.get_ylabel() for line in lines[1:3]] == ["loss", "norm"]
    (legend,) = lines[0].figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["small batch", "large batch"]


def test_each_number_has_its_panel_and_the_legend_is_common():
    columns = {"loss": {"a": [1, 2], "b": [3, 4]}, "norm": {"a": [5, 6], "b": [7, 8]}}
    drawn = dot_panels(columns)
    assert [each.axes.get_ylabel() for each in drawn] == ["loss", "loss", "norm", "norm"]
    (legend,) = drawn[0].figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]


def test_profiles_are_drawn_side_by_side_on_one_scale():
    groups = {"left": {"train": [surface(1, 2, 3)]}, "right": {"train": [surface(5, 6, 90)]}}
    one, other = profiles(groups, ends=("small", "large"))
    assert one.axes.get_title() == "left"
    assert one.axes.get_ylim() == other.axes.get_ylim()
    assert other.get_ydata().tolist() == [5, 6, 90]
    assert [text.get_text() for text in one.axes.texts][:2] == ["small", "large"]


def test_profiles_between_nothing_mark_the_centre_alone():
    (one,) = profiles({"a": {"train": [surface(1, 2, 3)]}})
    marks = [line.get_xdata()[0] for line in one.axes.lines if len(set(line.get_xdata())) == 1]
    assert marks == [0] and not any(text.get_text() == "" for text in one.axes.texts[1:])


def test_profiles_need_a_line():
    with pytest.raises(ValueError, match="at least one"):
        profiles({"left": {"train": []}})
