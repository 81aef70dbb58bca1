# SPDX-License-Identifier: Apache-2.0
"""One stage of alignment as a pure update with a static config.

A stage takes a policy and gives another. Its reference is the policy it started from and nothing
else can be said to be it: `init` copies the parameters it is given, or leaves them as they are and
trains adapters, or whoever makes the batches computes `answer_sums` from them once. SFT as the
reference of a second stage is another, wrong algorithm (papers/sacpo trap 1, `tabular.solve`'s
control).
"""

import jax
import jax.numpy as jnp
import optax

from jaxsafe.lm import decoder, logprobs, lora, optimiser
from jaxsafe.sacpo import losses
from jaxsafe.sacpo.config import PAIRED, Config, adapter_of
from jaxsafe.sacpo.types import Batch, Params, State

Metrics = dict[str, jax.Array]


def init(key: jax.Array, config: Config, params: Params | None = None) -> State:
    """Returns a learner at the start of a stage. `key` is consumed.

    Args:
      key: typed PRNG key.
      config: static.
      params: of the policy to start from; None: a fresh one.
    """
    key_params, key = jax.random.split(key)
    start = decoder.init(key_params, config.model) if params is None else params
    stage, options = config.stage, adapter_of(config.stage)
    adapters = None
    if options:
        key_adapters, key = jax.random.split(key)
        adapters = lora.init(key_adapters, config.model, options)
        start = optimiser.cast(start, config.model.dtype)  # no masters of what stays as it is
    keeps = stage.loss != "sft" and stage.reference == "online" and not options
    return State(
        params=start,
        # A copy, so that a caller may donate the state.
        reference=jax.tree.map(jnp.copy, start) if keeps else None,
        adapters=adapters,
        opt_state=_optimizer(config).init(start if adapters is None else adapters),
        step=jnp.int32(0),
        key=key,
    )


def _optimizer(config: Config) -> optax.GradientTransformation:
    return optimiser.make(config.stage.optimiser, config.steps)


def trained(state: State) -> Params:
    """What updates change: adapters where there are any, otherwise all parameters."""
    return state.params if state.adapters is None else state.adapters


def _attached(state: State, now: Params, config: Config) -> Params:
    """Parameters of the policy whose trained part is `now`."""
    options = adapter_of(config.stage)
    return lora.attach(state.params, now, options) if options else now


def policy(state: State, config: Config) -> Params:
    """The policy as one tree, adapters merged; leaves may have axes ahead, of seeds."""
    options = adapter_of(config.stage)
    if options is None or state.adapters is None:
        return state.params
    return lora.merge(state.params, state.adapters, options)


def answer_sums(params: Params, batch: Batch, config: Config) -> jax.Array:
    """log pi(answer | prompt) `[B, K]`, summed over the answer's tokens."""
    rows, tokens = batch.ids.shape[:2], batch.ids.shape[2:]
    params = optimiser.cast(params, config.model.dtype)
    most = config.max_completion
    if config.max_prompt is not None and rows[1] > 1:
        ids, mask, completion = batch[:3]
        return logprobs.of_answers(
            *(config.model, params, ids, mask, completion),
            max_prompt=config.max_prompt,
            max_completion=most,
        )
    flat = (x.reshape(-1, *tokens) for x in batch[:3])
    sums = logprobs.sums(config.model, params, *flat, max_completion=most)
    return sums.reshape(rows)


def partners(key: jax.Array, number: int) -> jax.Array:
    """Another row for each of `number` rows, `[number]`: next in a random round. Consumes `key`."""
    order = jax.random.permutation(key, number)
    return jnp.zeros_like(order).at[order].set(jnp.roll(order, -1))


def mismatched(batch: Batch, partner: jax.Array) -> Batch:
    """Each prompt `[B, 1, T]` with the answer of row `partner` `[B]`, cut at T tokens."""
    ids, mask, completion = (x[:, 0] for x in batch[:3])
    start = jnp.argmax(completion, axis=-1)[:, None]
    # Of the other row, the slot that holds what comes at slot t of this one.
    slot = jnp.arange(ids.shape[-1])[None] - start + start[partner]
    inside = jnp.clip(slot, 0, ids.shape[-1] - 1)

    def taken(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x[partner], inside, axis=-1)

    answer = jnp.arange(ids.shape[-1])[None] >= start
    real = taken(completion) & (slot == inside) & answer
    joined = jnp.where(answer, taken(ids), ids)
    return Batch(joined[:, None], jnp.where(answer, real, mask)[:, None], real[:, None])


def _references(state: State, batch: Batch, config: Config) -> jax.Array:
    """Reference log-probabilities `[B, K]` from the batch, or else from the state's copy."""
    if batch.reference is not None:
        return batch.reference
    # With the adapters off, the policy is where the stage started.
    start = state.reference if state.adapters is None else state.params
    if start is None:
        raise ValueError("neither the batch nor the state has a reference")
    return jax.lax.stop_gradient(answer_sums(start, batch, config))


def _mismatched_ratios(state: State, batch: Batch, key: jax.Array, config: Config) -> jax.Array:
    """Log-ratios over the whole batch: of its second sequences, or of answers moved by a key."""
    if batch.ids.shape[1] == 2:
        other = Batch(*(x[:, 1:] for x in batch[:3]))
        reference = None if batch.reference is None else batch.reference[:, 1:]
        other = other._replace(reference=reference)
    else:
        if state.reference is None and state.adapters is None:
            raise ValueError("kto with cached references needs mismatched answers in the batch")
        other = mismatched(batch, partners(key, batch.ids.shape[0]))
    split = config.stage.accumulation
    parts = jax.tree.map(lambda x: x.reshape(split, -1, *x.shape[1:]), other)
    now = _attached(state, trained(state), config)
    return jax.lax.map(
        lambda part: answer_sums(now, part, config) - _references(state, part, config), parts
    )


def _sft_loss(
    params: Params, batch: Batch, per_row: jax.Array, config: Config
) -> tuple[jax.Array, Metrics]:
    """-mean over answer tokens of log pi, given the mean number of them in a row."""
    loss = -jnp.mean(answer_sums(params, batch, config)) / per_row
    return loss, {"policy/loss": loss}


def _pair_loss(
    params: Params, state: State, batch: Batch, config: Config
) -> tuple[jax.Array, Metrics]:
    stage = config.stage
    policy, reference = answer_sums(params, batch, config), _references(state, batch, config)
    margins = losses.margin(policy[:, 0], policy[:, 1], reference[:, 0], reference[:, 1])
    each = {
        "dpo": lambda: losses.dpo(margins, stage.temperature),
        "cdpo": lambda: losses.conservative_dpo(margins, stage.temperature, stage.smoothing),
        "ipo": lambda: losses.ipo(margins, stage.temperature),
    }[stage.loss]()
    scores = jnp.mean(stage.temperature * (policy - reference), axis=0)
    loss = jnp.mean(each)
    return loss, {
        "policy/loss": loss,
        "policy/accuracy": jnp.mean(margins > 0),
        "policy/chosen_score": scores[0],
        "policy/rejected_score": scores[1],
        "policy/margin": scores[0] - scores[1],
    }


def _kto_loss(
    params: Params, state: State, batch: Batch, baseline: jax.Array, config: Config
) -> tuple[jax.Array, Metrics]:
    stage = config.stage
    own = Batch(*(x[:, :1] for x in batch[:3]))
    if batch.reference is not None:
        own = own._replace(reference=batch.reference[:, :1])
    ratios = (answer_sums(params, own, config) - _references(state, own, config))[:, 0]
    assert batch.desirable is not None
    weights = config.desirable_weight, config.undesirable_weight
    each = losses.kto(ratios, batch.desirable, baseline, stage.temperature, *weights)
    loss, scores, kind = jnp.mean(each), stage.temperature * ratios, batch.desirable

    def mean(where: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(where, scores, 0.0)) / jnp.maximum(jnp.sum(where), 1)

    return loss, {
        "policy/loss": loss,
        "policy/accuracy": jnp.mean((ratios > baseline) == kind),
        "policy/chosen_score": mean(kind),
        "policy/rejected_score": mean(~kind),
        "policy/margin": mean(kind) - mean(~kind),
    }


def update(state: State, batch: Batch, config: Config) -> tuple[State, Metrics]:
    """One optimizer step of one stage.

    Args:
      state: the learner.
      batch: rows; see `types.Batch`.
      config: static.

    Returns:
      the next learner, and scalars: `policy/loss`, `policy/grad_norm`; for preferences also
      `policy/accuracy`, `policy/chosen_score`, `policy/rejected_score` and `policy/margin`, in
      units of the temperature times nats (implicit scores); for kto `policy/baseline`, z0 in nats,
      and `policy/mismatched_ratio`, the mean that z0 is at least 0 of.
    """
    stage, extra = config.stage, {}
    if stage.loss == "sft":
        # Of the whole batch, so that its parts weigh tokens alike.
        per_row = jnp.maximum(jnp.sum(batch.completion), 1) / (batch.ids.size / batch.ids.shape[-1])
        batch = batch._replace(reference=None, desirable=None)
        loss = lambda params, part: _sft_loss(params, part, per_row, config)  # noqa: E731
    elif stage.loss in PAIRED:
        batch = batch._replace(desirable=None)
        loss = lambda params, part: _pair_loss(params, state, part, config)  # noqa: E731
    else:
        key = jax.random.fold_in(state.key, state.step)
        ratios = _mismatched_ratios(state, batch, key, config)
        baseline = losses.kto_baseline(ratios)
        extra = {"policy/baseline": baseline, "policy/mismatched_ratio": jnp.mean(ratios)}
        loss = lambda params, part: _kto_loss(params, state, part, baseline, config)  # noqa: E731
    before = trained(state)
    (_, metrics), grads = optimiser.value_and_grad(
        lambda now, part: loss(_attached(state, now, config), part),
        *(before, batch, stage.accumulation),
    )
    changes, opt_state = _optimizer(config).update(grads, state.opt_state, before)
    metrics |= {"policy/grad_norm": optax.tree.norm(grads)} | extra
    name = "params" if state.adapters is None else "adapters"
    after = {name: optax.apply_updates(before, changes)}
    return state.replace(**after, opt_state=opt_state, step=state.step + 1), metrics
