"""Batches that grow by a schedule."""

import json

import numpy as np
import pytest
import torch

from lossviz.adaptive import AdaptiveBatch
from lossviz.growing import GrowingBatch
from lossviz.models import mlp
from lossviz.training import fit


def data(n=40):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, 5, generator=generator)
    return inputs, inputs.argmax(1)


def run(batch=None, **more):
    model = mlp((6,), inputs=5, classes=5, seed=0)
    batch = GrowingBatch(initial=4, factor=3, every=2) if batch is None else batch
    settings = {"epochs": 8, "lr": 0.1, "progress": False, **more}
    return fit(model, data(), batch_size=batch, **settings)


def test_the_batch_is_multiplied_every_few_epochs_until_it_holds_all_samples():
    assert run().column("batch_size").tolist() == [4, 4, 4, 12, 12, 36, 36, 40, 40]


def test_an_epoch_sees_each_sample_once():
    found = run()
    assert found.column("gradient_evaluations").tolist() == [40.0 * k for k in range(9)]
    assert np.diff(found.column("steps")).tolist() == [10, 10, 4, 4, 2, 2, 1, 1]


def test_the_size_of_each_step_is_recorded():
    found = run(epochs=3)
    assert found.growth["batch_size"].tolist() == [4] * 20 + [12] * 4
    assert np.isnan(found.growth["signal"]).all()


def test_before_its_first_growth_it_is_a_fixed_batch():
    grown, fixed = run(GrowingBatch(initial=4, every=8)), run(4)
    assert all(torch.equal(grown.weights[name], fixed.weights[name]) for name in fixed.weights)


def test_a_size_needs_not_be_a_whole_multiple():
    batch = GrowingBatch(initial=10, factor=1.25, every=1)
    sizes = [batch.size(k, n_samples=10**6) for k in range(4)]
    assert sizes == [10, 12, 16, 20]


def test_a_far_epoch_holds_all_samples():
    assert GrowingBatch(factor=1e9, every=1).size(10**9, n_samples=50) == 50


def test_interrupted_and_resumed_is_the_same_as_not(tmp_path):
    def stop(share, history):
        if share > 0.6:
            raise KeyboardInterrupt

    whole = run()
    assert run(path=tmp_path / "run", progress=stop).interrupted
    again = run(path=tmp_path / "run")
    facts = [[{**row, "seconds": 0} for row in each.history] for each in (whole, again)]
    assert json.dumps(facts[0]) == json.dumps(facts[1])
    assert all(torch.equal(again.weights[name], whole.weights[name]) for name in whole.weights)
    assert again.growth["batch_size"].tolist() == whole.growth["batch_size"].tolist()


def test_another_schedule_is_another_run(tmp_path):
    run(path=tmp_path / "run")
    for other in (GrowingBatch(initial=4, factor=2, every=2), AdaptiveBatch(initial=4)):
        with pytest.raises(ValueError, match="adaptive="):
            run(other, path=tmp_path / "run")


@pytest.mark.parametrize("setting", [{"initial": 0}, {"every": 0}, {"factor": 1}])
def test_a_setting_out_of_range_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        GrowingBatch(**setting)


@pytest.mark.parametrize("setting", [{"initial": 4.0}, {"every": True}])
def test_a_setting_of_another_kind_is_refused(setting):
    with pytest.raises(TypeError, match=next(iter(setting))):
        GrowingBatch(**setting)


def test_a_first_batch_beyond_the_data_is_refused():
    with pytest.raises(ValueError, match="at most 40"):
        run(GrowingBatch(initial=41))
