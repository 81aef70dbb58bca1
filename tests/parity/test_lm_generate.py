# SPDX-License-Identifier: Apache-2.0
"""Greedy ids against transformers' generate: unequal prompts, stops at different steps."""

import numpy as np
import pytest

from jaxsafe import lm
from jaxsafe.lm import hf
from tests.parity import theirs

torch = theirs.torch


def generated(model, prompts, **options):
    """New tokens `[B, M]` of transformers, rows of `prompts` padded on the left."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    settings = {"do_sample": False, "pad_token_id": 0} | options
    out = model.generate(ids, attention_mask=mask, **settings)
    return out[:, width:].numpy()


@pytest.mark.parametrize("kind", list(theirs.KINDS))
def test_greedy_ids_are_transformers(kind, tmp_path):
    """The window of 5 or 6 is shorter than prompt and answer; EOS comes at different steps."""
    model = theirs.make(kind)
    model.save_pretrained(tmp_path)
    prompts = [theirs.tokens(n, seed=n).tolist() for n in (9, 4, 12, 2)]
    free = generated(model, prompts, max_new_tokens=14, eos_token_id=None)
    # Ids that stop some rows early, and at different steps.
    stops = (int(free[0, 4]), int(free[2, 9]), int(free[3, 7]))
    expected = generated(model, prompts, max_new_tokens=14, eos_token_id=list(stops))
    ready = lm.prepare(hf.load(tmp_path)[1], hf.load(tmp_path)[0])
    out = lm.generate.generate(ready, prompts, lm.Generation(max_new=14, stop_ids=stops))
    width = expected.shape[1]
    np.testing.assert_array_equal(out.tokens[:, :width], expected)
    assert not np.asarray(out.tokens)[:, width:].any()
    lengths = [next((i + 1 for i, t in enumerate(row) if t in stops), 14) for row in free.tolist()]
    assert out.lengths.tolist() == lengths and len(set(lengths)) > 1
    assert out.stopped.tolist() == [bool({*row} & {*stops}) for row in free.tolist()]


def test_one_new_token_and_a_least_number_of_them(tmp_path):
    model = theirs.make("llama")
    model.save_pretrained(tmp_path)
    config, params = hf.load(tmp_path)
    ready, prompts = lm.prepare(params, config), [[5, 6, 7], [8]]
    one = generated(model, prompts, max_new_tokens=1, eos_token_id=None)
    np.testing.assert_array_equal(
        lm.generate.generate(ready, prompts, lm.Generation(max_new=1)).tokens, one
    )
    stop = int(one[0, 0])
    expected = generated(model, prompts, max_new_tokens=8, min_new_tokens=5, eos_token_id=stop)
    found = lm.generate.generate(ready, prompts, lm.Generation(8, min_new=5, stop_ids=(stop,)))
    np.testing.assert_array_equal(found.tokens[:, : expected.shape[1]], expected)
    assert (np.asarray(found.lengths) >= 5).all()
