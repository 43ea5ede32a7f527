"""How a detector is trained: precision and batch norms."""

import pytest
import torch

import lossviz as lv
from lossviz.detect import fit_detector
from lossviz.models.detector import ssdlite, tiny_ssd

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
