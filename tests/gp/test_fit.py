# SPDX-License-Identifier: Apache-2.0
"""Marginal likelihood against scikit-learn, and fits that find what made the data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process import kernels as sk

from jaxsafe import gp
from jaxsafe.core.checks import UserError


def data(num=120, seed=0):
    """A draw from a known process: lengthscales 20 and .5, variance 9, noise .25, mean 30."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=(num, 2)) * [100.0, 2.0]
    scaled = x / [20.0, 0.5]
    squares = ((scaled[:, None] - scaled[None]) ** 2).sum(-1)
    kernel = 9.0 * np.exp(-squares / 2) + 0.25 * np.eye(num)
    return x, 30.0 + np.linalg.cholesky(kernel) @ rng.normal(size=num)


def test_the_likelihood_is_scikit_learns():
    x, y = data(40)
    kernel = sk.ConstantKernel(4.0) * sk.RBF((10.0, 1.0))
    oracle = GaussianProcessRegressor(kernel, alpha=0.3, optimizer=None).fit(x, y - 30.0)
    with jax.enable_x64(True):
        got = gp.log_likelihood("rbf", x, y, jnp.asarray([10.0, 1.0]), 4.0, 0.3, 30.0)
    np.testing.assert_allclose(got, oracle.log_marginal_likelihood_value_, rtol=1e-10)


def test_a_fit_finds_the_process_and_is_as_likely_as_scikit_learns():
    x, y = data()
    found = gp.fit(jax.random.key(0), x, y, num_starts=4, num_steps=40)
    np.testing.assert_allclose(found.lengthscale, [20.0, 0.5], rtol=0.3)
    np.testing.assert_allclose(found.noise_var, 0.25, rtol=0.5)
    assert 3.0 < found.variance < 27.0
    kernel = sk.ConstantKernel(9.0) * sk.RBF((20.0, 0.5)) + sk.WhiteKernel(0.25)
    oracle = GaussianProcessRegressor(kernel, alpha=1e-9).fit(x, y - y.mean())
    assert found.log_likelihood > oracle.log_marginal_likelihood_value_ - 0.5


def test_a_known_noise_is_kept():
    x, y = data(40)
    found = gp.fit(jax.random.key(0), x, y, noise_var=0.7, num_starts=2, num_steps=5)
    np.testing.assert_allclose(found.noise_var, 0.7, rtol=1e-3)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (np.ones((4, 2)), np.arange(4.0), "constant"),
        (np.arange(8.0).reshape(4, 2), np.ones(4), "constant"),
        (np.arange(8.0).reshape(4, 2), np.array([1, 2, np.nan, 3]), "finite"),
        (np.arange(8.0), np.arange(8.0), "shape"),
    ],
)
def test_data_that_say_nothing_are_refused(x, y, words):
    with pytest.raises(UserError, match=words):
        gp.fit(jax.random.key(0), x, y)
