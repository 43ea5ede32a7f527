"""What the canvas is given is the plane, in its order, on common levels."""

import io

import numpy as np
import pytest
from PIL import Image

from lossviz.surface import Surface
from lossviz.view import SurfaceView, frame_of, still


def plane(values):
    axes = (np.linspace(-1, 1, values.shape[0]), np.linspace(-0.5, 0.5, values.shape[1]))
    return Surface(axes, {"loss": values}, (), {}, np.ones(values.shape, bool))


def test_the_numbers_arrive_row_by_row_with_their_span():
    values = np.arange(15.0).reshape(5, 3)
    (told,) = frame_of({"a net": plane(values)})["planes"]
    assert np.frombuffer(told["z"], np.float32).tolist() == list(range(15))
    assert told["shape"] == [5, 3] and told["span"] == [-1.0, 1.0, -0.5, 0.5]


def test_two_planes_share_their_range_and_levels():
    frame = frame_of({"a": plane(np.full((3, 3), 2.0)), "b": plane(np.full((3, 3), 700.0))})
    assert (frame["low"], frame["high"], frame["log"]) == (2.0, 700.0, True)
    assert frame["levels"] == sorted(frame["levels"])


def test_levels_end_at_the_top_and_the_numbers_do_not():
    values = np.array([[1.0, 10.0], [1e6, np.inf]])
    frame = frame_of({"a": plane(values)}, top=50.0)
    assert (frame["low"], frame["high"]) == (1.0, 50.0) and max(frame["levels"]) <= 50.0
    assert np.frombuffer(frame["planes"][0]["z"], np.float32)[2] == 1e6
    assert "loss from 1 to 10⁶" in frame["text"]


def test_the_picture_is_told_in_words():
    text = frame_of({"a net": plane(np.linspace(1, 3, 9).reshape(3, 3))})["text"]
    assert "a net: loss from 1 to 3 on 3 × 3 points" in text


def test_a_plane_without_a_finite_point_is_refused_with_advice():
    with pytest.raises(ValueError, match="take a smaller span"):
        frame_of({"a": plane(np.full((3, 3), np.inf))})


def test_each_picture_has_a_number_of_its_own():
    view = SurfaceView()
    for serial in (1, 2):
        view.show({"a": plane(np.ones((3, 3)))})
        assert view.frame["serial"] == serial


def test_a_coarse_level_of_uneven_steps_is_drawn_at_even_ones():
    at = np.array([-1.0, -0.8, 0.0, 0.8, 1.0])
    surface = Surface((at, at), {"loss": 2 * at[:, None] + at}, (), {}, np.ones((5, 5), bool))
    (told,) = frame_of({"a": surface})["planes"]
    even = np.linspace(-1, 1, 5)
    np.testing.assert_allclose(
        np.frombuffer(told["z"], np.float32).reshape(5, 5), 2 * even[:, None] + even, atol=1e-6
    )


def test_a_still_of_two_planes_has_a_bar_and_paths_are_drawn_on_theirs():
    surfaces = {"a": plane(np.ones((3, 3))), "b": plane(np.linspace(1, 9, 9).reshape(3, 3))}
    path = {"SGD": np.array([[-1.0, -0.5], [1.0, 0.5]])}
    plain, drawn = (
        np.asarray(Image.open(io.BytesIO(still(surfaces, paths=paths))).convert("RGB"), int)
        for paths in ((), ({}, path))
    )
    changed = (plain != drawn).any(2).any(0).nonzero()[0]
    assert changed.size and changed.min() > 0.4 * plain.shape[1]  # on the second plane alone
    beside = plain[:, int(0.9 * plain.shape[1]) :]
    assert (beside.max(2) - beside.min(2) > 60).any()  # a coloured bar at the right
