"""Two libraries that were written without ours: PyHessian and curvlinops."""

import numpy as np
import pytest
import torch
from curvlinops import GGNLinearOperator, HessianLinearOperator, hutchpp_trace
from pyhessian import hessian as PyHessian
from scipy.sparse.linalg import eigsh
from torch import nn

from lossviz.curvature import density, extreme_eigenvalues, hessian, trace
from lossviz.objective import Objective

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using backward"),  # PyHessian's way, and its leak
    pytest.mark.filterwarnings("ignore:.*torch.jit.script"),
]
BATCHES = 3


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(64, 5)
    )
    inputs, targets = torch.randn(45, 1, 4, 4), torch.randint(5, (45,))
    net(inputs)  # running statistics of these samples
    return net.eval(), inputs, targets


@pytest.fixture
def ours(classifier):
    net, *samples = classifier
    return Objective(net, tuple(samples), batch_size=15)


@pytest.fixture
def pyhessian(classifier):
    net, inputs, targets = classifier
    torch.manual_seed(1)
    batches = list(zip(inputs.split(15), targets.split(15), strict=True))
    return PyHessian(net, nn.CrossEntropyLoss(), dataloader=batches, cuda=False)


@pytest.fixture
def curvlinops(classifier):
    net, inputs, targets = classifier

    def make(kind):
        batches = list(zip(inputs.split(15), targets.split(15), strict=True))
        return kind(net, nn.CrossEntropyLoss(), list(net.parameters()), batches)

    return make


def test_the_top_eigenvalue_is_that_of_pyhessian(ours, pyhessian):
    low, high = extreme_eigenvalues(ours)
    (theirs,), _ = pyhessian.eigenvalues(maxIter=500, tol=1e-6)
    largest = high if high > -low else low  # theirs is the largest in size
    assert largest == pytest.approx(theirs, rel=1e-3)


def test_both_ends_are_those_of_curvlinops(ours, curvlinops):
    operator = curvlinops(HessianLinearOperator).to_scipy()
    theirs = np.sort(eigsh(operator, k=2, which="BE", return_eigenvectors=False, tol=1e-5))
    assert tuple(extreme_eigenvalues(ours)) == pytest.approx(tuple(theirs), rel=1e-3)


def test_products_are_those_of_curvlinops(ours, curvlinops):
    vector = np.random.default_rng(0).standard_normal(hessian(ours).shape[0]).astype(np.float32)
    for kind, gauss_newton in ((HessianLinearOperator, False), (GGNLinearOperator, True)):
        theirs = curvlinops(kind).to_scipy() @ vector
        product = hessian(ours, gauss_newton=gauss_newton) @ vector.astype(np.float64)
        np.testing.assert_allclose(product, theirs, atol=1e-5 * np.abs(theirs).max())


def test_the_trace_agrees_with_pyhessian_within_both_errors(ours, pyhessian):
    found = trace(ours, products=90)
    theirs = np.array(pyhessian.trace(maxIter=60, tol=0))
    stderr = theirs.std(ddof=1) / np.sqrt(len(theirs))
    assert abs(found - theirs.mean()) < 2 * np.hypot(found.stderr, stderr)


def test_the_trace_agrees_with_curvlinops_within_both_errors(ours, curvlinops):
    torch.manual_seed(0)
    operator = curvlinops(HessianLinearOperator)
    theirs = [float(hutchpp_trace(operator, num_matvecs=30)) for _ in range(6)]
    found = trace(ours, products=90)
    stderr = np.std(theirs, ddof=1) / np.sqrt(6)
    assert abs(found - np.mean(theirs)) < 2 * np.hypot(found.stderr, stderr)


def symmetric_eig(matrix, eigenvectors):
    """What PyHessian's density calls, and what torch no longer has."""
    values, vectors = torch.linalg.eigh(matrix)
    return torch.stack([values, torch.zeros_like(values)], dim=1), vectors


def test_the_density_has_the_first_moments_of_pyhessian(ours, pyhessian, monkeypatch):
    monkeypatch.setattr(torch, "eig", symmetric_eig, raising=False)
    found = density(ours, probes=8, steps=20)
    nodes, shares = pyhessian.density(iter=20, n_v=12)
    for power in (1, 2, 3):
        theirs = (np.array(nodes) ** power * np.array(shares)).sum(1)
        stderr = theirs.std(ddof=1) * np.sqrt(1 / 12 + 1 / 8)
        assert abs(found.moment(power) - theirs.mean()) < 3 * stderr
