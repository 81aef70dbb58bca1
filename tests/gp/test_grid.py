# SPDX-License-Identifier: Apache-2.0
"""The grid posterior against tinygp's dense conditioning and scikit-learn's GP."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process import kernels as sk
from tinygp import GaussianProcess

from jaxsafe import gp

LENGTHSCALE, VARIANCE, MEAN = (0.2, 0.35), 1.7, 0.4
SKLEARN = {
    "rbf": sk.RBF(LENGTHSCALE),
    "matern52": sk.Matern(LENGTHSCALE, nu=2.5),
    "matern32": sk.Matern(LENGTHSCALE, nu=1.5),
}


def points(side=20):
    axis = np.linspace(0.0, 1.0, side)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)


def observations(num, size, seed=0):
    """Places (some drawn twice), values and noise variances."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, size, num), rng.normal(size=num), rng.uniform(0.01, 0.2, num)


def posterior(z, index, value, noise, name="rbf", capacity=None):
    """All observations in one scan."""
    z, lengthscale = jnp.asarray(z, float), jnp.asarray(LENGTHSCALE, float)
    size = len(z)
    start = gp.init(jnp.full(size, MEAN), jnp.full(size, VARIANCE), capacity or len(index))

    def step(state, observation):
        i, y, noise_var = observation
        row = gp.cross(name, lengthscale, VARIANCE, z[i], z)
        return gp.add(state, row, i, y, noise_var), state.mean[i]

    xs = (jnp.asarray(index), jnp.asarray(value, float), jnp.asarray(noise, float))
    return jax.jit(lambda: jax.lax.scan(step, start, xs)[0])()


def dense(z, index, value, noise, name="rbf"):
    """Mean and variance by tinygp, one Cholesky factor of all observations."""
    kernel = gp.make(name, jnp.asarray(LENGTHSCALE, float), VARIANCE)
    model = GaussianProcess(kernel, z[index], diag=jnp.asarray(noise), mean=MEAN)
    after = model.condition(jnp.asarray(value), z, diag=0.0).gp
    return after.loc, after.variance


@pytest.mark.parametrize("name", gp.KERNELS)
def test_a_row_of_the_kernel_is_tinygps_and_scikit_learns(name):
    """Three coordinates, the point itself among the others, and one lengthscale for all of them."""
    z = np.random.default_rng(0).uniform(size=(50, 3))
    scales = np.array([0.2, 0.35, 3.0])
    with jax.enable_x64(True):
        x = jnp.asarray(z)
        got = gp.cross(name, jnp.asarray(scales), VARIANCE, x[4], x)
        expected = gp.make(name, jnp.asarray(scales), VARIANCE)(x[4][None], x)[0]
        np.testing.assert_allclose(got, expected, rtol=1e-14)
        assert got[4] == VARIANCE
        alike = gp.cross(name, jnp.asarray(0.2), VARIANCE, x[4], x)
        same = gp.cross(name, jnp.full(3, 0.2), VARIANCE, x[4], x)
        np.testing.assert_array_equal(alike, same)
    oracle = sk.RBF(scales) if name == "rbf" else sk.Matern(scales, nu=int(name[-2]) / 2)
    np.testing.assert_allclose(got, VARIANCE * oracle(z[4][None], z)[0], rtol=1e-12)


def test_outputs_that_are_mapped_share_one_count():
    z, (index, value, noise) = jnp.asarray(points(8)), observations(5, 64)
    scales = jnp.asarray([0.1, 0.4])
    mean, var = jnp.full((2, 64), MEAN), jnp.full((2, 64), VARIANCE)
    state = jax.vmap(lambda m, v: gp.init(m, v, 8), out_axes=gp.AXES)(mean, var)
    cross = jax.vmap(gp.cross, in_axes=(None, 0, None, None, None))
    add = jax.vmap(gp.add, in_axes=(gp.AXES, 0, None, None, None), out_axes=gp.AXES)
    for i, y, n in zip(index, value, noise, strict=True):
        state = add(state, cross("rbf", scales, VARIANCE, z[i], z), i, y, n)
    assert state.count == 5 and state.count.shape == ()
    assert (np.abs(state.rows).max(-1) > 0).tolist() == [[True] * 5 + [False] * 3] * 2


@pytest.mark.parametrize("name", gp.KERNELS)
def test_in_64_bits_it_equals_tinygp_and_scikit_learn(name):
    z, data = points(), observations(100, 400)
    with jax.enable_x64(True):
        got = posterior(z, *data, name)
        mean, var = dense(z, *data, name)
        assert got.mean.dtype == jnp.float64
        np.testing.assert_allclose(got.mean, mean, rtol=0, atol=1e-11)
        np.testing.assert_allclose(got.var, var, rtol=0, atol=1e-11)
    index, value, noise = data
    kernel = sk.ConstantKernel(VARIANCE) * SKLEARN[name]
    oracle = GaussianProcessRegressor(kernel, alpha=noise, optimizer=None)
    mean, sd = oracle.fit(z[index], value - MEAN).predict(z, return_std=True)
    np.testing.assert_allclose(got.mean, mean + MEAN, rtol=0, atol=1e-11)
    np.testing.assert_allclose(got.var, sd**2, rtol=0, atol=1e-11)


def test_in_32_bits_a_hundred_observations_cost_1e_5_of_a_deviation():
    """2,500 points and 100 observations: variance to 2e-6 and deviation to 1e-5 of the prior's."""
    z, (index, value, _) = points(50), observations(100, 2500)
    noise = np.full(100, 0.01)
    got = posterior(z, index, value, noise)
    with jax.enable_x64(True):
        mean, var = map(np.asarray, dense(z, index, value, noise))
    assert np.abs(got.var - var).max() < 2e-6 * VARIANCE
    assert np.abs(gp.std(got) - np.sqrt(var)).max() < 1e-5 * np.sqrt(VARIANCE)
    # The values are white noise, which no smooth function follows: the weights are large.
    assert np.abs(got.mean - mean).max() < 1e-3


def test_in_32_bits_one_point_may_be_observed_very_often():
    """200 times at a tiny noise, and then beside it: nothing feeds on the rounding.

    Of the covariance of such a point with others only rounding is left.
    """
    z = points()
    rng = np.random.default_rng(0)
    index = np.concatenate([rng.integers(0, 400, 30), np.full(200, 57), np.full(30, 58)])
    noise = np.full(len(index), 2e-6 * VARIANCE)
    truth = np.sin(3 * z[:, 0]) + z[:, 1] ** 2
    value = truth[index] + np.sqrt(noise) * rng.normal(size=len(index))
    got = posterior(z, index, value, noise, "matern52")
    with jax.enable_x64(True):
        mean, var = map(np.asarray, dense(z, index, value, noise, "matern52"))
    assert np.abs(got.mean - mean).max() < 0.02 * np.sqrt(VARIANCE)
    assert np.abs(got.var - var).max() < 1e-4 * VARIANCE


def test_the_order_of_observations_is_irrelevant():
    z, data = points(), observations(30, 400)
    order = np.random.default_rng(1).permutation(30)
    a, b = posterior(z, *data), posterior(z, *(x[order] for x in data))
    np.testing.assert_allclose(a.mean, b.mean, atol=2e-5)
    np.testing.assert_allclose(a.var, b.var, atol=2e-6)


def test_two_looks_at_one_point_equal_one_at_their_mean_with_half_the_noise():
    z = points()
    twice = posterior(z, [7, 7], [1.0, 2.0], [0.1, 0.1])
    once = posterior(z, [7], [1.5], [0.05])
    np.testing.assert_allclose(twice.mean, once.mean, atol=1e-6)
    np.testing.assert_allclose(twice.var, once.var, atol=1e-6)


def test_one_observation_has_its_closed_form():
    """Known answer 2 of the notes: v = 1, nu2 = .01 gives rho = .990099, deviation .099504."""
    z = jnp.asarray(points())
    row = gp.cross("rbf", jnp.asarray(0.2), 1.0, z[5], z)
    state = gp.add(gp.init(jnp.zeros(400), jnp.ones(400), 4), row, 5, 2.0, 0.01)
    np.testing.assert_allclose(state.mean[5], 2.0 * 0.990099, rtol=1e-6)
    np.testing.assert_allclose(gp.std(state)[5], 0.099504, rtol=1e-4)
    np.testing.assert_array_equal(state.rows[1:], 0.0)
    assert state.count == 1


def test_spare_room_changes_no_numbers():
    z, data = points(), observations(10, 400)
    a, b = posterior(z, *data), posterior(z, *data, capacity=64)
    np.testing.assert_allclose(a.mean, b.mean, atol=1e-6)
    np.testing.assert_allclose(a.var, b.var, atol=1e-6)


def test_covariances_equal_those_of_tinygp():
    z, (index, value, noise) = points(8), observations(12, 64)
    with jax.enable_x64(True):
        kernel = gp.make("rbf", jnp.asarray(LENGTHSCALE), VARIANCE)
        state = posterior(z, index, value, noise)
        priors = [gp.cross("rbf", jnp.asarray(LENGTHSCALE), VARIANCE, x, z) for x in z]
        rows = [gp.covariance(state, prior, i) for i, prior in enumerate(priors)]
        model = GaussianProcess(kernel, z[index], diag=jnp.asarray(noise), mean=MEAN)
        after = model.condition(jnp.asarray(value), z, diag=0.0).gp
        np.testing.assert_allclose(np.stack(rows), after.covariance, rtol=0, atol=1e-11)


def test_a_loop_gives_what_the_scan_gives_and_outputs_map_like_a_loop():
    z, (index, value, noise) = jnp.asarray(points(10)), observations(6, 100)
    scales = jnp.asarray([0.1, 0.3, 0.9])

    def run(lengthscale, value, noise):
        state = gp.init(jnp.full(100, MEAN), jnp.full(100, VARIANCE), 6)
        for i, y, n in zip(index, value, noise, strict=True):
            state = gp.add(state, gp.cross("rbf", lengthscale, VARIANCE, z[i], z), i, y, n)
        return state

    value, noise = jnp.asarray(value, float), jnp.asarray(noise, float)
    values = jnp.stack([value, -value, 2 * value])
    mapped = jax.jit(jax.vmap(run, in_axes=(0, 0, None)))(scales, values, noise)
    for k in range(3):
        alone = run(scales[k], values[k], noise)
        np.testing.assert_allclose(mapped.mean[k], alone.mean, atol=1e-5)
        np.testing.assert_allclose(mapped.var[k], alone.var, atol=1e-5)
    scanned = posterior(z, index, value, noise)
    looped = run(jnp.asarray(LENGTHSCALE), value, noise)
    np.testing.assert_allclose(scanned.mean, looped.mean, atol=1e-5)
    np.testing.assert_allclose(scanned.var, looped.var, atol=1e-5)


@jax.jit
def _after_each(index, value, noise):
    """Posteriors `[6]` on 5 x 5 points after each of six observations."""
    z = jnp.asarray(points(5))
    start = gp.init(jnp.full(25, MEAN, z.dtype), jnp.full(25, VARIANCE, z.dtype), 6)

    def step(state, observation):
        i, y, noise_var = observation
        row = gp.cross("rbf", jnp.asarray(LENGTHSCALE, z.dtype), VARIANCE, z[i], z)
        state = gp.add(state, row, i, y, noise_var)
        return state, state

    return jax.lax.scan(step, start, (index, value, noise))[1]


@settings(max_examples=25, deadline=None)
@given(
    index=st.lists(st.integers(0, 24), min_size=6, max_size=6),
    value=st.lists(st.floats(-100, 100), min_size=6, max_size=6),
    noise=st.lists(st.floats(1e-3, 10), min_size=6, max_size=6),
)
def test_any_observations_give_the_closed_form_and_never_more_doubt(index, value, noise):
    """Against a dense solve by NumPy; places may repeat."""
    z = points(5)
    square = np.square((z[:, None] - z[None]) / np.asarray(LENGTHSCALE)).sum(-1)
    prior = VARIANCE * np.exp(-square / 2)
    with jax.enable_x64(True):
        states = _after_each(jnp.asarray(index), jnp.asarray(value), jnp.asarray(noise))
        states = jax.tree.map(np.asarray, states)
    for count in range(1, 7):
        at = index[:count]
        seen = prior[np.ix_(at, at)] + np.diag(noise[:count])
        weights = np.linalg.solve(seen, prior[at])
        mean = MEAN + weights.T @ (np.asarray(value[:count]) - MEAN)
        var = VARIANCE - np.sum(prior[at] * weights, axis=0)
        np.testing.assert_allclose(states.mean[count - 1], mean, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(states.var[count - 1], var, rtol=0, atol=1e-9)
    assert np.all(np.diff(states.var, axis=0) <= 0) and np.all(states.var >= 0)
    assert states.count.tolist() == [1, 2, 3, 4, 5, 6]
