"""Surfaces to and from other programs."""

import base64
import csv
import json
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lossviz as lv
from lossviz import interchange
from lossviz.plots import contour

h5py = pytest.importorskip("h5py", reason="h5py is an extra")

X, Y = np.linspace(-1, 1, 3), np.linspace(-2, 2, 5)


def bowl(x, y):
    return 1 + x + 10 * y**2


def as_the_authors_write(path, todo=(), **more):
    """What plot_surface.py leaves: arrays made [nx, ny], filled in the order of meshgrid(x, y)."""
    xs, ys = (mesh.ravel() for mesh in np.meshgrid(X, Y))
    losses, accuracies = -np.ones((len(X), len(Y))), -np.ones((len(X), len(Y)))
    for k, (x, y) in enumerate(zip(xs, ys, strict=True)):
        if k not in todo:
            losses.ravel()[k], accuracies.ravel()[k] = bowl(x, y), 50 + 10 * x
    with h5py.File(path, "w") as file:
        file["dir_file"] = "somewhere/directions.h5"
        file["xcoordinates"], file["ycoordinates"] = X, Y
        file["train_loss"], file["train_acc"] = losses, accuracies
        for name, array in more.items():
            file[name] = array
    return path


def plane():
    net = nn.Linear(2, 2)
    data = torch.randn(8, 2), torch.zeros(8).long()
    pair = [lv.random_direction(net, seed=seed) for seed in (1, 2)]
    return lv.plane(lv.Objective(net, data), *pair, points=(3, 5))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return as_the_authors_write(tmp_path_factory.mktemp("h5") / "s.h5")


# --- the authors' h5 files


def test_a_surface_of_the_authors_has_each_loss_at_its_own_x_and_y(tmp_path):
    s = interchange.read_surface_h5(as_the_authors_write(tmp_path / "s.h5"))
    assert s.shape == (3, 5) and s.done.all()
    assert s.values["loss"] == pytest.approx(bowl(X[:, None], Y[None]))
    assert s.values["accuracy"][:, 0] == pytest.approx([0.4, 0.5, 0.6])
    assert s.meta["center"]["loss"] == 1.0 and s.excess[1, 2] == 0


def test_what_the_authors_code_had_not_computed_is_not_taken_for_a_loss(tmp_path):
    s = interchange.read_surface_h5(as_the_authors_write(tmp_path / "s.h5", todo=(0, 4)))
    assert (~s.done).sum() == 2 and np.isnan(s.values["loss"][~s.done]).all()
    assert not s.done[0, 0] and not s.done[1, 1]  # the second is x = 0, y = −1 in their order


def test_curvatures_of_the_authors_give_their_ratio(tmp_path):
    low, high = np.full(15, -1.0), np.full(15, 4.0)
    high[3] = -1.0  # not computed
    path = as_the_authors_write(tmp_path / "s.h5", min_eig=low, max_eig=high)
    ratio = interchange.read_surface_h5(path).values["ratio"]
    assert np.isnan(ratio).sum() == 1 and np.nanmax(ratio) == np.nanmin(ratio) == 0.25


def test_a_curve_of_the_authors_is_a_surface_of_one_axis(tmp_path):
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["xcoordinates"], file["train_loss"] = X, X**2
    s = interchange.read_surface_h5(tmp_path / "c.h5")
    assert s.values["loss"].tolist() == [1, 0, 1]


def test_a_surface_of_the_authors_is_stored_and_drawn_like_ours(tmp_path):
    s = interchange.read_surface_h5(as_the_authors_write(tmp_path / "s.h5"))
    s.save(tmp_path / "s.npz")
    again = lv.Surface.load(tmp_path / "s.npz")
    assert np.array_equal(again.values["loss"], s.values["loss"])
    contour(again)


def test_directions_of_the_authors_move_the_net_they_were_made_for(tmp_path):
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with h5py.File(tmp_path / "d.h5", "w") as file:
        for seed, axis in ((0, "xdirection"), (100, "ydirection")):
            group = file.create_group(axis)
            for i, weight in enumerate(net.parameters()):
                numbers = np.random.default_rng(seed + i).normal(size=weight.shape)
                group.create_dataset(str(i), data=numbers)
    u, v = interchange.read_directions_h5(tmp_path / "d.h5", net)
    assert list(u) == [name for name, _ in net.named_parameters()]
    assert float(u["0.weight"][0, 0]) == pytest.approx(np.random.default_rng(0).normal())
    data = torch.randn(4, 2), torch.zeros(4).long()
    assert lv.plane(lv.Objective(net, data), u, v, points=3).done.all()
    with pytest.raises(ValueError, match="4 tensors for the 2 parameters of this net"):
        interchange.read_directions_h5(tmp_path / "d.h5", nn.Linear(2, 3))


def test_a_projected_path_of_the_authors_is_read(tmp_path):
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["proj_xcoord"], file["proj_ycoord"] = [3.0, 1.0, 0.0], [0.5, 0.2, 0.0]
    assert interchange.read_path_h5(tmp_path / "p.h5").tolist() == [[3, 0.5], [1, 0.2], [0, 0]]


def test_files_that_are_something_else_are_refused_with_what_they_hold(tmp_path):
    path = as_the_authors_write(tmp_path / "s.h5")
    with pytest.raises(ValueError, match=r"no 'test_loss', but train_acc, train_loss, xcoord"):
        interchange.read_surface_h5(path, split="test")
    with pytest.raises(ValueError, match="no 'proj_xcoord'"):
        interchange.read_path_h5(path)
    with pytest.raises(ValueError, match="no 'xdirection': give a direction file"):
        interchange.read_directions_h5(path, nn.Linear(2, 2))
    with pytest.raises(FileNotFoundError, match="check the name"):
        interchange.read_path_h5(tmp_path / "absent.h5")
    (tmp_path / "text.h5").write_text("not an h5 file")
    with pytest.raises(ValueError, match="damaged or no h5 file"):
        interchange.read_surface_h5(tmp_path / "text.h5")


def test_axes_and_paths_of_a_wrong_shape_are_refused(tmp_path):
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["xcoordinates"], file["train_loss"] = 1.0, [1.0]
    with pytest.raises(ValueError, match=r"'s.h5' has axes of shape \(\)"):
        interchange.read_surface_h5(tmp_path / "s.h5")
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["proj_xcoord"], file["proj_ycoord"] = [3.0, 1.0], [0.5, 0.2, 0.0]
    with pytest.raises(ValueError, match=r"two rows of one length"):
        interchange.read_path_h5(tmp_path / "p.h5")


@settings(max_examples=100, deadline=None)
@given(place=st.floats(0, 1), byte=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_h5_file_is_a_sentence_or_a_surface(whole, place, byte, cut):
    sound = whole.read_bytes()
    at = int(place * (len(sound) - 1))
    flipped = sound[:at] + bytes([sound[at] ^ byte]) + sound[at + 1 :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.h5"
        path.write_bytes(sound[:at] if cut else flipped)
        try:
            surface = interchange.read_surface_h5(path)
        except ValueError as problem:
            assert "s.h5" in str(problem) or "values are indexed" in str(problem)
        else:
            assert surface.shape == surface.values["loss"].shape


# --- tables and ParaView


def test_a_table_has_a_row_per_point_and_every_digit(tmp_path):
    s = plane()
    interchange.write_csv(s, tmp_path / "s.csv")
    with open(tmp_path / "s.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["alpha", "beta", "loss", "accuracy", "computed"] and len(rows) == 15
    assert [float(row["loss"]) for row in rows] == s.values["loss"].ravel().tolist()
    assert [float(row["beta"]) for row in rows[:5]] == s.axes[1].tolist()


def test_vtk_reads_the_sheet_with_every_value_at_its_place(tmp_path):
    vtk = pytest.importorskip("vtk", reason="VTK is no dependency")
    from vtk.util.numpy_support import vtk_to_numpy

    s = plane()
    s.values["loss"][0, 1] = np.inf
    interchange.write_vtk(s, tmp_path / "s.vts", log=False, height=0.5)
    reader = vtk.vtkXMLStructuredGridReader()
    reader.SetFileName(str(tmp_path / "s.vts"))
    reader.Update()
    sheet = reader.GetOutput()
    places = vtk_to_numpy(sheet.GetPoints().GetData())
    arrays = {
        sheet.GetPointData().GetArrayName(i): vtk_to_numpy(sheet.GetPointData().GetArray(i))
        for i in range(sheet.GetPointData().GetNumberOfArrays())
    }
    dimensions = [0, 0, 0]
    sheet.GetDimensions(dimensions)
    assert dimensions == [5, 3, 1]
    assert places[:, 0] == pytest.approx(np.repeat(s.axes[0], 5))
    assert places[:, 1] == pytest.approx(np.tile(s.axes[1], 3))
    assert np.ptp(places[:, 2]) == pytest.approx(0.5 * 2)
    assert arrays["accuracy"] == pytest.approx(s.values["accuracy"].ravel())
    assert arrays["loss"] == pytest.approx(s.values["loss"].ravel())
    assert not sheet.IsPointVisible(1) and sheet.IsPointVisible(2)


def test_a_sheet_over_two_decades_is_drawn_as_a_logarithm(tmp_path):
    s = plane()
    s.values["loss"] = np.geomspace(1e-3, 10, 15).reshape(3, 5)
    interchange.write_vtk(s, tmp_path / "s.vts")
    assert 'Name="log10_loss"' in (tmp_path / "s.vts").read_text()
    s.values["loss"][0, 0] = 0.0
    with pytest.raises(ValueError, match="a loss of 0 has no logarithm"):
        interchange.write_vtk(s, tmp_path / "s.vts", log=True)


def test_a_line_is_no_sheet(tmp_path):
    s = lv.Surface((X,), {"loss": X**2}, (lv.Direction({}, label="x"),))
    with pytest.raises(ValueError, match="a sheet needs two axes"):
        interchange.write_vtk(s, tmp_path / "s.vts")


def test_names_of_metrics_and_facts_survive_xml_and_netcdf(tmp_path):
    net, data = nn.Linear(2, 2), (torch.randn(4, 2), torch.zeros(4).long())
    metrics = {"P&R <x>": lv.losses.accuracy}
    pair = [lv.random_direction(net, seed=seed) for seed in (1, 2)]
    drawn = lv.plane(lv.Objective(net, data, metrics=metrics), *pair, points=3)
    interchange.write_vtk(drawn, tmp_path / "s.vts")
    found = ElementTree.parse(tmp_path / "s.vts").iter("DataArray")
    assert "P&R <x>" in {each.get("Name") for each in found}
    attributes = pytest.importorskip("xarray") and drawn.to_xarray().attrs
    assert all(isinstance(value, (str, int, float)) for value in attributes.values())
    assert json.loads(attributes["spec"]) == drawn.meta["spec"]


def test_values_without_a_number_are_in_the_sheet_to_the_last_bit(tmp_path):
    s = plane()
    s.values["loss"][0, :2] = np.inf, np.nan
    interchange.write_vtk(s, tmp_path / "s.vts", log=False)
    for each in ElementTree.parse(tmp_path / "s.vts").iter("DataArray"):
        assert each.get("format") == "binary"  # in text, VTK reads no inf and no nan
        if each.get("Name") == "loss":
            raw = base64.b64decode(each.text)
    assert int.from_bytes(raw[:4], "little") == len(raw) - 4
    np.testing.assert_array_equal(np.frombuffer(raw[4:], "<f8"), s.values["loss"].ravel())


def test_a_sheet_must_end_as_its_reader_expects(tmp_path):
    with pytest.raises(ValueError, match=r"….vts; got 's.vtk'"):
        interchange.write_vtk(plane(), tmp_path / "s.vtk")
    assert not list(tmp_path.iterdir())
