import copy
import json
import math
import pickle
import threading
from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from little_nets import Residual, dense, loss_by_hand, moved_by_hand, samples, seeded
from torch import nn

import lossviz as lv
from lossviz.losses import accuracy, cross_entropy, squared_error, total
from lossviz.samples import as_batches, largest_activation, mapped

F64 = torch.float64
MODES = ("stored", "batch", "recalibrated", "interpolated")


@pytest.fixture
def net():
    return seeded(Residual, dtype=F64)


@pytest.fixture
def data():
    return samples(30, 2, 5, 5, dtype=F64)


# --- the value ----------------------------------------------------------------------------------


def test_the_value_at_the_centre_is_that_of_the_net_in_eval_mode(net, data):
    assert lv.Objective(net, data)() == pytest.approx(loss_by_hand(net, data), rel=1e-12)


def test_the_value_elsewhere_is_that_of_a_net_with_those_weights(net, data):
    u = lv.random_direction(net, seed=1)
    objective = lv.Objective(net, data)
    weights = {name: w + 0.5 * u[name] for name, w in objective.weights.items()}
    wanted = loss_by_hand(net, data, [(0.5, u)])
    assert objective(weights) == pytest.approx(wanted, rel=1e-12)


def test_a_quadratic_has_its_closed_form():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(7, 3, generator=generator, dtype=F64)
    y = torch.randn(7, 2, generator=generator, dtype=F64)
    net = nn.Linear(3, 2, bias=False).to(F64)
    objective = lv.Objective(net, (a, y), loss=squared_error)
    w = torch.randn(2, 3, generator=generator, dtype=F64)
    wanted = 0.5 * (a @ w.T - y).square().sum() / 7
    assert objective({"weight": w}) == pytest.approx(float(wanted), rel=1e-12)
    gradient = objective.gradient({"weight": w})["weight"]
    assert torch.allclose(gradient, (a @ w.T - y).T @ a / 7, rtol=1e-12)


def test_accuracy_is_the_share_that_is_right(net, data):
    right = float((net(data[0]).argmax(1) == data[1]).double().mean())
    assert lv.Objective(net, data).values()["accuracy"] == pytest.approx(right, rel=1e-12)


def test_a_sample_whose_scores_are_not_finite_counts_as_wrong():
    scores = torch.tensor([[torch.nan, 0.0], [2.0, 1.0], [torch.inf, 0.0]])
    batch = (torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))
    assert float(accuracy(lambda inputs: scores, batch)) == pytest.approx(1 / 3)


@pytest.mark.parametrize("mode", MODES)
def test_the_value_does_not_depend_on_the_batch_size(net, data, mode):
    values = [lv.Objective(net, data, batch_norm=mode, batch_size=b)() for b in (None, 30, 7, 1)]
    assert values == pytest.approx([values[0]] * 4, rel=1e-12)


def test_a_short_last_batch_weighs_by_its_size(net, data):
    batches = [tuple(part[:20] for part in data), tuple(part[20:] for part in data)]
    assert lv.Objective(net, batches)() == pytest.approx(loss_by_hand(net, data), rel=1e-12)


def test_a_mean_over_batches_would_have_been_wrong(net, data):
    batches = [tuple(part[:20] for part in data), tuple(part[20:] for part in data)]
    per_batch = sum(loss_by_hand(net, batch) for batch in batches) / 2
    assert abs(lv.Objective(net, batches)() - per_batch) > 1e-4


def test_sums_accumulate_in_float64():
    batches = [(torch.full((1, 1), x), torch.zeros(1, 1)) for x in (1e4, *[1e-1] * 99)]
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(1.0)
    wanted = 0.5 * (1e8 + 99 * 1e-2) / 100  # in float32 the small ones would be lost
    ours = lv.Objective(net, batches, loss=squared_error)()
    assert ours == pytest.approx(wanted, rel=1e-9)


def test_a_loss_that_overflows_is_recorded_as_it_is(net, data):
    objective = lv.Objective(net, data)
    values = objective.values({name: w * 1e200 for name, w in objective.weights.items()})
    assert not math.isfinite(values["loss"])


# --- losses of the user's own -------------------------------------------------------------------


def test_a_loss_may_return_a_sum_and_a_count():
    inputs, targets = samples(10, 4, dtype=F64)
    net, matched = seeded(dense, dtype=F64), [3.0, 5.0]

    def per_match(model, batch):
        count = matched[0] if len(batch[0]) == 6 else matched[1]
        return F.cross_entropy(model(batch[0]), batch[1], reduction="sum"), count

    batches = [(inputs[:6], targets[:6]), (inputs[6:], targets[6:])]
    wanted = 10 * loss_by_hand(net, (inputs, targets)) / sum(matched)
    assert lv.Objective(net, batches, loss=per_match)() == pytest.approx(wanted, rel=1e-12)


class Detector(nn.Module):
    """Takes lists of images of any size, gives losses by name in a dict, and counts matches."""

    def __init__(self):
        super().__init__()
        self.conv, self.boxes = nn.Conv2d(1, 3, 3), nn.Linear(3, 4)

    def forward(self, images, targets):
        features = torch.stack([self.conv(image[None]).mean((0, 2, 3)) for image in images])
        losses = []
        for box, target in zip(self.boxes(features), targets, strict=True):
            losses.append((box - target["boxes"]).square().sum(1))
        return {"box": torch.cat(losses).sum(), "matches": sum(len(t["boxes"]) for t in targets)}


def detection(model, batch):
    losses = model(*batch)
    return losses["box"], losses["matches"]


def scenes():
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(1, 5 + i, 7, generator=generator, dtype=F64) for i in range(4)]
    boxes = [{"boxes": torch.rand(1 + i, 4, generator=generator, dtype=F64)} for i in range(4)]
    return [(images[:3], boxes[:3]), (images[3:], boxes[3:])]


def test_a_detector_that_takes_lists_is_divided_by_its_matches():
    net = seeded(Detector, dtype=F64)
    objective = lv.Objective(net, scenes(), loss=detection)
    u = lv.random_direction(net, seed=1)
    moved = moved_by_hand(net, [(0.3, u)])
    with torch.no_grad():
        parts = [detection(moved, batch) for batch in scenes()]
    wanted = sum(float(s) for s, _ in parts) / (1 + 2 + 3 + 4)
    weights = {name: w + 0.3 * u[name] for name, w in objective.weights.items()}
    assert objective(weights) == pytest.approx(wanted, rel=1e-12)
    assert objective.n_samples == 4


def test_two_metrics_of_a_detector_share_one_pass_and_see_the_model():
    calls = []

    class Counted(Detector):
        def forward(self, images, targets):
            calls.append(len(images))
            return super().forward(images, targets)

    def matches(model, batch):
        assert model.conv.out_channels == 3
        return torch.tensor(1.0, dtype=F64) * model(*batch)["matches"], float(len(batch[0]))

    objective = lv.Objective(
        seeded(Counted, dtype=F64), scenes(), loss=detection, metrics={"matches": matches}
    )
    calls.clear()
    assert objective.values()["matches"] == pytest.approx(10 / 4)
    assert calls == [3, 1]


def test_a_loss_may_call_the_model_by_keyword(net, data):
    def by_name(model, batch):
        return F.cross_entropy(model(x=batch[0]), batch[1])

    objective = lv.Objective(net, data, loss=by_name, metrics={"again": by_name})
    assert objective.values()["again"] == pytest.approx(loss_by_hand(net, data), rel=1e-12)


def test_a_loss_that_branches_on_its_value_is_taken_as_it_is(net, data):
    def clipped(model, batch):
        value = F.cross_entropy(model(batch[0]), batch[1])
        return value if value < 5 else torch.full_like(value, 5.0)

    u = lv.random_direction(net, seed=1)
    curve = lv.line(lv.Objective(net, data, loss=clipped), u, span=40.0, points=5)
    assert curve.values["loss"].max() == 5.0


@pytest.mark.parametrize("value", [torch.zeros(3), "no", None, (1.0, 2)])
def test_a_loss_that_returns_something_else_is_refused(value):
    with pytest.raises(TypeError, match=r"scalar tensor .* or a pair \(sum, count\); got"):
        total(value, (torch.zeros(3, 1),))


def test_a_mean_in_half_precision_is_not_multiplied_in_it():
    value, count = total(torch.tensor(100.0, dtype=torch.float16), (torch.zeros(4000, 1),))
    assert float(value) == 400_000 and count == 4000


# --- it never changes what it was given ----------------------------------------------------------


def everything(net):
    tensors = {k: v.clone() for k, v in net.state_dict().items()}
    flags = [(m.training, [p.requires_grad for p in m.parameters()]) for m in net.modules()]
    return tensors, flags, [id(p) for p in net.parameters()]


def unchanged(net, before):
    tensors, flags, identities = everything(net)
    same = all(torch.equal(tensors[k], v) for k, v in before[0].items())
    return same and (flags, identities) == before[1:]


@pytest.mark.parametrize("mode", MODES)
def test_the_model_is_left_as_it_was(net, data, mode):
    net.train()
    net.head.eval()
    net.conv1.requires_grad_(False)
    before = everything(net)
    objective = lv.Objective(net, data, batch_norm=mode)
    objective(), objective.gradient()
    lv.line(objective, lv.random_direction(net, seed=1), points=3)
    assert unchanged(net, before)


@pytest.mark.parametrize("problem", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_the_model_is_left_as_it_was_when_the_loss_raises(net, data, problem):
    armed = []

    def raising(model, batch):
        if armed:
            raise problem
        return F.cross_entropy(model(batch[0]), batch[1])

    net.train()
    before = everything(net)
    objective = lv.Objective(net, data, loss=raising, batch_norm="batch")
    armed.append(True)
    with pytest.raises(problem):
        objective()
    armed.clear()
    assert unchanged(net, before)
    assert math.isfinite(objective())


def test_later_training_does_not_move_the_centre(net, data):
    objective = lv.Objective(net, data)
    value = objective()
    with torch.no_grad():
        net.conv1.weight.add_(1.0)
        net.norm1.running_mean.add_(1.0)
    assert objective() == value


def test_running_statistics_of_the_objective_never_move(net, data):
    for mode in MODES:
        objective = lv.Objective(net, data, batch_norm=mode)
        first = objective()
        for _ in range(3):
            assert objective() == first


@pytest.mark.parametrize("head", [nn.ReLU(inplace=True), nn.Hardtanh(inplace=True)])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_a_net_that_writes_to_its_inputs_spoils_neither_the_data_nor_the_value(head, batch_size):
    data = samples(10, 4, dtype=F64)
    kept = data[0].clone()
    net = nn.Sequential(head, nn.Linear(4, 3)).to(F64)
    wanted = loss_by_hand(net, (kept.clone(), data[1]))
    objective = lv.Objective(net, data, batch_size=batch_size)
    assert objective.forward.guarded
    assert [objective(), objective()] == pytest.approx([wanted] * 2, rel=1e-12)
    objective.gradient()
    assert torch.equal(data[0], kept) and torch.equal(objective.batches[0][0], kept[:batch_size])


def test_a_net_that_counts_its_calls_in_a_buffer_is_a_function_all_the_same():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls.add_(1)
            return self.linear(x) * (1 + self.calls)

    net, data = seeded(Counting, dtype=F64), samples(10, 4, dtype=F64)
    objective = lv.Objective(net, data)
    assert [objective(), objective()] == [loss_by_hand(net, data)] * 2 and float(net.calls) == 0
    assert not objective.forward.quick


# --- a function: the same twice -------------------------------------------------------------


def test_dropout_is_off(data):
    net = nn.Sequential(nn.Flatten(), nn.Linear(50, 20), nn.Dropout(0.5), nn.Linear(20, 3)).to(F64)
    objective = lv.Objective(net.train(), data)
    assert objective.check_repeatable()["loss"] == pytest.approx(loss_by_hand(net, data), rel=1e-12)


class Careless(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.dropout = nn.Linear(4, 3), nn.Dropout(0.5)

    def forward(self, x):
        return self.linear(F.dropout(self.dropout(x), 0.5))  # which is on by default


class NoiseLayer(nn.Module):
    def forward(self, x):
        return x + 1e-4 * torch.randn(x.shape)


@pytest.mark.parametrize(
    ("make", "cause"),
    [(Careless, "random step in .*forward"),
     (lambda: nn.Sequential(NoiseLayer(), nn.Linear(4, 3)), r"random layer .*\(NoiseLayer\)")],
)  # fmt: skip
def test_a_noisy_net_is_refused_with_the_likely_cause(make, cause):
    net = make()
    objective = lv.Objective(net, samples(10, 4))
    said = rf"objective is noisy: loss at the centre was .*, then .*likely cause is a {cause}"
    with pytest.raises(ValueError, match=said):
        lv.line(objective, lv.random_direction(net, seed=1), points=3)


def test_a_noisy_loss_is_refused():
    def augmented(model, batch):
        return cross_entropy(model, (batch[0] + torch.randn_like(batch[0]), batch[1]))

    net = dense()
    objective = lv.Objective(net, samples(10, 4), loss=augmented)
    with pytest.raises(ValueError, match=r"noisy.*augmentation.*remove it"):
        objective.check_repeatable()


def test_a_loss_that_is_nan_both_times_is_not_noisy():
    net = dense()
    with torch.no_grad():
        net[0].weight.fill_(torch.nan)
    assert math.isnan(lv.Objective(net, samples(10, 4)).check_repeatable()["loss"])


# --- batch norm -------------------------------------------------------------------------------


def with_statistics(net, inputs):
    """Running statistics recomputed by torch itself, in one training pass with momentum 1."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    net.train()
    with torch.no_grad():
        net(inputs)
    return net.eval()


def test_batch_uses_the_statistics_of_the_samples(net, data):
    with torch.no_grad():
        wanted = float(F.cross_entropy(copy.deepcopy(net).train()(data[0]), data[1]))
    assert lv.Objective(net, data, batch_norm="batch")() == pytest.approx(wanted, rel=1e-12)


def test_recalibrated_uses_statistics_recomputed_on_the_calibration_set(net, data):
    calibration = samples(17, 2, 5, 5, seed=8, dtype=F64)
    u = lv.random_direction(net, seed=1)
    objective = lv.Objective(net, data, batch_norm="recalibrated", calibration=calibration)
    weights = {name: w + 0.4 * u[name] for name, w in objective.weights.items()}
    moved = with_statistics(moved_by_hand(net, [(0.4, u)]), calibration[0])
    assert objective(weights) == pytest.approx(loss_by_hand(moved, data), rel=1e-12)


def test_recalibrated_uses_the_first_samples_where_no_set_is_given(net, data):
    moved = with_statistics(net, data[0])
    ours = lv.Objective(net, data, batch_norm="recalibrated")()
    assert ours == pytest.approx(loss_by_hand(moved, data), rel=1e-12)


def test_interpolated_moves_the_statistics_and_ends_with_the_other_nets_own_loss(net, data):
    other = seeded(Residual, seed=1, dtype=F64)
    step = lv.toward(net, other)
    curve = lv.line(lv.Objective(net, data, batch_norm="interpolated"), step, span=(0, 1), points=3)
    ends = loss_by_hand(net, data), loss_by_hand(other, data)
    assert (curve.values["loss"][0], curve.values["loss"][2]) == pytest.approx(ends, rel=1e-12)


def test_stored_statistics_make_the_far_end_of_an_interpolation_wrong(net, data):
    other = seeded(Residual, seed=1, dtype=F64)
    curve = lv.line(lv.Objective(net, data), lv.toward(net, other), span=(0, 1), points=3)
    assert abs(curve.values["loss"][2] - loss_by_hand(other, data)) > 1e-3


def test_the_middle_of_an_interpolation_has_the_mean_of_both_statistics(net, data):
    other = seeded(Residual, seed=1, dtype=F64)
    middle = copy.deepcopy(net)
    state = {
        k: (w + other.state_dict()[k]) / 2 if w.is_floating_point() else w
        for k, w in net.state_dict().items()
    }
    middle.load_state_dict(state)
    curve = lv.line(
        lv.Objective(net, data, batch_norm="interpolated"),
        lv.toward(net, other), span=(0, 1), points=3,
    )  # fmt: skip
    assert curve.values["loss"][1] == pytest.approx(loss_by_hand(middle, data), rel=1e-12)


def test_the_modes_agree_for_a_net_without_batch_norm():
    net, data = seeded(dense, dtype=F64), samples(10, 4, dtype=F64)
    values = [lv.Objective(net, data, batch_norm=mode)() for mode in MODES]
    assert values == pytest.approx([values[0]] * 4, rel=1e-12)
    described = lv.Objective(net, data, batch_norm="batch").description["batch_norm"]
    assert described == "none in the net"


def test_a_norm_without_running_statistics_sees_all_samples_whatever_the_batch_size():
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, track_running_stats=False))
    net, data = net.append(nn.Linear(5, 3)).to(F64), samples(12, 4, dtype=F64)
    values = [lv.Objective(net, data, batch_size=b)() for b in (None, 5)]
    assert values == pytest.approx([loss_by_hand(net, data)] * 2, rel=1e-12)


def test_batch_statistics_of_several_batches_are_refused(net, data):
    with pytest.raises(ValueError, match=r"batch_norm='batch'.*2 batches: give one batch"):
        lv.Objective(net, [data, data], batch_norm="batch")


def test_statistics_given_with_the_weights_take_the_place_of_the_stored_ones(net, data):
    other = seeded(Residual, seed=1, dtype=F64)
    ours = lv.Objective(net, data).values(
        dict(other.named_parameters()), buffers=dict(other.named_buffers())
    )
    assert ours["loss"] == pytest.approx(loss_by_hand(other, data), rel=1e-12)


# --- gradients --------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 7])
def test_the_gradient_is_that_of_backward(net, data, batch_size):
    F.cross_entropy(net(data[0]), data[1]).backward()
    ours = lv.Objective(net, data, batch_size=batch_size).gradient()
    for name, weight in net.named_parameters():
        assert torch.allclose(ours[name], weight.grad, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("mode", MODES)
def test_the_gradient_is_the_slope_of_the_line(net, data, mode):
    objective = lv.Objective(net, data, batch_norm=mode)
    u = lv.random_direction(net, seed=1)
    gradient = objective.gradient()
    slope = sum(float((gradient[name] * u[name]).sum()) for name in u)
    step = 1e-6
    up, down = (
        objective({name: w + sign * step * u[name] for name, w in objective.weights.items()})
        for sign in (1, -1)
    )
    assert slope == pytest.approx((up - down) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_the_loss_sum_can_be_differentiated_twice(net, data, mode):
    objective = lv.Objective(net, data, batch_norm=mode)

    def loss_sum(weight):
        moved = {**objective.weights, "conv1.weight": weight}
        return objective.loss_sum(moved, objective.batches[0])[0]

    weight = objective.weights["conv1.weight"].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(loss_sum, weight, fast_mode=True)


def test_a_weight_that_the_loss_does_not_see_has_a_gradient_of_zero():
    net = nn.Linear(4, 3)
    net.unused = nn.Linear(2, 2)
    assert not bool(lv.Objective(net, samples(6, 4)).gradient()["unused.weight"].any())


def test_gradients_do_not_reach_the_model(net, data):
    lv.Objective(net, data).gradient()
    assert all(w.grad is None for w in net.parameters())


# --- kinds of nets and data -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_net_in_half_precision_is_evaluated_in_it(dtype):
    net, data = dense().to(dtype), samples(10, 4)
    wanted = loss_by_hand(net, (data[0].to(dtype), data[1]))
    assert lv.Objective(net, data)() == pytest.approx(wanted, rel=2e-2)


def test_integers_stay_integers_and_floats_take_the_dtype_of_the_net():
    words = torch.randint(11, (6, 4), generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Embedding(11, 5), nn.Flatten(), nn.Linear(20, 3)).to(F64)
    data = (words, torch.tensor([0, 1, 2, 0, 1, 2]))
    assert lv.Objective(net, data)() == pytest.approx(loss_by_hand(net, data), rel=1e-12)


def test_a_split_gives_its_name_to_captions(net, data):
    split = lv.data.Split(data[0].float(), data[1], name="digits test")
    objective = lv.Objective(net, split)
    assert objective.description["data"] == "digits test" and objective.n_samples == 30
    assert repr(objective) == "Objective(Residual, 30 samples of digits test, batch norm stored)"


def test_nested_batches_are_moved_part_by_part():
    Pair = namedtuple("Pair", "left right")
    batch = ([torch.ones(2)], {"boxes": (torch.ones(1), "name")}, Pair(torch.ones(1), 3))
    moved = mapped(lambda tensor: tensor + 1, batch)
    assert float(moved[0][0][0]) == 2 and moved[1]["boxes"][1] == "name"
    assert isinstance(moved[2], Pair) and moved[2].right == 3


def test_batches_hold_about_the_activations_that_the_cache_takes():
    net = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.Flatten())
    inputs = torch.zeros(100, 1, 16, 16)
    each = largest_activation(net, inputs)
    assert each == 64 * 16 * 16 * 4
    batches = as_batches(
        (inputs, torch.zeros(100)), torch.device("cpu"), torch.float32, sample_bytes=each
    )
    assert {len(batch[0]) for batch in batches} == {25}


# --- fingerprints and pickles ---------------------------------------------------------------------


def test_equal_objectives_have_equal_fingerprints(net, data):
    assert lv.Objective(net, data).fingerprint == lv.Objective(net, data, batch_size=7).fingerprint


def test_the_fingerprint_changes_with_weights_data_loss_mode_and_architecture(net, data):
    other, smooth = copy.deepcopy(net), copy.deepcopy(net)
    with torch.no_grad():
        other.head.bias[0] += 1e-9
    smooth.norm1.eps = 1e-2
    prints = [
        lv.Objective(net, data),
        lv.Objective(other, data),
        lv.Objective(smooth, data),
        lv.Objective(net, (data[0] + 1e-9, data[1])),
        lv.Objective(net, data, batch_norm="batch"),
        lv.Objective(net, data, loss=lambda model, batch: 2 * cross_entropy(model, batch)),
    ]
    assert len({objective.fingerprint for objective in prints}) == 6


def test_the_description_is_json(net, data):
    assert json.loads(json.dumps(lv.Objective(net, data).description))["n_samples"] == 30


@pytest.mark.parametrize("mode", MODES)
def test_an_objective_travels_and_gives_the_same_values(net, data, mode):
    objective = lv.Objective(net, data, batch_norm=mode, batch_size=10)
    again = pickle.loads(pickle.dumps(objective))
    assert again() == objective() and again.fingerprint == objective.fingerprint


def test_a_pickled_objective_holds_its_samples_once():
    inputs, targets = torch.randn(4096, 64), torch.zeros(4096, dtype=torch.long)
    objective = lv.Objective(nn.Linear(64, 3), (inputs, targets), batch_size=64)
    assert len(pickle.dumps(objective)) < 1.2 * inputs.numel() * 4


# --- bad input --------------------------------------------------------------------------------

EMPTY = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
GOOD = samples(6, 4)
WORD = torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize(
    ("data", "kind", "said"),
    [
        (EMPTY, ValueError, r"data is empty"),
        ([], ValueError, r"at least one tuple \(inputs, targets\).*give"),
        ([EMPTY], ValueError, r"none is empty"),
        ([3], ValueError, r"at least one tuple"),
        (None, TypeError, r"must be a Split.*got NoneType: give, for example, lv.data.digits"),
        ((GOOD[0].numpy(), GOOD[1]), TypeError, r"must be a Split"),
        ((GOOD[0], GOOD[1][:4]), ValueError, r"6 inputs and 4 targets"),
        ((GOOD[0] / 0, GOOD[1]), ValueError, r"inputs that are not finite: remove"),
        ([(GOOD[0] / 0, GOOD[1])], ValueError, r"inputs that are not finite: remove"),
        ((GOOD[0], WORD + 1), ValueError, r"0 … 2 for a net of 3 outputs; got 1 … 3"),
        ([(GOOD[0], WORD - 1)], ValueError, r"0 … 2 for a net of 3 outputs; got -1 … 1"),
        ((GOOD[0], WORD.int()), TypeError, r"int64 targets .*got torch.int32: give targets.long"),
        ((GOOD[0], WORD.float()), TypeError, r"got torch.float32.*squared_error"),
        ((GOOD[0], WORD[:, None]), ValueError, r"targets \[N\]; got .*\(2, 3\) and.*\(6, 1\)"),
        ((torch.zeros(6, 5), WORD), ValueError, r"cannot take inputs of shape \(5,\).*shapes"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_used_is_refused_with_what_can(data, kind, said):
    with pytest.raises(kind, match=said):
        lv.Objective(dense(), data)


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"batch_norm": "frozen"}, ValueError, r"'stored', 'batch'.*got 'frozen': take 'stored'"),
        ({"loss": "mse"}, TypeError, r"function of \(model, batch\); got str: give, for example"),
        ({"batch_size": 0}, ValueError, r"batch_size must be an int above 0.*got 0: take"),
        ({"batch_size": 2.5}, ValueError, r"got 2.5"),
        ({"device": "meta"}, ValueError, r"device 'meta' cannot be used .*take 'cpu'"),
        ({"device": "gpu"}, ValueError, r"device 'gpu' cannot be used"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_with_what_can(options, kind, said):
    with pytest.raises(kind, match=said):
        lv.Objective(dense(), GOOD, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"'cuda' cannot be used .*: take 'cpu'"):
        lv.Objective(dense(), GOOD, device="cuda")


@pytest.mark.parametrize(
    ("model", "kind", "said"),
    [
        (lambda x: x, TypeError, r"must be a torch.nn.Module; got function: give, for example"),
        (nn.ReLU(), ValueError, r"no parameters.*give another"),
        (nn.Linear(4, 3, device="meta"), ValueError, r"'weight' has no values yet"),
        (nn.LazyLinear(3), ValueError, r"call the model once on a sample"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_with_what_can(model, kind, said):
    with pytest.raises(kind, match=said):
        lv.Objective(model, GOOD)


def test_a_model_that_cannot_be_copied_is_refused():
    net = nn.Linear(4, 3)
    net.extra = net.weight * 2  # a tensor with a history
    with pytest.raises(ValueError, match=r"cannot be copied .*give one whose weights are param"):
        lv.Objective(net, GOOD)


@pytest.mark.parametrize(
    ("weights", "kind", "said"),
    [
        ([1.0], TypeError, r"mapping from parameter name to tensor; got list"),
        ({}, ValueError, r"'0.weight' is in only one"),
    ],
)
def test_weights_of_another_model_are_refused(weights, kind, said):
    with pytest.raises(kind, match=said):
        lv.Objective(dense(), GOOD)(weights)


def test_recalibrating_a_detector_asks_for_a_set_of_inputs():
    with pytest.raises(ValueError, match=r"needs inputs as one tensor: give calibration="):
        lv.Objective(Detector().to(F64), scenes(), loss=detection, batch_norm="recalibrated")


# --- what a model, a loss and samples may be -----------------------------------------------------


def test_a_whole_number_among_the_parameters_does_not_round_the_samples():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.steps = nn.Parameter(torch.tensor(3), requires_grad=False)
            self.net = seeded(dense, dtype=F64)

        def forward(self, x):
            return self.net(x)

    model, data = Counting(), samples(12, 4, dtype=F64)
    assert lv.Objective(model, data)() == pytest.approx(loss_by_hand(model.net, data), rel=1e-12)


@pytest.mark.parametrize("kind", ["dict", "tuple"])
def test_several_inputs_count_their_samples_not_their_names(kind):
    net = nn.Linear(3, 4).double()
    parts = [torch.randn(n, 3, dtype=F64) for n in (30, 2)]
    targets = [torch.randint(4, (len(part),)) for part in parts]
    if kind == "dict":
        batches = [({"x": x, "mask": x > 0}, y) for x, y in zip(parts, targets, strict=True)]
    else:
        batches = [((x, x > 0), y) for x, y in zip(parts, targets, strict=True)]

    def loss(model, batch):
        inputs, wanted = batch
        x = inputs["x"] if kind == "dict" else inputs[0]
        return F.cross_entropy(model(x), wanted)

    objective = lv.Objective(net, batches, loss=loss)
    assert objective.n_samples == 32
    whole = F.cross_entropy(net(torch.cat(parts)), torch.cat(targets)).detach()
    assert objective() == pytest.approx(float(whole), rel=1e-12)


def likelihood(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def attacked(model, batch):
    inputs = batch[0]
    first = F.cross_entropy(model(inputs), batch[1])
    inputs.add_(0.5)
    return first + F.cross_entropy(model(inputs), batch[1])


def cooled(model, batch):
    scores = model(batch[0])
    scores /= 5.0
    return F.cross_entropy(scores, batch[1])


@pytest.mark.parametrize("loss", [attacked, cooled])
def test_a_loss_that_writes_to_what_it_is_given_spoils_neither_itself_nor_a_metric(loss):
    net, data = seeded(dense, dtype=F64), samples(12, 4, dtype=F64)
    with torch.no_grad():
        wanted = [float(f(net, (data[0].clone(), data[1]))) for f in (loss, likelihood)]
    objective = lv.Objective(net, data, loss=loss, metrics={"nll": likelihood})
    assert [*objective.values().values()] == pytest.approx(wanted, rel=1e-12)
    u = lv.random_direction(net, seed=1)
    drawn = lv.line(objective, u, points=3)
    assert [drawn.values[k][1] for k in ("loss", "nll")] == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("name", ["loss", "alpha", "beta", "computed", "done"])
def test_a_metric_takes_no_name_that_a_surface_uses(net, data, name):
    with pytest.raises(ValueError, match=f"cannot be called '{name}'"):
        lv.Objective(net, data, metrics={name: accuracy})


def test_a_model_whose_train_returns_nothing_is_taken():
    class Frozen(nn.Linear):
        def train(self, mode=True):
            super().train(False)

    assert math.isfinite(lv.Objective(Frozen(4, 3), samples(5, 4))())


def test_a_model_with_a_lock_is_refused_in_one_sentence():
    model = nn.Linear(4, 3)
    model.lock = threading.Lock()
    with pytest.raises(ValueError, match=r"cannot be copied .*locks"):
        lv.Objective(model, samples(5, 4))
