# SPDX-License-Identifier: Apache-2.0
"""The DPO gradient on every tensor against torch's autograd on the same weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.lm import hf, logprobs
from tests.parity import theirs

torch = theirs.torch
BETA = 0.1


def data():
    """Two pairs: prompts of 4 and 2 tokens padded on the left, answers of several lengths."""
    ids, slots = theirs.tokens((4, 12), seed=3), np.arange(12)
    ids[2:, :4] = ids[:2, :4]
    mask = (slots >= np.array([[0], [2], [0], [2]])) & (slots < np.array([[12], [9], [8], [11]]))
    return ids, mask, mask & (slots >= 4)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("llama3", {"remat": "full"}),
        ("qwen2_window", {"scan_layers": False}),
        pytest.param("qwen3", {"remat": "dots"}, marks=pytest.mark.slow),
        pytest.param("mistral", {}, marks=pytest.mark.slow),
    ],
)
def test_every_gradient_is_torchs(kind, change, tmp_path):
    """To 1e-4 of a tensor's largest, in float32, with the head at 3 positions at a time."""
    model = theirs.make(kind)
    model.save_pretrained(tmp_path)
    config, params = hf.load(tmp_path)
    config = dataclasses.replace(config, **change)
    ids, mask, completion = data()
    reference = np.array([-30.0, -20.0, -25.0, -28.0], np.float32)

    def loss(p):
        sums = logprobs.sums(config, p, ids, mask, completion, max_completion=8, chunk=3)
        ratio = sums - reference
        return -jax.nn.log_sigmoid(BETA * (ratio[:2] - ratio[2:])).mean()

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    out = model(torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long()).logits
    scores = torch.log_softmax(out[:, :-1], -1)
    scores = scores.gather(-1, torch.tensor(ids[:, 1:]).long()[..., None])[..., 0]
    ratio = (scores * torch.tensor(completion[:, 1:])).sum(1) - torch.tensor(reference)
    expected = -torch.nn.functional.logsigmoid(BETA * (ratio[:2] - ratio[2:])).mean()
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    found = hf.named_tensors(config, gradient)
    names = dict(model.named_parameters())
    assert found.keys() == names.keys()
    for name, weight in names.items():
        wanted = weight.grad.numpy()
        assert np.abs(wanted).max() > 0, name
        bound = 1e-4 * np.abs(wanted).max()
        np.testing.assert_allclose(found[name].make(), wanted, rtol=0, atol=bound, err_msg=name)
    assert jnp.isfinite(value)
