import numpy as np
import pytest

from lossviz.curvature.lanczos import lanczos

RNG = np.random.default_rng(0)


def search(spectrum, **options):
    """Lanczos on a diagonal matrix whose eigenvalues are known."""
    spectrum = np.asarray(spectrum, dtype=float)
    start = np.random.default_rng(1).standard_normal(len(spectrum))
    return lanczos(lambda vector: spectrum * vector, start, **options)


def test_both_ends_of_a_known_spectrum_are_found():
    spectrum = RNG.standard_normal(500)
    pairs = search(spectrum, smallest=2, largest=2)
    oracle = np.sort(spectrum)[[0, 1, -2, -1]]
    assert pairs.converged
    np.testing.assert_allclose(pairs.values, oracle, rtol=1e-4)


def test_residuals_are_those_of_an_explicit_product():
    spectrum = RNG.standard_normal(500)
    pairs = search(spectrum, smallest=1, largest=2)
    explicit = np.linalg.norm(
        pairs.vectors * spectrum - pairs.vectors * pairs.values[:, None], axis=1
    )
    np.testing.assert_allclose(pairs.residuals, explicit, atol=1e-13)


def test_an_eigenvalue_lies_within_the_residual_also_before_convergence():
    spectrum = RNG.standard_normal(500)
    pairs = search(spectrum, max_products=6)
    assert not pairs.converged and pairs.products == 6
    for value, residual in zip(pairs.values, pairs.residuals, strict=True):
        assert np.abs(spectrum - value).min() <= residual


def test_vectors_are_orthonormal():
    vectors = search(RNG.standard_normal(300), smallest=3, largest=3).vectors
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(6), atol=1e-12)


def test_a_basis_that_fills_its_memory_is_compressed_and_goes_on(monkeypatch):
    spectrum = RNG.standard_normal(800)
    wide = search(spectrum)
    monkeypatch.setattr("lossviz.curvature.lanczos.BASIS_BYTES", 0)
    narrow = search(spectrum)
    assert narrow.converged and 24 < narrow.products <= 2 * wide.products
    np.testing.assert_allclose(narrow.values, wide.values, rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0, -2.0])
def test_a_multiple_of_the_identity_needs_no_search(value):
    pairs = search(np.full(50, value))
    assert pairs.values.tolist() == [value, value] and pairs.products <= 2


def test_repeated_eigenvalues_are_found_as_often_as_asked():
    pairs = search([5.0] * 10 + [1.0] * 100, smallest=0, largest=3)
    np.testing.assert_allclose(pairs.values, [5.0, 5.0, 5.0], rtol=1e-12)


def test_a_single_weight_has_a_single_eigenvalue():
    assert search([3.0]).values.tolist() == [3.0]


def test_two_weights_have_two():
    np.testing.assert_allclose(search([3.0, -1.0]).values, [-1.0, 3.0])


def test_a_start_near_the_answer_saves_products():
    spectrum = RNG.standard_normal(500)
    cold = search(spectrum)
    start = cold.vectors.sum(0) + 1e-3 * RNG.standard_normal(500) / np.sqrt(500)
    warm = lanczos(lambda vector: spectrum * vector, start)
    assert warm.products < cold.products
    np.testing.assert_allclose(warm.values, cold.values, rtol=1e-4)


def test_isolated_eigenvalues_come_quickly():
    spectrum = np.r_[RNG.uniform(-0.1, 0.1, 2000), 50.0, -7.0]
    assert search(spectrum).products < 12


def test_a_product_that_overflows_is_an_error_that_says_so():
    with pytest.raises(FloatingPointError, match="move less far"):
        search([1.0, np.inf, 2.0])
