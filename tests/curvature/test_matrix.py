import contextlib
import copy

import numpy as np
import pytest
import torch
from torch import nn

from lossviz.curvature import hessian
from lossviz.losses import squared_error
from lossviz.objective import Objective


def dense(operator):
    return operator @ np.eye(operator.shape[0])


def relative(ours, oracle):
    return np.abs(ours - oracle).max() / np.abs(oracle).max()


def test_products_are_those_of_the_exact_hessian(objective, exact):
    assert relative(dense(hessian(objective)), exact(objective)) < 1e-12


def test_products_are_taken_at_the_weights_given(objective, exact):
    weights = {name: w + 0.1 for name, w in objective.weights.items()}
    assert relative(dense(hessian(objective, weights)), exact(objective, weights)) < 1e-12


@pytest.mark.parametrize("batch_size", [3, 6, 10, 24])
def test_batches_of_any_size_give_one_matrix(net, samples, batch_size, exact):
    batched = Objective(net, samples, batch_size=batch_size)
    whole = Objective(net, samples)
    assert relative(dense(hessian(batched)), exact(whole)) < 1e-12


def test_a_loss_that_counts_is_divided_by_all_its_counts(net, samples, exact):
    def counted(model, batch):
        inputs, targets = batch
        losses = nn.functional.cross_entropy(model(inputs), targets, reduction="none")
        return losses[targets > 0].sum(), (targets > 0).sum()

    kept = samples[1] > 0
    batched = Objective(net, samples, loss=counted, batch_size=5)
    alone = Objective(net, (samples[0][kept], samples[1][kept]))
    assert relative(dense(hessian(batched)), exact(alone)) < 1e-12


def test_many_vectors_at_once_are_multiplied_like_one_by_one(objective):
    operator = hessian(objective)
    vectors = np.random.default_rng(0).standard_normal((operator.shape[0], 3))
    alone = np.stack([operator @ vector for vector in vectors.T], axis=1)
    np.testing.assert_allclose(operator @ vectors, alone, rtol=1e-12, atol=1e-14)


def test_products_are_counted(objective):
    operator = hessian(objective)
    operator @ np.ones((operator.shape[0], 3))
    operator @ np.ones(operator.shape[0])
    assert operator.n_products == 4


def test_graphs_that_do_not_fit_in_memory_are_made_anew(objective, exact, monkeypatch):
    monkeypatch.setattr("lossviz.curvature.matrix.GRAPH_MEMORY", 0)
    assert relative(dense(hessian(objective)), exact(objective)) < 1e-12


def test_the_model_is_left_as_it_was(net, samples):
    before = copy.deepcopy(net.state_dict())
    operator = hessian(Objective(net.train(), samples))
    operator @ np.ones(operator.shape[0])
    assert net.training
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())


def test_float32_products_agree_with_float64_ones(net, samples, objective):
    single = Objective(copy.deepcopy(net).float(), (samples[0].float(), samples[1]))
    assert relative(dense(hessian(single)), dense(hessian(objective))) < 1e-5


def test_tied_weights_are_one_variable(exact, samples):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(4, 4)
            self.two = nn.Linear(4, 4)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.two(torch.tanh(self.one(x)))

    torch.manual_seed(0)
    objective = Objective(Tied().double(), samples)
    assert hessian(objective).shape == (24, 24)
    assert relative(dense(hessian(objective)), exact(objective)) < 1e-12


@pytest.mark.parametrize("batch_norm", ["stored", "recalibrated"])
def test_batch_norm_is_part_of_the_function(batch_norm, exact):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)
    ).double()
    inputs, targets = torch.randn(9, 1, 4, 4).double(), torch.randint(3, (9,))
    net(inputs)
    objective = Objective(net, (inputs, targets), batch_norm=batch_norm)
    assert relative(dense(hessian(objective)), exact(objective)) < 1e-10


def test_statistics_of_the_samples_are_differentiated_too():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).double()
    samples = torch.randn(20, 4).double(), torch.randint(3, (20,))
    objective = Objective(net, samples, batch_norm="batch")
    slow = dense(hessian(objective, finite_difference=True))
    assert relative(dense(hessian(objective)), slow) < 1e-7


def test_scale_invariant_weights_have_a_hessian_that_falls_with_their_square():
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(5, eps=1e-20)
    net = nn.Sequential(nn.Linear(4, 5, bias=False), norm, nn.Tanh(), nn.Linear(5, 3)).double()
    samples = torch.randn(20, 4).double(), torch.randint(3, (20,))
    objective = Objective(net, samples, batch_norm="batch")
    tripled = {**objective.weights, "0.weight": 3 * objective.weights["0.weight"]}
    here, there = (dense(hessian(objective, w, names="0")) for w in (None, tripled))
    assert relative(9 * there, here) < 1e-10


def test_finite_differences_come_near_the_hessian(objective, exact):
    slow = dense(hessian(objective, finite_difference=True))
    assert relative(slow, exact(objective)) < 1e-7


class Attention(nn.Module):
    """Its quick kernel has no second derivative in torch; the one from plain products has."""

    def __init__(self):
        super().__init__()
        self.query, self.key = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(self.query(x), self.key(x), x)


class PlainAttention(Attention):
    def forward(self, x):
        scores = self.query(x) @ self.key(x).mT / 3**0.5
        return scores.softmax(-1) @ x


def attentive(kind):
    torch.manual_seed(0)
    x = torch.randn(6, 1, 4, 3).double()
    return Objective(kind().double(), (x, x.square()), loss=squared_error)


def test_attention_has_the_hessian_of_its_formula():
    exact = dense(hessian(attentive(PlainAttention)))
    assert relative(dense(hessian(attentive(Attention))), exact) < 1e-10


class Cube(torch.autograd.Function):
    """A layer whose author wrote the first derivative only."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * slope


class Cubed(nn.Module):
    def __init__(self, quick):
        super().__init__()
        self.linear, self.quick = nn.Linear(3, 2), quick

    def forward(self, x):
        y = self.linear(x)
        if not bool(torch.isfinite(y).all()):  # a branch, which a trace could not follow
            return y
        return Cube.apply(y) if self.quick else y * y * y


def cubed(quick):
    torch.manual_seed(0)
    x = torch.randn(6, 3).double()
    return Objective(Cubed(quick).double(), (x, x[:, :2]), loss=squared_error)


def test_a_layer_without_second_derivative_says_what_to_do():
    with pytest.raises(NotImplementedError, match="finite_difference=True"):
        hessian(cubed(True)) @ np.ones(8)


def test_finite_differences_stand_in_for_a_missing_second_derivative():
    slow = dense(hessian(cubed(True), finite_difference=True))
    assert relative(slow, dense(hessian(cubed(False)))) < 1e-6


def test_gauss_newton_is_positive_semidefinite_where_the_hessian_is_not(objective):
    values = np.linalg.eigvalsh(dense(hessian(objective, gauss_newton=True)))
    assert values[0] > -1e-12 * values[-1]
    assert np.linalg.eigvalsh(dense(hessian(objective)))[0] < -1e-3


def test_gauss_newton_is_what_its_formula_says(net, samples, objective):
    weights = dict(net.named_parameters())
    outputs = torch.func.functional_call(net, weights, samples[0])
    rows = [torch.autograd.grad(f, list(weights.values()), retain_graph=True)
            for f in outputs.reshape(-1)]  # fmt: skip
    jacobian = torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])
    jacobian = jacobian.reshape(24, 3, -1)
    p = outputs.detach().softmax(1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    formula = torch.einsum("ska,skl,slb->ab", jacobian, inner, jacobian) / 24
    ours = dense(hessian(objective, gauss_newton=True))
    assert relative(ours, formula.numpy()) < 1e-12


def test_gauss_newton_is_the_hessian_of_a_linear_net(regression):
    ours = dense(hessian(regression, gauss_newton=True))
    assert relative(ours, dense(hessian(regression))) < 1e-12


def test_a_block_is_cut_out_of_the_whole(objective, exact):
    block = hessian(objective, names="2")
    assert block.names == ("2.weight", "2.bias")
    assert relative(dense(block), exact(objective)[60:164, 60:164]) < 1e-12


def test_a_parameter_alone_is_a_block_too(objective, exact):
    ends = np.r_[0:48, 188:191]
    block = hessian(objective, names=["4.bias", "0.weight"])
    assert relative(dense(block), exact(objective)[np.ix_(ends, ends)]) < 1e-12


def test_a_name_that_is_not_there_is_refused_with_near_ones(objective):
    with pytest.raises(ValueError, match=r"got '2.weigth': take, for example, '2.weight'"):
        hessian(objective, names="2.weigth")


def test_a_loss_that_does_not_bend_has_a_zero_hessian():
    net = nn.Linear(3, 1).double()
    samples = torch.ones(4, 3).double(), torch.zeros(4, 1)
    flat = Objective(net, samples, loss=lambda model, batch: model(batch[0]).mean())
    assert not dense(hessian(flat)).any()


def test_parameters_that_the_loss_does_not_use_have_zero_rows(samples):
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(4, 3), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    matrix = dense(hessian(Objective(Lazy().double(), samples)))
    assert not matrix[15:].any() and matrix[:15].any()


def test_vectors_split_into_tensors_of_the_block(objective):
    operator = hessian(objective, names="4")
    parts = operator.split(np.arange(27.0))
    assert {name: tuple(part.shape) for name, part in parts.items()} == {
        "4.weight": (3, 8),
        "4.bias": (3,),
    }
    assert parts["4.bias"].tolist() == [24.0, 25.0, 26.0]


def test_scipy_takes_the_operator(regression):
    from scipy.sparse.linalg import eigsh

    operator = hessian(regression)
    values = eigsh(operator, k=2, which="BE", return_eigenvectors=False)
    oracle = np.linalg.eigvalsh(dense(operator))
    np.testing.assert_allclose(np.sort(values), oracle[[0, -1]], rtol=1e-8)


def test_no_memory_is_left_behind_by_products(net, samples):
    import gc
    import weakref

    inputs, targets = samples
    objective = Objective(net, (inputs, targets), loss=lambda m, b: m(b[0]).square().mean())
    operator = hessian(objective)
    operator @ np.ones(operator.shape[0])
    gone = weakref.ref(operator)
    gc.disable()
    try:
        del operator
        assert gone() is None  # no cycle keeps the graphs until the collector comes
    finally:
        gc.enable()


def test_both_kinds_at_once_are_refused(objective):
    with pytest.raises(ValueError, match="exclude each other"):
        hessian(objective, gauss_newton=True, finite_difference=True)


def test_squared_error_of_a_line_has_the_hessian_of_its_normal_equations(regression, samples):
    inputs = np.c_[samples[0].numpy(), np.ones(24)]
    assert regression.loss is squared_error
    block = inputs.T @ inputs / 24
    weight = dense(hessian(regression, names="weight"))
    np.testing.assert_allclose(weight, np.kron(np.eye(2), block[:4, :4]), atol=1e-12)


def test_a_product_that_was_interrupted_spoils_none_that_follows():
    calls = []

    def stopped(model, batch):
        calls.append(1)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])

    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2).double()
    data = torch.randn(9, 3, dtype=torch.float64), torch.arange(9) % 2
    options = {"batch_size": 3, "metrics": {}}
    exact = hessian(Objective(net, data, **options)) @ np.eye(8)
    for first in range(2, 12):
        calls.clear()
        objective = Objective(net, data, loss=stopped, **options)
        calls[:] = [1] * (12 - first)
        operator = hessian(objective)
        with contextlib.suppress(KeyboardInterrupt):
            operator @ np.eye(8)
        assert operator @ np.eye(8) == pytest.approx(exact)
