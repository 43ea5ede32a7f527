import json
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from little_nets import dense, samples, seeded

import lossviz as lv
from lossviz.directions import Direction
from lossviz.storage import npz_bytes, read_npz
from lossviz.surface import Surface


@pytest.fixture
def plane():
    net = seeded(dense)
    pair = [lv.random_direction(net, seed=s) for s in (1, 2)]
    return lv.plane(lv.Objective(net, samples(8, 4)), *pair, span=(-1, 2), points=(3, 4))


def made(values, axes=None, **options):
    axes = axes or tuple(np.arange(float(n)) for n in values.shape)
    directions = tuple(Direction({}, label=f"d{i}") for i in range(values.ndim))
    return Surface(axes, {"loss": values}, directions, **options)


def same(one, other):
    assert all(np.array_equal(a, b) for a, b in zip(one.axes, other.axes, strict=True))
    assert set(one.values) == set(other.values)
    for name, array in one.values.items():
        assert np.array_equal(array, other.values[name], equal_nan=True)
        assert other.values[name].dtype == np.float64
    assert np.array_equal(one.done, other.done)
    return True


def test_a_surface_is_read_as_it_was_saved(plane, tmp_path):
    plane.save(tmp_path / "s.npz")
    again = Surface.load(tmp_path / "s.npz")
    assert same(plane, again) and again.meta == json.loads(json.dumps(plane.meta))
    assert [d.label for d in again.directions] == ["random, seed 1", "random, seed 2"]
    assert again.directions[0].rules == plane.directions[0].rules


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_values_are_read_as_they_were_saved(tmp_path_factory, data):
    shape = data.draw(st.sampled_from([(3,), (1, 2), (4, 3)]))
    values = data.draw(hnp.arrays(np.float64, shape))
    done = data.draw(hnp.arrays(bool, shape))
    path = tmp_path_factory.mktemp("s") / "s.npz"
    surface = made(values, done=done, meta={"center": {"loss": np.inf}})
    surface.save(path)
    assert same(surface, Surface.load(path))


def test_a_random_direction_is_stored_by_its_recipe_and_can_be_made_again(plane, tmp_path):
    plane.save(tmp_path / "s.npz")
    again = Surface.load(tmp_path / "s.npz").directions[0]
    recipe = dict(again.recipe)
    assert len(again) == 0 and recipe.pop("kind") == "random"
    made_again = lv.random_direction(seeded(dense), **recipe)
    for name, tensor in plane.directions[0].items():
        assert torch.equal(made_again[name], tensor)


def test_a_direction_without_recipe_is_stored_with_its_tensors(tmp_path):
    net = seeded(dense)
    u = 0.5 * lv.random_direction(net, seed=1)
    lv.line(lv.Objective(net, samples(8, 4)), u, points=3).save(tmp_path / "s.npz")
    (again,) = Surface.load(tmp_path / "s.npz").directions
    assert list(again) == list(u) and all(torch.equal(again[k], u[k]) for k in u)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_of_any_dtype_are_stored(tmp_path, dtype):
    net = seeded(dense).to(dtype)
    u = lv.random_direction(net, seed=1)
    surface = lv.line(lv.Objective(net, samples(8, 4)), u, points=3)
    surface.save(tmp_path / "s.npz", arrays=True)
    (again,) = Surface.load(tmp_path / "s.npz").directions
    assert torch.equal(again["0.weight"].to(dtype), u["0.weight"])


def test_a_surface_without_the_tensors_asked_for_is_smaller(plane, tmp_path):
    plane.save(tmp_path / "few.npz", arrays=False)
    plane.save(tmp_path / "all.npz", arrays=True)
    assert (tmp_path / "few.npz").stat().st_size < (tmp_path / "all.npz").stat().st_size


def test_values_not_shaped_like_the_axes_are_refused():
    with pytest.raises(ValueError, match=r"'loss' has shape \(2, 3\), but the axes have \(3, 2\)"):
        made(np.zeros((2, 3)), axes=(np.zeros(3), np.zeros(2)))


def test_an_axis_of_two_dimensions_is_refused():
    with pytest.raises(ValueError, match="arrays of one dimension"):
        made(np.zeros(3), axes=(np.zeros((3, 2)),))


def test_excess_is_the_loss_over_that_at_the_centre():
    surface = made(np.array([3.0, 1.0, 2.0]), meta={"center": {"loss": 1.0}})
    assert surface.excess.tolist() == [2.0, 0.0, 1.0]


def test_repr_says_grid_model_and_data(plane):
    assert repr(plane) == "Surface(3 × 4 points, Sequential, data, 12 computed)"


@pytest.mark.parametrize("drop", ["axis_1", "value_loss", "done"])
def test_a_file_that_lacks_a_part_is_refused(plane, tmp_path, drop):
    path = tmp_path / "s.npz"
    plane.save(path)
    arrays, meta = read_npz(path, "surface")
    path.write_bytes(npz_bytes({k: v for k, v in arrays.items() if k != drop}, meta))
    with pytest.raises(ValueError, match=r"'s.npz' lacks parts of a surface .*: it is damaged"):
        Surface.load(path)


NOTE = {"label": "d", "scale": "raw", "recipe": {}, "rules": {}, "names": []}


@pytest.mark.parametrize("meta", [
    {"directions": [], "meta": {}}, {"directions": 3, "meta": {}}, {"directions": [NOTE]},
    {"directions": [NOTE], "meta": 3}, {"directions": [NOTE] * 3, "meta": {}},
    {"directions": [{**NOTE, "names": ["w"]}], "meta": {}},
    {"directions": [{**NOTE, "names": 3}], "meta": {}},
    {"directions": [{**NOTE, "recipe": 7}], "meta": {}},
    {"directions": ["x"], "meta": {}}, {"meta": {}},
])  # fmt: skip
def test_notes_that_are_none_are_refused(tmp_path, meta):
    arrays = {"axis_0": np.zeros(3), "value_loss": np.zeros(3), "done": np.ones(3, bool)}
    path = tmp_path / "s.npz"
    path.write_bytes(npz_bytes(arrays, {"kind": "surface", **meta}))
    with pytest.raises(ValueError, match=r"lacks parts of a surface"):
        Surface.load(path)


@pytest.mark.parametrize("arrays", [
    {"axis_0": np.zeros((3, 2))}, {"axis_0": np.zeros(())}, {"axis_0": np.array(["a", "b", "c"])},
    {"value_loss": np.zeros(4)}, {"value_loss": np.array(["a", "b", "c"])}, {"done": np.ones(2)},
])  # fmt: skip
def test_arrays_that_fit_no_surface_are_refused(tmp_path, arrays):
    whole = {"axis_0": np.zeros(3), "value_loss": np.zeros(3), "done": np.ones(3, bool)}
    path = tmp_path / "s.npz"
    meta = {"kind": "surface", "directions": [NOTE], "meta": {}}
    path.write_bytes(npz_bytes({**whole, **arrays}, meta))
    with pytest.raises(ValueError, match=r"lacks parts of a surface"):
        Surface.load(path)


def test_xarray_gets_the_axes_as_coordinates(plane, monkeypatch):
    fake = ModuleType("xarray")
    fake.Dataset = lambda variables, coordinates, attributes: (variables, coordinates, attributes)
    monkeypatch.setitem(sys.modules, "xarray", fake)
    variables, coordinates, attributes = plane.to_xarray()
    assert variables["loss"][0] == ("alpha", "beta") == tuple(coordinates)
    assert coordinates["beta"].tolist() == plane.axes[1].tolist()
    assert set(variables) == {"loss", "accuracy", "done"} and attributes["n_samples"] == 8


def test_xarray_that_is_not_there_is_asked_for(plane, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs xarray.*pip install xarray"):
        plane.to_xarray()


def test_directions_of_zeros_take_no_room_and_come_back(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(4096, 4096), torch.nn.Linear(4096, 2))
    moved = {name: torch.zeros_like(w) for name, w in net.named_parameters()}
    moved["1.bias"] = torch.ones(2)
    axis = np.linspace(-1, 1, 3)
    saved = Surface((axis,), {"loss": axis**2}, (Direction(moved, label="the last bias"),))
    saved.save(tmp_path / "s.npz")
    assert (tmp_path / "s.npz").stat().st_size < 2**14
    found = Surface.load(tmp_path / "s.npz").directions[0]
    assert list(found) == list(moved)
    for name, tensor in moved.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype


def test_running_statistics_of_a_direction_come_back_too(tmp_path):
    a, b = (lv.models.mlp((8,), batch_norm=True, seed=seed) for seed in (1, 2))
    data = lv.data.digits().train[:32]
    for net in (a, b):
        lv.fit(net, data, epochs=1, batch_size=8, lr=0.1, progress=False)
    objective = lv.Objective(a, data, batch_norm="interpolated")
    options = {"span": (0, 1), "points": 3, "progress": False}
    first = lv.line(objective, lv.toward(a, b), **options)
    first.save(tmp_path / "s.npz")
    again = lv.line(objective, Surface.load(tmp_path / "s.npz").directions[0], **options)
    np.testing.assert_array_equal(again.values["loss"], first.values["loss"])


def test_a_direction_scaled_to_other_weights_is_stored(tmp_path):
    net = torch.nn.Linear(3, 2)
    other = {name: 5 * w.detach() for name, w in net.named_parameters()}
    axis = np.linspace(-1, 1, 3)
    for weights, kept in ((other, True), (dict(net.named_parameters()), False)):
        direction = lv.random_direction(net, seed=1, weights=weights)
        Surface((axis,), {"loss": axis**2}, (direction,)).save(tmp_path / "s.npz")
        found = Surface.load(tmp_path / "s.npz").directions[0]
        assert bool(len(found)) == kept
    assert "weights" not in direction.recipe


@pytest.mark.parametrize("values", [{"loss": np.zeros(3)}, {"accuracy": np.zeros(3)}])
def test_what_could_not_be_read_again_is_not_saved(values, tmp_path):
    directions = (Direction({}, label="x"),) if "loss" not in values else ()
    with pytest.raises(ValueError, match="a 'loss' and a direction for each of its 1 axes"):
        Surface((np.arange(3.0),), values, directions).save(tmp_path / "s.npz")
    assert not list(tmp_path.iterdir())
