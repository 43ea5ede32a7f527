"""Pictures: what is drawn is what was given, and what cannot be drawn is in sight."""

import io
import threading
from types import SimpleNamespace

import hypothesis.strategies as st
import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from lossviz import plots
from lossviz.plots.captions import number
from lossviz.plots.levels import levels_for, log_wanted
from lossviz.surface import Surface

META = {
    "model": "resnet56",
    "data": "digits train",
    "n_samples": 1024,
    "batch_norm": "stored",
    "center": {"loss": 0.5},
}


@pytest.fixture(autouse=True)
def _only_agg_and_no_figure_left():
    matplotlib.use("Agg")
    yield
    pyplot.close("all")


def surface(values, axes=None, *, seeds=(1, 2), done=None, **more):
    """A surface of given losses, on [−1, 1] unless told otherwise."""
    values = np.asarray(values, dtype=float)
    axes = axes or tuple(np.linspace(-1, 1, n) for n in values.shape)
    told = [{"label": f"random, seed {s}", "scale": "filter-normalized"} for s in seeds]
    meta = {**META, "directions": told[: values.ndim]}
    return Surface(axes, {"loss": values, **more}, (), meta, done)


def curve(values, seed=1, **more):
    return surface(values, seeds=(seed,), **more)


def bowl(shape=(9, 9), low=1.0):
    a, b = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return surface(low + a**2 + b**2)


def tilted():
    """α + 10·β on a grid that is not square: swapped axes would show."""
    axes = np.linspace(-1, 2, 7), np.linspace(-3, 3, 13)
    return surface(axes[0][:, None] + 10 * axes[1][None, :], axes)


def caption_of(ax):
    return next(text.get_text() for text in ax.texts if text.get_gid() == "caption")


def words(text):
    return " ".join(text.split())


# --- one axis ---------------------------------------------------------------------------------


def test_a_profile_draws_exactly_the_curve_that_it_is_given():
    given_curve = curve([3.0, 1.0, 2.0])
    (line,) = plots.profile(given_curve)
    np.testing.assert_array_equal(line.get_xdata(), given_curve.axes[0])
    np.testing.assert_array_equal(line.get_ydata(), [3.0, 1.0, 2.0])


def test_seeds_are_thin_lines_with_a_thick_median():
    values = np.array([[3.0, 1, 4], [1, 5, 9], [2, 6, 5]])
    *thin, median = plots.profile([curve(v, seed) for seed, v in enumerate(values)])
    assert [line.get_linewidth() for line in thin] == [1, 1, 1]
    assert median.get_linewidth() > 3
    np.testing.assert_array_equal(median.get_ydata(), np.median(values, axis=0))


def test_curves_of_one_label_are_one_thing_with_one_median():
    curves = [curve([k, 0.5, k], seed) for seed, k in enumerate((1.0, 2.0, 5.0, 7.0))]
    lines = plots.profile(curves, labels=["skip", "skip", "plain", "plain"])
    assert [line.get_ydata()[0] for line in lines[4:]] == [1.5, 6.0]
    assert [line.get_color() for line in lines[4:]] == [plots.COLORS["skip"], plots.COLORS["plain"]]


def test_points_that_are_not_finite_are_crosses_at_the_upper_edge():
    (line,) = plots.profile(curve([np.inf, 1.0, 0.5, 2.0, np.nan]))
    crosses = [each for each in line.axes.lines if each.get_marker() == "x"]
    assert list(crosses[0].get_xdata()) == [-1.0, 1.0]
    assert crosses[0].get_transform() == line.axes.get_xaxis_transform()
    assert (crosses[0].get_ydata() > 0.9).all()
    assert "not finite: 2 points" in [t.get_text() for t in line.axes.get_legend().get_texts()]
    assert "2 of 5 points not finite" in words(caption_of(line.axes))


def test_a_median_has_a_gap_where_a_curve_is_not_finite():
    *_, median = plots.profile([curve([1.0, 2, 3]), curve([3.0, 4, np.inf], 2)])
    np.testing.assert_array_equal(median.get_ydata(), [2.0, 3.0, np.nan])


def test_a_loss_of_zero_is_a_triangle_at_the_lower_edge_of_a_log_scale():
    (line,) = plots.profile(curve([500.0, 1.0, 0.0, 1.0, 500.0]))
    triangles = [each for each in line.axes.lines if each.get_marker() == "v"]
    assert list(triangles[0].get_xdata()) == [0.0]
    assert "at or below 0: 1 point" in [t.get_text() for t in line.axes.get_legend().get_texts()]


def test_a_profile_tells_points_not_computed_yet_from_those_that_overflowed():
    known = np.array([True, True, True, False, False])
    (line,) = plots.profile(curve([2.0, 1.0, np.inf, np.nan, np.nan], done=known))
    (cross,) = [
        each for each in line.axes.lines if each.get_marker() == "x" and len(each.get_xdata())
    ]
    assert cross.get_xdata().tolist() == [0.0]
    told = [text.get_text() for text in line.axes.get_legend().get_texts()]
    assert told == ["not finite: 1 point", "not computed yet: 2 points"]


def test_excess_is_the_loss_over_the_centre():
    (line,) = plots.profile(curve([3.0, 0.5, 2.0]), excess=True, log=False)
    np.testing.assert_array_equal(line.get_ydata(), [2.5, 0.0, 1.5])
    assert line.axes.get_ylabel() == "excess loss"


def test_accuracy_has_an_axis_of_its_own():
    loss, accuracy = plots.profile(curve([3.0, 1, 2], accuracy=[0.1, 1.0, 0.5]), accuracy=True)
    np.testing.assert_array_equal(accuracy.get_ydata(), [0.1, 1.0, 0.5])
    assert accuracy.axes is not loss.axes
    assert accuracy.axes.get_ylabel() == "accuracy (dotted)"


@pytest.mark.parametrize(("high", "scale"), [(100.0, "linear"), (100.1, "log")])
def test_a_profile_is_on_a_log_scale_exactly_above_two_decades(high, scale):
    (line,) = plots.profile(curve([high, 1.0, 50.0]))
    assert line.axes.get_yscale() == scale
    assert ("(log scale)" in line.axes.get_ylabel()) == (scale == "log")


# --- two axes ---------------------------------------------------------------------------------


def test_contours_lie_where_the_function_has_that_value():
    filled = plots.contour(tilted(), levels=[-25, -10, 0, 10, 25])
    lines = next(c for c in filled.axes.collections if not c.filled)
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        alpha, beta = path.vertices.T
        assert len(alpha)
        np.testing.assert_allclose(alpha + 10 * beta, level, atol=1e-9)


def test_alpha_is_horizontal_and_beta_vertical():
    ax = plots.contour(tilted()).axes
    assert ax.get_xlim() == (-1, 2) and ax.get_ylim() == (-3, 3)
    assert ax.get_xlabel() == "α (filter-normalized)"
    assert ax.get_ylabel() == "β (filter-normalized)"


def test_a_surface_stands_where_the_function_has_that_value():
    plane = tilted()
    faces = plots.surface3d(plane, log=False)
    alpha, beta, z = _corners(faces)
    assert len(alpha) == 4 * 6 * 12
    np.testing.assert_allclose(alpha + 10 * beta, z, atol=1e-9)


def _corners(faces):
    """Corners of the faces in data coordinates; matplotlib keeps them out of sight."""
    if not hasattr(faces, "_faces"):
        return faces._vec[:3]
    padding = np.broadcast_to(faces._invalid_vertices, faces._faces.shape[:2])
    return faces._faces[~padding].T


def test_no_row_of_a_large_grid_is_left_out_of_a_surface():
    faces = plots.surface3d(bowl((61, 53)), caption=False, colorbar=False)
    assert len(faces.get_array()) == 60 * 52


def test_points_that_are_not_finite_are_holes_over_grey_and_counted():
    plane = bowl((9, 9))
    plane.values["loss"][0, :] = np.inf
    plane.values["loss"][4, 6] = np.nan
    filled = plots.contour(plane)
    assert "10 of 81 points not finite" in words(caption_of(filled.axes))
    assert any(patch.get_hatch() for patch in filled.axes.patches)
    assert _is_grey(filled.axes, 0.0, 0.5) and not _is_grey(filled.axes, 0.6, 0.5)
    faces = plots.surface3d(plane, caption=False)
    alpha, beta, z = _corners(faces)
    assert np.isfinite(z).all() and len(z) > 200
    assert not ((alpha == -1) | ((alpha == 0) & (beta == 0.5))).any()


def _is_grey(ax, x, y):
    canvas = FigureCanvasAgg(ax.figure)
    canvas.draw()
    column, row = ax.transData.transform((x, y)).astype(int)
    red, green, blue, _ = np.asarray(canvas.buffer_rgba())[-row, column]
    return red == green == blue


def test_points_not_computed_yet_are_told_from_those_that_overflowed():
    plane = bowl((3, 3))
    plane.done[2] = False
    plane.values["loss"][2] = [np.nan, np.nan, 7.0]
    plane.values["loss"][0, 0] = np.inf
    assert (
        plots.caption(plane)
        .replace("\N{NO-BREAK SPACE}", " ")
        .endswith("1 of 9 points not finite, 2 not computed yet, 1 predicted by their neighbours")
    )


@pytest.mark.parametrize(("factor", "norm"), [(100.0, Normalize), (100.1, LogNorm)])
def test_a_contour_is_on_a_log_scale_exactly_above_two_decades(factor, norm):
    filled = plots.contour(surface(np.outer([1, 1, 1], [1, factor, 5])))
    assert type(filled.norm) is norm
    name = "loss (log scale)" if norm is LogNorm else "loss"
    assert filled.colorbar.ax.get_ylabel() == name


def test_heights_on_a_log_scale_are_logarithms_and_ticks_undo_them():
    faces = plots.surface3d(surface(np.outer([1, 1, 1], [0.01, 1, 1000])))
    ax = faces.axes
    assert ax.get_zlabel() == "loss (log scale)"
    ticks = [text.get_text() for text in ax.zaxis.get_ticklabels()]
    places = ax.zaxis.get_ticklocs()
    assert ticks == [number(10.0**place) for place in places]
    np.testing.assert_allclose(sorted({round(z, 9) for z in _corners(faces)[2]}), [-2, 0, 3])


def test_negative_losses_keep_a_plain_scale():
    filled = plots.contour(surface(np.outer([1, -1, 1], [1, 1000, 1])))
    assert type(filled.norm) is Normalize


def test_a_loss_of_zero_lies_under_the_log_scale_and_is_counted():
    plane = surface(np.outer([1, 1, 1], [0, 1, 1000]))
    filled = plots.contour(plane)
    assert filled.extend == "min"
    assert "3 at or below 0, under the log scale" in words(caption_of(filled.axes))


def test_values_beyond_given_levels_show_as_arrows():
    assert plots.contour(bowl(), levels=[1.5, 2.0, 2.5]).extend == "both"
    assert plots.contour(bowl(), levels=[0.0, 2.0, 4.0]).extend == "neither"


def test_the_centre_is_marked_only_where_it_is_on_the_plane():
    away = surface(bowl((3, 3)).values["loss"], (np.array([1.0, 2, 3]), np.array([-1.0, 0, 1])))
    stars = [
        [line for line in plots.contour(each).axes.lines if line.get_marker() == "*"]
        for each in (bowl(), away)
    ]
    assert stars[0][0].get_xydata().tolist() == [[0, 0]]
    assert not stars[1]


# --- levels -----------------------------------------------------------------------------------


def test_shared_levels_cover_all_surfaces_and_rule_both_pictures():
    low, high = bowl(), surface(np.outer([1, 1, 1], [1, 20, 900]))
    levels = plots.shared_levels(low, high)
    assert levels[0] <= 1 and levels[-1] >= 900
    drawn = [plots.contour(each, levels=levels) for each in (low, high)]
    for filled in drawn:
        np.testing.assert_array_equal(filled.levels, levels)
        assert isinstance(filled.norm, LogNorm)
    assert drawn[0].norm.vmin == drawn[1].norm.vmin


def test_shared_levels_are_the_ends_of_the_vertical_axis():
    levels = plots.shared_levels(bowl(low=1), bowl(low=6), n=6)
    ends = [
        plots.surface3d(each, levels=levels).axes.get_zlim() for each in (bowl(low=1), bowl(low=6))
    ]
    np.testing.assert_allclose(ends[0], ends[1])
    np.testing.assert_allclose(ends[0], levels[[0, -1]])


@pytest.mark.parametrize("solid", [False, True])
def test_pictures_side_by_side_share_levels_colours_and_one_bar(solid):
    drawn = plots.side_by_side([bowl(low=1), bowl(low=6)], ["skip", "plain"], solid=solid)
    assert [each.axes.get_title() for each in drawn] == ["skip", "plain"]
    assert drawn[0].norm.vmin == drawn[1].norm.vmin and drawn[0].norm.vmax == drawn[1].norm.vmax
    assert len(drawn[0].figure.axes) == 3


finite = st.floats(-1e6, 1e6, allow_subnormal=False)


@given(hnp.arrays(float, st.integers(1, 20), elements=finite), st.integers(2, 20))
@settings(max_examples=100, deadline=None)
def test_levels_increase_and_cover_any_values(values, n):
    levels = levels_for(values, n=n)
    assert (np.diff(levels) > 0).all()
    slack = 1e-9 * np.abs(values).max()
    assert levels[0] <= values.min() + slack and levels[-1] >= values.max() - slack


@given(st.lists(st.floats(1e-30, 1e30), min_size=1, max_size=20), st.integers(2, 20))
@settings(max_examples=100, deadline=None)
def test_log_levels_increase_and_cover_any_positive_values(values, n):
    levels = levels_for(np.array(values), n=n, log=True)
    assert (np.diff(levels) > 0).all() and levels[0] > 0
    assert levels[0] <= min(values) * (1 + 1e-9) and levels[-1] >= max(values) * (1 - 1e-9)


@given(st.floats(1e-30, 1e30))
@settings(max_examples=100, deadline=None)
def test_a_written_number_reads_back_to_four_digits(value):
    raised = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    digits, _, power = number(value).replace("·10", "e").partition("e")
    if not power and digits.translate(raised) != digits:
        digits, power = "1", digits.removeprefix("10")
    assert float(f"{digits}e{power.translate(raised) or 0}") == pytest.approx(value, rel=1e-3)


# --- words ------------------------------------------------------------------------------------


def test_a_caption_tells_data_samples_mode_seeds_grid_and_span():
    text = words(plots.caption(bowl((5, 9))))
    assert text == (
        "resnet56 · digits train · 1,024 samples · BatchNorm: stored · random, seeds 1, 2, "
        "filter-normalized · 5 × 9 points · α, β in [−1, 1] · all points finite"
    )


def test_a_common_caption_tells_what_differs_side_by_side():
    drawn = plots.side_by_side([bowl((5, 5)), bowl((9, 9))], ["a", "b"])
    text = words(drawn[0].figure.alternative_text)
    assert "5 × 5 points / 9 × 9 points" in text and text.count("resnet56") == 1


def test_a_common_caption_lists_up_to_four_networks_and_counts_more():
    surfaces = [bowl((5, 5)) for _ in range(5)]
    for i, each in enumerate(surfaces):
        each.meta["model"] = f"net {i}"
        each.axes = tuple(axis * (i + 1) for axis in each.axes)
    some, all_ = (
        words(plots.side_by_side(several, list("abcde")[: len(several)])[0].figure.alternative_text)
        for several in (surfaces[:4], surfaces)
    )
    assert "net 0 / net 1 / net 2 / net 3" in some and "α, β in [−4, 4]" in some
    assert "5 networks" in all_ and "spans as on the axes" in all_ and "net 0" not in all_


def test_the_caption_is_the_alternative_text_in_notebook_and_file():
    filled = plots.contour(bowl())
    picture, told = filled.figure, words(plots.caption(bowl()))
    assert picture.alternative_text == told
    assert picture._repr_mimebundle_()[1]["image/png"]["alt"] == told
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png")
    assert Image.open(buffer).text["Description"] == told


@pytest.mark.parametrize("size", [(8, 6), (8, 5), (5, 4), (12, 4.5)])
@pytest.mark.parametrize("draw", [plots.contour, plots.surface3d])
def test_nothing_is_cut_and_the_caption_overlaps_nothing(draw, size):
    picture = Figure(figsize=size, layout="constrained")
    ax = picture.add_subplot(projection="3d" if draw is plots.surface3d else None)
    draw(bowl(), ax=ax)
    FigureCanvasAgg(picture).draw()
    line = next(text for text in ax.texts if text.get_gid() == "caption")
    box, renderer = line.get_window_extent(), picture.canvas.get_renderer()
    assert box.x0 >= 0 and box.x1 <= picture.bbox.x1 and box.y0 >= 0
    labels = [axis.get_tightbbox(renderer) for axis in (ax.xaxis, ax.yaxis)]
    assert all(box.y1 <= each.y0 + 1 for each in labels[: 2 if ax.name == "3d" else 1])


def _drawn_texts(picture):
    picture.canvas.draw()
    return [t for t in picture.findobj(Text) if t.get_visible() and t.get_text().strip()]


def _pictures():
    t = np.linspace(0, 1, 5)
    way = np.stack([1 - t, (1 - t) ** 2], axis=1)
    return {
        "profile": lambda: plots.profile(
            [curve([3.0, 1, np.inf], accuracy=[0, 1, 0])] * 2, accuracy=True
        ),
        "contour": lambda: [plots.contour(bowl())],
        "surface3d": lambda: [plots.surface3d(bowl())],
        "side_by_side": lambda: plots.side_by_side([bowl()] * 3, ["a", "b", "c"]),
        "trajectory": lambda: plots.trajectory(bowl(), way, losses=t + 1, residual=t)[1],
        "convexity": lambda: [plots.convexity(curvatures())],
        "density": lambda: [plots.density(t, t + 0.1, label="end")],
        "weight_histogram": lambda: plots.weight_histogram({"skip": t, "plain": t**2}),
        "history": lambda: plots.history(run()),
    }


@pytest.mark.parametrize("kind", list(_pictures()))
def test_no_text_is_smaller_than_eleven_points_on_eight_inches(kind):
    picture = _pictures()[kind]()[0].figure
    smallest = min(text.get_fontsize() for text in _drawn_texts(picture))
    assert smallest >= 11 * max(1, picture.get_figwidth() / 8) - 1e-9


@pytest.mark.parametrize("kind", list(_pictures()))
def test_no_global_setting_of_matplotlib_changes(kind):
    before = dict(matplotlib.rcParams)
    _pictures()[kind]()
    assert dict(matplotlib.rcParams) == before


def test_pictures_can_be_drawn_in_several_threads_at_once():
    sizes, problems = [], []

    def draw():
        try:
            picture = Figure(figsize=(8, 5), layout="constrained")
            plots.contour(surface(np.outer([1, 1, 1], [1e-3, 1, 900])), ax=picture.add_subplot())
            picture.savefig(buffer := io.BytesIO(), format="png")
            sizes.append(len(buffer.getvalue()))
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems and len(sizes) == 4 and min(sizes) > 1000
    assert not pyplot.get_fignums()


# --- colours ----------------------------------------------------------------------------------


def test_a_thing_keeps_its_colour_whatever_stands_beside_it():
    assert plots.look("skip", 0) == plots.look("depth 56, skip", 5)
    assert plots.look("no skip")["color"] == plots.look("something else")["color"]


def test_four_nets_of_a_lesson_differ_in_their_dash():
    nets = [
        f"{size} batch{decay}" for size in ("small", "large") for decay in ("", ", weight decay")
    ]
    assert len({str(plots.look(net)["linestyle"]) for net in nets}) == 4


# --- training ---------------------------------------------------------------------------------


def run(scale=1.0):
    rows = [
        {"epoch": k, "train_loss": scale * 2.0**-k, "train_accuracy": 1 - 0.9 * 0.5**k}
        for k in range(5)
    ]
    return SimpleNamespace(history=rows)


def test_a_path_is_drawn_through_its_coordinates_in_the_colours_of_its_true_losses():
    way, losses = np.array([[1.0, 0.5], [0.5, -0.5], [0.0, 0.0]]), np.array([90.0, 2.0, 1.0])
    filled, (line,), (dots,) = plots.trajectory(bowl(), way, losses=losses)
    np.testing.assert_array_equal(line.get_xydata(), way)
    np.testing.assert_array_equal(dots.get_array(), losses)
    assert dots.norm.vmax == filled.norm.vmax >= 90


def test_several_paths_share_one_plane():
    way = np.array([[1.0, 0.5], [0.0, 0.0]])
    _, lines, _ = plots.trajectory(bowl(), {"SGD": way, "Adam": -way})
    assert [line.get_label() for line in lines] == ["SGD", "Adam"]
    assert lines[0].get_color() == plots.COLORS["SGD"]


def test_the_distance_from_the_plane_has_a_panel_and_a_word_in_the_caption():
    way = np.array([[1.0, 0.5], [0.5, 0.0], [0.0, 0.0]])
    _, (line,), _ = plots.trajectory(bowl(), way, residual=[3.0, 4.25, 0.0], explained=(0.6, 0.2))
    panel = line.figure.axes[1]
    np.testing.assert_array_equal(panel.lines[0].get_ydata(), [3.0, 4.25, 0.0])
    text = line.figure.alternative_text
    assert "at most 4.25 away from the plane" in text and "the plane holds 80 % of the path" in text
    assert line.axes.get_xlabel() == "α (filter-normalized)\n60 % of the path"


def test_the_plane_holds_the_shares_of_its_own_two_directions():
    way = np.array([[1.0, 0.5], [0.0, 0.0]])
    _, (line,), _ = plots.trajectory(bowl(), way, explained=np.array([0.6, 0.2, 0.2]))
    assert "the plane holds 80 % of the path" in words(caption_of(line.axes))


def test_records_without_a_finite_loss_are_counted():
    way = np.array([[1.0, 0.5], [0.5, 0.0], [0.0, 0.0]])
    _, (line,), _ = plots.trajectory(bowl(), way, losses=[np.nan, 2.0, 1.0])
    assert "1 record with no finite loss" in words(caption_of(line.axes))


def test_a_learning_rate_drop_is_marked_at_its_record():
    way = np.array([[1.0, 0.5], [0.5, 0.25], [0.0, 0.0]])
    _, (line,), _ = plots.trajectory(bowl(), way, drops=[1])
    (mark,) = [each for each in line.axes.lines if each.get_marker() == "D"]
    assert mark.get_xydata().tolist() == [[0.5, 0.25]]


def test_a_history_draws_the_rows_of_the_run():
    loss, accuracy = plots.history(run())
    np.testing.assert_array_equal(loss.get_ydata(), 2.0 ** -np.arange(5))
    np.testing.assert_array_equal(accuracy.get_ydata(), 1 - 0.9 * 0.5 ** np.arange(5))


def test_a_history_without_accuracy_leaves_that_panel_out():
    rows = [{"epoch": k, "train_loss": 2.0**-k} for k in range(5)]
    (loss,) = plots.history(SimpleNamespace(history=rows))
    assert [ax.axison for ax in loss.figure.axes] == [True, False]


def test_a_history_without_a_finite_loss_draws_the_accuracy():
    rows = [{"epoch": k, "train_loss": np.nan, "train_accuracy": 0.1} for k in range(5)]
    (accuracy,) = plots.history(SimpleNamespace(history=rows))
    assert [ax.axison for ax in accuracy.figure.axes] == [False, True]
    assert accuracy.axes.get_legend() is not None


def test_histories_of_one_label_have_a_median():
    lines = plots.history([run(1.0), run(2.0), run(4.0)], labels=["skip"] * 3)
    np.testing.assert_array_equal(lines[3].get_ydata(), 2 * 2.0 ** -np.arange(5))


def test_a_weight_histogram_has_area_one_and_the_norm_in_its_legend():
    weights = {"skip": {"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])}, "plain": np.arange(3.0)}
    steps = plots.weight_histogram(weights, bins=10)
    for step in steps:
        heights, edges, _ = step.get_data()
        assert np.sum(heights * np.diff(edges)) == pytest.approx(1)
    assert steps[0].get_label() == "skip: ‖θ‖ = 5"


def test_a_weight_histogram_takes_tensors():
    torch = pytest.importorskip("torch")
    tensor = torch.tensor([1.0, 2.0, 2.0], requires_grad=True)
    (step,) = plots.weight_histogram({"net": {"w": tensor}})
    assert step.get_label() == "net: ‖θ‖ = 3"


def test_a_weight_histogram_takes_weights_of_half_precision():
    torch = pytest.importorskip("torch")
    (step,) = plots.weight_histogram({"net": torch.tensor([3.0, 4.0], dtype=torch.bfloat16)})
    assert step.get_label() == "net: ‖θ‖ = 5"


# --- curvature --------------------------------------------------------------------------------


def curvatures():
    low = np.array([[-8.0, -1.0, 0.5], [np.nan, -0.2, 0.0]])
    return surface(
        np.ones((2, 3)), lambda_min=low, lambda_max=np.array([[10.0, 10, 10], [1, 10, 10]])
    )


def test_a_convexity_map_shows_the_ratio_of_each_point():
    mesh = plots.convexity(curvatures())
    expected = np.array([[0.8, 0.1, 0.05], [np.nan, 0.02, 0.0]]).T
    np.testing.assert_allclose(np.ma.filled(mesh.get_array(), np.nan).reshape(3, 2), expected)


def test_a_convexity_map_says_where_it_clips_and_how_much_is_negative():
    mesh = plots.convexity(curvatures(), limit=0.5, threshold=0.09)
    assert mesh.colorbar.extend == "max" and "clipped at 0.5" in mesh.colorbar.ax.get_ylabel()
    told = words(caption_of(mesh.axes))
    assert "λ min below −0.09 λ max at 40 % of points" in told and "1 point beyond" in told
    assert "1 of 6 points not finite" in told


def test_a_convexity_map_marks_points_whose_whole_spectrum_is_positive():
    mesh = plots.convexity(curvatures())
    (plus,) = [line for line in mesh.axes.lines if line.get_marker() == "P"]
    assert plus.get_xydata().tolist() == [[-1.0, 1.0]]


@pytest.mark.parametrize(("residual", "marked"), [(1e-4, True), (0.2, False)])
def test_a_point_is_convex_only_beyond_what_its_residual_leaves_open(residual, marked):
    found = curvatures()
    found.values["residual"] = np.full((2, 3), residual)
    mesh = plots.convexity(found)
    (plus,) = [line for line in mesh.axes.lines if line.get_marker() == "P"]
    assert bool(len(plus.get_xydata())) == marked
    assert ("plus: λ min above 0" in words(caption_of(mesh.axes))) == marked


def test_signed_curvature_is_centred_on_zero():
    mesh = plots.convexity(curvatures(), signed=True, limit=0.3)
    assert (mesh.norm.vmin, mesh.norm.vmax) == (-0.3, 0.3)
    assert mesh.get_cmap().name == "RdBu_r"
    assert mesh.colorbar.extend == "min"


def test_a_concave_point_does_not_pass_for_a_convex_one():
    plane = surface(np.ones((2, 2)), lambda_min=-2 * np.ones((2, 2)), lambda_max=-np.ones((2, 2)))
    mesh = plots.convexity(plane, signed=True)
    assert (mesh.get_array() == -2).all()


def test_a_density_is_drawn_on_a_log_scale_and_two_share_axes():
    grid, values = np.linspace(-1, 1, 5), np.array([1e-9, 0.1, 1.0, 0.1, 0.0])
    first = plots.density(grid, values, label="start")
    second = plots.density(grid, 10 * values, ax=first.axes, label="end")
    assert first.axes is second.axes and first.axes.get_yscale() == "log"
    np.testing.assert_array_equal(first.get_ydata(), values)
    low, high = first.axes.get_ylim()
    assert low == pytest.approx(1e-7) and high > 10


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "kind", "said"),
    [
        (lambda: plots.profile(bowl()), ValueError, "needs a surface with 1 axis; got one with 2"),
        (lambda: plots.contour(curve([1.0, 2])), ValueError, "needs a surface with 2 axes"),
        (lambda: plots.contour([1, 2]), TypeError, "needs a Surface; got list"),
        (lambda: plots.profile([]), ValueError, "at least one curve"),
        (lambda: plots.profile(curve([np.nan] * 3)), ValueError, "no finite loss among its 3"),
        (lambda: plots.surface3d(surface(np.empty((0, 3)))), ValueError, "no finite loss"),
        (lambda: plots.contour(bowl(), quantity="error"), ValueError, "'loss'.*'error'"),
        (lambda: plots.profile(curve([1.0]), labels=["a", "b"]), ValueError, "1 curve.*2 labels"),
        (lambda: plots.contour(bowl(), levels=[3, 2]), ValueError, "increasing"),
        (lambda: plots.contour(bowl(), levels=1), ValueError, "above 1; got 1"),
        (lambda: plots.contour(bowl(), levels=[0, 1], log=True), ValueError, "above zero; got 0"),
        (lambda: plots.contour(bowl(low=-9), log=True), ValueError, "log=True needs"),
        (lambda: plots.contour(bowl(), ax=3), TypeError, "ax must be matplotlib axes; got int"),
        (lambda: plots.surface3d(bowl(), ax=plots.figure()[1]), TypeError, "projection='3d'"),
        (
            lambda: plots.profile(
                curve([1.0, 2], accuracy=[0, 1]), quantity="accuracy", excess=True
            ),
            ValueError,
            "excess is the loss",
        ),
        (lambda: plots.shared_levels(), ValueError, "at least one surface"),
        (lambda: plots.side_by_side([bowl()], []), ValueError, "1 surfaces and 0 labels"),
        (
            lambda: plots.profile([curve([1.0, 2]), curve([1.0, 2, 3])]),
            ValueError,
            "needs the same points",
        ),
        (lambda: plots.trajectory(bowl(), [1, 2]), ValueError, r"\[records, 2\]"),
        (
            lambda: plots.trajectory(bowl(), [[1, 2]], losses=[1, 2]),
            ValueError,
            "each of the 1 rec",
        ),
        (lambda: plots.convexity(bowl()), ValueError, "'lambda_min'"),
        (lambda: plots.convexity(curvatures(), limit=0), ValueError, "limit must be"),
        (lambda: plots.density([1, 2], [0, 0]), ValueError, "somewhere above 0"),
        (lambda: plots.weight_histogram({}), ValueError, "at least one"),
        (lambda: plots.history(SimpleNamespace(history=[])), ValueError, "nothing to draw"),
        (lambda: plots.scenes([], []), ValueError, "at least one image"),
        (lambda: plots.weight_histogram({"a": [np.nan]}), ValueError, "'a' hold 1 numbers"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_sentence(draw, kind, said):
    with pytest.raises(kind, match=said) as problem:
        draw()
    text = str(problem.value)
    assert text.endswith(".") and "\n" not in text


def test_an_empty_range_of_values_asks_for_no_log_scale():
    assert not log_wanted(np.array([np.nan]))


def test_a_notebook_that_crops_pictures_keeps_the_whole_one():
    picture, ax = plots.figure()
    ax.set_axis_off()
    assert picture.get_tightbbox().bounds == (0, 0, 8, 5)


def test_a_picture_without_caption_is_told_by_its_axes():
    picture, ax = plots.figure()
    ax.set(xlabel="epoch", ylabel="loss")
    assert picture.alternative_text == "loss against epoch"


def test_one_unit_is_as_long_upwards_as_to_the_right():
    assert plots.contour(bowl()).axes.get_aspect() == 1


def test_ticks_on_both_sides_of_zero_are_written_alike():
    ticks = -0.01 + 0.005 * np.arange(5)  # as a locator computes them, off by rounding
    assert [number(tick) for tick in ticks] == ["−0.01", "−0.005", "0", "0.005", "0.01"]
    assert number(0.005 - 1e-15) == number(0.005) == "0.005"


def test_a_number_that_is_not_finite_has_a_name():
    assert [number(value) for value in (np.nan, np.inf, -np.inf)] == ["nan", "∞", "−∞"]


def test_one_scene_in_one_column_is_drawn():
    torch = pytest.importorskip("torch")
    people = {"boxes": torch.tensor([[1.0, 1.0, 3.0, 4.0]])}
    (ax,) = plots.scenes([torch.zeros(3, 6, 6)], [people], columns=1)
    assert len(ax.patches) == 1
