# SPDX-License-Identifier: Apache-2.0
"""The supernet is NAS-Bench-201's, in all its forms, and sparse."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.advantage_nas import supernet
from jaxsafe.advantage_nas.space import nas_bench_201
from jaxsafe.advantage_nas.supernet import Skeleton, image_network
from jaxsafe.core.checks import UserError

SMALL = Skeleton(image=(8, 8, 3), classes=5, channels=4, cells=2)
CHOICE = np.array([2, 0, 3, 1, 2, 2])
FORMS = [{}, {"form": "scan"}, {"native": True}, {"form": "dense"}]


def draw(skeleton=SMALL, batch=6, dtype=jnp.float32, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(batch, *skeleton.image))
    return jnp.asarray(images, dtype), jnp.asarray(rng.integers(0, skeleton.classes, batch))


def start(space, skeleton=SMALL, dtype=jnp.float32):
    """Weights off their symmetric start, as `dtype`."""
    weights = image_network(space, skeleton).init(jax.random.key(0))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda w: jnp.asarray(w + 0.1 * rng.normal(size=w.shape), dtype), weights)


def gradients(network, weights, gates, choice, batch, half="both"):
    def value(weights, gates):
        return network.loss(weights, gates, choice, batch, half)[0]

    return jax.value_and_grad(value, (0, 1))(weights, gates)


def close(mine, theirs, atol):
    scale = max(1.0, *(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(theirs)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=scale * atol), mine, theirs)


@pytest.mark.slow
@pytest.mark.parametrize(("x64", "atol"), [(True, 1e-10), (False, 5e-6)])
def test_unrolled_scanned_native_and_dense_forms_agree(x64, atol):
    with jax.enable_x64(x64):
        dtype = jnp.float64 if x64 else jnp.float32
        batch, gates = draw(dtype=dtype), jnp.linspace(0.8, 1.2, 6, dtype=dtype)
        weights = start(nas_bench_201(), dtype=dtype)
        mixture = jax.nn.one_hot(CHOICE, 4, dtype=dtype) * gates[:, None]
        dense = image_network(nas_bench_201(native=True), dataclasses.replace(SMALL, native=True))
        value, (dw, dmix) = jax.jit(lambda w, mixture: gradients(dense, w, mixture, None, batch))(
            weights, mixture
        )
        dgates = dmix[np.arange(6), CHOICE]
        for changes in FORMS:
            skeleton = dataclasses.replace(SMALL, **changes)
            network = image_network(nas_bench_201(native=skeleton.native), skeleton)
            run = jax.jit(
                lambda w, g, c, half, n=network: gradients(n, w, g, c, batch, half),
                static_argnums=3,
            )
            found, (by_weights, none) = run(weights, gates, jnp.asarray(CHOICE), "weights")
            np.testing.assert_allclose(found, value, atol=10 * atol)
            close(by_weights, dw, atol)
            assert skeleton.form == "dense" or not np.any(none)
            _, (_, by_gates) = run(weights, gates, jnp.asarray(CHOICE), "gates")
            close(by_gates, dgates, atol)


@pytest.mark.parametrize("form", ["unrolled", "scan"])
def test_logits_and_gradients_are_those_of_pytorchs_modules(form):
    torch = pytest.importorskip("torch")
    from benchmarks import torch_gdas

    space, rng = nas_bench_201(), np.random.default_rng(2)
    weights, (images, labels) = start(space), draw()
    theirs = torch_gdas.Supernet(space.names, SMALL.channels, SMALL.cells, SMALL.classes)
    pairs = list(_pairs(weights, theirs))
    assert len(pairs) == len(list(theirs.parameters()))
    with torch.no_grad():
        for ours, parameter, axes in pairs:
            parameter.copy_(torch.tensor(np.transpose(ours, axes)))
    gates = torch.tensor(rng.uniform(0.5, 1.5, (6, 4)), dtype=torch.float32)
    mask = torch.nn.functional.one_hot(torch.tensor(CHOICE), 4)
    gates = (gates * mask).requires_grad_()
    out = theirs(torch.tensor(np.transpose(images, (0, 3, 1, 2))), gates, CHOICE)
    loss = torch.nn.functional.cross_entropy(out, torch.tensor(np.asarray(labels)).long())
    loss.backward()
    gate = jnp.asarray(gates.detach().numpy()[np.arange(6), CHOICE])
    skeleton = dataclasses.replace(SMALL, form=form)
    logits = supernet.logits(space, skeleton, weights, gate, jnp.asarray(CHOICE), images)
    np.testing.assert_allclose(logits, out.detach(), atol=2e-5)
    network = image_network(space, skeleton)
    value, (dw, dgate) = gradients(network, weights, gate, jnp.asarray(CHOICE), (images, labels))
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    np.testing.assert_allclose(dgate, gates.grad.numpy()[np.arange(6), CHOICE], atol=2e-5)
    for (mine, parameter, axes), (_, other, _) in zip(_pairs(dw, theirs), pairs, strict=True):
        grad = np.zeros(parameter.shape) if other.grad is None else other.grad.numpy()
        np.testing.assert_allclose(np.transpose(mine, axes), grad, atol=1e-4)


def _pairs(weights, net):
    """Our leaves, PyTorch's parameters, and the order of axes that turns one into the other."""
    conv = (3, 2, 0, 1)

    def layer(ours, sequence):
        convolution, norm = list(sequence)[-2:]
        return (
            (ours["kernel"], convolution.weight, conv),
            (ours["scale"], norm.weight, (0,)),
            (ours["shift"], norm.bias, (0,)),
        )

    yield from layer(weights["stem"], net.stem)
    for stage, cells in enumerate(net.stages):
        for n, cell in enumerate(cells):
            for e, edge in enumerate(cell.edges):
                for k in (1, 2):
                    yield weights[f"stage{stage}"][k][n, e], edge[k][1].weight, conv
    for i, block in enumerate(net.blocks):
        ours = weights[f"block{i}"]
        yield from layer(ours["first"], block.first)
        yield from layer(ours["second"], block.second)
        yield ours["shortcut"], block.shortcut[1].weight, conv
    head = weights["head"]
    yield from (
        (head["scale"], net.norm.weight, (0,)),
        (head["shift"], net.norm.bias, (0,)),
        (head["kernel"], net.linear.weight, (1, 0)),
        (head["bias"], net.linear.bias, (0,)),
    )


def test_weights_that_are_equal_make_chance():
    """A uniform classifier's loss is ln L."""
    network = image_network(nas_bench_201(), SMALL)
    weights = network.init(jax.random.key(0))
    weights["head"]["kernel"] *= 0
    weights["head"]["bias"] *= 0
    loss, (_, metrics) = network.weight_loss(weights, jnp.asarray(CHOICE), draw())
    assert loss == pytest.approx(np.log(5), rel=1e-6) and 0 <= metrics["accuracy"] <= 1


def test_what_the_reference_does_otherwise_is_there_by_flag():
    batch = draw()
    usual = image_network(nas_bench_201(), SMALL)
    weights = usual.init(jax.random.key(0))
    value = usual.weight_loss(weights, jnp.asarray(CHOICE), batch)[0]
    for space, changes in (
        (nas_bench_201(reference_no_relu=True), {}),
        (nas_bench_201(reference_pool=True), {}),
        (nas_bench_201(), {"reference_head": True}),
        (nas_bench_201(), {"reference_shortcut": True}),
    ):
        network = image_network(space, dataclasses.replace(SMALL, **changes))
        other = network.init(jax.random.key(0))
        assert ("scale" in other["head"]) != ("reference_head" in changes)
        found = network.weight_loss(other, jnp.asarray(CHOICE), batch)[0]
        assert np.isfinite(found) and abs(found - value) > 1e-4


@pytest.mark.slow
def test_it_needs_a_sixth_of_the_dense_forms_memory():
    """Temporary memory as XLA plans it, at the paper's size; nothing runs."""
    planned = {}
    for form, halves in (("unrolled", ("weights", "gates")), ("scan", ("dense",))):
        network = image_network(nas_bench_201(), Skeleton(form=form))
        weights = jax.eval_shape(network.init, jax.random.key(0))
        images = jax.ShapeDtypeStruct((64, 32, 32, 3), jnp.float32)
        batch = (images, jax.ShapeDtypeStruct((64,), jnp.int32))
        for half in halves:
            dense = half == "dense"

            def value(weights, gates, choice, batch, network=network, half=half, dense=dense):
                how = (None, batch, "both") if dense else (choice, batch, half)
                return network.loss(weights, gates, *how)[0]

            by = {"weights": 0, "gates": 1, "dense": (0, 1)}[half]
            gates = jax.ShapeDtypeStruct((6, 4) if dense else (6,), jnp.float32)
            choice = jax.ShapeDtypeStruct((6,), jnp.int32)
            lowered = jax.jit(jax.grad(value, by)).lower(weights, gates, choice, batch)
            planned[half] = lowered.compile().memory_analysis().temp_size_in_bytes
    assert planned["dense"] > 6 * max(planned["weights"], planned["gates"])


@pytest.mark.parametrize("form", supernet.FORMS)
def test_every_convolution_has_the_layout_that_is_fast_in_control_flow(form):
    """Forward and backward, stem and blocks too: searches scan over steps. Nothing is compiled."""
    network = image_network(nas_bench_201(), dataclasses.replace(SMALL, form=form))
    weights = jax.eval_shape(network.init, jax.random.key(0))

    def step(weights, choice, batch):
        return jax.grad(lambda w: network.weight_loss(w, choice, batch)[0])(weights)

    text = jax.jit(step).lower(weights, jnp.asarray(CHOICE), draw()).as_text()
    layouts = re.findall(r"stablehlo.convolution.*?dim_numbers = (\S+ ?.*?)\s*,\s*window", text)
    assert len(layouts) > 3 * 6 * (2 if form == "unrolled" else 1)
    assert set(layouts) == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}


def test_images_and_skeletons_that_do_not_fit_are_named():
    for changes, message in (
        ({"image": (30, 32, 3)}, "30 x 32 cannot be halved twice"),
        ({"form": "loop"}, "form='loop' is unknown"),
        ({"cells": 0}, "cells=0 is out of range"),
    ):
        with pytest.raises(UserError, match=message):
            dataclasses.replace(SMALL, **changes)
    network = image_network(nas_bench_201(), SMALL)
    weights = network.init(jax.random.key(0))
    bigger = draw(Skeleton(image=(12, 8, 3)))
    with pytest.raises(UserError, match=r"images are \(12, 8, 3\), the skeleton's \(8, 8, 3\)"):
        network.weight_loss(weights, jnp.asarray(CHOICE), bigger)
