import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lossviz.depth_table import (
    file_name,
    pick,
    read_table,
    spread_table,
    stored_net,
    stored_plane,
)
from lossviz.models import resnet
from lossviz.normalization import random_direction
from lossviz.objective import Objective
from lossviz.planes import plane

BY = ["depth", "skip", "width"]
ROWS = [
    {
        "depth": 8,
        "skip": True,
        "width": 8,
        "seed": 0,
        "start": "he",
        "lr": 0.1,
        "warmup": 0,
    },
    {
        "depth": 56,
        "skip": False,
        "width": 8,
        "seed": 0,
        "start": "he",
        "lr": 0.1,
        "warmup": 0,
    },
    {
        "depth": 56,
        "skip": False,
        "width": 8,
        "seed": 0,
        "start": "he",
        "lr": 0.01,
        "warmup": 0,
    },
    {
        "depth": 56,
        "skip": False,
        "width": 4,
        "seed": 1,
        "start": "he",
        "lr": 0.1,
        "warmup": 0,
    },
]


@pytest.fixture
def data(tmp_path, monkeypatch):
    (tmp_path / "depths").mkdir()
    (tmp_path / "depths" / "table.json").write_text(json.dumps({"rows": ROWS}))
    monkeypatch.setenv("LOSSVIZ_DATA", str(tmp_path))
    return tmp_path / "depths"


def test_the_shipped_table_is_read_by_default(data):
    assert read_table() == read_table(data / "table.json") == ROWS


def test_rows_of_the_usual_recipe_are_picked_unless_another_is_named():
    assert pick(ROWS, depth=56, skip=False) == [ROWS[1], ROWS[3]]
    assert pick(ROWS, depth=56, lr=0.01) == [ROWS[2]]


def test_a_list_picks_several_values():
    assert pick(ROWS, width=[4, 8], lr=[0.1, 0.01]) == ROWS


def test_a_kind_that_is_not_in_the_table_is_named():
    with pytest.raises(ValueError, match="has depth 57"):
        pick(ROWS, depth=57)


def test_each_kind_of_net_has_a_file_name_of_its_own():
    kinds = [
        {},
        {"width": 4},
        {"seed": 1},
        {"lr": 0.01},
        {"warmup": 3},
        {"start": "looks linear"},
    ]
    names = {file_name({"depth": 56, "skip": skip, **kind}) for kind in kinds for skip in (0, 1)}
    assert len(names) == 2 * len(kinds)
    assert not any(" " in name for name in names)


def test_a_stored_plane_is_that_of_the_kind_asked_for(data):
    layer = torch.nn.Linear(2, 2)
    loss = Objective(layer, (torch.ones(3, 2), torch.zeros(3, dtype=torch.int64)))
    u, v = (random_direction(layer, seed=seed) for seed in (1, 2))
    surface = plane(loss, u, v, points=3, progress=False)
    surface.save(data / f"{file_name(ROWS[2])}.npz")
    stored = stored_plane(56, skip=False, lr=0.01)
    assert np.array_equal(stored.values["loss"], surface.values["loss"])
    with pytest.raises(FileNotFoundError, match=r"resnet56_plain_width8_seed0\.npz"):
        stored_plane(56, skip=False)


def test_a_stored_net_has_the_stored_weights_in_eval_mode(data):
    net = resnet(8, width=4, seed=5)
    save_file(net.state_dict(), data / "resnet8_skip_width4_seed0.safetensors")
    stored = stored_net(8, skip=True, width=4)
    assert torch.equal(stored.conv1.weight, net.conv1.weight)
    assert not stored.training


def test_each_kind_of_net_has_a_line_with_its_spread_and_its_number():
    rows = [{"depth": 8, "skip": False, "width": 4, "loss": x} for x in (5.0, 1.0, 3.0)]
    told = spread_table([*rows, {"depth": 20, "skip": True, "loss": 2.0}], ["loss"], by=BY)
    assert told.columns["loss"] == {
        "8, plain, width 4; n = 3": [5.0, 1.0, 3.0],
        "20, skip, width 8; n = 1": [2.0],
    }


def test_a_number_that_was_not_finite_is_told_as_nan():
    assert "nan" in repr(spread_table([{"depth": 8, "loss": None}], ["loss"], by=["depth"]))


def test_no_table_and_a_damaged_one_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no table"):
        read_table(tmp_path / "none.json")
    for text in ("[1", "[]", '{"rows": [{"depth": 8}]}', '{"rows": [1]}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match="is damaged"):
            read_table(tmp_path / "bad.json")
