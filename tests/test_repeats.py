from functools import partial

import numpy as np
import pytest
import torch

from lossviz import models
from lossviz.repeats import Table, Trained, fit_each, measure_each

MAKE = partial(models.mlp, (6,))
SHARED = {"epochs": 3, "lr": 0.1, "progress": False, "seeds": [0, 1]}
SETTINGS = {"small batch": {"batch_size": 4}, "large batch": {"batch_size": 24}}


def samples(n=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, 1, 8, 8, generator=generator)
    return inputs, torch.randint(0, 10, (n,), generator=generator)


def test_there_is_one_net_for_each_setting_and_seed():
    nets = fit_each(MAKE, samples(), SETTINGS, **SHARED)
    assert list(nets) == ["small batch", "large batch"]
    assert [net.seed for net in nets["large batch"]] == [0, 1]
    assert all(net.run.settings["batch_size"] == 4 for net in nets["small batch"])
    assert nets["small batch"][1].run.settings["seed"] == 1


def test_nets_of_one_seed_start_alike():
    nets = fit_each(MAKE, samples(), SETTINGS, record="epoch", **SHARED)
    starts = [np.asarray(nets[label][0].run.trajectory)[0] for label in nets]
    assert np.array_equal(*starts)


def test_a_run_may_end_at_the_loss_of_its_twin():
    settings = {
        "small batch": {"batch_size": 4},
        "patient": {"batch_size": 24, "epochs": 300, "same_loss_as": "small batch"},
    }
    nets = fit_each(MAKE, samples(), settings, schedule="constant", **SHARED)
    for twin, patient in zip(*nets.values(), strict=True):
        goal = twin.run.history[-1]["train_loss"]
        rows = [row["train_loss"] for row in patient.run.history]
        assert rows[-1] <= goal < rows[-2]


def test_a_twin_that_is_not_trained_before_is_refused():
    settings = {"patient": {"batch_size": 24, "same_loss_as": "small batch"}, **SETTINGS}
    with pytest.raises(ValueError, match="'small batch', which does not come before it"):
        fit_each(MAKE, samples(), settings, **SHARED)


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="at least one setting"):
        fit_each(MAKE, samples(), {}, **SHARED)


def test_a_folder_keeps_the_runs(tmp_path):
    first = fit_each(MAKE, samples(), SETTINGS, folder=tmp_path, **SHARED)
    written = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert len(written) >= 4
    again = fit_each(MAKE, samples(), SETTINGS, folder=tmp_path, **SHARED)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == written
    for label in first:
        for one, other in zip(first[label], again[label], strict=True):
            assert all(torch.equal(w, other.run.weights[k]) for k, w in one.run.weights.items())


def test_training_leaves_the_number_of_threads_as_it_was():
    before = torch.get_num_threads()
    fit_each(MAKE, samples(), SETTINGS, **SHARED)
    assert torch.get_num_threads() == before


def test_measuring_gives_one_number_a_net():
    nets = {"a": [Trained("a", s, None, None) for s in (3, 4)]}
    assert measure_each(nets, lambda net: 2 * net.seed)["a"].tolist() == [6.0, 8.0]


def test_a_table_shows_medians_and_ends_with_no_more_digits_than_asked():
    values = {"a": [0.01234, 0.02, 0.5], "b": [np.nan, 1234.0, 20.0], "c": [7e-9]}
    told = repr(Table({"x": values}))
    assert "0.020 (0.012 … 0.50)" in told
    assert "(" not in told.splitlines()[2]  # nan three times is said once
    assert "7.0e-09" in told


def test_a_table_with_different_labels_is_refused():
    with pytest.raises(ValueError, match="the same labels"):
        Table({"x": {"a": [1]}, "y": {"b": [1]}})
