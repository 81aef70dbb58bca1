# SPDX-License-Identifier: Apache-2.0
"""The Constrained Decision Transformer (OSRL `algorithms/cdt.py`, `common/net.py`) in Flax.

A window of K steps is 4K tokens, (R, C, s, a) of each step in order, each seen by itself and those
after it. Padding stands on the right, where no real token looks, so there is no mask for it.

Letters in shapes: B batch, K steps, L = 4K tokens, D width, H heads.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxsafe.pls.layers import Dense, Drop, gelu, no_drop, softmax
from jaxsafe.pls.policy_config import PolicyConfig

TOKENS = 4  # of a step: return-to-go, cost-to-go, observation, action
_SMALL = nn.initializers.normal(0.02)
_FAR = -1e30  # an attention score of no weight; finite, since whole rows may be masked


def _norm() -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-5)


class Block(nn.Module):
    """A pre-norm transformer block in pieces, so that callers compute what they read only."""

    config: PolicyConfig

    def setup(self) -> None:
        """Names the layers."""
        width = self.config.width
        self.norm1, self.norm2 = _norm(), _norm()
        self.query_key_value, self.out = Dense(3 * width), Dense(width)
        self.wide, self.narrow = Dense(4 * width), Dense(width)

    def heads(self, x: jax.Array, first: int = 0) -> jax.Array:
        """Of queries, keys and values those from `first` on, `[3 - first, ..., H, L, D / H]`.

        `x` is `[..., L, D]`, tokens.
        """
        parts = self.query_key_value(self.norm1(x), first * self.config.width)
        parts = parts.reshape(*x.shape[:-1], 3 - first, self.config.heads, -1)
        return jnp.moveaxis(jnp.moveaxis(parts, -3, 0), -2, -3)

    def finish(
        self,
        x: jax.Array,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        seen: jax.Array,
        drop: Drop,
    ) -> jax.Array:
        """The block's output `[..., Q, D]` at Q of its tokens.

        Args:
          x: `[..., Q, D]` its input there.
          query: `[..., H, Q, D / H]`.
          key: `[..., H, L, D / H]`.
          value: `[..., H, L, D / H]`.
          seen: `[Q, L]` bool, which token looks at which.
          drop: dropout.
        """
        scores = jnp.einsum("...qd,...kd->...qk", query * query.shape[-1] ** -0.5, key)
        weights = softmax(jnp.where(seen, scores, _FAR))
        weights = drop(weights, self.config.attention_dropout)
        mixed = jnp.moveaxis(jnp.einsum("...qk,...kd->...qd", weights, value), -3, -2)
        x = x + drop(self.out(mixed.reshape(x.shape)), self.config.residual_dropout)
        wide = gelu(self.wide(self.norm2(x)))
        return x + drop(self.narrow(wide), self.config.residual_dropout)


class Output(NamedTuple):
    """The heads' raw outputs for windows."""

    action: jax.Array  # [B, K, A], or [B, K, 2A] mean and log standard deviation
    cost: jax.Array  # [B, K, 2] logits
    next_obs: jax.Array  # [B, K, S]


class Memory(NamedTuple):
    """The last K steps of one episode; step t is in slot t mod K.

    Embeddings depend on a step alone, and so do the first block's queries, keys and values. Those
    of later blocks have seen what has left the window since, so they are computed anew.
    """

    tokens: jax.Array  # [L, D] embedded
    heads: jax.Array  # [3, H, L, D / H] of the first block


class Transformer(nn.Module):
    """The network; `steps` is T, the number of time embeddings less K."""

    config: PolicyConfig
    obs_size: int
    action_size: int
    steps: int

    def setup(self) -> None:
        """Names the layers."""
        config, width = self.config, self.config.width
        self.return_in, self.cost_in = Dense(width), Dense(width)
        self.obs_in, self.action_in = Dense(width), Dense(width)
        self.time = self.param("time", _SMALL, (self.steps + config.context, width))
        self.norm_in, self.norm_out = _norm(), _norm()
        self.blocks = [Block(config, name=f"block_{i}") for i in range(config.layers)]
        self.action_out = Dense(self.action_size * (2 if config.loss == "gaussian" else 1))
        self.cost_out, self.obs_out = Dense(2), Dense(self.obs_size)

    def _targets_and_obs(self, reward_to_go, cost_to_go, obs, time) -> jax.Array:
        """Tokens `[..., 3, D]` of scaled inputs `[...]`, `[...]`, `[..., S]` and times `[...]`."""
        parts = [
            self.return_in(reward_to_go[..., None]),
            self.cost_in(cost_to_go[..., None]),
            self.obs_in(obs),
        ]
        return jnp.stack(parts, axis=-2) + self._at(time)[..., None, :]

    def _at(self, time: jax.Array) -> jax.Array:
        return self.time[jnp.minimum(time, len(self.time) - 1)]

    def __call__(
        self,
        reward_to_go: jax.Array,
        cost_to_go: jax.Array,
        obs: jax.Array,
        action: jax.Array,
        time: jax.Array,
        drop: Drop = no_drop,
    ) -> Output:
        """Applies the network to scaled windows `[B, K]`, `[B, K]`, `[B, K, S]`, `[B, K, A]`.

        The action head reads the observation's token, the others the action's, so the last block
        is computed at these alone.
        """
        batch, length = time.shape
        acted = self.action_in(action) + self._at(time)
        before = self._targets_and_obs(reward_to_go, cost_to_go, obs, time)
        x = jnp.concatenate([before, acted[..., None, :]], axis=-2)
        x = drop(self.norm_in(x.reshape(batch, TOKENS * length, -1)), self.config.embedding_dropout)
        seen = jnp.tril(jnp.ones((TOKENS * length,) * 2, bool))
        for block in self.blocks[:-1]:
            query, key, value = block.heads(x)
            x = block.finish(x, query, key, value, seen, drop)

        def read(tokens: jax.Array) -> jax.Array:
            """Of `[..., L, X]` the observations' and actions' tokens `[..., 2K, X]`."""
            steps = tokens.reshape(*tokens.shape[:-2], length, TOKENS, tokens.shape[-1])
            return steps[..., 2:, :].reshape(*tokens.shape[:-2], 2 * length, tokens.shape[-1])

        query, key, value = self.blocks[-1].heads(x)
        x = self.blocks[-1].finish(read(x), read(query), key, value, read(seen), drop)
        x = self.norm_out(x).reshape(batch, length, 2, -1)
        observed, acted = x[:, :, 0], x[:, :, 1]
        return Output(self.action_out(observed), self.cost_out(acted), self.obs_out(acted))

    def start(self) -> Memory:
        """An empty memory."""
        config = self.config
        length, part = TOKENS * config.context, config.width // config.heads
        return Memory(jnp.zeros((length, config.width)), jnp.zeros((3, config.heads, length, part)))

    def _remember(self, memory: Memory, tokens: jax.Array, row: jax.Array) -> Memory:
        """Writes tokens `[n, D]`, not yet normalised, from a row on."""
        tokens = self.norm_in(tokens)
        heads = self.blocks[0].heads(tokens)
        return Memory(
            lax.dynamic_update_slice_in_dim(memory.tokens, tokens, row, axis=0),
            lax.dynamic_update_slice_in_dim(memory.heads, heads, row, axis=2),
        )

    def observe(
        self,
        memory: Memory,
        reward_to_go: jax.Array,
        cost_to_go: jax.Array,
        obs: jax.Array,
        time: jax.Array,
    ) -> tuple[jax.Array, Memory]:
        """The action head's output for a step, as of a window of the last K.

        Takes scaled `[]`, `[]`, `[S]` and the step's number `[]`. All blocks but the last are
        computed for all tokens, with the order of the slots taken into account by `seen` only.
        """
        context = self.config.context
        slot = time % context
        new = self._targets_and_obs(reward_to_go, cost_to_go, obs, time)
        memory = self._remember(memory, new, TOKENS * slot)
        # The number of the step that each slot holds; below 0 where it is still empty.
        step = time - (slot - jnp.arange(context)) % context
        order = TOKENS * step[:, None] + jnp.arange(TOKENS)
        seen = (order.reshape(-1) <= order.reshape(-1, 1)) & (order.reshape(-1) >= 0)
        x, heads = memory
        row = TOKENS * slot + 2
        for i, block in enumerate(self.blocks):
            last = i + 1 == self.config.layers
            if i:
                heads = block.heads(x, first=int(last))
            key, value = heads[-2:]
            if last:
                x = lax.dynamic_slice_in_dim(x, row, 1, axis=-2)
                seen = lax.dynamic_slice_in_dim(seen, row, 1, axis=0)
            query = block.heads(x)[0] if last else heads[0]
            x = block.finish(x, query, key, value, seen, no_drop)
        return self.action_out(self.norm_out(x[0])), memory

    def acted(self, memory: Memory, action: jax.Array, time: jax.Array) -> Memory:
        """Remembers the action `[A]` taken at a step."""
        token = self.action_in(action) + self._at(time)
        row = TOKENS * (time % self.config.context) + 3
        return self._remember(memory, token[None], row)
