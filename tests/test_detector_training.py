"""How a detector is trained: precision and batch norms."""

import json

import pytest
import torch

import lossviz as lv
from lossviz.checkpoint import Checkpoint
from lossviz.detect import evaluate, fit_detector, main
from lossviz.models.detector import ssdlite, tiny_ssd
from lossviz.models.stored import load_weights

OPTIONS = {"steps": 120, "batch_size": 8, "lr": 0.003}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_training_in_bfloat16_comes_as_far_and_keeps_float32_weights():
    scenes, losses = lv.data.pedestrians(64, seed=0), {}
    for half in (False, True):
        net = tiny_ssd(seed=0)
        losses[half] = fit_detector(net, scenes, bfloat16=half, **OPTIONS)
        assert {w.dtype for w in net.parameters()} == {torch.float32}
    assert losses[True] != losses[False]
    ends = {half: sum(history[-20:]) / 20 for half, history in losses.items()}
    assert ends[True] == pytest.approx(ends[False], rel=0.15)
    assert ends[False] < 0.6 * losses[False][0]


def test_a_run_in_another_precision_is_not_gone_on_with(tmp_path):
    scenes, options = lv.data.pedestrians(4, seed=0), {"steps": 2, "batch_size": 2}
    fit_detector(tiny_ssd(seed=0), scenes, path=tmp_path / "run", **options)
    with pytest.raises(ValueError, match="other settings"):
        fit_detector(tiny_ssd(seed=0), scenes, path=tmp_path / "run", bfloat16=True, **options)


def test_batch_norms_learn_in_training_and_stand_still_afterwards():
    net, scenes = ssdlite(seed=0), lv.data.pedestrians(2, seed=0, size=64)
    before = net.state_dict()["backbone.features.0.0.1.running_mean"].clone()
    fit_detector(net, scenes, steps=1, batch_size=2)
    after = net.state_dict()["backbone.features.0.0.1.running_mean"].clone()
    assert not torch.equal(before, after) and not net.training
    net(scenes.images)
    assert torch.equal(net.state_dict()["backbone.features.0.0.1.running_mean"], after)


def test_the_commands_evaluate_a_run_and_write_its_weights_in_half_precision(tmp_path):
    run, told, half = (tmp_path / name for name in ("run", "told.json", "half.safetensors"))
    scale = ["--net", "tiny", "--images", "6"]
    main(["train", *scale, "--steps", "3", "--batch-size", "2", "--out", str(run)])
    main(["evaluate", *scale, "--weights", str(run), "--out", str(told)])
    read = json.loads(told.read_text())
    assert read["steps"] == len(read["losses"]) == 3
    assert read["images"] == {"drawn": 6, "coco_people": 12}
    main(["weights", *scale, "--weights", str(run), "--out", str(half)])
    net, stored = load_weights(tiny_ssd(seed=5), half), Checkpoint(run).read()[0]
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(tensor, stored[f"model.{name}"], rtol=1e-3, atol=1e-6)


def test_an_evaluation_is_that_of_the_scenes_no_training_draws(tmp_path):
    main(["evaluate", "--images", "6", "--out", str(tmp_path / "told.json")])
    told = json.loads((tmp_path / "told.json").read_text())
    unseen = lv.data.pedestrians(6, seed=1000)
    assert told["average_precision"]["drawn"] == evaluate(tiny_ssd(seed=0), unseen)


def test_a_run_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no run at .*give --weights"):
        main(["weights", "--weights", str(tmp_path / "none"), "--out", str(tmp_path / "w")])
