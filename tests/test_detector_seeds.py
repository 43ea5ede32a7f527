"""The small detector from several seeds: what comes with the kit, and what makes it."""

import json

import numpy as np
import pytest
import torch

import lossviz as lv
from lossviz import detector_seeds
from lossviz.detection import average_precision, detect_along
from lossviz.detector_seeds import main, read_seeds, seed_lines

torch.set_num_threads(1)


def test_five_seeds_come_with_the_kit_and_each_finds_more_after_training():
    rows = read_seeds()
    assert [row["seed"] for row in rows] == [0, 1, 2, 3, 4]
    for row in rows:
        precision = row["average_precision"]
        assert 0 <= precision["untrained"] < 0.1 < precision["trained"] <= 1


@pytest.mark.parametrize("state", ["trained", "untrained"])
def test_lines_hold_parts_that_add_up_and_the_precision_of_the_centre(state):
    rows = read_seeds()
    for row, line in zip(rows, seed_lines(rows, state), strict=True):
        parts = line.values["localisation"] + line.values["classification"]
        assert np.allclose(parts, line.values["loss"], rtol=1e-3)
        centre = line.values["average precision"][len(line.axes[0]) // 2]
        assert centre == pytest.approx(row["average_precision"][state], rel=1e-3)


def test_the_command_makes_the_seeds_that_are_missing(tmp_path, monkeypatch):
    small = {"width": 2, "scenes": 4, "steps": 2, "lr": 0.004}
    monkeypatch.setattr(detector_seeds, "SETTINGS", small)
    few = {"unseen": 6, "samples": 2, "points": 3}
    monkeypatch.setattr(detector_seeds, "MEASURED", {**detector_seeds.MEASURED, **few})
    out = tmp_path / "seeds.json"
    main(["--seeds", "3", "--out", str(out)])
    first = read_seeds(out)
    main(["--seeds", "3", "5", "--out", str(out)])
    assert [row["seed"] for row in read_seeds(out)] == [3, 5] and read_seeds(out)[:1] == first
    assert seed_lines(first)[0].axes[0].tolist() == [-1, 0, 1]


def test_damaged_seeds_and_an_unknown_state_are_refused(tmp_path):
    rows = read_seeds()
    with pytest.raises(ValueError, match="state must be 'trained' or 'untrained'"):
        seed_lines(rows, "half trained")
    for damaged in ("[", "{}", json.dumps({"rows": [{"seed": 0}]})):
        (tmp_path / "seeds.json").write_text(damaged)
        with pytest.raises(ValueError, match="is damaged: take it from the repository"):
            read_seeds(tmp_path / "seeds.json")


def test_detections_along_a_line_are_those_of_moved_weights_and_leave_the_net_alone():
    net, scenes = lv.models.tiny_ssd(64, width=4, seed=0), lv.data.pedestrians(5, seed=1)
    direction = lv.random_direction(net, seed=1)
    before = {name: w.clone() for name, w in net.named_parameters()}
    found = detect_along(net, direction, [0.0, 0.5], scenes.images, batch_size=2)
    assert all(torch.equal(w, before[name]) for name, w in net.named_parameters())
    for alpha, each in zip((0.0, 0.5), found, strict=True):
        moved = lv.models.tiny_ssd(64, width=4, seed=0)
        with torch.no_grad():
            for name, w in moved.named_parameters():
                w += alpha * direction[name]
            expected = moved(scenes.images)
        assert average_precision(each, scenes.targets) == average_precision(
            expected, scenes.targets
        )
        for ours, theirs in zip(each, expected, strict=True):
            assert torch.allclose(ours["boxes"], theirs["boxes"], atol=1e-3)
