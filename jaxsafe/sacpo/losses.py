# SPDX-License-Identifier: Apache-2.0
"""Preference losses on sums of log-probabilities, one equation each.

A sum runs over the tokens of a completion, its end included, the prompt left out. The reference is
always the policy that the stage starts from (paper, abstract and section on stepwise alignment).

References:
  Rafailov et al., "Direct Preference Optimization", NeurIPS 2023, arXiv 2305.18290 (DPO).
  Ethayarajh et al., "KTO: Model Alignment as Prospect Theoretic Optimization", arXiv 2402.01306.
  Azar et al., "A General Theoretical Paradigm to Understand Learning from Human Preferences",
    AISTATS 2024, arXiv 2310.12036 (IPO).
  Mitchell, "A note on DPO with noisy preferences and relationship to IPO", 2023 (conservative DPO).
"""

import jax
import jax.numpy as jnp

from jaxsafe.core.checks import UserError, check_choice

BALANCES = ("none", "weights", "interleave", "both")


def margin(
    policy_chosen: jax.Array,
    policy_rejected: jax.Array,
    reference_chosen: jax.Array,
    reference_rejected: jax.Array,
) -> jax.Array:
    """m = log pi(y_w)/pi_ref(y_w) - log pi(y_l)/pi_ref(y_l), `[...]` in nats."""
    return (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)


def dpo(margins: jax.Array, temperature: float | jax.Array) -> jax.Array:
    """-log sigmoid(t m), `[...]`: its minimiser is pi_ref exp(score / t) / Z (DPO, equation 7).

    Args:
      margins: `[...]` from `margin`.
      temperature: t, weight of the KL divergence; beta in the first stage, beta / lambda in the
        second.
    """
    return jax.nn.softplus(-temperature * margins)


def conservative_dpo(
    margins: jax.Array, temperature: float | jax.Array, smoothing: float | jax.Array
) -> jax.Array:
    """-(1 - e) log sigmoid(t m) - e log sigmoid(-t m), `[...]`, of labels wrong with chance e."""
    right, wrong = dpo(margins, temperature), dpo(-margins, temperature)
    return (1 - smoothing) * right + smoothing * wrong


def ipo(margins: jax.Array, temperature: float | jax.Array) -> jax.Array:
    """(m - 1 / (2 t))^2, `[...]` (IPO, equation 17): margins stay bounded where labels agree."""
    return jnp.square(margins - 1 / (2 * temperature))


def kto_baseline(mismatched: jax.Array) -> jax.Array:
    """z0 = max(0, mean log pi(y'|x) / pi_ref(y'|x)), `[]`, without a gradient (KTO, section 4.1).

    Args:
      mismatched: log-ratios `[B]` of prompts with completions y' of other rows.
    """
    return jax.lax.stop_gradient(jnp.maximum(jnp.mean(mismatched), 0.0))


def kto(
    log_ratios: jax.Array,
    desirable: jax.Array,
    baseline: jax.Array,
    temperature: float | jax.Array,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> jax.Array:
    """w_d sigmoid(t (z0 - d)) of desirable items, w_u sigmoid(t (d - z0)) of the others, `[B]`.

    Args:
      log_ratios: d = log pi(y|x) / pi_ref(y|x), `[B]`.
      desirable: `[B]` bool.
      baseline: z0 `[]`, from `kto_baseline`.
      temperature: t.
      desirable_weight: w_d.
      undesirable_weight: w_u.
    """
    excess = temperature * (log_ratios - baseline)
    return jnp.where(
        desirable,
        desirable_weight * jax.nn.sigmoid(-excess),
        undesirable_weight * jax.nn.sigmoid(excess),
    )


def kto_weights(num_desirable: int, num_undesirable: int, balance: str) -> tuple[float, float]:
    """Returns KTO's (desirable, undesirable) weights.

    `none` and `interleave` (batches half of each kind) weigh both by 1; `weights` corrects an
    imbalance by n_d / n_u on undesirable items. `both` is line/sacpo with trl @ 4219cbfe, which
    correct it twice: of batches half of each kind, it still weighs one half by n_d / n_u.

    Raises:
      UserError: the balance is unknown, or one kind is absent where the other is weighed by it.
    """
    check_choice("kto_balance", balance, BALANCES)
    if balance in ("none", "interleave"):
        return 1.0, 1.0
    if min(num_desirable, num_undesirable) < 1:
        raise UserError(
            f"kto_balance={balance!r} cannot weigh {num_desirable} desirable by "
            f"{num_undesirable} undesirable items: give some of both, or kto_balance='none'."
        )
    return 1.0, num_desirable / num_undesirable
