# SPDX-License-Identifier: Apache-2.0
"""M2TD3's losses, one equation each (arXiv 2211.03413; equations as the authors' code has them).

Every omega here is normalised to [-1, 1], so the half-range that scales noise is 1.
"""

import jax
import jax.numpy as jnp

from jaxsafe.m2td3 import networks
from jaxsafe.m2td3.config import Config
from jaxsafe.m2td3.types import Params, Transition, World


def smoothed_action(
    noise: jax.Array, target_actor: Params, next_obs: jax.Array, config: Config, world: World
) -> jax.Array:
    """Target policy smoothing, a' = clip(pi'(s') + clip(N(0, policy_noise), +-noise_clip)).

    Takes standard normal noise `[B, A]`, scaled here in units of half the action range; returns
    `[B, A]`.
    """
    action = networks.policy(target_actor, config, world, next_obs)
    noise = jnp.clip(config.policy_noise * noise, -config.noise_clip, config.noise_clip)
    half = (world.action_high - world.action_low) / 2
    return jnp.clip(action + half * noise, world.action_low, world.action_high)


def smoothed_omega(noise: jax.Array, omega: jax.Array, config: Config, world: World) -> jax.Array:
    """Target parameter smoothing, omega' = clip(omega + clip(N(0, s), +-c), -1, 1).

    Takes standard normal noise `[B, D]`; returns `[B, D]`. Dimensions in which the set is a point
    do not move.
    """
    noise = config.target_omega_noise * noise
    noise = jnp.clip(noise, -config.target_omega_clip, config.target_omega_clip)
    return jnp.clip(omega + noise * world.omega_varies, -1.0, 1.0)


def td_target(
    target_critic: Params,
    batch: Transition,
    next_action: jax.Array,
    next_omega: jax.Array,
    config: Config,
    world: World,
) -> jax.Array:
    """Clipped double-Q target, y = r + discount * min(Q1', Q2')(s', a', omega'), `[B]`."""
    inputs = (config, world, batch.next_obs, next_action, next_omega)
    q1 = networks.q_value(target_critic["q1"], *inputs)
    q2 = networks.q_value(target_critic["q2"], *inputs)
    return batch.reward + batch.discount * jnp.minimum(q1, q2)


def critic_loss(
    critic: Params, batch: Transition, target: jax.Array, config: Config, world: World
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Of both critics, mean (Q1 - y)^2 + mean (Q2 - y)^2, `[]`, for targets y `[B]`."""
    inputs = (config, world, batch.obs, batch.action, batch.omega)
    q1 = networks.q_value(critic["q1"], *inputs)
    q2 = networks.q_value(critic["q2"], *inputs)
    loss = jnp.mean(jnp.square(q1 - target)) + jnp.mean(jnp.square(q2 - target))
    return loss, {"critic/loss": loss, "critic/q": jnp.mean(q1), "critic/target": jnp.mean(target)}


def worst_candidate(values: jax.Array) -> jax.Array:
    """k* = argmin of the candidates' values `[K]`; the last one wins a tie, as in the authors'."""
    return values.shape[0] - 1 - jnp.argmin(values[::-1])


def policy_value(
    q1: Params, obs: jax.Array, action: jax.Array, omega: jax.Array, config: Config, world: World
) -> jax.Array:
    """J = mean_s Q1(s, a, omega) for actions `[B, A]` and one omega `[D]`.

    The actor climbs it through `action` and the candidate descends it through `omega`.
    """
    return jnp.mean(networks.q_value(q1, config, world, obs, action, omega))


def _values(
    q1: Params, obs: jax.Array, action: jax.Array, omegas: jax.Array, config: Config, world: World
):
    """J `[N]` at omegas `[N, D]`, and what pulls each back to `(action, omega)`."""

    def value_at(omega: jax.Array):
        return jax.vjp(lambda a, w: policy_value(q1, obs, a, w, config, world), action, omega)

    return jax.vmap(value_at)(omegas)


def worst_case(
    q1: Params, obs: jax.Array, action: jax.Array, omegas: jax.Array, config: Config, world: World
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The least J over candidates `[K, D]` at actions `[B, A]`, and its gradients (M2TD3).

    Returns:
      J at k* `[]`, k* `[]`, dJ/da `[B, A]` and dJ/domega `[D]` there.
    """
    values, pull_backs = _values(q1, obs, action, omegas, config, world)
    worst = worst_candidate(values)
    # Only the worst candidate's pass is followed back.
    grad_action, grad_omega = jax.tree.map(lambda x: x[worst], pull_backs)(jnp.ones_like(values[0]))
    return values[worst], worst, grad_action, grad_omega


def soft_case(
    q1: Params,
    obs: jax.Array,
    action: jax.Array,
    omegas: jax.Array,
    weights: jax.Array,
    config: Config,
    world: World,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """As `worst_case`, but J and dJ/da are those of sum_k weights_k J_k, weights `[K]` (SoftM2TD3).

    k* and dJ/domega stay the worst candidate's: in both variants it alone moves.
    """
    values, pull_backs = _values(q1, obs, action, omegas, config, world)
    worst = worst_candidate(values)
    grad_actions, grad_omegas = jax.vmap(lambda f, w: f(w))(pull_backs, jnp.ones_like(values))
    grad_action = jnp.tensordot(weights, grad_actions, axes=1)
    return weights @ values, worst, grad_action, grad_omegas[worst]


def tail_weights(values: jax.Array, level: float | jax.Array) -> jax.Array:
    """Weights `[N]` of sum one whose mean of `values` `[N]` is CVaR, over the least share `level`.

    The value at the edge of that share counts in part, so that the mean is continuous in `level`
    (Rockafellar and Uryasev, 2002, for a sample).
    """
    ranks = jnp.argsort(jnp.argsort(values))
    share = jnp.maximum(level * values.shape[0], 1e-6)
    return jnp.clip(share - ranks, 0.0, 1.0) / share


def tail_case(
    q1: Params, obs: jax.Array, action: jax.Array, omegas: jax.Array, config: Config, world: World
) -> tuple[jax.Array, jax.Array]:
    """CVaR of J over omegas `[N, D]`, at `cvar_level`: its value `[]` and dCVaR/da `[B, A]`."""
    values, pull_backs = _values(q1, obs, action, omegas, config, world)
    weights = tail_weights(values, config.cvar_level)
    grad_actions = jax.vmap(lambda f, w: f(w)[0])(pull_backs, weights)
    return weights @ values, jnp.sum(grad_actions, axis=0)
