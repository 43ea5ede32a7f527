"""Training, what is measured on the way, and runs that stop and go on."""

import copy
import json
import math
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

import lossviz.checkpoint as checkpoint_module
import lossviz.training as training_module
from lossviz.losses import squared_error
from lossviz.storage import fingerprint
from lossviz.training import fit

PLAIN = {"epochs": 3, "batch_size": 8, "lr": 0.1, "progress": False}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def data(n=40, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, 6, generator=generator)
    targets = (inputs @ torch.randn(6, 3, generator=generator)).argmax(1)
    return inputs.to(dtype), targets


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def flat(model):
    tensors = [*model.parameters(), *model.buffers()]
    return torch.cat([t.detach().reshape(-1).double() for t in tensors])


def without_seconds(run):
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in run.history]
    return json.dumps(rows)


# --- the steps ---------------------------------------------------------------------------------


def plain_loop(model, samples, make_optimizer, epochs, lr):
    """All samples in each step, cosine to zero: what fit must do, in torch's own words."""
    optimizer = make_optimizer(model.parameters())
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        optimizer.zero_grad()
        F.cross_entropy(model(samples[0]), samples[1]).backward()
        optimizer.step()


def test_steps_in_bfloat16_are_those_of_autocast_and_leave_weights_in_their_precision():
    (inputs, targets), model, other = data(64), net(), net()
    run = fit(model, (inputs, targets), epochs=6, batch_size=64, lr=0.1, bfloat16=True)
    optimizer = torch.optim.SGD(other.parameters(), 0.1, momentum=0.9)
    for epoch in range(6):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * epoch / 6))
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):  # anew at each step, as its authors mean it
            loss = F.cross_entropy(other(inputs), targets)
        loss.backward()
        optimizer.step()
    assert flat(model) == pytest.approx(flat(other), abs=2e-3)  # the order of a sum, rounded
    assert (flat(model) - flat(net())).norm() > 0.1
    exact = fit(net(), (inputs, targets), epochs=6, batch_size=64, lr=0.1)
    gap = run.history[-1]["train_loss"] / exact.history[-1]["train_loss"] - 1
    assert 0 < abs(gap) < 0.02
    assert {w.dtype for w in run.weights.values()} == {torch.float32}


def test_a_run_in_bfloat16_goes_on_to_the_same_bits_and_as_no_other(path):
    settings = {**PLAIN, "bfloat16": True}
    whole = fit(net(), data(), **settings)
    fit(net(), data(), path=path, **{**settings, "progress": stop_at(7)})
    with pytest.raises(ValueError, match=r"bfloat16=True.*bfloat16=False"):
        fit(net(), data(), path=path, **PLAIN)
    run = fit(net(), data(), path=path, **settings)
    assert without_seconds(run) == without_seconds(whole)


@pytest.mark.parametrize(
    "optimizer, make",
    [
        ("sgd", lambda p: torch.optim.SGD(p, 0.1, momentum=0.8, weight_decay=0.01)),
        (
            "nesterov",
            lambda p: torch.optim.SGD(p, 0.1, momentum=0.8, weight_decay=0.01, nesterov=True),
        ),
        ("adam", lambda p: torch.optim.Adam(p, 0.1, betas=(0.8, 0.999), weight_decay=0.01)),
    ],
)
def test_full_batch_steps_are_those_of_a_plain_loop(optimizer, make):
    samples, model = data(dtype=torch.float64), net().double()
    oracle = copy.deepcopy(model).train()
    plain_loop(oracle, samples, make, 5, 0.1)
    fit(
        model, samples, epochs=5, batch_size=40, lr=0.1, weight_decay=0.01,
        optimizer=optimizer, momentum=0.8, progress=False,
    )  # fmt: skip
    torch.testing.assert_close(flat(model), flat(oracle), rtol=1e-10, atol=1e-12)


def seen_batches(n, batch_size, epochs=2, seed=0):
    """Return the samples of each training batch: inputs count them."""
    inputs = torch.arange(float(n)).reshape(n, 1)
    seen = []

    def loss(model, batch):
        if torch.is_grad_enabled():
            seen.append(batch[0].flatten().int().tolist())
        return model(batch[0]).square().mean()

    fit(
        nn.Linear(1, 1), (inputs, torch.zeros(n)), epochs=epochs, batch_size=batch_size,
        lr=1e-9, loss=loss, seed=seed, progress=False,
    )  # fmt: skip
    return seen


def test_an_epoch_sees_each_sample_once():
    seen = seen_batches(20, 6)
    assert [len(batch) for batch in seen] == [6, 6, 6, 2] * 2
    for epoch in (seen[:4], seen[4:]):
        assert sorted(sample for batch in epoch for sample in batch) == list(range(20))


def test_two_epochs_have_two_orders():
    seen = seen_batches(20, 20)
    assert seen[0] != seen[1]


def test_a_rest_of_one_sample_joins_the_batch_before():
    assert [len(batch) for batch in seen_batches(13, 4)] == [4, 4, 5] * 2


def test_batches_of_one_sample_stay_single():
    assert [len(batch) for batch in seen_batches(3, 1)] == [1] * 6


def test_the_seed_rules_the_order():
    assert seen_batches(20, 5, seed=1) == seen_batches(20, 5, seed=1)
    assert seen_batches(20, 5, seed=1) != seen_batches(20, 5, seed=2)


def test_same_seed_same_start_same_bits():
    runs = [fit(net(), data(), test=data(9, 1), **PLAIN) for _ in range(2)]
    assert without_seconds(runs[0]) == without_seconds(runs[1])
    np.testing.assert_array_equal(runs[0].trajectory.matrix, runs[1].trajectory.matrix)


def test_dropout_obeys_the_seed_and_leaves_the_callers_random_numbers_alone():
    def trained():
        model = nn.Sequential(net(), nn.Dropout(0.5))
        torch.manual_seed(99)
        fit(model, data(), seed=4, **PLAIN)
        return flat(model), torch.rand(1)

    (first, number), (second, again) = trained(), trained()
    torch.manual_seed(99)
    assert torch.equal(first, second) and number == again == torch.rand(1)


def test_training_starts_from_the_weights_the_model_has():
    model = net(5)
    start = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    run = fit(model, data(), **PLAIN)
    np.testing.assert_array_equal(run.trajectory.matrix[0], start.numpy())


def test_it_trains_in_place_and_leaves_eval_mode_and_no_gradients():
    model = net().train()
    run = fit(model, data(), **PLAIN)
    assert not any(module.training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    for name, weight in model.named_parameters():
        assert torch.equal(weight, run.weights[name])


def images(n=24):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, 2, 6, 6, generator=generator)
    return inputs, (inputs.mean((1, 2, 3)) > 0).long()


def convolutional():
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    return nn.Sequential(first, nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(12, 2))


def test_convolutions_have_their_memory_layout_back():
    model = convolutional()
    strides = [w.stride() for w in model.parameters()]
    run = fit(model, images(), **PLAIN)
    assert [w.stride() for w in model.parameters()] == strides
    assert all(w.is_contiguous() for w in run.weights.values())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_convolutional_run_goes_on_to_the_same_bits(optimizer, tmp_path):
    settings = {**PLAIN, "optimizer": optimizer, "path": tmp_path / "run"}
    whole = fit(convolutional(), images(), **{**settings, "path": None})
    fit(convolutional(), images(), **{**settings, "progress": stop_at(5)})
    run = fit(convolutional(), images(), **settings)
    assert without_seconds(run) == without_seconds(whole)
    np.testing.assert_array_equal(run.trajectory.matrix, whole.trajectory.matrix)


def test_the_weights_of_a_run_are_a_copy():
    model = net()
    run = fit(model, data(), **PLAIN)
    before = run.weights["0.weight"].clone()
    nn.init.zeros_(model[0].weight)
    assert torch.equal(run.weights["0.weight"], before)


def test_frozen_parameters_stay_and_are_recorded():
    model = net()
    model[0].requires_grad_(False)
    run = fit(model, data(), weight_decay=0.1, **PLAIN)
    assert torch.equal(run.trajectory[0]["0.weight"], run.trajectory[-1]["0.weight"])
    assert not torch.equal(run.trajectory[0]["3.weight"], run.trajectory[-1]["3.weight"])


def test_a_loss_may_give_sum_and_count():
    def pair(model, batch):
        return F.cross_entropy(model(batch[0]), batch[1], reduction="sum"), len(batch[0])

    models = [net().double(), net().double()]
    samples = data(dtype=torch.float64)
    fit(models[0], samples, loss=pair, **PLAIN)
    fit(models[1], samples, **PLAIN)
    torch.testing.assert_close(flat(models[0]), flat(models[1]), rtol=1e-10, atol=1e-12)


def test_targets_may_be_a_list_of_anything():
    inputs, _ = data(12)
    boxes = [{"boxes": torch.full((k % 3, 4), float(k))} for k in range(12)]
    seen = []

    def loss(model, batch):
        seen.extend(len(found["boxes"]) == int(x[0]) for x, found in zip(*batch, strict=True))
        return model(batch[0]).square().mean()

    inputs[:, 0] = torch.arange(12) % 3
    fit(net(), (inputs, boxes), loss=loss, **PLAIN)
    assert seen and all(seen)


def test_regression_with_another_loss_has_no_accuracy():
    inputs, _ = data()
    run = fit(nn.Linear(6, 2), (inputs, inputs[:, :2]), loss=squared_error, **PLAIN)
    assert "train_accuracy" not in run.history[0]
    assert run.history[-1]["train_loss"] < run.history[0]["train_loss"]


# --- the history -------------------------------------------------------------------------------


def test_the_last_row_is_what_the_returned_net_gives_in_eval_mode():
    model, train, test = net(), data(), data(17, 1)
    row = fit(model, train, test=test, **PLAIN).history[-1]
    with torch.no_grad():
        for name, (inputs, targets) in {"train": train, "test": test}.items():
            scores = model(inputs)
            assert row[f"{name}_loss"] == pytest.approx(float(F.cross_entropy(scores, targets)))
            right = (scores.argmax(1) == targets).double().mean()
            assert row[f"{name}_accuracy"] == float(right)


def test_row_zero_is_before_training():
    model, train = net(), data()
    with torch.no_grad():
        expected = float(F.cross_entropy(model.eval()(train[0]), train[1]))
    row = fit(model, train, **PLAIN).history[0]
    assert row["train_loss"] == pytest.approx(expected)
    assert row["epoch"] == row["steps"] == row["gradient_evaluations"] == 0


def test_counts_add_up_over_the_epochs():
    run = fit(net(), data(30), **PLAIN)
    assert list(run.column("steps")) == [0, 4, 8, 12]
    assert list(run.column("gradient_evaluations")) == [0, 30, 60, 90]
    assert list(run.column("batch_size")) == [8] * 4
    assert (np.diff(run.column("seconds")) > 0).all()


def test_the_weight_norm_is_over_all_parameters():
    model = net()
    row = fit(model, data(), **PLAIN).history[-1]
    expected = nn.utils.parameters_to_vector(model.parameters()).norm()
    assert row["weight_norm"] == pytest.approx(expected.item())


def test_the_gradient_norm_of_a_full_batch_is_that_of_the_loss():
    model, train = net().double(), data(dtype=torch.float64)
    same = copy.deepcopy(model).train()
    F.cross_entropy(same(train[0]), train[1]).backward()
    expected = torch.cat([p.grad.flatten() for p in same.parameters()]).norm()
    run = fit(model, train, epochs=1, batch_size=40, lr=0.1, progress=False)
    assert run.history[1]["gradient_norm"] == pytest.approx(float(expected), rel=1e-12)


def test_the_gradient_norm_survives_squares_beyond_single_precision():
    def huge(model, batch):
        return 1e30 * model(batch[0]).mean()

    inputs, targets = data()
    run = fit(nn.Linear(6, 1), (inputs, targets), loss=huge, epochs=1, batch_size=8,
              lr=1e-31, progress=False)  # fmt: skip
    assert 1e29 < run.history[1]["gradient_norm"] < 1e32


def test_lr_in_the_history_is_the_mean_of_the_epochs_steps():
    run = fit(net(), data(32), epochs=2, batch_size=16, lr=1.0, progress=False)
    cosine = [0.5 * (1 + math.cos(math.pi * k / 4)) for k in range(4)]
    assert run.column("lr")[1:] == pytest.approx([np.mean(cosine[:2]), np.mean(cosine[2:])])


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(KeyError, match="train_loss"):
        fit(net(), data(), **PLAIN).column("test_loss")


def test_training_lowers_the_loss():
    run = fit(net(), data(), epochs=20, batch_size=8, lr=0.1, progress=False)
    assert run.column("train_loss")[-1] < 0.3 * run.column("train_loss")[0]


def test_it_stops_after_the_first_epoch_at_the_goal():
    settings = {"epochs": 20, "batch_size": 8, "lr": 0.1, "progress": False}
    whole = fit(net(), data(), **settings).column("train_loss")
    goal = float(whole[6])
    losses = fit(net(), data(), stop_at_loss=goal, **settings).column("train_loss")
    assert losses[-1] <= goal and (losses[:-1] > goal).all() and len(losses) <= 7


def test_a_run_that_diverges_ends_and_says_so():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = fit(nn.Linear(6, 3), data(), epochs=50, batch_size=8, lr=1e30, momentum=0.99,
                  loss=lambda m, b: m(b[0]).square().mean(), progress=False)  # fmt: skip
    assert run.diverged and len(run.history) < 51
    assert not math.isfinite(run.history[-1]["weight_norm"])
    assert np.isfinite(run.trajectory.matrix).all()
    assert "diverged: take lr below 1e+30" in repr(run)


# --- the trajectory ----------------------------------------------------------------------------


def test_by_epoch_there_is_the_start_and_each_epochs_end():
    run = fit(net(), data(), **PLAIN)
    assert list(run.trajectory.steps) == [0, 5, 10, 15]


def test_every_k_steps_and_the_end():
    run = fit(net(), data(), record=4, **PLAIN)
    assert list(run.trajectory.steps) == [0, 4, 8, 12, 15]
    end = nn.utils.parameters_to_vector(run.weights.values())
    np.testing.assert_array_equal(run.trajectory.matrix[-1], end.numpy())


def test_nothing_is_recorded_on_request():
    assert fit(net(), data(), record=None, **PLAIN).trajectory is None


def test_a_large_trajectory_is_announced(monkeypatch, capsys):
    monkeypatch.setattr("lossviz.training.STATED_BYTES", 10)
    fit(net(), data(), **{**PLAIN, "progress": True})
    assert "The trajectory takes 0.00 GiB" in capsys.readouterr().out


# --- progress and interruption -----------------------------------------------------------------


def stop_at(steps):
    """Return a progress function that interrupts after so many steps."""
    calls = []

    def progress(share, history):
        calls.append(share)
        if len(calls) == steps:
            raise KeyboardInterrupt

    return progress


def test_progress_is_told_the_share_and_the_history():
    told = []
    run = fit(net(), data(), **{**PLAIN, "progress": lambda *facts: told.append(facts[0])})
    assert told == sorted(told) and told[-1] == 1.0
    assert len(told) == run.history[-1]["steps"] + 3  # and at each epoch's end


def test_an_interrupt_returns_what_there_is():
    model = net()
    run = fit(model, data(), **{**PLAIN, "progress": stop_at(9)})
    assert run.interrupted and "interrupted" in repr(run)
    assert [row["epoch"] for row in run.history] == [0, 1]
    assert list(run.trajectory.steps) == [0, 5, 8]
    assert not model.training
    assert torch.equal(run.weights["0.weight"], model[0].weight)


def test_an_error_in_the_loss_leaves_the_net_in_eval_mode():
    def loss(model, batch):
        if torch.is_grad_enabled():
            raise ZeroDivisionError
        return model(batch[0]).square().mean()

    model = net().train()
    with pytest.raises(ZeroDivisionError):
        fit(model, data(), loss=loss, **PLAIN)
    assert not model.training


# --- the door ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "train, words",
    [
        ((torch.zeros(0, 6), torch.zeros(0, dtype=torch.long)), "empty"),
        ((torch.zeros(9, 6), torch.zeros(8, dtype=torch.long)), "9 inputs and 8 targets"),
        ((torch.zeros(9, 6), torch.full((9,), 3)), r"0 … 2 .* got 3 … 3"),
        ((torch.zeros(9, 6), torch.full((9,), -1)), "0 … 2"),
        ((torch.full((9, 6), math.nan), torch.zeros(9, dtype=torch.long)), "not finite"),
        ((torch.zeros(9, 5), torch.zeros(9, dtype=torch.long)), "cannot take inputs of shape"),
        ((torch.zeros(7, 6), torch.zeros(7, dtype=torch.long)), "batch_size must be at most 7"),
    ],
)
def test_data_that_cannot_be_used_is_refused(train, words):
    with pytest.raises(ValueError, match=words):
        fit(net(), train, **PLAIN)


def test_floating_targets_are_refused():
    with pytest.raises(TypeError, match="int64"):
        fit(net(), (torch.zeros(9, 6), torch.zeros(9)), **PLAIN)


def test_the_test_split_is_checked_too():
    with pytest.raises(ValueError, match="0 … 2"):
        fit(net(), data(), test=(torch.zeros(2, 6), torch.tensor([0, 9])), **PLAIN)


def test_something_else_than_a_net_is_refused():
    with pytest.raises(TypeError, match=r"nn\.Module"):
        fit("resnet", data(), **PLAIN)
    with pytest.raises(TypeError, match="loss must be a function"):
        fit(net(), data(), loss="mse", **PLAIN)


def test_a_net_without_trainable_parameters_is_refused():
    with pytest.raises(ValueError, match="requires a gradient"):
        fit(net().requires_grad_(False), data(), **PLAIN)


def test_a_net_that_is_not_finite_is_refused():
    model = net()
    nn.init.constant_(model[0].weight, math.nan)
    with pytest.raises(ValueError, match="not all finite"):
        fit(model, data(), **PLAIN)


# --- on disk -----------------------------------------------------------------------------------

LONG = {"epochs": 5, "batch_size": 8, "lr": 0.1, "weight_decay": 1e-3, "record": 3}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adam"])
@pytest.mark.parametrize("steps", [1, 6, 8, 17, 29])
def test_interrupted_and_resumed_is_the_same_as_not(path, optimizer, steps):
    settings = {**LONG, "optimizer": optimizer, "test": data(9, 1)}
    whole = fit(net(), data(), progress=False, **settings)
    first = fit(net(), data(), path=path, progress=stop_at(steps), **settings)
    second = fit(net(), data(), path=path, progress=False, **settings)
    assert first.interrupted and not second.interrupted
    assert without_seconds(second) == without_seconds(whole)
    np.testing.assert_array_equal(second.trajectory.matrix, whole.trajectory.matrix)
    np.testing.assert_array_equal(second.trajectory.buffers, whole.trajectory.buffers)
    assert list(second.trajectory.steps) == list(whole.trajectory.steps)
    for name, weight in whole.weights.items():
        assert torch.equal(second.weights[name], weight)


def test_the_same_cell_run_again_goes_on_with_the_model_it_left(path):
    whole = fit(net(), data(), progress=False, **LONG)
    model = net()
    fit(model, data(), path=path, progress=stop_at(15), **LONG)
    run = fit(model, data(), path=path, progress=False, **LONG)
    assert without_seconds(run) == without_seconds(whole)


def test_a_finished_run_is_read_and_not_trained_again(path):
    whole = fit(net(), data(), path=path, progress=False, **LONG)
    model, calls = net(), []
    run = fit(model, data(), path=path, progress=lambda *facts: calls.append(1), **LONG)
    assert calls == []
    assert json.dumps(run.history) == json.dumps(whole.history)
    assert torch.equal(model[0].weight, whole.weights["0.weight"])
    assert list(run.trajectory.steps) == list(whole.trajectory.steps)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"lr": 0.2}, "lr=0.1, and this call has lr=0.2"),
        ({"epochs": 6}, "epochs=5"),
        ({"seed": 1}, "seed=0"),
        ({"record": "epoch"}, "record=3"),
        ({"optimizer": "adam"}, "optimizer='sgd'"),
        ({"train": data(seed=3)}, "training data"),
        ({"test": data(9)}, "test data"),
        ({"model": net(1)}, "initial weights"),
        ({"model": nn.Linear(6, 3)}, "initial weights"),
        ({"loss": squared_error, "train": (data()[0], torch.zeros(40, 3))}, "loss"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_the_difference_named(path, change, words):
    fit(net(), data(), path=path, progress=stop_at(8), **LONG)
    call = {"model": net(), "train": data(), "progress": False, "path": path, **LONG, **change}
    before = path.read_bytes()
    with pytest.raises(ValueError, match=words):
        fit(**call)
    assert path.read_bytes() == before


def rewritten(path, facts=None, tensors=None):
    """Replace parts of a stored run, as one who knows the format could."""
    with safe_open(path, framework="pt") as stored:
        about = stored.metadata()
        names = stored.keys()
        kept = {name: stored.get_tensor(name) for name in names}
    kept.update(tensors or {})
    text = json.dumps({**json.loads(about["facts"]), **(facts or {})})
    about = {"kind": about["kind"], "facts": text, "sum": fingerprint(kept, text)}
    path.write_bytes(safetensors.torch.save(kept, metadata=about))


def refused(path):
    """Check that the stored run is refused in one sentence and that the model is untouched."""
    model = net()
    before = flat(model)
    with pytest.raises(ValueError) as caught:
        fit(model, data(), path=path, progress=False, **LONG)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert torch.equal(flat(model), before)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: b"\x80\x04cos\nsystem\n(S'false'\ntR.",  # a pickle
        lambda content: (2**60).to_bytes(8, "little") + content[8:],  # a header without end
        lambda content: safetensors.torch.save({"weights.0.weight": torch.zeros(3)}),
    ],
)
def test_a_damaged_file_is_one_sentence_and_the_model_is_untouched(path, damage):
    fit(net(), data(), path=path, progress=stop_at(8), **LONG)
    path.write_bytes(damage(path.read_bytes()))
    refused(path)


@pytest.mark.parametrize(
    "facts",
    [
        {"history": []},
        {"history": 3},
        {"history": [1, 2]},
        {"history": [{"epoch": 5}]},
        {"settings": 0},
        {"settings": [["lr", 0.1]]},
    ],
)
def test_facts_that_make_no_run_are_one_sentence(path, facts):
    fit(net(), data(), path=path, progress=stop_at(8), **LONG)
    rewritten(path, facts)
    refused(path)


@pytest.mark.parametrize(
    "tensors",
    [
        {"weights.0.weight": torch.zeros(3)},
        {"weights.0.weight": torch.zeros(8, 6, dtype=torch.float64)},
        {"optimizer.0.momentum_buffer": torch.zeros(3)},
        {"optimizer.99.momentum_buffer": torch.zeros(3)},
        {"optimizer.x": torch.zeros(3)},
        {"recorded": torch.zeros(3, dtype=torch.int64)},
        {"growth": torch.zeros(5)},
    ],
)
def test_tensors_that_do_not_fit_are_one_sentence(path, tensors):
    fit(net(), data(), path=path, progress=stop_at(8), **LONG)
    rewritten(path, tensors=tensors)
    refused(path)


def test_a_history_with_a_gap_is_one_sentence(path):
    run = fit(net(), data(), path=path, progress=stop_at(14), **LONG)
    rewritten(path, {"history": run.history[1:]})
    refused(path)


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_goes_unseen(tmp_path_factory, place, bit):
    path = tmp_path_factory.getbasetemp() / "flipped.safetensors"
    if not path.exists():
        fit(net(), data(), path=path, progress=stop_at(8), **LONG)
    stored, content = checkpoint_module.Checkpoint(path).read(), path.read_bytes()
    spoilt = bytearray(content)
    spoilt[int(place * len(content))] ^= 1 << bit
    try:
        path.write_bytes(spoilt)
        tensors, facts, _ = checkpoint_module.Checkpoint(path).read()
    except ValueError as problem:
        assert "damaged" in str(problem)
    else:  # white space in the header
        assert facts == stored[1] and fingerprint(tensors) == fingerprint(stored[0])
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize(
    "stream",
    [
        None,
        {"bytes": -5, "crc32": 0},
        {"bytes": "9", "crc32": 0},
        {"bytes": 1e99, "crc32": 0},
        {"bytes": 0, "crc32": 1},
    ],
)
def test_a_wrong_account_of_the_trajectory_is_one_sentence(path, stream):
    fit(net(), data(), path=path, progress=stop_at(8), **LONG)
    rewritten(path, {"stream": stream})
    refused(path)


@pytest.mark.parametrize("change", [lambda b: b[:-4], lambda b: b"\xff" * len(b), lambda b: b""])
def test_a_damaged_trajectory_is_one_sentence(path, change):
    fit(net(), data(), path=path, progress=stop_at(8), **LONG)
    stream = path.with_name("run.safetensors.trajectory")
    stream.write_bytes(change(stream.read_bytes()))
    with pytest.raises(ValueError, match=r"trajectory.*missing or damaged"):
        fit(net(), data(), path=path, progress=False, **LONG)


def test_the_trajectory_is_appended_to_and_not_written_anew(path, monkeypatch):
    sizes = []
    append = checkpoint_module.Checkpoint._append
    monkeypatch.setattr(
        checkpoint_module.Checkpoint,
        "_append",
        lambda self, rows: (sizes.append(len(rows)), append(self, rows)),
    )
    run = fit(net(), data(), path=path, progress=False, **{**LONG, "record": "epoch"})
    row = 4 * (run.trajectory.shape[1] + run.trajectory.buffers.shape[1])
    assert sizes == [row] * 6


def test_a_missing_folder_is_refused_before_training(tmp_path):
    model = net()
    with pytest.raises(FileNotFoundError, match="no folder"):
        fit(model, data(), path=tmp_path / "nowhere" / "run", **PLAIN)
    assert torch.equal(flat(model), flat(net()))


def test_a_folder_without_permission_is_refused_before_training(path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(PermissionError, match="cannot be written"):
        fit(net(), data(), path=path, **PLAIN)


def full_disk(*args):
    raise OSError(28, "the disk is full")


def test_a_disk_that_is_full_at_the_start_is_refused_before_training(path, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "atomic_write", full_disk)
    model = net()
    with pytest.raises(OSError, match="disk is full"):
        fit(model, data(), path=path, **PLAIN)
    assert torch.equal(flat(model), flat(net()))


def test_a_disk_that_fills_up_costs_no_computed_result(path, monkeypatch):
    whole = fit(net(), data(), progress=False, **LONG)

    def progress(share, history):
        if len(history) == 3:
            monkeypatch.setattr(checkpoint_module, "atomic_write", full_disk)

    with pytest.warns(UserWarning, match="could not be stored .*disk is full"):
        run = fit(net(), data(), path=path, progress=progress, **LONG)
    assert without_seconds(run) == without_seconds(whole)
    monkeypatch.undo()
    again = fit(net(), data(), path=path, progress=False, **LONG)
    np.testing.assert_array_equal(again.trajectory.matrix, whole.trajectory.matrix)


def test_an_interrupt_while_the_disk_is_full_loses_nothing(path, monkeypatch):
    def progress(share, history):
        if len(history) == 2:
            monkeypatch.setattr(checkpoint_module, "atomic_write", full_disk)
        if len(history) == 4:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="could not be stored"):
        run = fit(net(), data(), path=path, progress=progress, **LONG)
    assert [row["epoch"] for row in run.history] == [0, 1, 2, 3]


KILLED = """
import os, signal, sys
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
import test_training as t
moment, count = sys.argv[2], int(sys.argv[3])
if moment != "never":
    module = {{"fsync": os, "replace": os, "write": t.checkpoint_module}}[moment]
    name = "atomic_write" if moment == "write" else moment
    real = getattr(module, name)
    calls = []
    def deadly(*args, **options):
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **options)
    setattr(module, name, deadly)
run = t.fit(t.net(), t.data(), path=sys.argv[1], progress=False, **t.LONG)
"""


def train_in_a_process(path, moment, count):
    script = KILLED.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", script, str(path), moment, str(count)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize(
    "moment, count",
    [
        ("fsync", 5),  # the trajectory is appended to, the state is old
        ("replace", 3),  # the new state is written and not in its place
        ("write", 1),  # nothing is there yet
    ],
)
def test_a_killed_process_goes_on_to_the_same_bits(path, moment, count):
    whole = fit(net(), data(), progress=False, **LONG)
    killed = train_in_a_process(path, moment, count)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run = fit(net(), data(), path=path, progress=False, **LONG)
    assert without_seconds(run) == without_seconds(whole)
    np.testing.assert_array_equal(run.trajectory.matrix, whole.trajectory.matrix)
    assert torch.equal(run.weights["3.weight"], whole.weights["3.weight"])


# --- the layout of convolutions meanwhile --------------------------------------------------------


@pytest.mark.parametrize(
    ("capability", "channels", "stride", "expected"),
    [
        ("AVX2", 4, 2, False),  # oneDNN writes past the end of this one's gradient
        ("DEFAULT", 12, 2, False),
        ("AVX2", 8, 2, True),
        ("AVX2", 4, 1, True),
        ("AVX512", 4, 2, True),
    ],
)
def test_kernels_lie_channels_last_where_that_is_safe(
    capability, channels, stride, expected, monkeypatch
):
    first, second = nn.Conv2d(2, channels, 3), nn.Conv2d(channels, 2, 1, stride=stride)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    with training_module._channels_last(nn.Sequential(first, second)):
        assert first.weight.is_contiguous(memory_format=torch.channels_last) == expected
    assert first.weight.is_contiguous()


def test_a_narrow_residual_net_trains_without_writing_past_its_memory():
    """In a process of its own, which would be killed; glibc's checks find it sooner or later."""
    code = """
import torch, lossviz as lv
train = lv.data.digits().train[:256]
for seed in range(2):
    net = lv.models.resnet(8, width=4, channels=1, seed=seed)
    lv.fit(net, train, epochs=3, batch_size=32, lr=0.1, progress=False)
print("trained")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "trained\n"), done.stderr
