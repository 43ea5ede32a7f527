"""Any module, any loss, any data: nets that the kit has never seen."""

import copy
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from own_models import Letters, LowRank, Rows, next_letter
from safetensors.torch import save_file
from torch import nn
from torchvision.models import VisionTransformer, mobilenet_v3_small, shufflenet_v2_x0_5

import lossviz as lv
from lossviz.models.stored import load_weights


def seeded(make, **settings):
    torch.manual_seed(0)
    return make(**settings)


def pair_of(net, **choices):
    return [lv.random_direction(net, seed=seed, **choices) for seed in (1, 2)]


def loss_by_hand(net, direction, step, measure):
    """Move a copy's parameters one by one, in place, and measure: no code of ours."""
    moved = copy.deepcopy(net).eval()
    with torch.no_grad():
        for name, weight in moved.named_parameters():
            weight.add_(step * direction[name])
        return float(measure(moved))


def letters(n=20, length=12):
    return torch.randint(7, (n, length), generator=torch.Generator().manual_seed(0))


IMAGES = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(8)
VISION = {
    "mobilenet": lambda: mobilenet_v3_small(weights=None, num_classes=10),
    "shufflenet": lambda: shufflenet_v2_x0_5(weights=None, num_classes=10),
    "vision transformer": lambda: VisionTransformer(32, 8, 1, 2, 16, 32, num_classes=10),
}


# --- values are those of the module itself


@pytest.mark.parametrize("name", VISION)
def test_a_plane_of_a_torchvision_net_holds_what_the_net_says(name):
    net = seeded(VISION[name])
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    u, v = pair_of(net)
    s = lv.plane(lv.Objective(net, (IMAGES, CLASSES)), u, v, points=3, span=0.5, progress=False)
    wanted = loss_by_hand(net, u, 0.5, lambda m: F.cross_entropy(m(IMAGES), CLASSES))
    assert s.values["loss"][2, 1] == pytest.approx(wanted, rel=1e-4)


def test_a_transformer_that_reads_rows_is_drawn_like_any_net():
    net, data = seeded(Rows), lv.data.digits().train[:32]
    u, _ = pair_of(net)
    curve = lv.line(lv.Objective(net, data), u, points=3)
    wanted = loss_by_hand(net, u, 1.0, lambda m: F.cross_entropy(m(data.inputs), data.targets))
    assert curve.values["loss"][2] == pytest.approx(wanted, rel=1e-5)


def test_a_transformer_has_curvature_though_quick_attention_has_no_second_derivative():
    net, data = seeded(Rows, size=4, heads=1).double(), lv.data.digits().train[:16]
    objective = lv.Objective(net, data)
    operator = lv.curvature.hessian(objective)
    u = lv.random_direction(net, seed=1, normalize=None, one_dim="normalize")
    flat = torch.cat([u[name].reshape(-1) for name in objective.weights]).numpy()
    near = lv.line(objective, u, span=1e-5, points=3).values["loss"]
    second = (near[0] - 2 * near[1] + near[2]) / 1e-10  # so near that no rectifier turns
    assert flat @ operator.matvec(flat) == pytest.approx(second, rel=1e-3)


def test_a_loss_over_letters_is_weighted_by_letters_and_not_by_texts():
    net, text = seeded(Letters), letters()
    together = lv.Objective(net, [(text,)], loss=next_letter)()
    apart = lv.Objective(net, [(text[:3],), (text[3:, :7],), (text[3:, 6:],)], loss=next_letter)
    assert next_letter(net, (text,))[0].item() / (20 * 11) == pytest.approx(together, rel=1e-5)
    assert apart.forward.batches[1][0].shape == (17, 7) and apart() > 0


# --- tied, frozen and chosen weights


def test_a_tied_tensor_is_one_parameter_with_one_direction():
    net, text = seeded(Letters), letters()
    u, _ = pair_of(net)
    assert list(u) == ["embed.weight", "norm.weight", "norm.bias", "mix.weight", "mix.bias"]
    curve = lv.line(lv.Objective(net, [(text,)], loss=next_letter), u, points=3)

    def measure(moved):
        assert moved.answer.weight is moved.embed.weight
        return next_letter(moved, (text,))[0] / (20 * 11)

    wanted = loss_by_hand(net, u, 1.0, measure)
    assert curve.values["loss"][2] == pytest.approx(wanted, rel=1e-5)


def test_frozen_weights_are_frozen_for_training_and_move_in_a_picture():
    net = nn.Sequential(nn.Flatten(), LowRank(nn.Linear(64, 10)))
    before = net[1].base.weight.clone()
    lv.fit(net, lv.data.digits().train[:64], epochs=1, batch_size=16, lr=0.1, progress=False)
    assert torch.equal(net[1].base.weight, before) and bool(net[1].lora_b.any())
    assert bool(lv.random_direction(net, seed=1)["1.base.weight"].any())


def test_a_direction_over_low_rank_parts_leaves_the_base_where_it_is():
    net = nn.Sequential(nn.Flatten(), LowRank(nn.Linear(64, 10)))
    nn.init.normal_(net[1].lora_b)
    u = lv.random_direction(net, seed=1, names=["*lora_*"])
    whole = lv.random_direction(net, seed=1)
    assert not u["1.base.weight"].any() and u.rules["1.base.weight"].startswith("zero (not among")
    for name in ("1.lora_a", "1.lora_b"):
        assert torch.equal(u[name], whole[name])
    assert u.recipe["names"] == ["*lora_*"]


def test_a_low_rank_part_that_is_still_zero_has_no_scale_of_its_own():
    net = nn.Sequential(nn.Flatten(), LowRank(nn.Linear(64, 10)))
    u = lv.random_direction(net, seed=1, names=["1.lora_b"])
    with pytest.raises(ValueError, match="is zero everywhere and would move nothing"):
        lv.line(lv.Objective(net, lv.data.digits().train[:8]), u, points=3)


@pytest.mark.parametrize(
    ("names", "kind", "words"),
    [
        (["encodr.*"], ValueError, r"has 'encodr\.\*', which fits no parameter: they are called 0"),
        ("0.weight", TypeError, r"must be a list; got '0.weight': write \['0.weight'\]"),
    ],
)
def test_names_that_fit_nothing_are_refused(names, kind, words):
    with pytest.raises(kind, match=words):
        lv.random_direction(nn.Sequential(nn.Linear(2, 2)), seed=1, names=names)


# --- other precisions of checkpoints


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_checkpoint_of_half_precision_loads_into_a_net_of_float32(dtype, tmp_path):
    stored, net = seeded(Rows), Rows()
    halves = {f"module.{k}": v.to(dtype) for k, v in stored.state_dict().items()}
    save_file(halves, tmp_path / "net.safetensors")
    load_weights(net, tmp_path / "net.safetensors")
    assert {w.dtype for w in net.parameters()} == {torch.float32}
    data = lv.data.digits().train[:32]
    assert lv.Objective(net, data)() == pytest.approx(lv.Objective(stored, data)(), rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_net_of_half_precision_is_drawn_in_its_own_steps(dtype):
    net, data = seeded(Rows), lv.data.digits().train[:32]
    pair = pair_of(net)
    exact = lv.plane(lv.Objective(net, data), *pair, points=5).values["loss"]
    rounded = lv.plane(lv.Objective(copy.deepcopy(net).to(dtype), data), *pair, points=5)
    assert rounded.done.all() and rounded.meta["dtype"] == str(dtype).removeprefix("torch.")
    assert rounded.values["loss"] == pytest.approx(exact, rel=0.05)


def test_tied_weights_stored_once_load_again(tmp_path):
    stored, net = seeded(Letters), Letters()
    once = {k: v for k, v in stored.state_dict().items() if k != "answer.weight"}
    save_file(once, tmp_path / "net.safetensors")
    load_weights(net, tmp_path / "net.safetensors")
    assert torch.equal(net.answer.weight, stored.embed.weight)
    assert net.answer.weight is net.embed.weight


def test_deeper_layers_alone_can_be_moved():
    net = lv.models.resnet(8, width=2, channels=1, seed=0)
    u = lv.random_direction(net, seed=1, names=["layer3.*", "linear.*"])
    moved = {name for name, part in u.items() if bool(part.any())}
    assert moved and all(name.startswith(("layer3.", "linear.")) for name in moved)
    objective = lv.Objective(net, lv.data.digits().train[:16])
    losses = lv.line(objective, u, points=5).values["loss"]
    assert all(a != b for a, b in pairwise(losses))


class Two(nn.Module):
    """A net of two inputs."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(5, 3)

    def forward(self, p, q):
        return self.a(p) + self.b(q)


@pytest.mark.parametrize("nested", [True, False])
def test_a_net_of_two_inputs_is_drawn_by_a_loss_that_calls_it(nested):
    net, p, q, y = Two(), torch.randn(8, 4), torch.randn(8, 5), torch.randint(3, (8,))

    def loss(model, batch):
        parts = (*batch[0], batch[1]) if nested else batch
        return nn.functional.cross_entropy(model(*parts[:2]), parts[2])

    objective = lv.Objective(net, [((p, q), y) if nested else (p, q, y)], loss=loss)
    drawn = lv.line(objective, lv.random_direction(net, seed=1), points=3, progress=False)
    expected = float(nn.functional.cross_entropy(net(p, q), y).detach())
    assert drawn.values["loss"][1] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(TypeError, match=r"on one tensor; got a tuple.*model\(\*parts\)"):
        lv.Objective(net, [((p, q), y)])


def test_a_loss_of_torchs_own_kind_is_told_what_a_loss_takes():
    data = torch.randn(4, 2), torch.zeros(4, dtype=torch.long)
    with pytest.raises(TypeError, match=r"CrossEntropyLoss takes scores: .*model\(batch\[0\]\)"):
        lv.Objective(nn.Linear(2, 2), data, loss=nn.CrossEntropyLoss())
