import copy
import threading

import pytest
import torch
import torch.nn.functional as F
from little_nets import Residual, dense, samples, seeded
from torch import fx, nn

import lossviz as lv
from lossviz import network as network_module
from lossviz.network import Folded, Network, norm_scale

F64 = torch.float64
IMAGES = (2, 6, 6)


class TiedConvolutions(nn.Module):
    """One weight, before a batch norm and without one."""

    def __init__(self):
        super().__init__()
        self.one, self.norm = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.two, self.head = nn.Conv2d(2, 2, 3, padding=1), nn.Linear(2, 3)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.head(self.two(F.relu(self.norm(self.one(x)))).mean((2, 3)))


class UsedTwice(nn.Module):
    """One convolution and one batch norm, each called twice."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        for _ in range(2):
            x = F.relu(self.norm(self.conv(x)))
        return self.head(x.mean((2, 3)))


class OneConvTwoNorms(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 4, 3), nn.Linear(4, 3)
        self.left, self.right = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.conv(x)
        return self.head((F.relu(self.left(x)) - self.right(x)).mean((2, 3)))


class ConvReadTwice(nn.Module):
    """What the convolution gives is read by the norm and by a shortcut: no folding."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x):
        x = self.conv(x)
        y = self.norm(x)
        return self.head((F.relu(y) + x).mean((2, 3)))


class SumReadTwice(nn.Module):
    """A sum that a rectifier and a shortcut read: it must not be overwritten."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        total = x + self.one(x)
        return self.two(F.relu(total) - total)


class RectifiedInput(nn.Module):
    """A rectifier and an addition in place, on a tensor that moves and on one that does not."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 3)
        self.register_buffer("shift", torch.ones(4))

    def forward(self, x):
        still = x * self.shift
        still += self.one(x)
        return self.two(F.relu(still, inplace=True))


class OwnTensors(nn.Module):
    """Parameters without a layer: in lists, without a dimension, tied by hand, in a buffer."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.parts = nn.ParameterList([torch.randn(4, 3), torch.randn(3)])
        self.register_buffer("wide", torch.tensor([2.0, 1.0, 0.5, 1.0]))
        self.register_buffer("order", torch.tensor([2, 0, 1, 3]))

    def forward(self, x):
        spread = torch.rsqrt(self.wide + 1)  # made of a buffer alone
        return self.scale * (x[:, self.order] * spread) @ self.parts[0] + self.parts[1]


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


class Words(nn.Module):
    """Embedding, encoder (attention, layer norm, dropout), and an output tied to the embedding."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.out = nn.Linear(8, 11)
        self.out.weight = self.embed.weight

    def forward(self, words):
        return self.out(self.encoder(self.embed(words)).mean(1))[:, :3]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attend, self.norm = nn.MultiheadAttention(4, 2, batch_first=True), nn.LayerNorm(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.norm(x + self.attend(x, x, x)[0]).mean(1))


class Branching(nn.Module):
    """Its way depends on the data: no trace can hold it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x):
        x = self.norm(self.conv(x))
        if x.mean() > 0:
            x = F.relu(x)
        return self.head(x.mean((2, 3)))


class OwnNorm(nn.Module):
    """A norm of one's own, whose statistics are buffers."""

    def __init__(self):
        super().__init__()
        self.linear, self.head = nn.Linear(4, 5), nn.Linear(5, 3)
        self.register_buffer("mean", torch.full((5,), 0.1))
        self.register_buffer("var", torch.full((5,), 2.0))

    def forward(self, x):
        return self.head(F.relu((self.linear(x) - self.mean) * torch.rsqrt(self.var)))


def convolutions():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding="same", groups=2), nn.BatchNorm2d(4), nn.ReLU(inplace=True),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), nn.BatchNorm2d(4, affine=False),
        nn.Dropout2d(0.5), nn.ConvTranspose2d(4, 4, 3, groups=2), nn.BatchNorm2d(4), nn.ReLU(),
        nn.GroupNorm(2, 4), nn.PReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


def unaffine():
    return nn.Sequential(
        nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6, affine=False), nn.ReLU(),
        nn.Linear(6, 5), nn.BatchNorm1d(5, track_running_stats=False), nn.Linear(5, 3),
    )  # fmt: skip


def weight_normed():
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), nn.Linear(5, 3))


NETS = {
    "dense": (dense, (4,)),
    "residual": (Residual, IMAGES),
    "residual with biases": (lambda: Residual(bias=True), IMAGES),
    "convolutions": (convolutions, IMAGES),
    "norms without scale or statistics": (unaffine, (4,)),
    "tied convolutions": (TiedConvolutions, IMAGES),
    "layers used twice": (UsedTwice, IMAGES),
    "one convolution, two norms": (OneConvTwoNorms, IMAGES),
    "a convolution read twice": (ConvReadTwice, IMAGES),
    "a sum read twice": (SumReadTwice, (4,)),
    "in place": (RectifiedInput, (4,)),
    "tensors of its own": (OwnTensors, (4,)),
    "a norm of its own": (OwnNorm, (4,)),
    "a branch on the data": (Branching, IMAGES),
    "recurrent": (Recurrent, (5, 4)),
    "attention": (Attention, (5, 4)),
    "words": (Words, None),
    "weight norm": (weight_normed, (4,)),
}
UNTRACEABLE = {"a branch on the data"}
MODES = ("stored", "batch", "recalibrated", "interpolated")


def case(name, dtype=F64, n=12):
    make, shape = NETS[name]
    net = seeded(make, dtype=dtype)
    if shape is not None:
        return net, samples(n, *shape, dtype=dtype)
    words = torch.randint(11, (n, 5), generator=torch.Generator().manual_seed(0))
    return net, (words, words[:, 0] % 3)


def plainly(objective):
    """The same objective, evaluated by the model itself."""
    slow = copy.deepcopy(objective)
    slow.forward.quick = False
    return slow


def shifted(objective, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: w + 0.3 * torch.randn(w.shape, generator=generator, dtype=F64).to(w)
        for name, w in objective.weights.items()
    }


@pytest.mark.parametrize("name", set(NETS) - UNTRACEABLE)
def test_every_net_that_can_be_traced_is(name):
    forward = lv.Objective(*case(name)).forward
    assert forward.quick, forward.reason


@pytest.mark.parametrize("name", UNTRACEABLE)
def test_a_net_that_cannot_be_traced_says_why(name):
    forward = lv.Objective(*case(name)).forward
    assert not forward.quick and "TraceError" in forward.reason


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NETS)
def test_the_quick_way_gives_what_the_model_gives(name, mode):
    objective = lv.Objective(*case(name), batch_norm=mode)
    slow, weights = plainly(objective), shifted(objective)
    for where in (None, weights):
        assert objective.values(where) == pytest.approx(slow.values(where), rel=1e-10)


@pytest.mark.parametrize("mode", ["stored", "batch", "interpolated"])
@pytest.mark.parametrize("name", NETS)
def test_the_gradient_of_the_quick_way_is_that_of_the_model(name, mode):
    objective = lv.Objective(*case(name), batch_norm=mode)
    ours, theirs = (o.gradient(shifted(o)) for o in (objective, plainly(objective)))
    for key in theirs:
        assert torch.allclose(ours[key], theirs[key], rtol=1e-8, atol=1e-12), key


def test_recalibrated_gradients_of_a_net_that_cannot_be_traced_are_refused_with_the_reason():
    objective = lv.Objective(*case("a branch on the data"), batch_norm="recalibrated")
    with pytest.raises(
        NotImplementedError, match=r"TraceError.*use batch_norm='stored' or 'batch'"
    ):
        objective.gradient()


def test_recalibrated_gradients_of_a_net_that_cannot_be_traced_are_there_without_norms():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x):
            return self.linear(x) if x.sum() > -1e9 else x

    objective = lv.Objective(seeded(Plain), samples(6, 4), batch_norm="recalibrated")
    assert not objective.forward.quick and bool(objective.gradient()["linear.weight"].any())


# --- folding ------------------------------------------------------------------------------------


def test_a_norm_with_fixed_statistics_is_an_affine_map():
    norm = seeded(lambda: nn.BatchNorm1d(3), dtype=F64)
    x, _ = samples(5, 3, dtype=F64)
    state = {**dict(norm.named_parameters()), **dict(norm.named_buffers())}
    scale, shift = norm_scale(state, norm, ("weight", "bias", "running_mean", "running_var"))
    assert torch.allclose(scale * x + shift, norm(x), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "folds"),
    [("residual", {"conv1": "norm1", "conv2": "norm2"}), ("layers used twice", {}),
     ("one convolution, two norms", {}), ("a convolution read twice", {}),
     ("tied convolutions", {"one": "norm"})],
)  # fmt: skip
def test_a_norm_is_folded_where_it_is_the_only_reader_of_a_layer_used_once(name, folds):
    assert Network(case(name)[0], fold=True).folds == folds


def test_folding_leaves_the_batch_norms_out_of_the_graph():
    net, (x, _) = case("residual")
    network = Network(net, fold=True)
    state = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    assert torch.allclose(network(Folded(state, network), x), net(x), rtol=1e-10)
    assert network.reads == {f"conv{i}.folded_{p}" for i in (1, 2) for p in ("weight", "bias")} | {
        "head.weight", "head.bias",
    }  # fmt: skip


def test_hooks_that_a_trace_would_lose_are_kept():
    net, data = case("dense")
    net[0].register_forward_hook(lambda module, args, output: output * 2)
    doubled = copy.deepcopy(net)
    objective = lv.Objective(net, data)
    assert not objective.forward.quick and "hooks" in objective.forward.reason
    with torch.no_grad():
        assert objective() == pytest.approx(float(F.cross_entropy(doubled(data[0]), data[1])))


def test_a_trace_that_froze_a_draw_is_not_used():
    class Drawing(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x):
            return self.linear(x) + 1e-5 * torch.randn(3)  # no part of a traced graph

    objective = lv.Objective(seeded(Drawing, dtype=F64), samples(6, 4, dtype=F64))
    assert not objective.forward.quick
    with pytest.raises(ValueError, match="noisy"):
        objective.check_repeatable()


def test_a_trace_does_not_freeze_what_is_made_of_buffers():
    net, data = case("a norm of its own")
    other = copy.deepcopy(net)
    other.mean += 1.0
    other.var *= 3.0
    curve = lv.line(
        lv.Objective(net, data, batch_norm="interpolated"),
        lv.toward(net, shift(other)), span=(0, 1), points=3,
    )  # fmt: skip
    with torch.no_grad():
        wanted = float(F.cross_entropy(shift(other)(data[0]), data[1]))
    assert curve.values["loss"][-1] == pytest.approx(wanted, rel=1e-10)


def shift(net):
    net = copy.deepcopy(net)
    with torch.no_grad():
        net.head.bias += 0.1
    return net


@pytest.mark.parametrize("name", ["residual", "in place", "a branch on the data"])
def test_threads_that_evaluate_one_objective_do_not_disturb_each_other(name):
    from concurrent.futures import ThreadPoolExecutor

    objective = lv.Objective(*case(name), batch_norm="batch")
    places = [shifted(objective, seed) for seed in range(12)]
    alone = [objective(place) for place in places]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(objective, places)) == alone


class Doubled(torch.autograd.Function):
    """Hands the input on, and doubles what comes back: no formula of the forward."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, slope):
        return 2 * slope


class WithDoubled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.last(Doubled.apply(self.first(x)))


def test_a_custom_backward_is_kept_since_the_net_itself_is_asked():
    torch.manual_seed(0)
    net = WithDoubled().double()
    inputs, targets = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 1, 0])
    torch.nn.functional.cross_entropy(net(inputs), targets).backward()
    loss = lv.Objective(net, (inputs, targets))
    assert not loss.forward.quick
    torch.testing.assert_close(loss.gradient()["first.weight"], net.first.weight.grad)


def test_recalibrated_statistics_of_a_norm_that_cannot_be_folded_have_their_gradient():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)
    ).double()
    data = (torch.randn(12, 3, dtype=torch.float64), torch.randint(0, 2, (12,)))
    loss = lv.Objective(net, data, batch_norm="recalibrated")
    step = torch.zeros_like(loss.weights["0.weight"])
    step[1, 2] = 1e-5
    moved = [{**loss.weights, "0.weight": loss.weights["0.weight"] + s * step} for s in (1, -1)]
    slope = (loss(moved[0]) - loss(moved[1])) / 2e-5
    assert loss.gradient()["0.weight"][1, 2].item() == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("mode", ["stored", "batch", "recalibrated"])
def test_norms_made_for_several_devices_are_the_usual_norms_on_one(mode):
    net = lv.models.resnet(8, width=2, seed=0)
    images = lv.data.digits().train[:32]
    usual = lv.Objective(net, images, batch_norm=mode)()
    synchronized = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert lv.Objective(synchronized, images, batch_norm=mode)() == usual


class Meanwhile(nn.Module):
    """Lets another thread run while it is being traced."""

    def __init__(self, other):
        super().__init__()
        self.linear, self.other, self.found = nn.Linear(3, 3), other, []

    def forward(self, x):
        if isinstance(x, fx.Proxy):
            thread = threading.Thread(target=lambda: self.found.append(self.other()))
            thread.start()
            thread.join()
        return self.linear(x)


def test_a_net_is_evaluated_by_one_thread_while_another_traces():
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    data = torch.randn(4, 3), torch.zeros(4).long()
    objective = lv.Objective(net, data)
    assert objective.forward.quick
    tracing = Meanwhile(objective)
    network = Network(tracing.eval(), fold=True)
    assert tracing.found == [objective()]
    state = dict(tracing.named_parameters())
    assert torch.allclose(network(state, data[0]), tracing.linear(data[0]))


def test_layers_are_rescaled_by_one_thread_while_another_evaluates():
    net, inputs, found = nn.Sequential(nn.Linear(3, 3), nn.Tanh()), torch.randn(4, 3), []
    tracing = Meanwhile(lambda: found.append(net(inputs)))
    lv.rescale(nn.Sequential(tracing, nn.ReLU(), nn.Linear(3, 3)), 2.0, layers=["0.linear"])
    assert found and all(scores.equal(net(inputs)) for scores in found)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_channel_that_is_constant_is_normalized_to_its_bias(layout):
    x = torch.full((50, 3, 6, 6), 10000.3).contiguous(memory_format=layout)  # no short binary form
    bias = torch.tensor([0.3, -1.0, 2.0])
    with torch.no_grad():
        found = network_module._normalized(x, None, bias, 1e-5, None)
    assert torch.equal(found, bias.reshape(-1, 1, 1).expand_as(x))
