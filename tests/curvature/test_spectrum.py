import pickle

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid

from lossviz.curvature import density, hessian, trace
from lossviz.objective import Objective


@pytest.fixture
def spectrum():
    rng = np.random.default_rng(0)
    return np.r_[rng.uniform(-0.5, 0.5, 580), rng.uniform(20, 50, 20)]


def test_the_trace_of_a_small_net_is_exact(objective, exact):
    found = trace(objective, products=200)
    assert found == pytest.approx(exact(objective).trace(), rel=1e-10)
    assert found.stderr == 0 and found.n == 191


@pytest.mark.parametrize("seed", range(4))
def test_the_trace_lies_within_three_standard_errors(objective, exact, seed):
    found = trace(objective, products=60, seed=seed)
    assert abs(found - exact(objective).trace()) < 3 * found.stderr


def test_the_standard_error_is_the_spread_over_seeds(objective):
    found = [trace(objective, products=30, seed=seed) for seed in range(60)]
    claimed = np.sqrt(np.mean([one.stderr**2 for one in found]))
    assert np.std(found) == pytest.approx(claimed, rel=0.35)


def test_hutchpp_beats_plain_probes_where_few_eigenvalues_dominate(objective):
    operator = hessian(objective, gauss_newton=True)  # of rank 2 · 24 at most
    matrix = operator @ np.eye(191)
    rng = np.random.default_rng(0)
    probes = rng.choice([-1.0, 1.0], size=(191, 90))
    plain = np.einsum("ij,ij->j", probes, matrix @ probes).std() / np.sqrt(90)
    found = trace(operator, products=90)
    assert found.stderr < 0.1 * plain
    assert abs(found - matrix.trace()) < 4 * found.stderr


def test_one_four_or_eight_batches_give_the_same_trace(net, samples):
    single = net.float(), (samples[0].float(), samples[1])
    found = [trace(Objective(*single, batch_size=b), products=30) for b in (3, 6, 24)]
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)


def test_a_trace_is_deterministic_by_its_seed(objective):
    one, again, other = (trace(objective, products=30, seed=seed) for seed in (1, 1, 2))
    assert one == again != other


def test_the_traces_of_blocks_add_up(objective):
    parts = sum(trace(objective, products=200, names=name) for name in "024")
    assert parts == pytest.approx(trace(objective, products=200))


def test_a_trace_survives_a_pickle(objective):
    found = trace(objective, products=30)
    again = pickle.loads(pickle.dumps(found))
    assert (again, again.stderr, again.products) == (found, found.stderr, 30)


def test_too_few_products_are_refused(objective):
    with pytest.raises(ValueError, match="at least 6"):
        trace(objective, products=3)


def quadrature(objective, **options):
    """A density from probes, and not from the full matrix, which small nets get."""
    return density(objective, probes=5, steps=30, **options)


def test_a_density_integrates_to_one(objective):
    found = quadrature(objective)
    assert trapezoid(found.density, found.eigenvalues) == pytest.approx(1, abs=1e-12)
    assert found.shares.sum() == pytest.approx(1, abs=1e-12)
    assert (found.density >= 0).all()


def test_the_mean_of_a_density_is_that_of_the_curve_drawn(objective):
    found = quadrature(objective)
    drawn = trapezoid(found.density * found.eigenvalues, found.eigenvalues)
    assert drawn == pytest.approx(found.moment(1), abs=1e-4 * np.ptp(found.nodes))


def test_the_first_three_moments_are_those_of_the_spectrum(quadratic, spectrum):
    found = density(quadratic(spectrum), probes=8, steps=20)
    for power in (1, 2, 3):  # of a diagonal matrix, probes of ±1 know the moments exactly
        assert found.moment(power) == pytest.approx(np.mean(spectrum**power), rel=1e-10)


def test_the_mean_of_a_density_is_the_trace_over_n(objective, exact):
    values = np.linalg.eigvalsh(exact(objective))
    found = [quadrature(objective, seed=seed).moment(1) for seed in range(12)]
    stderr = np.std(found, ddof=1) / np.sqrt(12)
    assert abs(np.mean(found) - values.mean()) < 3.5 * stderr


def test_a_density_finds_outliers_and_bulk(quadratic, spectrum):
    found = density(quadratic(spectrum), probes=6, steps=60)
    outside = found.shares[found.nodes > 10].sum()
    assert outside == pytest.approx(20 / 600, rel=0.3)
    below = (spectrum < 0).mean()
    assert found.negative_share == pytest.approx(below, abs=0.05)


def test_a_small_matrix_is_taken_whole(objective, exact):
    found = density(objective)
    np.testing.assert_allclose(found.nodes, np.linalg.eigvalsh(exact(objective)), atol=1e-12)
    assert found.products == 191


def test_probes_share_memory_when_it_is_short(objective, monkeypatch):
    together = quadrature(objective)
    monkeypatch.setattr("lossviz.curvature.spectrum.BASIS_BYTES", 0)
    alone = quadrature(objective)
    np.testing.assert_allclose(
        [together.moment(p) for p in (1, 2, 3)], [alone.moment(p) for p in (1, 2, 3)], rtol=0.5
    )


@pytest.mark.parametrize("value", [0.0, 4.0])
def test_a_density_of_one_eigenvalue_is_a_peak(quadratic, value):
    found = density(quadratic(np.full(300, value)), probes=2, steps=10)
    np.testing.assert_allclose(found.nodes, value, atol=1e-12)
    assert found.eigenvalues[found.density.argmax()] == pytest.approx(value, abs=found.width)
    assert found.negative_share == 0


@pytest.mark.parametrize(("value", "size"), [(2e-6, 2e-6), (-3.0, 3.0), (0.0, 1.0)])
def test_the_width_of_one_value_is_a_share_of_it(quadratic, value, size):
    found = density(quadratic(np.full(20, value)), width=0.01)
    assert found.width == pytest.approx(0.01 * size)


@pytest.mark.parametrize("setting", ["probes", "steps", "width"])
def test_settings_of_zero_are_refused(objective, setting):
    with pytest.raises(ValueError, match=f"{setting} must be positive"):
        density(objective, **{setting: 0})


def test_a_loss_that_overflows_has_no_density(objective):
    weights = {name: w * 1e300 for name, w in objective.weights.items()}
    for measure in (trace, density):
        with pytest.raises(FloatingPointError, match="move less far"):
            measure(objective, weights)


def test_torch_randomness_is_left_alone(objective):
    before = torch.get_rng_state()
    trace(objective, products=30)
    assert torch.equal(before, torch.get_rng_state())
