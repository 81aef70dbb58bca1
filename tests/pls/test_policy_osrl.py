# SPDX-License-Identifier: Apache-2.0
"""The transformer beside a re-derivation in PyTorch with OSRL's layers and names."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe import pls
from jaxsafe.core.checks import UserError
from jaxsafe.pls import algorithm, losses, networks, osrl
from tests.pls.test_policy_cdt import random_batch, sizes

torch = pytest.importorskip("torch", reason="the re-derivation is in PyTorch (extra: parity)")

from benchmarks import torch_cdt  # noqa: E402

OBS, ACTION, STEPS = 7, 3, 50
LITERAL = dataclasses.replace(
    pls.osrl_compat(pls.CDT),
    episode_steps=STEPS,
    width=32,
    layers=2,
    heads=4,
    attention_dropout=0.0,
    residual_dropout=0.0,
    embedding_dropout=0.0,
)
RAW = dataclasses.replace(
    sizes(OBS, ACTION, STEPS),
    obs_mean=jnp.zeros(OBS),
    obs_scale=jnp.ones(OBS),
    return_scale=jnp.float32(0.1),
    cost_scale=jnp.float32(1.0),
)


def network(scale=0.2):
    """OSRL's network with weights far from their small first ones."""
    torch.manual_seed(0)
    made = torch_cdt.Network(OBS, ACTION, STEPS, width=32, layers=2, heads=4)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(scale * torch.randn_like(weight))
    return made


def tensors(batch):
    """The batch as OSRL's loader gives it: returns scaled, flags bool."""
    cast = {"time": torch.long, "mask": torch.bool}
    columns = {
        name: torch.tensor(np.asarray(x), dtype=cast.get(name, torch.float32))
        for name, x in batch._asdict().items()
    }
    columns["reward_to_go"] *= 0.1
    order = ("obs", "action", "reward_to_go", "cost_to_go", "cost", "time", "mask")
    return tuple(columns[name] for name in order)


def test_the_forward_agrees_with_torch():
    """At every real step, though torch masks padded keys and ours has no mask."""
    theirs = network().eval()
    params = osrl.from_osrl_state_dict(theirs.state_dict(), LITERAL)
    batch = random_batch(0, LITERAL, RAW, size=16)
    obs, action, returns, costs, _, time, mask = tensors(batch)
    with torch.no_grad():
        (mean, log_std), log_p, next_obs = theirs(obs, action, returns, costs, time, mask)
    ours = networks.predict(params, RAW, LITERAL, batch)
    for a, b in (
        (ours.mean, mean),
        (ours.log_std, log_std),
        (jax.nn.log_softmax(ours.cost_logits), log_p),
        (ours.next_obs, next_obs),
    ):
        np.testing.assert_allclose(a[batch.mask], b.numpy()[batch.mask], rtol=1e-5, atol=1e-5)


def test_losses_and_gradients_agree_with_torch():
    """The literal ones: padded steps count in the denominators, the last one predicts padding."""
    theirs = network(0.05).eval()
    config = dataclasses.replace(LITERAL, state_loss=0.3)
    params = osrl.from_osrl_state_dict(theirs.state_dict(), config)
    batch = random_batch(1, config, RAW, size=16)
    learner = torch_cdt.Learner(theirs, ACTION)
    expected, entropy = learner.losses(tensors(batch), state_weight=0.3)
    expected.backward()
    (loss, metrics), grads = jax.value_and_grad(losses.policy_loss, has_aux=True)(
        params, jnp.log(jnp.float32(0.1)), batch, jax.random.key(0), config, RAW
    )
    assert float(loss) == pytest.approx(expected.item(), rel=1e-5)
    assert float(metrics["policy/entropy"]) == pytest.approx(entropy.item(), rel=1e-5)
    their_grads = osrl.from_osrl_state_dict(
        {name: weight.grad for name, weight in theirs.named_parameters()}, config
    )
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(their_grads), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6)


def test_ten_training_steps_agree_with_torch():
    """AdamW with its warm-up and clip, and the temperature's own Adam."""
    theirs = network(0.05).eval()  # dropout off on both sides
    config = dataclasses.replace(LITERAL, learning_rate=1e-3, warmup_steps=4)
    start = osrl.from_osrl_state_dict(theirs.state_dict(), config)
    learner = torch_cdt.Learner(theirs, ACTION, rate=1e-3, warmup=4)
    state = algorithm.init(jax.random.key(0), config, RAW).replace(params=start)
    update = jax.jit(algorithm.update, static_argnames="config")
    for step in range(10):
        batch = random_batch(step, config, RAW, size=16)
        learner.update(tensors(batch))
        state, _ = update(state, batch, config)
    end = osrl.from_osrl_state_dict(theirs.state_dict(), config)
    assert float(state.log_temperature) == pytest.approx(learner.log_temperature.item(), abs=1e-6)
    moved = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (start, end)), strict=True)]
    assert sorted(moved)[2] > 1e-3  # all but the next observation's head, whose loss has weight 0
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(end), strict=True):
        # A gradient near 0 may differ in sign, and Adam's steps are of one size.
        error = np.abs(np.asarray(a - b))
        assert error.max() < 2e-3 and np.quantile(error, 0.99) < 5e-5


def test_a_policy_of_osrls_weights_acts_as_osrl_does():
    """R and C fall by scaled rewards and costs; the mean action of the last token, clamped."""
    theirs = network().eval()
    policy = osrl.policy(theirs.state_dict(), LITERAL)
    assert (policy.sizes.obs, policy.sizes.action, policy.sizes.steps) == (OBS, ACTION, STEPS)
    rng = np.random.default_rng(0)
    limits = -np.ones(ACTION, np.float32), np.ones(ACTION, np.float32)
    memory, left = networks.start(policy, LITERAL), np.array([300.0, 20.0])
    seen = {"obs": [], "action": [], "returns": [], "costs": []}
    returns, costs = 30.0, 20.0
    act = jax.jit(lambda m, o, z, t: networks.act(policy, LITERAL, m, limits, o, *z, t))
    for t in range(14):
        obs, reward, cost = rng.normal(size=OBS).astype(np.float32), rng.normal(), t % 2
        action, memory = act(memory, obs, left.astype(np.float32), t)
        for name, value in (("obs", obs), ("returns", returns), ("costs", costs)):
            seen[name].append(value)
        rows = slice(max(0, t - 9), t + 1)
        actions = np.array([*seen["action"], np.zeros(ACTION)], np.float32)
        inputs = [np.array(seen["obs"]), actions, np.array(seen["returns"]), seen["costs"]]
        batch = [torch.tensor(np.array(x)[rows], dtype=torch.float32)[None] for x in inputs]
        with torch.no_grad():
            mean = theirs(*batch, torch.arange(STEPS)[None, rows])[0][0][0, -1].clamp(-1, 1)
        np.testing.assert_allclose(action, mean.numpy(), rtol=1e-4, atol=1e-5)
        seen["action"].append(mean.numpy())
        left -= [reward, cost]
        returns, costs = returns - 0.1 * reward, costs - cost
        assert returns == pytest.approx(0.1 * left[0])


def test_deterministic_weights_convert_too():
    weights = dict(network().state_dict())
    for name in ("weight", "bias"):
        weights[f"action_head.0.{name}"] = weights.pop(f"action_head.mu.{name}")
        del weights[f"action_head.log_std.{name}"]
    config = dataclasses.replace(LITERAL, loss="mse")
    params = osrl.from_osrl_state_dict(weights, config)
    shapes = jax.eval_shape(lambda k: networks.init(k, config, RAW), jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)


@pytest.mark.parametrize(
    ("change", "config", "message"),
    [
        (lambda w: w.pop("blocks.1.mlp.0.bias"), {}, "no 'blocks.1.mlp.0.bias'"),
        (lambda w: w.update({"prefix_emb.weight": torch.ones(1)}), {}, "'prefix_emb.weight'"),
        (lambda w: None, {"layers": 1}, "'blocks.1"),
        (lambda w: None, {"width": 64}, "policy.width=64"),
        (lambda w: None, {"context": 70}, "policy.context=70"),
        (lambda w: None, {"model": "rvs"}, "set it to cdt"),
        (lambda w: None, {"return_scale": None}, "policy.return_scale"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change, config, message):
    weights = dict(network().state_dict())
    change(weights)
    with pytest.raises(UserError, match=message):
        osrl.policy(weights, dataclasses.replace(LITERAL, **config))
