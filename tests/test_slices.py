import numpy as np
import pytest
import scipy.sparse
import torch

from lossviz.curvature import hessian
from lossviz.objective import Objective
from lossviz.slices import expected_curvature, random_curvatures

FEW_NEGATIVE = np.r_[np.linspace(50, 100, 10), np.full(20, -2.0), np.zeros(1970)]


def test_curvature_along_random_directions_has_the_mean_and_the_spread_that_theory_foretells():
    mean, std = expected_curvature(FEW_NEGATIVE)
    found = random_curvatures(FEW_NEGATIVE, 4000, seed=1)
    assert found.mean() == pytest.approx(mean, abs=4 * std / np.sqrt(4000))
    assert found.std() == pytest.approx(std, rel=0.08)


def test_a_few_negative_eigenvalues_among_many_show_in_no_random_direction():
    assert (random_curvatures(FEW_NEGATIVE, 2000) > 0).all()


def test_in_two_dimensions_the_spread_is_that_of_a_cosine():
    mean, std = expected_curvature(np.array([3.0, -1.0]))  # 1 + 2 cos(2 angle)
    assert (mean, std) == pytest.approx((1.0, np.sqrt(2.0)))


def test_eigenvalues_a_sparse_matrix_and_an_operator_are_sliced_alike():
    values = np.arange(5.0)
    expected = random_curvatures(values, 70)
    np.testing.assert_allclose(random_curvatures(scipy.sparse.diags_array(values), 70), expected)
    np.testing.assert_allclose(random_curvatures(np.diag(values), 70), expected)


def test_a_slice_of_a_loss_is_the_second_derivative_along_it():
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2).double()
    loss = Objective(net, (torch.randn(7, 3), torch.randint(2, (7,))))
    curvature = random_curvatures(hessian(loss), 1, seed=4)[0]
    u = np.random.default_rng(4).standard_normal((8, 1))[:, 0]
    u = torch.from_numpy(u / np.linalg.norm(u))
    step = {"weight": 1e-4 * u[:6].reshape(2, 3), "bias": 1e-4 * u[6:]}
    ahead, behind = (loss({k: w + s * step[k] for k, w in loss.weights.items()}) for s in (1, -1))
    assert curvature == pytest.approx((ahead - 2 * loss() + behind) / 1e-8, rel=1e-4)


def test_eigenvalues_may_be_a_list():
    expected = random_curvatures(np.array([1.0, 2.0]), 5)
    np.testing.assert_array_equal(random_curvatures([1.0, 2.0], 5), expected)


def test_what_is_neither_a_row_nor_square_is_refused():
    with pytest.raises(ValueError, match=r"must be \[n, n\], or a row"):
        random_curvatures(np.ones((2, 3)))


def test_no_direction_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        random_curvatures(np.ones(3), 0)
