"""What a GPU would be asked at each point, found without one: torch's fake tensors know the device.

They hold shapes and devices instead of numbers, refuse to mix devices as a GPU does, and cannot be
read: an operation that needs a number on the host raises.
"""

import pytest
import torch
from test_network import MODES, NETS, case
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensorDeviceMismatchError,
    FakeTensorMode,
)
from torch.func import vmap
from torch.utils._python_dispatch import TorchDispatchMode

import lossviz as lv
from lossviz import forward
from lossviz import points as points_module
from lossviz.descent import Descent, Samples
from lossviz.detect import detector_objective, evaluate, fit_detector
from lossviz.detection import freeze_mining
from lossviz.losses import cross_entropy
from lossviz.models.detector import tiny_ssd
from lossviz.points import Points
from lossviz.recipe import Recipe
from lossviz.samples import mapped

ASKS = "a branch on the data"  # a net whose own forward reads a number
UNKNOWN = "recurrent"  # its kernel of the GPU is not in torch without one
FAKE = [name for name in NETS if name not in (ASKS, UNKNOWN)]


class Crossings(TorchDispatchMode):
    """Notes what is copied from one device to another: the host waits for each copy."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        devices = {part.device for part in (*args, result) if isinstance(part, Tensor)}
        # (a number is no copy: a tensor of no dimension on the host goes along with the call)
        self.seen += [str(function)] * (len(devices) > 1 and "copy" in str(function))
        return result


@pytest.fixture
def gpu():
    return FakeTensorMode()


def moved(points, gpu):
    """Put all that a point reads on a GPU."""

    def place(tensor):
        kind = {"dtype": tensor.dtype, "device": "cuda"}
        return torch.empty_strided(tensor.shape, tensor.stride(), **kind)

    with gpu:
        line, reads = points.line, points.objective.forward
        line.fixed = mapped(place, line.fixed)
        line.moving = {
            name: type(part)(*(mapped(place, each) for each in part))
            for name, part in line.moving.items()
        }
        reads.batches = [mapped(place, batch) for batch in reads.batches]
        reads.calibration = mapped(place, reads.calibration)
    return points


def drawn(name, mode="stored", chunk=None):
    net, data = case(name, torch.float32)
    pair = [lv.random_direction(net, seed=seed) for seed in (1, 2)]
    return Points(lv.Objective(net, data, batch_norm=mode), pair, chunk=chunk)


def crossings(points, gpu):
    """Return the device of a point's values, and what was copied between devices."""
    with gpu, torch.no_grad(), Crossings() as crossed:
        if points.chunk == 1:
            result = points._value(torch.empty(2, device="cuda"), [0.1, 0.2])
        else:
            result = vmap(points._value)(torch.empty(points.chunk, 2, device="cuda"))
    return result.device.type, crossed.seen


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FAKE)
def test_a_point_stays_on_the_gpu_and_nothing_waits_for_it(name, mode, chunk, gpu):
    points = moved(drawn(name, mode, chunk), gpu)
    assert crossings(points, gpu) == ("cuda", [])


def test_large_weights_move_on_the_gpu(gpu, monkeypatch):
    monkeypatch.setattr(points_module, "LARGE_WEIGHTS", 0)
    points = moved(drawn("residual"), gpu)
    assert type(next(iter(points.line.moving.values()))).__name__ == "_Sum"
    assert crossings(points, gpu) == ("cuda", [])


def test_the_check_sees_a_net_that_reads_a_number(gpu):
    points = moved(drawn(ASKS), gpu)
    with pytest.raises(DataDependentOutputException):
        crossings(points, gpu)


def test_the_check_sees_a_tensor_that_was_left_behind(gpu):
    points = moved(drawn("residual"), gpu)
    inputs, targets = points.objective.forward.batches[0]
    with gpu:
        points.objective.forward.batches = [(inputs, torch.empty(targets.shape, dtype=torch.long))]
    with pytest.raises(FakeTensorDeviceMismatchError):
        crossings(points, gpu)


def test_the_check_sees_a_copy_from_the_host(gpu, monkeypatch):
    def copied(counts, like):
        return torch.as_tensor(float(sum(counts))).to(like.device)

    points = moved(drawn("residual"), gpu)
    monkeypatch.setattr(forward, "_counted", copied)
    device, seen = crossings(points, gpu)
    assert device == "cuda" and seen


def test_the_order_of_an_epoch_goes_to_the_gpu_once(gpu, monkeypatch):
    taken = []  # (a step itself needs autograd, whose threads want a real device)
    monkeypatch.setattr(Descent, "_step", lambda self, batch, lr: taken.append(batch))
    with gpu, torch.device("cuda"):
        net = nn.Linear(8, 3)
        samples = object.__new__(Samples)  # whose checks read the samples, once
        samples.inputs, samples.targets = torch.empty(16, 8), torch.empty(16).long()
    with gpu, Crossings() as crossed:
        descent = Descent(net, samples, cross_entropy, Recipe(epochs=1, batch_size=4, lr=0.1))
        list(descent.epoch(0, torch.Generator()))
    assert [len(inputs) for inputs, _ in taken] == [4] * 4
    assert {part.device.type for batch in taken for part in batch} == {"cuda"}
    assert len(crossed.seen) == 1


# --- where there is a GPU ------------------------------------------------------------------------

GPU = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else ""


def on_gpu(test):
    without = pytest.mark.skipif(not GPU, reason="needs a CUDA or MPS device")
    return pytest.mark.gpu(without(test))


@on_gpu
@pytest.mark.parametrize("mode", MODES)
def test_a_plane_on_the_gpu_is_that_of_the_processor(mode):
    net, data = case("residual", torch.float32)
    pair = [lv.random_direction(net, seed=seed) for seed in (1, 2)]
    options = {"points": 5, "span": 0.5, "progress": False}
    here, there = (
        lv.plane(lv.Objective(net, data, batch_norm=mode, device=device), *pair, **options)
        for device in ("cpu", GPU)
    )
    assert there.values["loss"] == pytest.approx(here.values["loss"], rel=1e-3)


@on_gpu
def test_a_net_trains_on_the_gpu_and_goes_on_there(tmp_path):
    net, data = case("residual", torch.float32)
    options = {"batch_size": 4, "lr": 0.01, "path": tmp_path / "run", "progress": False}
    net = net.to(GPU)
    assert lv.fit(net, data, epochs=2, **options).history[-1]["epoch"] == 2
    again, _ = case("residual", torch.float32)
    found = lv.fit(again.to(GPU), data, epochs=2, **options)
    assert {part.device.type for part in again.parameters()} == {GPU}
    for name, weight in net.named_parameters():
        assert torch.equal(found.weights[name].cpu(), weight.detach().cpu())


@on_gpu
def test_a_detector_is_trained_measured_and_drawn_on_the_gpu():
    scenes = lv.data.pedestrians(4, seed=0)
    losses, values, found = {}, {}, {}
    for device in ("cpu", GPU):
        net = tiny_ssd(seed=0).to(device)
        losses[device] = fit_detector(net, scenes, steps=2, batch_size=2)
        batches = freeze_mining(net, scenes.batches(2))
        values[device] = detector_objective(net, batches)()
        found[device] = evaluate(net, scenes)
    assert losses[GPU] == pytest.approx(losses["cpu"], rel=1e-3)
    assert values[GPU] == pytest.approx(values["cpu"], rel=1e-2)
    assert 0 <= found[GPU] <= 1
