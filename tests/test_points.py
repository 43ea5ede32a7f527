import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from little_nets import Residual, dense, loss_by_hand, samples, seeded
from test_network import MODES, NETS, Words, case
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import lossviz as lv
from lossviz import points as points_module
from lossviz.points import Points

F64 = torch.float64
PLACES = np.array([[0.0, 0.0], [0.5, -0.25], [-1.0, 0.75], [0.1, 0.2], [1.0, 1.0], [-0.4, 0.0]])


def directions(net, **options):
    return [lv.random_direction(net, seed=seed, **options) for seed in (1, 2)]


def by_hand(net, data, pair, places=PLACES):
    return [loss_by_hand(net, data, list(zip(place, pair, strict=True))) for place in places]


@pytest.mark.parametrize("chunk", [None, 1, 4])
@pytest.mark.parametrize("one_dim", ["zero", "normalize"])
@pytest.mark.parametrize("name", NETS)
def test_every_point_is_that_of_a_net_whose_weights_are_set_by_hand(name, one_dim, chunk):
    net, data = case(name)
    pair = directions(net, one_dim=one_dim)
    values = Points(lv.Objective(net, data), pair, chunk=chunk).values(PLACES)
    assert values["loss"] == pytest.approx(by_hand(net, data, pair), rel=1e-10)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["residual", "convolutions", "norms without scale or statistics"])
def test_a_chunk_and_a_batch_size_do_not_change_the_values_in_float64(name, mode):
    net, data = case(name)
    other = seeded(NETS[name][0], seed=1, dtype=F64)
    pair = [lv.toward(net, other), lv.random_direction(net, seed=1)]
    tables = [
        Points(lv.Objective(net, data, batch_norm=mode, batch_size=size), pair, chunk=chunk)
        .values(PLACES)["loss"]
        for size in (None, 5, 1) for chunk in (1, 3, 32)
    ]  # fmt: skip
    for table in tables[1:]:
        assert table == pytest.approx(tables[0], rel=1e-10, nan_ok=True)


@pytest.mark.parametrize("mode", MODES)
def test_a_chunk_and_a_batch_size_do_not_change_the_values_in_float32(mode):
    net, data = case("residual", torch.float32)
    pair = directions(net)
    tables = [
        Points(lv.Objective(net, data, batch_norm=mode, batch_size=size), pair, chunk=chunk)
        .values(PLACES)["loss"]
        for size in (None, 5) for chunk in (1, 4)
    ]  # fmt: skip
    for table in tables[1:]:
        assert table == pytest.approx(tables[0], rel=1e-5)


def test_points_do_not_depend_on_each_other_or_their_order():
    net, data = case("residual")
    points = Points(lv.Objective(net, data), directions(net))
    there, back = points.values(PLACES)["loss"], points.values(PLACES[::-1])["loss"]
    assert back[::-1] == pytest.approx(there, rel=1e-12)
    assert points.values(PLACES[2:3])["loss"][0] == pytest.approx(there[2], rel=1e-12)


def test_every_metric_is_there():
    net, data = case("residual")
    values = Points(lv.Objective(net, data), directions(net)).values(PLACES)
    right = [
        float((moved(data[0]).argmax(1) == data[1]).double().mean())
        for moved in map(lambda p: hand(net, p), PLACES)
    ]
    assert values["accuracy"] == pytest.approx(right, rel=1e-12)


def hand(net, place):
    from little_nets import moved_by_hand

    return moved_by_hand(net, list(zip(place, directions(net), strict=True)))


def test_the_weights_of_a_large_net_are_not_copied(monkeypatch):
    net, data = case("residual")
    objective, pair = lv.Objective(net, data), directions(net)
    wanted = Points(objective, pair).values(PLACES)["loss"]
    monkeypatch.setattr(points_module, "LARGE_WEIGHTS", 0)
    points = Points(objective, pair)
    assert points.chunk == 1 and not points.ready
    move = points.line.moving["conv1.weight"]
    assert move.base.data_ptr() == objective.weights["conv1.weight"].data_ptr()
    assert move.slopes[0].data_ptr() == pair[0]["conv1.weight"].data_ptr()
    assert points.values(PLACES)["loss"] == pytest.approx(wanted, rel=1e-10)
    assert points.values(PLACES)["loss"] == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_step_in_half_precision_is_rounded_once(dtype):
    net, data = dense().to(dtype), samples(16, 4)
    pair = directions(net)
    fine = [{k: w.float() for k, w in d.items()} for d in pair]
    wide = copy.deepcopy(net).float()
    place = np.array([[0.3337, -0.2171]])
    moved = copy.deepcopy(net)
    with torch.no_grad():
        for name, w in moved.named_parameters():
            step = sum(a * d[name] for a, d in zip(place[0], fine, strict=True))
            w.copy_((dict(wide.named_parameters())[name] + step).to(dtype))
        wanted = float(F.cross_entropy(moved(data[0].to(dtype)), data[1]))
    ours = Points(lv.Objective(net, data), pair).values(place)["loss"][0]
    assert ours == pytest.approx(wanted, rel=5e-3 if dtype == torch.float16 else 3e-2)


def test_what_overflows_is_inf_or_nan_and_does_not_spoil_its_neighbours():
    net, data = case("residual", torch.float32)
    pair = directions(net)
    points = Points(lv.Objective(net, data), pair, chunk=3)
    ours = points.values(np.array([[0.1, 0.0], [1e38, 1e38], [0.1, 0.0]]))["loss"]
    assert not np.isfinite(ours[1])
    assert ours[[0, 2]] == pytest.approx([loss_by_hand(net, data, [(0.1, pair[0])])] * 2, rel=1e-4)


def test_operations_that_vmap_does_not_know_are_taken_point_by_point():
    assert Points(lv.Objective(*case("recurrent")), directions(case("recurrent")[0])).chunk == 1


@pytest.mark.filterwarnings("error")
def test_operations_that_vmap_would_take_one_by_one_give_no_warning():
    net, data = case("words", torch.float32)
    points = Points(lv.Objective(net, data), directions(net), chunk=4)
    assert points.chunk == 1
    assert points.values(PLACES)["loss"] == pytest.approx(by_hand(net, data, directions(net)), 1e-5)


def test_a_loss_that_reads_numbers_is_taken_point_by_point():
    def rounded(model, batch):
        return torch.tensor(float(F.cross_entropy(model(batch[0]), batch[1])), dtype=F64)

    net, data = case("dense")
    pair = directions(net)
    points = Points(lv.Objective(net, data, loss=rounded), pair, chunk=8)
    assert points.values(PLACES)["loss"] == pytest.approx(by_hand(net, data, pair), rel=1e-10)


def test_few_samples_are_taken_many_points_at_once_and_many_one_by_one():
    net = seeded(lambda: nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.Flatten(), nn.ReLU()))
    net.append(nn.Linear(32 * 64, 3))
    few, many = (Points(lv.Objective(net, samples(n, 1, 8, 8)), directions(net)) for n in (8, 512))
    assert few.chunk > 8 and many.chunk == 1


def test_a_net_of_large_layers_is_taken_point_by_point():
    net = nn.Sequential(nn.Linear(4, 700), nn.Linear(700, 700), nn.Linear(700, 3))
    assert Points(lv.Objective(net, samples(4, 4)), directions(net)).chunk == 1


def test_tied_weights_move_together():
    net = seeded(Words, dtype=F64)
    assert net.out.weight is net.embed.weight
    data = case("words")[1]
    u = lv.random_direction(net, seed=1)
    assert "out.weight" not in u
    ours = Points(lv.Objective(net, data), [u]).values(np.array([[0.7]]))["loss"]
    assert ours[0] == pytest.approx(loss_by_hand(net, data, [(0.7, u)]), rel=1e-10)


def test_torch_func_agrees():
    net, data = case("dense")
    u, _ = directions(net)
    weights = {k: w.detach() for k, w in net.named_parameters()}

    def at(alpha):
        moved = {name: w + alpha * u[name] for name, w in weights.items()}
        return F.cross_entropy(torch.func.functional_call(net, moved, (data[0],)), data[1])

    alphas = torch.linspace(-1, 1, 7, dtype=F64)
    wanted = torch.func.vmap(at)(alphas)
    ours = Points(lv.Objective(net, data), [u]).values(alphas[:, None].numpy())["loss"]
    assert ours == pytest.approx(wanted.numpy(), rel=1e-12)


def test_directions_in_another_dtype_are_taken():
    net, data = case("residual")
    single = [{k: w.float() for k, w in d.items()} for d in directions(net)]
    ours = Points(lv.Objective(net, data), single).values(PLACES)["loss"]
    wide = [{k: w.double() for k, w in d.items()} for d in single]
    assert ours == pytest.approx(by_hand(net, data, wide), rel=1e-10)


def test_the_objective_is_left_as_it_was():
    net, data = case("residual")
    objective = lv.Objective(net, data)
    before = copy.deepcopy((objective.weights, objective.buffers, objective.batches))
    Points(objective, directions(net)).values(PLACES)
    for old, new in zip(before[:2], (objective.weights, objective.buffers), strict=True):
        assert all(torch.equal(old[name], new[name]) for name in old)
    assert torch.equal(before[2][0][0], objective.batches[0][0])


def test_a_direction_that_moves_nothing_is_refused():
    net = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))
    net[1].weight.data.zero_()
    with pytest.raises(
        ValueError, match=r"'random, seed 1' is zero everywhere.*one_dim='normalize'"
    ):
        Points(lv.Objective(net, samples(6, 4)), [lv.random_direction(net, seed=1)])


def test_a_direction_of_another_net_is_refused():
    with pytest.raises(ValueError, match="one model"):
        Points(lv.Objective(*case("dense")), directions(seeded(Residual)))


class Asked(TorchDispatchMode):
    """Counts how often a number is read from a tensor: each time, the host waits for a device."""

    times = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        read = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        self.times += function in read
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["residual", "convolutions"])
def test_no_point_makes_the_host_wait(name, mode, chunk):
    net, data = case(name)
    pair = [lv.toward(net, seeded(NETS[name][0], seed=1, dtype=F64)), *directions(net)[:1]]
    points = Points(lv.Objective(net, data, batch_norm=mode), pair, chunk=chunk)
    with Asked() as check:
        float(torch.ones(1).sum())
    assert check.times == 1
    with Asked() as asked:
        points.values(PLACES)
    assert asked.times == 0


def test_large_weights_move_without_making_the_host_wait(monkeypatch):
    monkeypatch.setattr(points_module, "LARGE_WEIGHTS", 0)
    net, data = case("residual")
    points = Points(lv.Objective(net, data), directions(net))
    with Asked() as asked:
        points.values(PLACES)
    assert asked.times == 0


@pytest.mark.parametrize("mode", ["batch", "recalibrated"])
def test_statistics_of_millions_of_numbers_are_those_of_float64(mode):
    # channels last, float32: adding up one by one would be off by 1e-3
    net = nn.Sequential(nn.Conv2d(2, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 1))
    net = nn.Sequential(net, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    generator = torch.Generator().manual_seed(0)
    images = 5 + 3 * torch.randn(1024, 2, 32, 32, generator=generator)
    labels = torch.randint(0, 3, (1024,), generator=generator)
    values = []
    for dtype in (torch.float32, F64):
        precise = copy.deepcopy(net).to(dtype)
        pair = directions(net)
        objective = lv.Objective(precise, (images.to(dtype), labels), batch_norm=mode)
        values.append(Points(objective, pair).values(PLACES[1:3])["loss"])
    assert values[0] == pytest.approx(values[1], rel=1e-6)


class Viewing(nn.Module):
    """A net that calls ``view`` on what a convolution gives, or on its kernel."""

    def __init__(self, norm, kernel):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 8, 3)
        self.norm = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.last, self.kernel = nn.Linear(128, 4), kernel

    def forward(self, x):
        x = F.relu(self.b(F.relu(self.norm(self.a(x)))))
        scores = self.last(x.reshape(x.size(0), -1) if self.kernel else x.view(x.size(0), -1))
        return scores * (1 + self.b.weight.view(8, -1).mean()) if self.kernel else scores


@pytest.mark.parametrize("mode", ["stored", "batch", "recalibrated"])
@pytest.mark.parametrize(("norm", "kernel"), [(True, False), (True, True), (False, False)])
def test_a_net_that_calls_view_is_drawn_whatever_layout_is_quick(norm, kernel, mode):
    net = Viewing(norm, kernel).eval()
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(30, 1, 8, 8, generator=generator), torch.arange(30) % 4
    objective = lv.Objective(net, data, batch_norm=mode)
    assert objective.forward.quick and not objective.forward.kernels
    pair = directions(net)
    loss = Points(objective, pair).values(PLACES[1:3])["loss"]
    for value, place in zip(loss, PLACES[1:3], strict=True):
        moved = copy.deepcopy(net)
        with torch.no_grad():
            for name, weight in moved.named_parameters():
                weight += sum(c * d[name] for c, d in zip(place, pair, strict=True))
        if mode == "batch":
            moved.train()
        if mode == "recalibrated":
            torch.optim.swa_utils.update_bn([data[0]], moved)
        with torch.no_grad():
            assert value == pytest.approx(float(F.cross_entropy(moved(data[0]), data[1])), rel=1e-5)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 6)
        self.norm, self.last = nn.BatchNorm1d(6), nn.Linear(6, 4)

    def forward(self, x):
        x = F.relu(self.norm(self.a(x)))
        return self.last(F.relu(self.norm(self.b(x))))


@pytest.mark.parametrize("quick", [True, False])
def test_a_norm_that_is_called_twice_keeps_the_mean_statistics_as_torch_does(quick):
    net = seeded(Twice, dtype=F64).eval()
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(30, 5, generator=generator, dtype=F64), torch.arange(30) % 4
    objective = lv.Objective(net, data, batch_norm="recalibrated")
    objective.forward.quick = quick
    torch.optim.swa_utils.update_bn([data[0]], net)
    with torch.no_grad():
        expected = float(F.cross_entropy(net.eval()(data[0]), data[1]))
    assert objective() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("mode", ["stored", "batch"])
def test_points_are_mapped_in_the_layout_in_which_every_operation_can_be(mode):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1))
    net = nn.Sequential(net, nn.Flatten()).eval()  # this pool is not mapped channels last
    data = torch.randn(20, 1, 8, 8), torch.arange(20) % 4
    objective, pair = lv.Objective(net, data, batch_norm=mode), directions(net)
    together, alone = (Points(objective, pair, chunk=chunk) for chunk in (None, 1))
    assert together.chunk > 1 and objective.forward.kernels
    losses = [points.values(PLACES)["loss"] for points in (together, alone)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
