# SPDX-License-Identifier: Apache-2.0
"""The MLP starts as PyTorch's would, and computes what NumPy computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.nn.mlp import MLP, bias_uniform, fan_in_uniform


def layers(params):
    """`(kernel, bias)` of each dense layer, in order."""
    inner = params["params"]
    return [
        (np.asarray(inner[f"Dense_{i}"]["kernel"]), np.asarray(inner[f"Dense_{i}"]["bias"]))
        for i in range(sum(name.startswith("Dense") for name in inner))
    ]


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_weights_and_biases_start_in_pytorchs_bounds(scale):
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for both; the last layer's times `final_scale`."""
    module = MLP((200, 300), 100, final_scale=scale)
    found = layers(module.init(jax.random.key(0), jnp.zeros((1, 50))))
    assert [kernel.shape for kernel, _ in found] == [(50, 200), (200, 300), (300, 100)]
    for i, (kernel, bias) in enumerate(found):
        bound = kernel.shape[0] ** -0.5 * (scale if i == 2 else 1.0)
        # Uniform to within 5 standard errors: inside, near both ends, mean 0, variance b^2 / 3.
        for values, near in ((kernel, 0.999), (bias, 0.9)):
            assert np.abs(values).max() <= bound * (1 + 1e-6)
            assert values.max() > near * bound and values.min() < -near * bound
            error = bound / np.sqrt(3 * values.size)
            assert abs(values.mean()) < 5 * error
            assert values.var() == pytest.approx(bound**2 / 3, rel=5 * (4 / 5 / values.size) ** 0.5)


def test_initialisers_are_those_of_torch_linear():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 500)
    theirs = linear.weight.detach().numpy().ravel(), linear.bias.detach().numpy()
    ours = (
        np.asarray(fan_in_uniform()(jax.random.key(0), (64, 500))).ravel(),
        np.asarray(bias_uniform(64)(jax.random.key(1), (500,))),
    )
    for mine, other in zip(ours, theirs, strict=True):
        # Kolmogorov's distance between the two samples, against its 0.1 % point.
        at = np.sort(np.concatenate([mine, other]))
        cdfs = [np.searchsorted(np.sort(x), at, side="right") / x.size for x in (mine, other)]
        assert np.abs(cdfs[0] - cdfs[1]).max() < 1.95 * np.sqrt(2 / mine.size)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_it_computes_affine_norm_relu_and_ends_linear(layer_norm):
    module = MLP((16, 8), 3, layer_norm=layer_norm)
    x = np.random.default_rng(0).normal(size=(5, 2, 4)).astype(np.float32)
    params = module.init(jax.random.key(1), x)
    found = layers(params)
    expected = x.astype(np.float64)
    for kernel, bias in found[:-1]:
        expected = expected @ kernel + bias
        if layer_norm:
            centred = expected - expected.mean(-1, keepdims=True)
            expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        expected = np.maximum(expected, 0)
    expected = expected @ found[-1][0] + found[-1][1]
    out = module.apply(params, x)
    assert out.shape == (5, 2, 3) and (np.asarray(out) < 0).any()
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_without_hidden_layers_it_is_affine():
    module = MLP((), 2)
    params = module.init(jax.random.key(0), jnp.zeros((1, 3)))
    (kernel, bias), *rest = layers(params)
    assert not rest
    x = np.ones((1, 3), np.float32)
    np.testing.assert_allclose(module.apply(params, x), x @ kernel + bias, rtol=1e-6)


def test_a_constant_input_of_no_size_starts_finite():
    assert np.isfinite(bias_uniform(0)(jax.random.key(0), (4,))).all()
