"""Films share their levels; a rescaled net is the same function and another raw picture."""

import base64
import re

import numpy as np
import pytest
import torch

import lossviz as lv
from lossviz.balls import _Ball
from lossviz.films import Film
from lossviz.plots.captions import number


@pytest.fixture(scope="module")
def digits():
    return lv.data.digits().train[:128]


def test_a_film_of_training_has_a_frame_an_epoch_around_the_weights_of_that_moment(digits):
    net = lv.models.resnet(8, width=2, seed=0)
    film = lv.watch_training(net, digits, epochs=2, points=3, samples=64, progress=False)
    assert [words.split(":")[0] for words, _ in film.frames] == [
        "before training", "epoch 1", "epoch 2",
    ]  # fmt: skip
    centre = film.frames[-1][1]["loss"].values["loss"][1, 1]
    assert centre == pytest.approx(lv.Objective(net, digits[:64], batch_norm="batch")(), rel=1e-5)


def test_all_frames_have_the_levels_of_the_whole_film(digits):
    net = lv.models.resnet(8, width=2, seed=0)
    film = lv.watch_training(net, digits, epochs=2, points=3, samples=64, progress=False)
    seen = []
    for moment in range(3):
        film._slider.value = moment
        seen.append({k: film._canvas.frame[k] for k in ("low", "high", "levels")})
    assert seen[0] == seen[1] == seen[2]


def test_the_film_over_depths_comes_from_the_planes_of_the_kit():
    film = lv.depth_film([8, 56])
    assert [words for words, _ in film.frames] == ["8 layers", "56 layers"]
    assert list(film.frames[0][1]) == ["with shortcuts", "without"]
    bundle, metadata = film._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert "56 layers: without: loss from" in metadata["image/png"]["alt"]


def test_the_levels_of_the_film_over_depths_end_where_the_words_say():
    film = lv.depth_film([56, 110])
    frame, surface = film._canvas.frame, film.surfaces["without"]
    assert frame["high"] == max(frame["levels"]) == 1000.0
    highest = surface.values["loss"].max()
    assert highest > 1e15  # else nothing would have to be cut
    assert film.status.startswith("110 layers: levels and colours end at a loss of 1000, ")
    assert f"without goes on to {number(highest)}" in film.status
    sent = np.frombuffer(frame["planes"][1]["z"], np.float32)
    np.testing.assert_allclose(sent, surface.values["loss"].ravel(), rtol=1e-6)
    film._slider.value = 0
    assert film.status == "56 layers"
    assert (film._canvas.frame["low"], film._canvas.frame["high"]) == (frame["low"], 1000.0)
    assert all(film.surfaces[name].values["loss"].max() < 1000 for name in film.surfaces)


def test_a_rescaled_net_is_the_same_function_and_only_its_raw_picture_moves(digits):
    net = lv.models.resnet(8, width=2, seed=0)
    lv.fit(net, digits, epochs=2, batch_size=32, lr=0.05, progress=False)
    shown = lv.same_function(net, digits, points=3, samples=64)
    assert shown.wait(60)
    before = {k: s.values["loss"] for k, s in shown.surfaces.items()}
    shown.slider.value = 4.0
    assert shown.wait(60)
    after = {k: s.values["loss"] for k, s in shown.surfaces.items()}
    moved = {k: abs(after[k] / before[k] - 1).max() for k in after}
    assert moved["raw"] > 20 * moved["filter-normalized"]  # moved by the norms' small constant
    assert shown.status.startswith("c = 4: loss ")
    shown.close()


def test_the_net_that_is_rescaled_is_left_as_it_is(digits):
    net = lv.models.resnet(8, width=2, seed=0).train()
    before = {k: t.clone() for k, t in net.state_dict().items()}
    shown = lv.same_function(net, digits, points=3, samples=64)
    assert shown.wait(60)
    shown.close()
    assert all(module.training for module in net.modules())
    assert all(t.equal(before[k]) for k, t in net.state_dict().items())


def test_a_net_without_a_layer_to_rescale_and_a_film_of_nothing_are_refused(digits):
    with pytest.raises(ValueError, match="no layer of this net has a batch norm"):
        lv.same_function(lv.models.mlp((8,)), digits)
    with pytest.raises(ValueError, match="at least one frame"):
        Film([])


@pytest.mark.parametrize("in_plane", [False, True])
def test_balls_run_down_from_the_point_where_they_were_dropped(digits, in_plane):
    net = lv.models.resnet(8, width=2, seed=0)
    lv.fit(net, digits, epochs=3, batch_size=32, lr=0.05, progress=False)
    balls = lv.drop_ball(net, digits, points=5, samples=64, in_plane=in_plane)
    before = {k: w.clone() for k, w in balls.loss.weights.items()}
    balls.drop(0.5, -0.5)
    assert balls.wait(120)
    assert list(balls.paths) == ["SGD", "momentum", "Adam"]
    assert all(path[0].tolist() == [0.5, -0.5] for path in balls.paths.values())
    top = balls.surface.values["loss"][3, 1]
    told, _, seen = balls.status.split(": ")[1].partition("; ")
    assert min(float(part.split()[-1]) for part in told.split(", ")) < top
    if in_plane:
        assert seen == ""
    else:  # two of 1,000 directions
        assert all(0 <= int(share) < 60 for share in re.findall(r"(\d+)%", seen))
        assert len(re.findall(r"\d+%", seen)) == 3
    assert all(w.equal(before[k]) for k, w in balls.loss.weights.items())
    balls.close()


def test_the_share_of_a_way_that_the_plane_shows_is_that_of_its_projection(digits):
    net = lv.models.mlp((8,), seed=0)
    loss = lv.Objective(net, digits)
    u, v = (lv.random_direction(net, seed=k, normalize=None) for k in (1, 2))
    ball = _Ball(loss, lv.plane(loss, u, v, points=3, progress=False), (0.0, 0.0), False)
    across = lv.random_direction(net, seed=3, normalize=None)
    gram = [[float(a.dot(b)) for b in (u, v)] for a in (u, v)]
    alpha, beta = np.linalg.solve(gram, [across.dot(u), across.dot(v)]).tolist()
    inside = alpha * u + beta * v
    ball.weights = {k: w + 0.1 * across[k] for k, w in ball.start.items()}
    ball.path.append(0.1 * np.array([alpha, beta]))
    assert ball.seen() == pytest.approx(inside.norm() / across.norm(), rel=1e-4)


def test_a_ball_in_the_plane_has_the_loss_of_the_place_that_is_drawn(digits):
    net = lv.models.resnet(8, width=2, seed=0)
    balls = lv.drop_ball(net, digits, points=5, samples=64, in_plane=True)
    balls.drop(0.25, 0.25)
    assert balls.wait(120)
    for wrong in (float("nan"), 9.0):
        with pytest.raises(ValueError, match="alpha must lie in the picture, -1 … 1"):
            balls.drop(wrong, 0.0)
    (alpha, beta), (u, v) = balls.paths["SGD"][-1], balls.surface.directions
    there = {k: w + alpha * u[k] + beta * v[k] for k, w in balls.loss.weights.items()}
    assert f"SGD {balls.loss(there):.3g}," in balls.status
    balls.close()


def test_fewer_samples_than_a_usual_batch_will_do(digits):
    net = lv.models.resnet(8, width=2, seed=0)
    film = lv.watch_training(net, digits[:20], epochs=1, points=3, progress=False)
    assert film.status.startswith("epoch 1: train loss")


def test_a_training_that_diverges_keeps_the_frames_before(digits):
    net = lv.models.resnet(8, width=2, seed=0)
    film = lv.watch_training(net, digits, epochs=3, lr=1e30, points=5, progress=False)
    assert len(film.frames) < 4 and "diverged: take a smaller lr" in film.frames[-1][0]


@pytest.mark.parametrize("depths", [[9], []])
def test_depths_that_are_not_there_are_named(depths):
    with pytest.raises(ValueError, match="depths must be some of 8, 14"):
        lv.depth_film(depths)


@pytest.mark.parametrize("lr", ["a", 0, float("nan"), True])
def test_balls_need_a_step_size(digits, lr):
    with pytest.raises(ValueError, match="lr must be a positive number"):
        lv.drop_ball(lv.models.resnet(8, width=2, seed=0), digits, points=5, lr=lr)


@pytest.mark.parametrize("in_plane", [False, True])
def test_a_ball_at_rest_stays_where_it_is(digits, in_plane):
    net = lv.models.mlp((8,), seed=0)
    loss = lv.Objective(net, digits)
    u, v = (lv.random_direction(net, seed=k) for k in (1, 2))
    flat = lv.plane(loss, u, v, points=3, progress=False)
    loss.gradient = lambda weights: {k: torch.zeros_like(w) for k, w in weights.items()}
    ball = _Ball(loss, flat, (0.0, 0.0), in_plane)
    ball.step(torch.optim.SGD(ball.moving, lr=1.0))
    assert ball.path[-1].tolist() == [0.0, 0.0] and ball.seen() == 1.0
