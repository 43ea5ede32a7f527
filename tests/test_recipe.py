"""Settings at the door, and the step size over time."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossviz.recipe import Recipe

PLAIN = {"epochs": 10, "batch_size": 4, "lr": 0.1}


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"lr": 0.0},
        {"lr": -1.0},
        {"lr": math.nan},
        {"lr": math.inf},
        {"weight_decay": -1e-4},
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"warmup": 11},
        {"warmup": -1},
        {"optimizer": "rmsprop"},
        {"schedule": "linear"},
        {"seed": -1},
        {"seed": 2**32},
        {"record": 0},
        {"stop_at_loss": math.nan},
        {"optimizer": "nesterov", "momentum": 0.0},
    ],
)
def test_a_value_out_of_range_is_one_sentence_with_its_name(change):
    with pytest.raises(ValueError) as caught:
        Recipe(**{**PLAIN, **change})
    assert next(reversed(change)) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 2.5},
        {"epochs": True},
        {"batch_size": "64"},
        {"lr": "0.1"},
        {"lr": None},
        {"seed": 0.5},
        {"record": "step"},
        {"record": 2.0},
        {"warmup": None},
        {"bfloat16": 1},
    ],
)
def test_a_value_of_another_kind_is_a_type_error_with_its_name(change):
    with pytest.raises(TypeError, match=next(iter(change))):
        Recipe(**{**PLAIN, **change})


def test_cosine_falls_from_lr_to_zero():
    recipe = Recipe(**PLAIN, schedule="cosine")
    assert recipe.step_size(0.0, 0.01) == 0.1
    assert recipe.step_size(0.5, 0.51) == pytest.approx(0.05)
    assert recipe.step_size(1.0, 1.0) == pytest.approx(0.0, abs=1e-12)


def test_step_divides_by_ten_at_the_papers_milestones():
    recipe = Recipe(epochs=300, batch_size=4, lr=0.1, schedule="step")
    sizes = [recipe.step_size(epoch / 300, (epoch + 1) / 300) for epoch in range(300)]
    drops = [epoch for epoch in range(1, 300) if sizes[epoch] < sizes[epoch - 1]]
    assert drops == [150, 225, 275]
    assert sizes[-1] == pytest.approx(1e-4)


def test_constant_stays():
    recipe = Recipe(**PLAIN, schedule="constant")
    assert {recipe.step_size(x / 7, (x + 1) / 7) for x in range(7)} == {0.1}


def test_warmup_rises_linearly_and_the_first_step_is_not_zero():
    recipe = Recipe(epochs=10, batch_size=4, lr=1.0, schedule="constant", warmup=1)
    sizes = [recipe.step_size(k / 40, (k + 1) / 40) for k in range(5)]  # 4 steps an epoch
    assert sizes == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


@given(st.floats(0, 0.999), st.sampled_from(["cosine", "step", "constant"]), st.floats(0, 10))
def test_the_step_size_never_leaves_zero_to_lr(done, schedule, warmup):
    recipe = Recipe(**PLAIN, schedule=schedule, warmup=warmup)
    assert 0 <= recipe.step_size(done, min(1.0, done + 0.01)) <= 0.1
