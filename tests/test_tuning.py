"""Each method at its own best settings."""

from functools import partial

import numpy as np
import pytest
import torch

from lossviz.models import mlp
from lossviz.repeats import fit_each
from lossviz.tuning import tune

MAKE = partial(mlp, (6,), inputs=5, classes=5)
SHARED = {"epochs": 3, "progress": False, "momentum": 0.0}
CHOICES = {
    "small batch": [{"batch_size": 4, "lr": lr} for lr in (1e-6, 0.1)],
    "large batch": [{"batch_size": 20, "lr": lr} for lr in (0.1, 1e-6, 1e-5)],
}


def samples(n=20):
    inputs = torch.randn(n, 5, generator=torch.Generator().manual_seed(0))
    return inputs, inputs.argmax(1)


def test_each_method_gets_the_choice_of_its_lowest_loss():
    found = tune(MAKE, samples(), CHOICES, seeds=[3, 4], **SHARED)
    assert found.best == {
        "small batch": {"batch_size": 4, "lr": 0.1},
        "large batch": {"batch_size": 20, "lr": 0.1},
    }


def test_the_losses_are_those_of_the_runs():
    found = tune(MAKE, samples(), CHOICES, seeds=[3, 4], **SHARED)
    assert found.losses["large batch"].shape == (3, 2)
    nets = fit_each(MAKE, samples(), {"one": CHOICES["large batch"][2]}, seeds=[3, 4], **SHARED)
    ends = [net.run.history[-1]["train_loss"] for net in nets["one"]]
    assert found.losses["large batch"][2].tolist() == ends


def test_a_choice_that_diverges_is_never_the_best():
    choices = {"small batch": [{"batch_size": 4, "lr": lr} for lr in (1e30, 0.1)]}
    found = tune(MAKE, samples(), choices, seeds=[3], **SHARED)
    assert np.isinf(found.losses["small batch"][0]).all()
    assert found.best["small batch"]["lr"] == 0.1


def test_a_method_without_a_choice_is_refused():
    with pytest.raises(ValueError, match="'large batch' has no choice"):
        tune(MAKE, samples(), {**CHOICES, "large batch": []}, seeds=[3], **SHARED)


def test_a_method_of_which_every_choice_diverges_has_no_best():
    data = torch.randn(20, 64), torch.randint(3, (20,))
    shared = {"seeds": [0, 1], "epochs": 2, "batch_size": 5, "progress": False}
    with pytest.raises(ValueError, match="every choice of 'SGD' diverged"):
        tune(partial(mlp, (8,)), data, {"SGD": [{"lr": 1e30}, {"lr": 1e32}]}, **shared)
