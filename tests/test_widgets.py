import base64

import numpy as np
import pytest
import torch

import lossviz as lv
from lossviz.live import loss_curve
from lossviz.normalization import random_direction
from lossviz.objective import Objective
from lossviz.planes import plane
from lossviz.principal import project
from lossviz.split import Split
from lossviz.widgets import explore


def blobs(n, seed):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, 10, (n,), generator=generator)
    inputs = torch.randn(n, 1, 8, 8, generator=generator)
    inputs[torch.arange(n), 0, targets % 8, targets // 8] += 4
    return Split(inputs, targets, name="blobs train")


class Blobs:
    train = blobs(96, 0)


@pytest.fixture
def explorer():
    torch.set_num_threads(1)
    made = explore(Blobs, depth=8, width=2, points=9, samples=80, epochs=1)
    assert made.wait(120)
    yield made
    made.close()


def test_the_final_picture_is_the_plane_that_a_script_would_compute(explorer):
    net = explorer.nets[(8, 2, True, 0)].net
    u, v = (random_direction(net, seed=seed) for seed in (1, 2))
    loss = Objective(net, Blobs.train[:80])
    wanted = plane(loss, u, v, points=9, progress=False).values["loss"]
    np.testing.assert_allclose(explorer.surface.values["loss"], wanted, rtol=1e-5)
    assert explorer.status == "9 × 9 points, 80 samples, final"


def test_thirty_moves_in_a_row_end_on_the_picture_of_the_last(explorer):
    for seed in range(30):
        explorer.set(seed=seed)
    assert explorer.wait(120)
    labels = [d.label for d in explorer.surface.directions]
    assert labels == ["random, seed 29", "random, seed 30"]
    assert explorer.status.endswith("final")


def test_a_depth_is_trained_once_and_kept(explorer):
    explorer.set(skip=False)
    assert explorer.wait(120)
    kept = explorer.nets[(8, 2, False, 0)]
    explorer.set(skip=True)
    explorer.set(skip=False)
    assert explorer.wait(120)
    assert explorer.nets[(8, 2, False, 0)] is kept


def test_a_cell_that_runs_again_finds_the_nets_that_were_trained_before(explorer):
    again = explore(Blobs, depth=8, width=2, points=9, samples=80, epochs=1)
    assert again.wait(120)
    assert again.nets[(8, 2, True, 0)] is explorer.nets[(8, 2, True, 0)]
    np.testing.assert_array_equal(again.surface.values["loss"], explorer.surface.values["loss"])
    again.close()


def test_the_loss_of_each_epoch_of_live_training_is_drawn_and_told():
    made = explore(Blobs, depth=8, width=2, points=9, samples=80, epochs=2, skip=False)
    assert made.wait(120)
    assert made._curve.value.count("<circle") == 2
    assert "train loss of each epoch: " in made._curve.value
    made.close()


def test_a_curve_leaves_out_what_is_not_finite():
    assert loss_curve([1.0, float("inf"), 0.5]).count("<circle") == 2
    assert loss_curve([float("nan")]) == ""


def test_a_right_angle_turns_the_plane_by_one_axis(explorer):
    before = explorer.surface.values["loss"]
    explorer.set(angle=90.0)
    assert explorer.wait(120)
    turned = explorer.surface.values["loss"]  # u' = v, v' = −u
    np.testing.assert_allclose(turned, before[::-1].T, rtol=1e-3)


def test_an_error_in_the_background_is_told_in_the_widget(explorer, monkeypatch):
    def broken(*_, **__):
        raise ValueError("the plane is <broken>")

    monkeypatch.setattr("lossviz.widgets._grid", broken)
    explorer.set(seed=50)
    assert explorer.wait(120)
    assert "the plane is <broken>" in explorer.status
    assert "<broken>" not in explorer._status.value


def test_a_reader_without_a_kernel_gets_a_picture(explorer):
    bundle, metadata = explorer._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert "final" in bundle["text/plain"]
    assert "ResNet-8" in metadata["image/png"]["alt"]


def test_fifty_one_points_come_coarse_first_and_end_complete():
    made = explore(Blobs, depth=8, width=2, points=11, samples=80, epochs=1)
    seen = []
    made._canvas.observe(lambda change: seen.append(change["new"]), names="frame")
    made.set(seed=3)
    assert made.wait(120)
    sizes = [frame["planes"][0]["shape"][0] for frame in seen]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1] == 11
    assert made.surface.done.all()
    made.close()


def test_the_nets_that_come_with_the_kit_are_ready_before_they_are_asked_for():
    made = explore(lv.data.digits(), depth=8, points=5, samples=16)
    assert made.wait(120)
    assert made.status == "5 × 5 points, 16 samples, final"
    ready = {key[0] for key, net in made.nets.items() if net.losses}
    assert ready == {8, 20, 56, 110}
    made.close()


def test_the_loss_around_a_net_is_made_once(explorer):
    kept = explorer.nets[(8, 2, True, 0)].loss(Blobs.train[:80], "stored")
    explorer.set(seed=7)
    assert explorer.wait(120)
    assert explorer.nets[(8, 2, True, 0)].loss(Blobs.train[:80], "stored") is kept


def test_closing_the_widget_ends_its_thread():
    made = explore(Blobs, depth=8, width=2, points=9, samples=80, epochs=1)
    made.close()
    made._worker._thread.join(60)
    assert not made._worker.alive


def test_an_unknown_control_and_a_wrong_depth_are_refused(explorer):
    with pytest.raises(ValueError, match="no control 'colour'"):
        explorer.set(colour=1)
    with pytest.raises(ValueError, match="take 56 or 62"):
        explore(Blobs, depth=57)


def test_both_nets_side_by_side_have_a_plane_each(explorer):
    explorer.set(compare=True)
    assert explorer.wait(120)
    assert list(explorer.surfaces) == ["ResNet-8", "ResNet-8 without shortcuts"]
    frame = explorer._canvas.frame
    assert [plane["title"] for plane in frame["planes"]] == list(explorer.surfaces)
    losses = [surface.values["loss"] for surface in explorer.surfaces.values()]
    assert frame["low"] == min(map(np.min, losses)) and frame["high"] == max(map(np.max, losses))


def test_the_way_to_another_minimum_ends_there(explorer):
    explorer.set(direction="other minimum", batch_norm="batch")
    assert explorer.wait(120)
    other = explorer.nets[(8, 2, True, 1)].net
    wanted = Objective(other, Blobs.train[:80], batch_norm="batch")()
    assert explorer.surface.values["loss"][-1, 4] == pytest.approx(wanted, rel=1e-4)


def test_the_plane_of_the_path_holds_the_farthest_point_of_the_training():
    made = explore(Blobs, depth=8, width=2, points=9, samples=80, epochs=3, direction="path")
    assert made.wait(120)
    path = made.nets[(8, 2, True, 0)].trajectory
    reached = project(path, made.surface.directions).coordinates
    assert abs(reached).max() == pytest.approx(1.0, rel=1e-5)
    made.close()


def bend(surface):
    """Second difference of the loss along α at the centre, per squared length of the step."""
    below, here, above = surface.values["loss"][3:6, 4]
    length = surface.directions[0].norm() * (surface.axes[0][5] - surface.axes[0][4])
    return (above - 2 * here + below) / length**2


def test_along_the_top_eigenvector_the_loss_bends_most(explorer):
    explorer.set(span=0.01)
    assert explorer.wait(120)
    random = bend(explorer.surface)
    explorer.set(direction="curvature")
    assert explorer.wait(120)
    top = explorer.surface.directions[0]
    assert "eigenvector" in top.label and bend(explorer.surface) > 3 * abs(random)


def test_a_click_tells_the_loss_there_and_trains_on_from_it(explorer):
    surface = explorer.surface
    explorer._canvas.clicked = {"plane": 0, "alpha": 0.5, "beta": -0.25, "serial": 1}
    assert explorer.wait(120)
    here = surface.values["loss"][6, 3]
    assert f"α = 0.50, β = -0.25: loss {here:.3g}" in explorer.status
    assert "accuracy" in explorer.status and "λ max" in explorer.status
    (plane,) = explorer._canvas.frame["planes"]
    assert plane["at"] == [0.5, -0.25] and plane["paths"]["training"][0] == [0.5, -0.25]
    assert len(plane["paths"]["training"]) > 20
    final = float(explorer.status.rsplit("loss ", 1)[1])
    assert final < here


def test_an_unknown_direction_is_refused():
    with pytest.raises(ValueError, match=r"direction must be one of random, path.*got 'sideways'"):
        explore(Blobs, depth=8, direction="sideways")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"depth": 21}, "depth must be one of 8, 14"),
        ({"depth": 308}, "depth must be a number in 8 … 302"),
        ({"width": 7}, "width must be one of 2, 4"),
        ({"seed": 500}, "seed must be a number in 0 … 100"),
        ({"span": 100.0}, "span must be a number in"),
        ({"span": "wide"}, "span must be a number in"),
        ({"skip": 1}, "skip must be True or False"),
        ({"seed": 9, "direction": "nope"}, "direction must be one of"),
    ],
)
def test_a_control_that_does_not_go_so_far_says_so_and_none_is_moved(explorer, settings, words):
    before = explorer.view
    with pytest.raises(ValueError, match=words):
        explorer.set(**settings)
    assert explorer.view == before


def test_none_is_the_raw_scale(explorer):
    explorer.set(normalize=None)
    assert explorer.view.normalize is None and explorer.wait(120)
    assert explorer.status.endswith("final")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"samples": -3}, "samples must be"),
        ({"epochs": 0}, "epochs must be"),
        ({"depth": 308}, "depth must be"),
        ({"seed": 500}, "seed must be"),
        ({"span": 100.0}, "span must be"),
    ],
)
def test_a_call_out_of_range_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        explore(Blobs, **options)


@pytest.mark.parametrize("data", [None, Blobs.train])
def test_what_has_no_samples_to_train_on_is_refused(data):
    with pytest.raises(TypeError, match=r"samples in \.train; got .*take lv.data.digits"):
        explore(data)
