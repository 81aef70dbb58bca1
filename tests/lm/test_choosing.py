# SPDX-License-Identifier: Apache-2.0
"""The choice of a token, and where an answer ends: properties."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsafe.lm.choosing import Generation, _truncated
from jaxsafe.lm.generate import _answers, _Loop
from jaxsafe.lm.layers import FAR

_cut = jax.jit(_truncated, static_argnums=1)
# Few values, so that some are equal.
LOGITS = st.lists(st.integers(-12, 12).map(lambda n: n / 2), min_size=8, max_size=8)


@settings(max_examples=60, deadline=None)
@given(LOGITS, st.floats(1e-6, 0.999), st.sampled_from([0, 1, 3, 8]))
def test_what_is_sampled_from_is_the_least_set_that_will_do(logits, top_p, top_k):
    """Of top-k, and of the share top_p of what that leaves; equals are kept or dropped together."""
    values = np.asarray(logits, np.float32)
    of_k = np.asarray(_cut(values[None], Generation(top_k=top_k), jnp.float32(1)))[0] > FAR
    both = _cut(values[None], Generation(top_k=top_k, top_p=0.5), jnp.float32(top_p))[0]
    kept = np.asarray(both) > FAR
    np.testing.assert_array_equal(np.asarray(both)[kept], values[kept])
    for mask, among in ((of_k, np.ones(8, bool)), (kept, of_k)):
        assert mask.any() and not (mask & ~among).any()
        assert values[mask].min() > values[among & ~mask].max(initial=-np.inf)
    better = of_k & (values > values[of_k].min())
    assert top_k == 0 or (of_k.sum() >= top_k > better.sum())
    law = np.where(of_k, np.exp(np.float64(values)), 0)
    law /= law.sum()
    assert law[kept].sum() > top_p - 1e-5
    assert law[kept & (values > values[kept].min())].sum() < top_p + 1e-5


TOKENS = st.lists(st.integers(0, 5), min_size=6, max_size=6)


@settings(max_examples=30, deadline=None)
@given(TOKENS, st.lists(st.integers(0, 5), min_size=2, max_size=2), st.integers(0, 5))
def test_a_length_reaches_to_the_first_stop(tokens, stops, pad):
    """Padding may be a stop itself."""
    hits = [i for i, token in enumerate(tokens) if token in stops]
    length = hits[0] + 1 if hits else 6
    row = tokens[:length] + [pad] * (6 - length)
    nothing = jnp.zeros((1, 0))
    state = _Loop(
        jnp.int32(6), jnp.int32(0), jnp.asarray([bool(hits)]), jnp.asarray([row]), nothing, ()
    )
    found = _answers(state, jnp.asarray(stops), Generation(max_new=6, pad_id=pad))
    assert (int(found.lengths[0]), bool(found.stopped[0])) == (length, bool(hits))
