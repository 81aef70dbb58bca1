# SPDX-License-Identifier: Apache-2.0
"""Bias and variance by enumeration in float64, and what follows for descent (page, 7.1 to 7.4)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.advantage_nas import enumeration, families, flows
from jaxsafe.advantage_nas.config import EstimatorConfig
from jaxsafe.advantage_nas.families import FAMILIES
from jaxsafe.core.checks import UserError

INSTANCES = 20
EXACT = ("counterfactual", "reinforce")


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def instances(family, methods, **sizes):
    """Analyses `[INSTANCES]` of each method, and the relative errors of two forms of the truth."""

    def one(seed):
        loss, theta = families.make(jax.random.key(seed), family, dtype=jnp.float64, **sizes)
        found = {m: enumeration.analyse(loss, theta, EstimatorConfig(method=m)) for m in methods}
        autodiff = jax.grad(lambda t: enumeration.expected_loss(loss, t))(theta)
        truth = enumeration.exact_gradient(loss, theta)
        return found, jnp.abs(autodiff - truth).max()

    return jax.jit(lambda: jax.lax.map(one, jnp.arange(INSTANCES)))()


@pytest.fixture(scope="module")
def analysed():
    methods = ("advantage", "advantage_ema", "counterfactual", "corrected", "reinforce")
    with jax.enable_x64(True):
        return {family: instances(family, methods) for family in FAMILIES}


def test_architectures_are_all_of_them_in_order():
    every = enumeration.architectures(3, 4)
    assert every.shape == (64, 3) and len(np.unique(every, axis=0)) == 64
    np.testing.assert_array_equal(every @ [16, 4, 1], np.arange(64))
    with pytest.raises(UserError, match=r"10\^10 architectures are too many"):
        enumeration.architectures(10, 10)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_exact_gradient_is_that_of_the_expected_loss(analysed, family):
    assert analysed[family][1].max() < 1e-13


@pytest.mark.parametrize("family", FAMILIES)
def test_counterfactual_and_reinforce_are_exact_on_any_loss(analysed, family):
    for method in EXACT:
        found = analysed[family][0][method]
        assert found.bias.max() < 1e-12 and (1 - found.cosine).max() < 1e-12, method


def test_advantage_is_exact_where_the_loss_is_affine_in_each_gate(analysed):
    found = analysed["affine"][0]
    for method in ("advantage", "advantage_ema", "corrected"):
        assert found[method].bias.max() < 1e-12
    np.testing.assert_allclose(found["advantage"].variance, found["counterfactual"].variance)


def test_the_correction_is_exact_on_quadratic_losses_and_not_on_others(analysed):
    assert analysed["mse"][0]["corrected"].bias.max() < 1e-12
    assert analysed["mlp"][0]["corrected"].bias.min() > 1e-3


@pytest.mark.parametrize(("family", "bias", "least_cosine"), [("mse", 0.24, 0.8), ("mlp", 0.38, 0)])
def test_elsewhere_advantage_is_biased_but_points_down_here(analysed, family, bias, least_cosine):
    """The sizes belong to the instances; ours are drawn by the page's law, not its bits."""
    found = analysed[family][0]["advantage"]
    assert found.bias.min() > 1e-3
    assert found.bias.mean() == pytest.approx(bias, rel=0.35)
    assert found.cosine.min() > least_cosine
    np.testing.assert_allclose(found.bias, analysed[family][0]["advantage_ema"].bias)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("affine", {"advantage": 0.617, "advantage_ema": 0.526, "counterfactual": 0.617}),
        ("mse", {"advantage": 0.740, "advantage_ema": 0.377, "counterfactual": 0.485}),
        ("mlp", {"advantage": 0.394, "advantage_ema": 0.316, "counterfactual": 0.539}),
    ],
)
def test_every_advantage_has_less_variance_than_reinforce(analysed, family, expected):
    found = analysed[family][0]
    for method, ratio in expected.items():
        logs = jnp.log(found[method].variance / found["reinforce"].variance)
        assert float(jnp.exp(logs.mean())) == pytest.approx(ratio, rel=0.3), method
        assert float(jnp.exp(logs.mean())) < 0.9


def test_rloo_proxyless_and_random_by_their_own_draws():
    loss, theta = families.make(jax.random.key(3), "mlp", 2, 3, jnp.float64)
    rloo = enumeration.analyse(loss, theta, EstimatorConfig(method="rloo"))
    assert rloo.bias < 1e-12
    reinforce = enumeration.analyse(loss, theta, EstimatorConfig(method="reinforce"))
    assert 0.5 < rloo.variance / reinforce.variance < 1.5  # two samples, a noisier baseline
    random = enumeration.analyse(loss, theta, EstimatorConfig(method="random"))
    assert random.bias == 1 and random.variance == 0
    for method in ("rloo", "proxyless"):
        drawn, weight = enumeration.draws(theta, EstimatorConfig(method=method))
        assert weight.sum() == pytest.approx(1, abs=1e-12), method
        # The same frequencies as those of the method's own draws.
        config, n = EstimatorConfig(method=method), 20_000
        keys = jax.random.split(jax.random.key(0), n)
        own = jax.vmap(lambda k, c=config: enumeration.estimators.draw(k, theta, c))(keys)
        for k in range(3):
            share = float(jnp.mean((own.choice[:, 0, 0] == k) & (own.other[:, 1] != k)))
            expected = weight @ ((drawn.choice[:, 0, 0] == k) & (drawn.other[:, 1] != k))
            assert share == pytest.approx(float(expected), abs=4 * 0.5 / n**0.5)


def test_what_cannot_be_enumerated_is_sampled_with_its_error():
    loss, theta = families.make(jax.random.key(5), "mlp", 2, 3, jnp.float64)
    with pytest.raises(UserError, match="give analyse a key and num_draws"):
        enumeration.analyse(loss, theta, EstimatorConfig(method="gdas"))
    gdas = EstimatorConfig(method="gdas", tau_start=1.0, tau_end=1.0)
    found = enumeration.analyse(loss, theta, gdas, key=jax.random.key(0), num_draws=4000)
    assert found.error > 0 and jnp.isfinite(found.bias)
    config = EstimatorConfig(method="counterfactual")
    exact = enumeration.analyse(loss, theta, config)
    sampled = enumeration.analyse(loss, theta, config, key=jax.random.key(1), num_draws=4000)
    assert jnp.linalg.norm(sampled.mean - exact.mean) < 4 * sampled.error
    assert sampled.variance == pytest.approx(float(exact.variance), rel=0.1)


def test_the_wrong_sign():
    """Page 7.2: the first operation is better, and gate gradients point to the second."""
    loss, theta = families.wrong_sign(jnp.float64)
    truth = enumeration.exact_gradient(loss, theta)
    assert truth[0, 0] == pytest.approx(-0.0525, abs=1e-12)
    means = {
        m: enumeration.analyse(loss, theta, EstimatorConfig(method=m)).mean[0, 0]
        for m in ("advantage", "counterfactual", "corrected")
    }
    assert means["advantage"] == pytest.approx(0.245, abs=1e-12)
    assert means["counterfactual"] == pytest.approx(-0.0525, abs=1e-12)
    assert means["corrected"] == pytest.approx(-0.0525, abs=1e-12)


def follow(problem, method, **how):
    loss, theta = problem
    field = (
        flows.exact_field(loss)
        if method == "exact"
        else flows.mean_field(loss, EstimatorConfig(method=method))
    )
    run = jax.jit(lambda t: (flows.integrate(loss, field, t, **how), flows.rate(loss, field, t)))
    return run(theta)


@pytest.mark.parametrize(
    ("family", "methods"),
    [
        ("affine", ("exact", "advantage", "counterfactual")),
        ("mse", ("exact", "counterfactual", "corrected")),
        ("mlp", ("exact", "counterfactual")),
    ],
)
def test_the_expected_loss_falls_along_the_flow_of_every_exact_estimator(family, methods):
    problem = families.make(jax.random.key(11), family, 2, 3, jnp.float64)
    paths = {}
    for method in methods:
        paths[method], slope = follow(problem, method, step=0.5, num_steps=60)
        assert slope < 0 and jnp.diff(paths[method].expected).max() <= 1e-12, method
        np.testing.assert_allclose(paths[method].theta, paths["exact"].theta, atol=1e-9)
    assert paths["exact"].expected[-1] < paths["exact"].expected[0] - 1e-2


def test_the_expected_loss_rises_along_the_flow_of_advantage_where_its_sign_is_wrong():
    problem = families.wrong_sign(jnp.float64)
    exact, slope = follow(problem, "counterfactual", step=1.0, num_steps=400)
    assert slope < 0 and exact.expected[-1] == pytest.approx(0.04, abs=0.01)
    wrong, slope = follow(problem, "advantage", step=1.0, num_steps=400)
    assert slope == pytest.approx(2 * 0.0525 * 0.245, abs=1e-12)
    assert jnp.diff(wrong.expected).min() >= 0
    assert wrong.expected[-1] == pytest.approx(0.25, abs=0.01)
