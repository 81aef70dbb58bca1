# SPDX-License-Identifier: Apache-2.0
"""Single estimates: identities, averages, samplers, the zero rule (papers page, 7.4, 7.6, 6)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.advantage_nas import config as configs
from jaxsafe.advantage_nas import estimators, families, losses, relaxed, sampling
from jaxsafe.advantage_nas.config import METHODS, Config, EstimatorConfig
from jaxsafe.advantage_nas.types import Draw
from jaxsafe.core.checks import UserError


@pytest.fixture(scope="module")
def problem():
    return families.make(jax.random.key(0), "mlp", 4, 3)


def estimate(problem, config, seed=0, state=None, choice=None):
    loss, theta = problem
    state = estimators.init(*theta.shape) if state is None else state
    if choice is None:
        return estimators.estimate(jax.random.key(seed), theta, loss, state, config)
    choice = jnp.asarray(choice, jnp.int32)
    drawn = Draw(choice[None], jnp.zeros_like(theta), choice)
    return estimators.estimate_of(drawn, theta, loss, state, config)


@pytest.mark.parametrize("method", METHODS)
def test_rows_of_every_gradient_sum_to_zero_and_repeat(problem, method):
    config = EstimatorConfig(method=method, tau_steps=10)
    run = jax.jit(
        lambda key: estimators.estimate(key, problem[1], problem[0], estimators.init(4, 3), config)
    )
    grad, state, info = run(jax.random.key(3))
    np.testing.assert_allclose(grad.sum(axis=1), 0, atol=1e-6)
    assert np.isfinite(info.loss) and info.choice.shape == (4,) and state.step == 1
    again = run(jax.random.key(3))[0]
    np.testing.assert_array_equal(grad, again)
    assert (np.abs(grad).max() == 0) == (method in ("random", "reinforce"))  # no average yet


def test_the_factor_of_each_method(problem):
    loss, theta = problem
    choice = np.array([2, 0, 1, 1])
    value = lambda gates: loss.sampled(gates, jnp.asarray(choice))[0]  # noqa: E731
    ones = jnp.ones(4)
    slope, hessian = jax.grad(value)(ones), jax.hessian(value)(ones)
    without = np.array([value(ones.at[e].set(0.0)) for e in range(4)])
    expected = {
        "advantage": slope,
        "advantage_ema": slope,
        "counterfactual": value(ones) - without,
        "corrected": slope - 0.5 * np.diag(hessian),
    }
    score = np.eye(3)[choice] - np.asarray(jax.nn.softmax(theta))
    for method, factor in expected.items():
        for in_turn in (False, True):
            config = EstimatorConfig(method=method, in_turn=in_turn)
            grad, _, info = estimate(problem, config, choice=choice)
            np.testing.assert_allclose(info.factor, factor, atol=2e-6)
            np.testing.assert_allclose(grad, np.asarray(factor)[:, None] * score, atol=2e-6)
            assert info.loss == pytest.approx(float(value(ones)))


def test_rloo_is_the_mean_of_leave_one_out(problem):
    loss, theta = problem
    config = EstimatorConfig(method="rloo", samples=3)
    drawn = estimators.draw(jax.random.key(1), theta, config)
    assert drawn.choice.shape == (3, 4)
    values = np.array([loss.sampled(jnp.ones(4), c)[0] for c in drawn.choice])
    expected = np.zeros((4, 3))
    for s in range(3):
        rest = np.delete(values, s).mean()
        score = np.eye(3)[np.asarray(drawn.choice[s])] - np.asarray(jax.nn.softmax(theta))
        expected += (values[s] - rest) * score / 3
    grad = estimators.estimate_of(drawn, theta, loss, estimators.init(4, 3), config)[0]
    np.testing.assert_allclose(grad, expected, atol=1e-6)


def test_averages_start_at_their_first_value_and_are_subtracted_before_it_joins(problem):
    config = EstimatorConfig(method="reinforce")
    _, state, first = estimate(problem, config, choice=[0, 0, 0, 0])
    assert state.loss_baseline.value == first.loss
    _, later, second = estimate(problem, config, state=state, choice=[1, 2, 1, 0])
    np.testing.assert_allclose(second.factor, second.loss - first.loss, rtol=1e-5)
    expected = 0.95 * first.loss + 0.05 * second.loss
    assert later.loss_baseline.value == pytest.approx(float(expected))
    theirs = dataclasses.replace(config, loss_baseline="after")
    _, _, literal = estimate(problem, theirs, state=state, choice=[1, 2, 1, 0])
    np.testing.assert_allclose(literal.factor, 0.95 * second.factor, rtol=1e-5)


def test_the_edge_baseline_is_zero_first_and_then_the_first_value(problem):
    config = EstimatorConfig(method="advantage_ema")
    plain = EstimatorConfig(method="advantage")
    _, state, first = estimate(problem, config, choice=[0, 1, 2, 0])
    np.testing.assert_array_equal(
        first.factor, estimate(problem, plain, choice=[0, 1, 2, 0])[2].factor
    )
    np.testing.assert_array_equal(state.edge_baseline.value, first.factor)
    _, _, second = estimate(problem, config, state=state, choice=[1, 1, 0, 2])
    raw = estimate(problem, plain, choice=[1, 1, 0, 2])[2].factor
    np.testing.assert_allclose(second.factor, raw - first.factor, rtol=1e-5)


def zero_problem():
    """One edge of three operations, the last of which gives 0; both advantages are below 0."""
    outputs = jnp.array([0.5, 0.25, 0.0])
    return losses.from_dense(lambda m: jnp.square(m[0] @ outputs - 1), 3), jnp.zeros((1, 3))


def test_the_gate_gradient_of_zero_is_zero():
    _, _, info = estimate(zero_problem(), EstimatorConfig(), choice=[2])
    assert info.factor[0] == 0.0 and info.loss == 1.0


def test_the_worst_of_known_operations_may_be_below_zero_and_theirs_is_not():
    problem = zero_problem()
    slopes = {0: 2 * 0.5 * -0.5, 1: 2 * 0.25 * -0.75}
    for rule, expected in (("worst", max(slopes.values())), ("literal", 0.0)):
        config = EstimatorConfig(zero_op=2, zero_rule=rule)
        state = None
        for choice in (0, 1, 0, 1):
            _, state, info = estimate(problem, config, state=state, choice=[choice])
            assert info.factor[0] == pytest.approx(slopes[choice])
        _, _, info = estimate(problem, config, state=state, choice=[2])
        assert info.factor[0] == pytest.approx(expected), rule


def test_the_worst_of_nothing_is_zero_and_averages_keep_apart():
    config = EstimatorConfig(zero_op=2, zero_rule="worst")
    _, state, info = estimate(zero_problem(), config, choice=[2])
    assert info.factor[0] == 0.0 and not state.edge_baseline.seen.any()
    assert not state.loss_baseline.seen and state.worst.seen.tolist() == [[False, False, True]]


def test_the_literal_table_averages_what_was_not_sampled_with_itself():
    config = EstimatorConfig(zero_op=2, zero_rule="literal")
    _, state, first = estimate(zero_problem(), config, choice=[0])
    np.testing.assert_allclose(state.worst.value[0], [first.factor[0], 0, 0])
    _, state, second = estimate(zero_problem(), config, state=state, choice=[1])
    np.testing.assert_allclose(
        state.worst.value[0], [first.factor[0], 0.05 * second.factor[0], 0], rtol=1e-6
    )


def test_exact_samples_follow_softmax():
    theta = jnp.array([[0.0, 1.0, -1.0], [2.0, 0.0, 0.0]])
    n = 200_000
    choice = sampling.sample(jax.random.key(0), theta, count=n)
    found = np.stack([np.bincount(choice[:, e], minlength=3) / n for e in range(2)])
    np.testing.assert_allclose(found, jax.nn.softmax(theta), atol=4 * 0.5 / n**0.5)


@pytest.mark.parametrize(("num_ops", "frequency"), [(4, 0.9978), (10, 0.9935)])
def test_the_clipped_sampler_keeps_trying_what_has_probability_zero(num_ops, frequency):
    theta = jnp.full((1, num_ops), -1e9).at[0, 0].set(0.0)
    n = 400_000
    choice = sampling.sample(jax.random.key(0), theta, "clipped", n)
    found = float(jnp.mean(choice == 0))
    deviation = (frequency * (1 - frequency) / n) ** 0.5
    assert found == pytest.approx(frequency, abs=4 * deviation + 5e-5)


def test_the_clipped_noise_is_bounded():
    noise = sampling.gumbel_from_uniform(jnp.array([0.0, 1e-3, 1 - 1e-3, 1.0]))
    np.testing.assert_allclose(noise, [-1.93264, -1.93264, 6.90726, 6.90726], atol=1e-4)


def test_theta_starts_at_one_with_a_tie_breaker():
    theta = np.asarray(sampling.init_theta(6, 4))
    assert (theta[:, 1:] == 1).all() and (theta[:, 0] > 1).all() and (theta < 1 + 2e-6).all()
    assert (np.argmax(theta, axis=1) == 0).all()


def test_entropy_and_probability():
    theta = jnp.zeros((6, 4))
    np.testing.assert_allclose(sampling.entropy(theta), np.log(4), rtol=1e-6)
    assert sampling.probability(jnp.zeros(6, int), theta) == pytest.approx(4.0**-6)


def test_gdas_falls_to_the_sampled_gate_and_its_softmax(problem):
    loss, theta = problem
    config = EstimatorConfig(method="gdas", tau_start=10.0, tau_end=0.1, tau_steps=101)
    drawn = estimators.draw(jax.random.key(4), theta, config)
    np.testing.assert_array_equal(drawn.choice[0], np.argmax(theta + drawn.noise, axis=1))
    np.testing.assert_allclose(
        relaxed.temperature(jnp.array([0, 50, 100, 300]), config), [10.0, 5.05, 0.1, 0.1], rtol=1e-5
    )
    state = estimators.init(4, 3).replace(step=jnp.int32(50))
    grad = estimators.estimate_of(drawn, theta, loss, state, config)[0]
    slope = losses.gate_gradients(loss, drawn.choice[0], theta)[1]

    def straight_through(theta):
        soft = jax.nn.softmax((theta + drawn.noise) / 5.05)
        return jnp.sum(slope * jnp.take_along_axis(soft, drawn.choice[0][:, None], 1)[:, 0])

    np.testing.assert_allclose(grad, jax.grad(straight_through)(theta), atol=1e-6)


def test_darts_is_the_gradient_of_the_mixtures_loss(problem):
    loss, theta = problem
    grad, _, info = estimate(problem, EstimatorConfig(method="darts"))
    expected = jax.grad(lambda t: loss.dense(jax.nn.softmax(t))[0])(theta)
    np.testing.assert_allclose(grad, expected, atol=1e-6)
    np.testing.assert_array_equal(info.choice, np.argmax(theta, axis=1))


def test_proxyless_moves_a_pair_and_keeps_the_others_probabilities(problem):
    theta = problem[1]
    config = EstimatorConfig(method="proxyless")
    grad, _, info = estimate(problem, config, seed=5)
    pair = np.asarray(info.pair)
    assert (pair[:, 0] != pair[:, 1]).all()
    outside = np.ones((4, 3), bool)
    np.put_along_axis(outside, pair, False, axis=1)
    assert (np.asarray(grad)[outside] == 0).all() and np.abs(grad).max() > 0
    after = relaxed.rescaled(theta, theta - grad - 0.1, info)  # an optimizer may move them all
    before, now = jax.nn.softmax(theta), jax.nn.softmax(after)
    np.testing.assert_allclose(np.asarray(now)[outside], np.asarray(before)[outside], rtol=1e-5)
    np.testing.assert_allclose(
        (np.log(now) - np.log(before))[np.arange(4), pair[:, 0]]
        - (np.log(now) - np.log(before))[np.arange(4), pair[:, 1]],
        -(grad[np.arange(4), pair[:, 0]] - grad[np.arange(4), pair[:, 1]]),
        atol=1e-5,
    )


def test_dense_methods_say_what_they_need(problem):
    sparse = problem[0]._replace(dense=None)
    for method in ("darts", "proxyless"):
        with pytest.raises(ValueError, match=r"give losses\.dense"):
            estimate((sparse, problem[1]), EstimatorConfig(method=method))


def test_bad_configs_are_refused():
    bad = EstimatorConfig(zero_rule="worst")
    with pytest.raises(UserError, match=r"zero_op=None leaves estimator\.zero_rule='worst'"):
        configs.validate_estimator(bad)
    with pytest.raises(UserError, match="set zero_rule to gate"):
        configs.validate_estimator(dataclasses.replace(bad, zero_op=4, method="rloo"))
    with pytest.raises(UserError, match="freeze_epochs=40 leaves theta nothing"):
        configs.validate(Config(freeze_epochs=40))
    with pytest.raises(UserError, match="no Nesterov form"):
        configs.validate(Config(weight_momentum=0.0))


def test_paper_compat_sets_what_the_authors_do():
    config = configs.paper_compat(Config(estimator=EstimatorConfig(zero_op=4)))
    assert (config.estimator.sampler, config.estimator.zero_rule) == ("clipped", "literal")
    assert config.estimator.loss_baseline == "after" and config.theta_l2 == 3e-3
    configs.validate(config)
    assert configs.paper_compat(Config()).estimator.zero_rule == "gate"
