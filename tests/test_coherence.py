"""Cosines of gradients of different batches."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lossviz.coherence import gradient_coherence


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def data(n=120, dim=8):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, dim, generator=generator)
    targets = (inputs @ torch.randn(dim, 3, generator=generator)).argmax(1)
    return inputs, targets


def net(depth=2, width=16, norm=True, dim=8):
    torch.manual_seed(0)
    layers, size = [], dim
    for _ in range(depth):
        layers += [nn.Linear(size, width), nn.BatchNorm1d(width) if norm else nn.Identity()]
        layers += [nn.ReLU()]
        nn.init.kaiming_normal_(layers[-3].weight)
        size = width
    return nn.Sequential(*layers, nn.Linear(size, 3))


def mean_output(model, batch):
    """A loss whose gradient is the mean of the batch's inputs."""
    return model(batch[0]).mean()


def test_cosines_of_a_linear_loss_are_those_of_the_batch_means():
    inputs, targets = data()
    line = nn.Linear(8, 1, bias=False)
    found = gradient_coherence(
        line, (inputs, targets), batch_size=30, n_batches=4, seed=5, loss=mean_output
    )
    order = torch.randperm(120, generator=torch.Generator().manual_seed(5))
    means = np.stack([inputs[part].double().mean(0).numpy() for part in order.split(30)])
    units = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(found.cosines, units @ units.T, atol=1e-6)
    np.testing.assert_allclose(found.norms, np.linalg.norm(means, axis=1), rtol=1e-6)


@pytest.mark.parametrize("mode", ["batch", "stored"])
def test_cosines_are_those_of_plain_backward_passes(mode):
    model, samples = net().double(), data()
    model.train()(samples[0].double())  # running statistics that differ from a batch's
    found = gradient_coherence(model, samples, batch_size=20, n_batches=6, batch_norm=mode)
    same = copy.deepcopy(model).train(mode == "batch")
    order = torch.randperm(120, generator=torch.Generator().manual_seed(0))
    rows = []
    for part in order.split(20):
        same.zero_grad()
        F.cross_entropy(same(samples[0][part].double()), samples[1][part]).backward()
        rows.append(torch.cat([p.grad.flatten() for p in same.parameters()]).numpy())
    rows = np.stack(rows)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(found.cosines, units @ units.T, atol=1e-12)
    assert found.batch_norm == mode


def test_summary_is_over_each_pair_once():
    found = gradient_coherence(net(), data(), batch_size=20, n_batches=4)
    pairs = [found.cosines[i, j] for i in range(4) for j in range(i + 1, 4)]
    np.testing.assert_array_equal(found.pairs, pairs)
    assert found.mean == pytest.approx(np.mean(pairs))
    assert found.minimum == min(pairs) and found.std == pytest.approx(np.std(pairs))
    assert found.null_std == 1 / math.sqrt(sum(p.numel() for p in net().parameters()))


def test_unrelated_gradients_have_cosines_of_the_null_spread():
    inputs = torch.randn(60, 4000, generator=torch.Generator().manual_seed(0))
    line = nn.Linear(4000, 1, bias=False)
    found = gradient_coherence(
        line, (inputs, torch.zeros(60)), batch_size=1, n_batches=60, loss=mean_output
    )
    assert found.std == pytest.approx(found.null_std, rel=0.1)
    assert abs(found.mean) < 4 * found.null_std / math.sqrt(len(found.pairs))


def test_columns_in_chunks_give_the_same(monkeypatch):
    whole = gradient_coherence(net(), data(), batch_size=20, n_batches=4)
    monkeypatch.setattr("lossviz.coherence.COLUMN_BYTES", 1000)
    parts = gradient_coherence(net(), data(), batch_size=20, n_batches=4)
    np.testing.assert_allclose(whole.cosines, parts.cosines, rtol=1e-12)


def test_the_seed_draws_the_batches():
    def cosines(seed):
        return gradient_coherence(net(), data(), batch_size=10, n_batches=4, seed=seed).cosines

    np.testing.assert_array_equal(cosines(1), cosines(1))
    assert not np.array_equal(cosines(1), cosines(2))


def test_the_model_is_left_as_it_was():
    model = net().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    gradient_coherence(model, data(), batch_size=20, n_batches=4, dtype=torch.float64)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert model.training and model[1].training and model[0].weight.dtype == torch.float32
    assert all(p.grad is None for p in model.parameters())


def test_it_looks_where_it_is_told():
    model, elsewhere = net(), net()
    with torch.no_grad():
        for weight in elsewhere.parameters():
            weight.add_(0.3)
    expected = gradient_coherence(elsewhere, data(), batch_size=20, n_batches=4)
    weights = dict(elsewhere.named_parameters())
    found = gradient_coherence(model, data(), batch_size=20, n_batches=4, weights=weights)
    np.testing.assert_array_equal(found.cosines, expected.cosines)


def test_dropout_is_off():
    model = nn.Sequential(nn.Dropout(0.5), net())
    plain = gradient_coherence(net(), data(), batch_size=20, n_batches=4)
    found = gradient_coherence(model, data(), batch_size=20, n_batches=4)
    np.testing.assert_allclose(found.cosines, plain.cosines, rtol=1e-6)


def test_gradients_of_a_plain_deep_net_with_batch_norm_are_unrelated():
    shallow, deep = (
        gradient_coherence(
            net(depth, width=32), data(1280), batch_size=64, n_batches=20, dtype=torch.float64
        )
        for depth in (2, 30)
    )
    assert shallow.mean > 0.2 and abs(deep.mean) < 0.05


def test_single_precision_that_overflows_is_refused_and_double_works():
    model = net(depth=60, norm=False)
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(6)
    with pytest.raises(ValueError, match=r"not finite.*float64"):
        gradient_coherence(model, data(), batch_size=20, n_batches=4)
    found = gradient_coherence(model, data(), batch_size=20, n_batches=4, dtype=torch.float64)
    assert np.isfinite(found.cosines).all()


def test_a_zero_gradient_has_no_cosine():
    inputs = torch.tensor([[1.0], [0.0], [2.0]])
    line = nn.Linear(1, 1, bias=False)
    found = gradient_coherence(
        line, (inputs, torch.zeros(3)), batch_size=1, n_batches=3, loss=mean_output
    )
    assert np.isnan(found.cosines).sum() == 5 and list(found.pairs) == [1.0]


@pytest.mark.parametrize(
    "change, kind, words",
    [
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"batch_size": 2.0}, TypeError, "batch_size"),
        ({"n_batches": 1}, ValueError, "n_batches"),
        ({"batch_size": 31}, ValueError, "at most 3 batches"),
        ({"batch_norm": "recalibrated"}, ValueError, "'batch' or 'stored'"),
        ({"weights": {}}, ValueError, "weight"),
    ],
)
def test_bad_settings_are_refused(change, kind, words):
    settings = {"batch_size": 20, "n_batches": 4, **change}
    with pytest.raises(kind, match=words):
        gradient_coherence(net(), data(), **settings)


def test_its_text_names_batch_size_and_mode():
    text = repr(gradient_coherence(net(norm=False), data(), batch_size=20, n_batches=4))
    assert "4 batches of 20, batch norm none in the net" in text
