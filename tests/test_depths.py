import json

import numpy as np
import pytest
import torch

from lossviz import data, depths
from lossviz.depth_table import file_name, read_table
from lossviz.depths import combinations, compare, main, plane_row, train_depth
from lossviz.objective import Objective
from lossviz.split import Split
from lossviz.surface import Surface

SMALL = ["--depths", "8", "--widths", "2", "--seeds", "3", "4"]
SMALL += ["--epochs", "1", "--samples", "8", "--points", "3"]


class Few:
    """So few digits that a net trains in a moment."""

    train, test = data.digits().train[:640], data.digits().test[:20]


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(depths.data, "digits", lambda: Few)
    return Few


def net_of(seed=0, **kind):
    return {"depth": 8, "skip": True, "width": 2, "seed": seed, **kind}


def test_a_row_tells_kind_and_numbers_of_its_net():
    (found,) = compare(Few, [net_of()], epochs=1, samples=8, points=3, progress=False)
    assert found.row["depth"] == 8
    assert found.row["test_accuracy"] == pytest.approx(found.run.history[-1]["test_accuracy"], 1e-5)
    assert found.row["highest_loss"] == pytest.approx(found.surface.values["loss"].max(), rel=1e-5)


def test_the_plane_is_that_of_the_trained_net():
    (found,) = compare(Few, [net_of()], epochs=1, samples=8, points=3, progress=False)
    center = found.surface.values["loss"][1, 1]
    assert center == pytest.approx(Objective(found.net, Few.train[:8])(), rel=1e-5)


def test_the_share_better_than_guessing_is_that_below_the_logarithm_of_the_classes():
    loss = np.array([[0.5, 1.0, 2.0], [0.5, 0.1, 1.2], [np.nan, np.inf, 3.0]])
    row = plane_row(Surface((np.arange(3), np.arange(3)), {"loss": loss}, ()), classes=3)
    assert row["better_than_guessing"] == pytest.approx(4 / 9)  # ln 3 = 1.0986
    assert (row["lowest_loss"], row["highest_loss"]) == (0.1, 3.0)


def test_without_points_nets_are_trained_and_no_plane_is_drawn():
    (found,) = compare(Few, [net_of()], epochs=1, points=None, progress=False)
    assert found.surface is None
    assert "basins" not in found.row


def test_one_seed_gives_one_net_and_another_seed_another():
    runs = [train_depth(Few, 8, skip=False, width=2, seed=s, epochs=1)[1] for s in (0, 0, 1)]
    same, again, other = (run.weights["conv1.weight"] for run in runs)
    assert torch.equal(same, again)
    assert not torch.equal(same, other)


def test_the_recipe_arrives_in_the_run():
    run = train_depth(Few, 8, skip=False, width=2, lr=0.02, warmup=1, epochs=2)[1]
    assert (run.settings["lr"], run.settings["warmup"]) == (0.02, 1)


def test_a_start_that_looks_linear_is_used_for_training():
    starts = [train_depth(Few, 8, skip=False, width=2, start=s, epochs=1)[1] for s in depths.STARTS]
    assert starts[0].history[0]["weight_norm"] != starts[1].history[0]["weight_norm"]
    with pytest.raises(ValueError, match="start must be 'he' or 'looks linear'"):
        train_depth(Few, 8, skip=False, start="cold")


def test_combinations_are_all_of_them():
    assert len(combinations(depth=[8, 14, 20], skip=[True, False], seed=range(5))) == 30


def test_the_command_writes_rows_planes_and_weights(few, tmp_path):
    main(["--out", str(tmp_path), *SMALL, "--skips", "plain", "--weights", "8"])
    rows = read_table(tmp_path / "table.json")
    assert [(row["seed"], row["skip"]) for row in rows] == [(3, False), (4, False)]
    name = "resnet8_plain_width2_seed3"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{name}.npz", f"{name}.safetensors", "table.json",
    ]  # fmt: skip
    assert Surface.load(tmp_path / f"{name}.npz").shape == (3, 3)
    assert np.isfinite([row["start_growth"] for row in rows]).all()


def test_a_stopped_command_goes_on_where_it_was(few, tmp_path, monkeypatch):
    main(["--out", str(tmp_path), *SMALL, "--skips", "plain"])
    before = read_table(tmp_path / "table.json")
    trained = []
    real = depths.train_depth
    monkeypatch.setattr(depths, "train_depth", lambda *a, **k: trained.append(k) or real(*a, **k))
    main(["--out", str(tmp_path), *SMALL])
    assert [k["skip"] for k in trained] == [True, True]
    assert all(row in read_table(tmp_path / "table.json") for row in before)
    main(["--out", str(tmp_path), *SMALL, "--again"])
    assert len(trained) == 6
    assert len(read_table(tmp_path / "table.json")) == 4


def test_the_table_of_the_lesson_has_no_net_twice():
    options = depths._parser().parse_args(["--out", "x"])
    names = [file_name(which) for which, _ in depths._wanted(options)]
    assert len(names) == len(set(names)) == 70 + 20 + 9 + 6


def test_numbers_that_are_not_finite_are_no_numbers_in_the_table(tmp_path):
    row = {k: depths._rounded(x) for k, x in {**net_of(), "loss": float("inf")}.items()}
    depths._write(tmp_path / "table.json", [row])
    assert json.loads((tmp_path / "table.json").read_text())["rows"][0]["loss"] is None
    assert isinstance(Few.train, Split)
