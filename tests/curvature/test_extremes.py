import numpy as np
import pytest
import torch
from torch import nn

from lossviz.curvature import eigen_directions, extreme_eigenvalues, gradient_direction, hessian
from lossviz.directions import Direction
from lossviz.objective import Objective


def test_both_ends_agree_with_the_exact_hessian(objective, exact):
    low, high = extreme_eigenvalues(objective)
    values = np.linalg.eigvalsh(exact(objective))
    assert low == pytest.approx(values[0], rel=1e-4)
    assert high == pytest.approx(values[-1], rel=1e-4)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_both_ends_agree_at_other_weights_too(objective, exact, seed):
    torch.manual_seed(seed)
    weights = {name: torch.randn_like(w) for name, w in objective.weights.items()}
    low, high = extreme_eigenvalues(objective, weights)
    values = np.linalg.eigvalsh(exact(objective, weights))
    assert low == pytest.approx(values[0], rel=1e-4)
    assert high == pytest.approx(values[-1], rel=1e-4)


def test_the_ends_of_a_parabola_are_its_curvatures(quadratic):
    spectrum = np.random.default_rng(0).uniform(-2, 9, 400)
    low, high = extreme_eigenvalues(quadratic(spectrum))
    assert (low, high) == pytest.approx((spectrum.min(), spectrum.max()), rel=1e-4)


def test_the_top_one_is_the_largest_and_not_the_largest_in_size(quadratic):
    low, high = extreme_eigenvalues(quadratic([-9.0, 0.5, 1.0, 2.0]))
    assert (low, high) == pytest.approx((-9.0, 2.0))


@pytest.mark.parametrize("batch_size", [3, 6, 24])
def test_one_four_or_eight_batches_give_the_same_ends(net, samples, batch_size):
    single = net.float(), (samples[0].float(), samples[1])
    ends = tuple(extreme_eigenvalues(Objective(*single), tol=1e-6))
    batched = Objective(*single, batch_size=batch_size)
    assert tuple(extreme_eigenvalues(batched, tol=1e-6)) == pytest.approx(ends, rel=1e-5)


def test_residuals_are_small_and_true(objective):
    ends = extreme_eigenvalues(objective, tol=1e-4)
    operator = hessian(objective)
    for value, vector, residual in zip(ends, ends.vectors, ends.residuals, strict=True):
        explicit = np.linalg.norm(operator @ vector - value * vector)
        assert residual == pytest.approx(explicit, abs=1e-12)
        assert residual <= 1e-4 * abs(value)
        assert np.linalg.norm(vector) == pytest.approx(1)


def test_a_tighter_tolerance_costs_more_products(objective):
    coarse, fine = (extreme_eigenvalues(objective, tol=tol) for tol in (1e-2, 1e-8))
    assert coarse.products < fine.products
    assert max(fine.residuals) < max(coarse.residuals)


def test_a_search_cut_short_says_so(objective):
    ends = extreme_eigenvalues(objective, max_products=3)
    assert not ends.converged and ends.products == 3


def test_a_convex_loss_has_no_negative_curvature(samples):
    torch.manual_seed(0)
    logistic = Objective(nn.Linear(4, 3).double(), samples)
    low, high = extreme_eigenvalues(logistic)
    assert high > 0 and abs(low) < 1e-6 * high
    assert low == pytest.approx(0, abs=1e-6 * high)


def test_a_flat_loss_has_zero_ends(quadratic):
    ends = extreme_eigenvalues(quadratic(np.zeros(20)))
    assert tuple(ends) == (0.0, 0.0) and ends.converged and np.isnan(ends.ratio)


def test_one_weight_has_one_curvature(quadratic):
    assert tuple(extreme_eigenvalues(quadratic([-3.0]))) == pytest.approx((-3.0, -3.0))


def test_a_loss_that_overflows_is_an_error_that_says_so(objective):
    weights = {name: w * 1e300 for name, w in objective.weights.items()}
    with pytest.raises(FloatingPointError, match="move less far"):
        extreme_eigenvalues(objective, weights)


def test_an_operator_may_take_the_place_of_the_objective(objective):
    low, high = extreme_eigenvalues(hessian(objective, gauss_newton=True))
    assert abs(low) < 1e-6 * high


def test_a_block_has_ends_within_those_of_the_whole(objective):
    low, high = extreme_eigenvalues(objective)
    block_low, block_high = extreme_eigenvalues(objective, names="2")
    assert low <= block_low <= block_high <= high


def test_rescaling_a_relu_net_changes_its_curvature_and_not_its_loss(samples):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False))
    objective = Objective(net.double(), samples)  # Dinh et al. 2017
    w = objective.weights
    scaled = {"0.weight": w["0.weight"] * 10, "2.weight": w["2.weight"] / 10}
    assert objective(scaled) == pytest.approx(objective(), rel=1e-12)
    assert extreme_eigenvalues(objective, scaled)[1] > 10 * extreme_eigenvalues(objective)[1]


def test_eigen_directions_are_eigenvectors(objective, exact):
    matrix = exact(objective)
    for direction in eigen_directions(objective, 3, tol=1e-6):
        vector = np.concatenate([part.numpy().ravel() for part in direction.values()])
        value = direction.recipe["eigenvalue"]
        assert np.linalg.norm(matrix @ vector - value * vector) < 1e-6
        assert direction.norm() == pytest.approx(1)


@pytest.mark.parametrize(
    ("which", "order"),
    [("largest", [-1, -2, -3]), ("smallest", [0, 1, 2]), ("both", [-1, 0, -2])],
)
def test_eigen_directions_come_in_the_order_asked(objective, exact, which, order):
    values = np.linalg.eigvalsh(exact(objective))
    found = [d.recipe["eigenvalue"] for d in eigen_directions(objective, 3, which=which)]
    np.testing.assert_allclose(found, values[order], rtol=1e-3)


def test_eigen_directions_of_a_block_leave_the_rest_alone(objective):
    (direction,) = eigen_directions(objective, 1, names="2")
    assert list(direction) == list(objective.weights)
    assert direction["2.weight"].any() and not direction["0.weight"].any()
    assert direction.rules["0.weight"] == "zero (outside the block)"


def test_eigen_directions_do_not_depend_on_the_seed(objective):
    (one,), (other,) = (eigen_directions(objective, 1, tol=1e-8, seed=seed) for seed in (1, 2))
    assert one.dot(other) == pytest.approx(1, abs=1e-6)


def test_the_loss_along_an_eigen_direction_bends_by_its_eigenvalue(objective):
    (direction,) = eigen_directions(objective, 1, which="smallest", tol=1e-6)
    step = 1e-4
    ahead, here, behind = (
        objective({name: w + a * direction[name] for name, w in objective.weights.items()})
        for a in (step, 0, -step)
    )
    bend = (ahead - 2 * here + behind) / step**2
    assert bend == pytest.approx(direction.recipe["eigenvalue"], rel=1e-4)


@pytest.mark.parametrize("k", [0, -1, 192, 1.5, True])
def test_more_directions_than_weights_are_refused(objective, k):
    with pytest.raises(ValueError, match=r"k must be an int in 1 … 191"):
        eigen_directions(objective, k)


def test_an_end_that_is_not_one_is_refused(objective):
    with pytest.raises(ValueError, match="'largest', 'smallest' or 'both'"):
        eigen_directions(objective, which="top")


def test_a_tolerance_of_zero_is_refused(objective):
    with pytest.raises(ValueError, match="tol must be above 0"):
        extreme_eigenvalues(objective, tol=0)


def test_the_gradient_direction_is_steepest(objective):
    uphill = gradient_direction(objective)
    slope = Direction(objective.gradient(), label="gradient")
    assert isinstance(uphill, Direction)
    assert uphill.norm() == pytest.approx(1)
    assert uphill.dot(slope) == pytest.approx(slope.norm())


def test_where_the_loss_is_flat_no_way_is_steepest(quadratic):
    with pytest.raises(ValueError, match="points nowhere"):
        gradient_direction(quadratic([1.0, 2.0]))


def test_most_random_directions_do_not_see_a_few_negative_eigenvalues(quadratic):
    """Mean and variance of the curvature along random directions: why a slice looks convex."""
    rng = np.random.default_rng(0)
    spectrum = np.r_[rng.uniform(-0.1, 0.1, 1970), rng.uniform(50, 100, 10), np.full(20, -2.0)]
    operator = hessian(quadratic(spectrum))
    units = rng.standard_normal((2000, 500))
    units /= np.linalg.norm(units, axis=0)
    curvatures = np.einsum("ij,ij->j", units, operator @ units)
    spread = np.sqrt(2 / 2002 * (np.mean(spectrum**2) - np.mean(spectrum) ** 2))
    assert curvatures.mean() == pytest.approx(spectrum.mean(), abs=4 * spread / np.sqrt(500))
    assert curvatures.std() == pytest.approx(spread, rel=0.15)
    assert curvatures.min() > 0 and spectrum.min() == -2


def test_more_eigenvectors_than_products_are_refused():
    objective = Objective(torch.nn.Linear(3, 3), (torch.randn(8, 3), torch.arange(8) % 3))
    with pytest.raises(ValueError, match="5 eigenvectors need 5 products or more"):
        eigen_directions(objective, 5, max_products=3)


def test_products_that_are_no_whole_number_are_still_a_limit():
    objective = Objective(torch.nn.Linear(30, 10), (torch.randn(64, 30), torch.arange(64) % 10))
    pairs = extreme_eigenvalues(objective, tol=1e-12, max_products=10.5)
    assert pairs.products <= 11
