# SPDX-License-Identifier: Apache-2.0
"""The decision transformer: its size, what its tokens see, what it learns, how it is rolled out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe import pls
from jaxsafe.pls import algorithm, layers, losses, networks, rollout, windows
from jaxsafe.pls.policy_types import Batch, Policy, Prediction, Sizes
from tests.pls import policy_worlds

TINY = dataclasses.replace(
    pls.CDT, context=4, width=16, layers=3, heads=4, batch_size=8, warmup_steps=10, augment=0.0
)


def sizes(obs=3, action=2, steps=20):
    return Sizes(
        jnp.full(obs, 0.5), jnp.full(obs, 2.0), jnp.float32(0.1), jnp.float32(0.5),
        obs, action, steps,
    )  # fmt: skip


def lively(key, config, of):
    """Parameters of a network whose every weight matters: far from its small first ones."""
    params = networks.init(key, config, of)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    pairs = zip(keys, leaves, strict=True)
    return jax.tree.unflatten(tree, [x + 0.2 * jax.random.normal(k, x.shape) for k, x in pairs])


def random_batch(seed, config, of, size=5):
    rng = np.random.default_rng(seed)
    shape = (size, config.window)
    first = rng.integers(0, of.steps - config.window, (size, 1))
    mask = np.arange(config.window) < rng.integers(1, config.window + 1, (size, 1))
    blank = lambda x: np.where(mask if x.ndim == 2 else mask[..., None], x, 0.0)  # noqa: E731
    return Batch(
        obs=blank(rng.normal(0.5, 1, (*shape, of.obs))),
        action=blank(rng.uniform(-1, 1, (*shape, of.action))),
        reward_to_go=blank(rng.normal(10, 5, shape)),
        cost_to_go=blank(rng.uniform(0, 9, shape)),
        cost=blank(rng.integers(0, 2, shape).astype(float)),
        time=(first + np.arange(config.window)).astype(np.int32),
        mask=mask,
    )


@pytest.mark.parametrize(
    ("obs", "action", "steps", "expected"),
    [(40, 2, 300, 647_086), (8, 3, 100, 128 * 110 + 257 * 8 + 386 * 3 + 596_354)],
)
def test_the_number_of_parameters_is_osrls(obs, action, steps, expected):
    """Known answer 6 of the notes; 647,086 was counted in OSRL's own model."""
    init = lambda key: networks.init(key, pls.CDT, sizes(obs, action, steps))  # noqa: E731
    shapes = jax.eval_shape(init, jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == expected


def test_weights_begin_small_and_biases_at_zero():
    config = dataclasses.replace(TINY, width=64)
    params = networks.init(jax.random.key(0), config, sizes(30))["params"]
    kernel = params["block_1"]["query_key_value"]["kernel"]
    assert float(jnp.std(kernel)) == pytest.approx(0.02, rel=0.05)
    assert float(jnp.std(params["time"])) == pytest.approx(0.02, rel=0.1)
    assert not np.asarray(params["action_out"]["bias"]).any()
    np.testing.assert_array_equal(params["norm_in"]["scale"], np.ones(64))


@pytest.mark.parametrize("layers_", [1, 3])
def test_no_token_sees_the_future(layers_):
    """Of an action only later steps know, of observation and targets also the step itself."""
    config, of = dataclasses.replace(TINY, layers=layers_), sizes()
    params = lively(jax.random.key(0), config, of)
    batch = random_batch(0, config, of)
    predict = jax.jit(lambda b: networks.predict(params, of, config, b))
    before = predict(batch)
    for name, first in (("action", 3), ("obs", 2), ("reward_to_go", 2), ("cost_to_go", 2)):
        column = getattr(batch, name).copy()
        column[:, 2] += 1.0
        after = predict(batch._replace(**{name: column}))
        np.testing.assert_array_equal(after.mean[:, :first], before.mean[:, :first])
        assert (np.abs(after.mean[:, first] - before.mean[:, first]) > 1e-4).any()
        for output in ("cost_logits", "next_obs"):
            old, new = getattr(before, output), getattr(after, output)
            np.testing.assert_array_equal(new[:, :2], old[:, :2])
            assert (np.abs(new[:, 2] - old[:, 2]) > 1e-4).any()


def test_padding_changes_no_loss():
    """Whatever stands in padded steps, losses and gradients are the same, to the bit."""
    config = dataclasses.replace(TINY, state_loss=0.5)
    of = sizes()
    params = lively(jax.random.key(0), config, of)
    batch = random_batch(0, config, of)
    noisy = {
        name: np.where(batch.mask.reshape(*batch.mask.shape, *[1] * (column.ndim - 2)), column, 9.0)
        for name, column in batch._asdict().items()
        if name not in ("time", "mask")
    }
    grads = jax.jit(
        lambda b: jax.value_and_grad(losses.policy_loss, has_aux=True)(
            params, jnp.float32(-2.0), b, jax.random.key(1), config, of
        )
    )
    assert not batch.mask.all()
    for x, y in zip(
        jax.tree.leaves(grads(batch)), jax.tree.leaves(grads(batch._replace(**noisy))), strict=True
    ):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("layers_", [1, 2, 3])
def test_acting_is_the_forward_over_the_last_steps(layers_):
    """Step by step through a memory of K slots, thrice round, as by a window cut anew each time."""
    config, of = dataclasses.replace(TINY, layers=layers_), sizes(steps=30)
    params = lively(jax.random.key(0), config, of)
    policy, horizon, k = Policy(params, of), 13, config.context
    rng = np.random.default_rng(0)
    obs = jnp.asarray(rng.normal(size=(horizon, 3)), jnp.float32)
    left = jnp.asarray(rng.uniform(0, 9, (horizon, 2)), jnp.float32)
    limits = jnp.full(2, -0.5), jnp.full(2, 0.7)

    def body(memory, x):
        step_obs, targets, time = x
        action, memory = networks.act(policy, config, memory, limits, step_obs, *targets, time)
        return memory, action

    start = networks.start(policy, config)
    _, actions = jax.lax.scan(body, start, (obs, left, jnp.arange(horizon)))
    clipped = 0
    for t in range(horizon):
        rows = slice(max(t + 1 - k, 0), t + 1)
        size = rows.stop - rows.start
        batch = Batch(
            obs=obs[None, rows],
            action=actions[None, rows].at[:, -1].set(5.0),  # not known yet, and not looked at
            reward_to_go=left[None, rows, 0],
            cost_to_go=left[None, rows, 1],
            cost=jnp.zeros((1, size)),
            time=jnp.arange(horizon)[None, rows],
            mask=jnp.ones((1, size), bool),
        )
        plain = networks.predict(params, of, config, batch).mean[0, -1]
        np.testing.assert_allclose(actions[t], np.clip(plain, *limits), rtol=1e-5, atol=1e-5)
        clipped += int(np.any(plain != np.clip(plain, *limits)))
    assert 0 < clipped < horizon


def test_dropout_keeps_the_right_share_and_the_mean():
    drop = layers.dropper(jax.random.key(0), 3)
    ones = jnp.ones((500, 400))
    first, second = drop(ones, 0.1), drop(ones, 0.1)
    assert drop(ones, 0.0) is ones
    for x in (first, second):
        assert set(np.unique(x)) == {np.float32(0), np.float32(1 / 0.9)}
        assert float(jnp.mean(x)) == pytest.approx(1.0, abs=0.003)
    other = layers.dropper(jax.random.key(1), 3)(ones, 0.1)
    pairs = [
        (first, second),  # of two sites
        (first, other),  # of two steps
        (first[1:], first[:-1]),  # of neighbours
        (first[:, 1:], first[:, :-1]),
        (first[:, 64:], first[:, :-64]),
    ]
    for a, b in pairs:
        assert abs(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]) < 0.01


def test_dropout_changes_training_alone():
    of = sizes()
    params = lively(jax.random.key(0), TINY, of)
    batch = random_batch(0, TINY, of)
    plain = networks.predict(params, of, TINY, batch).mean
    none = dataclasses.replace(
        TINY, attention_dropout=0.0, residual_dropout=0.0, embedding_dropout=0.0
    )
    key = lambda: jax.random.key(3)  # noqa: E731
    np.testing.assert_array_equal(networks.predict(params, of, none, batch, key()).mean, plain)
    for name in ("attention_dropout", "residual_dropout", "embedding_dropout"):
        some = dataclasses.replace(none, **{name: 0.5})
        assert (networks.predict(params, of, some, batch, key()).mean != plain).any(), name


def test_layers_have_their_textbook_gradients():
    keys = jax.random.split(jax.random.key(0), 3)
    x, w, dy = (
        jax.random.normal(k, s) for k, s in zip(keys, ((9, 4), (4, 7), (9, 7)), strict=True)
    )
    for ours, plain, inputs in (
        (layers.affine, lambda x, w, b: x @ w + b, (x, w, dy[0])),
        (layers.gelu, lambda x: jax.nn.gelu(x, approximate=False), (3 * dy,)),
        (layers.softmax, jax.nn.softmax, (3 * dy,)),
    ):
        out, back = jax.vjp(ours, *inputs)
        expected, plain_back = jax.vjp(plain, *inputs)
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)
        for a, b in zip(back(dy), plain_back(dy), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_literal_entropy_target_ends_near_deterministic():
    """Trap e of the notes: exp(-A - 1.41894), which is 8.1e-5 for eight dimensions."""
    batch = random_batch(0, TINY, sizes())
    literal = pls.osrl_compat(TINY)
    for action, deviation in ((2, 0.03275), (6, 6.0e-4), (8, 8.1e-5)):
        goal = losses.entropy_goal(literal, sizes(action=action))
        shape = (*batch.mask.shape, action)
        spread = Prediction(jnp.zeros(shape), jnp.full(shape, np.log(deviation)), None, None)
        assert float(losses.entropy(spread, batch)) == pytest.approx(goal, abs=0.01)
        assert losses.entropy_goal(TINY, sizes(action=action)) == -1.0


def test_an_entropy_above_its_goal_lowers_the_temperature():
    of = sizes()
    state = algorithm.init(jax.random.key(0), TINY, of)
    update = jax.jit(algorithm.update, static_argnames="config")
    after, metrics = update(state, random_batch(0, TINY, of), TINY)
    assert metrics["policy/entropy"] > -1
    assert float(metrics["policy/temperature"]) == pytest.approx(0.1)
    assert float(after.log_temperature - state.log_temperature) == pytest.approx(-1e-4, rel=1e-2)
    high = dataclasses.replace(TINY, entropy_target=5.0)
    after, _ = update(state, random_batch(0, TINY, of), high)
    assert after.log_temperature > state.log_temperature


def test_cost_labels_keep_fractions_unless_told_otherwise():
    """Trap i: OSRL's cast makes 0.9 no cost."""
    cost = jnp.array([0.0, 0.9, 1.0, 2.0])
    np.testing.assert_array_equal(losses.cost_labels(cost, TINY), [0, 1, 1, 1])
    np.testing.assert_array_equal(losses.cost_labels(cost, pls.osrl_compat(TINY)), [0, 0, 1, 1])


def test_log_deviations_are_bounded_unless_told_otherwise():
    """Trap f: unbounded, a density of nearly deterministic data has no limit."""
    of = sizes()
    params = jax.tree.map(lambda x: 30 * x, lively(jax.random.key(0), TINY, of))
    batch = random_batch(0, TINY, of)
    assert np.abs(networks.predict(params, of, TINY, batch).log_std).max() <= 5
    literal = dataclasses.replace(TINY, clip_log_std=False)
    assert np.abs(networks.predict(params, of, literal, batch).log_std).max() > 5


@pytest.mark.slow
def test_a_transformer_learns_to_reach_its_targets():
    config = dataclasses.replace(
        TINY, width=32, batch_size=64, steps=600, learning_rate=3e-3, loss="mse"
    )
    data = windows.make(policy_worlds.steady_data(), config)
    state = algorithm.init(jax.random.key(0), config, data.sizes)
    run = jax.jit(lambda s: algorithm.chunk(s, data, 0, config.steps, config))
    state, metrics = run(state)
    assert all(np.isfinite(x) for x in metrics.values())
    z = jnp.array([[-6.0, 1.0], [0.0, 5.0], [5.0, 8.0]])
    task = policy_worlds.steady()
    found = rollout.evaluate(algorithm.policy(state), jax.random.key(1), task, z, config, 5)
    np.testing.assert_allclose(found, np.broadcast_to(z[:, None], (3, 5, 2)), atol=1.0)


@pytest.mark.parametrize("model", ["cdt", "rvs"])
def test_blocks_of_episodes_change_no_returns(model):
    """Seven episodes by blocks of three, of two targets at once, are those run side by side."""
    config = dataclasses.replace(TINY, model=model, rollout_block=0)
    data = windows.make(policy_worlds.steady_data(5), config)
    params = lively(jax.random.key(0), config, data.sizes)
    policy, task = Policy(params, data.sizes), policy_worlds.steady()
    z = jnp.array([[3.0, 4.0], [-2.0, 1.0]])
    whole = rollout.evaluate(policy, jax.random.key(2), task, z, config, 7)
    blocks = dataclasses.replace(config, rollout_block=3)
    found = rollout.evaluate(policy, jax.random.key(2), task, z, blocks, 7)
    assert found.shape == (2, 7, 2) and np.ptp(found[..., 0]) > 0
    np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-4)
    one = rollout.returns(policy, jax.random.key(3), task, z[0], blocks, 4)
    two = rollout.returns(policy, jax.random.key(3), task, z[0], config, 4)
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)
