# SPDX-License-Identifier: Apache-2.0
"""Operations are NAS-Bench-201's, held against PyTorch's where it is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsafe.advantage_nas import operations as ops
from jaxsafe.advantage_nas.space import NAS_BENCH_201, nas_bench_201


def image(dtype=jnp.float32, shape=(3, 5, 6, 4), seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


@pytest.mark.parametrize("count_padding", [False, True])
def test_the_pooling_is_the_mean_of_a_window(count_padding):
    x = image()
    window = ((1, 3, 3, 1), (1, 1, 1, 1), "SAME")
    sizes = lax.reduce_window(jnp.ones_like(x), 0.0, lax.add, *window)
    expected = lax.reduce_window(x, 0.0, lax.add, *window) / (9 if count_padding else sizes)
    got = ops.mean_pool("pool", count_padding).apply((), x)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert (np.asarray(sizes)[0, 0, 0, 0], sizes.max()) == (4, 9)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("kernel", [1, 3])
def test_the_convolution_normalises_each_channel(kernel, relu):
    x = image()
    op = ops.conv_norm("conv", kernel, relu=relu)
    w = op.init(jax.random.key(0), x)
    assert w.shape == (kernel, kernel, 4, 4)
    assert np.abs(w).max() <= (kernel * kernel * 4) ** -0.5 * 1.0001
    y, statistics = op.forward(w, x)
    np.testing.assert_allclose(np.mean(y, (0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(np.var(y, (0, 1, 2)), 1, atol=1e-2)
    out = lax.conv_general_dilated(
        np.maximum(x, 0) if relu else x,
        w,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(statistics, [out.mean((0, 1, 2)), out.var((0, 1, 2))], atol=1e-5)
    np.testing.assert_allclose(op.apply(w, x), y, atol=1e-6)
    other = jnp.stack([statistics[0] + 1, 4 * statistics[1] + 3e-5])
    expected = (y * np.sqrt(statistics[1] + 1e-5) - 1) / np.sqrt(other[1] + 1e-5)
    np.testing.assert_allclose(op.frozen(w, x, other), expected, atol=1e-5)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("name", NAS_BENCH_201)
def test_gradients_by_hand_are_those_of_autodiff(name, native):
    with jax.enable_x64(True):
        space = nas_bench_201((name,), native)
        op = space.operations[0]
        x, g = image(jnp.float64), image(jnp.float64, seed=1)
        w = op.init(jax.random.key(0), x)
        dw, dx = jax.vjp(op.apply, w, x)[1](g)
        # Also apart from autodiff: a central difference along a random direction.
        direction = image(jnp.float64, seed=2)
        slope = jnp.vdot(g, op.apply(w, x + 1e-6 * direction) - op.apply(w, x - 1e-6 * direction))
        np.testing.assert_allclose(jnp.vdot(dx, direction), slope / 2e-6, rtol=1e-6, atol=1e-7)
        if op.backward is None:
            return
        y, statistics = op.forward(w, x) if op.forward else (op.apply(w, x), None)
        for with_weights in (True, False):
            mine, mine_x = op.backward(w, x, y, statistics, g, with_weights)
            np.testing.assert_allclose(mine_x, dx, atol=1e-12)
            if with_weights:
                jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), mine, dw)


def test_operations_and_their_gradients_are_pytorchs():
    torch = pytest.importorskip("torch")
    from torch import nn

    x, g = image(), image(seed=1)
    space = nas_bench_201(NAS_BENCH_201)
    weights = [op.init(jax.random.key(k), x) for k, op in enumerate(space.operations)]

    def conv(w):
        layer = nn.Conv2d(4, 4, w.shape[0], padding=w.shape[0] // 2, bias=False)
        layer.weight.data = torch.tensor(np.transpose(w, (3, 2, 0, 1)))
        return nn.Sequential(nn.ReLU(), layer, nn.BatchNorm2d(4, affine=False))

    theirs = (
        nn.Identity(),
        conv(weights[1]),
        conv(weights[2]),
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        None,
    )
    for op, w, layer in zip(space.operations, weights, theirs, strict=True):
        y, vjp = jax.vjp(op.apply, w, x)
        if layer is None:
            assert not np.any(y) and not np.any(vjp(g)[1])
            continue
        x_t = torch.tensor(np.transpose(x, (0, 3, 1, 2)), requires_grad=True)
        y_t = layer(x_t)
        y_t.backward(torch.tensor(np.transpose(g, (0, 3, 1, 2))))
        for mine, other in ((y, y_t.detach()), (vjp(g)[1], x_t.grad)):
            np.testing.assert_allclose(mine, other.permute(0, 2, 3, 1), atol=2e-5)
        if isinstance(layer, nn.Sequential):
            dw = layer[1].weight.grad.permute(2, 3, 1, 0)
            np.testing.assert_allclose(vjp(g)[0], dw, rtol=1e-4, atol=1e-4)
