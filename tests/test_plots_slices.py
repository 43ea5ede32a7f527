"""Pictures of slices: the histogram holds all directions, and the maps share their colours."""

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot

from lossviz import plots
from lossviz.surface import Surface


@pytest.fixture(autouse=True)
def _only_agg_and_no_figure_left():
    matplotlib.use("Agg")
    yield
    pyplot.close("all")


def curvatures(low):
    axes = np.linspace(-1, 1, 5), np.linspace(-1, 1, 5)
    values = {"loss": np.ones((5, 5)), "lambda_min": np.full((5, 5), low)}
    values["lambda_max"] = np.full((5, 5), 2.0)
    label = {"label": "random, seed 1", "scale": "filter-normalized"}
    return Surface(axes, values, (), {"data": "digits", "directions": [label, label]})


def told(ax):
    return " ".join(text.get_text() for text in ax.figure.findobj(matplotlib.text.Text))


def test_the_histogram_has_area_one_and_counts_the_negative_directions():
    values = np.linspace(-1, 3, 400)
    drawn = plots.curvature_histogram(values, expected=(1.0, 1.2), lowest=-7.3)
    shares, edges, _ = drawn.get_data()
    assert (shares * np.diff(edges)).sum() == pytest.approx(1.0)
    words = told(drawn.axes).replace("\N{NO-BREAK SPACE}", " ")
    assert "400 random unit directions" in words and "100 directions with negative" in words
    assert "λ min = −7.3" in words


@pytest.mark.parametrize("values", [[], [[1.0]], [np.nan, 1.0]])
def test_what_is_no_row_of_curvatures_is_refused(values):
    with pytest.raises(ValueError, match="random_curvatures"):
        plots.curvature_histogram(values)


def test_maps_side_by_side_share_colours_and_have_a_title_each():
    meshes = plots.convexity_maps([curvatures(-0.2), curvatures(-0.6)], ["one", "two"])
    assert [mesh.get_clim() for mesh in meshes] == [(0.0, 0.5)] * 2
    assert [mesh.get_array().max() for mesh in meshes] == pytest.approx([0.1, 0.3])
    assert [mesh.axes.get_title() for mesh in meshes] == ["one", "two"]


def test_maps_without_labels_are_refused():
    with pytest.raises(ValueError, match="one label a map"):
        plots.convexity_maps([curvatures(-0.2)], [])
