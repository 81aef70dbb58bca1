# SPDX-License-Identifier: Apache-2.0
"""Every form of an edge gives the gradients of plain autodiff, sparsely."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.advantage_nas import edges
from jaxsafe.advantage_nas.space import NAS_BENCH_201, nas_bench_201, ptb

CHOICES = np.array([[2, 0, 3, 1, 2, 4], [4, 2, 2, 3, 0, 1]])


def setup(dtype, space, shape=(2, 4, 4, 3), seed=0):
    rng = np.random.default_rng(seed)
    x, g = (jnp.asarray(rng.normal(size=shape), dtype) for _ in range(2))
    weights = edges.init_cell(jax.random.key(seed), space, x)
    gates = jnp.asarray(rng.uniform(0.5, 1.5, space.num_edges), dtype)
    return x, g, weights, gates


def gradients(space, x, g, weights, gates, choice, half="both"):
    """Of `<g, cell>` with respect to weights, gates and input."""

    def value(weights, gates, x):
        return jnp.vdot(g, edges.cell(space, weights, gates, choice, x, half))

    return jax.grad(value, (0, 1, 2))(weights, gates, x)


def plain(space, x, g, weights, gates, choice):
    """The same by autodiff of the definition alone, no code of ours but the operations."""

    def value(weights, gates, x):
        nodes = [x]
        for node in range(1, space.num_nodes):
            parts = [
                gates[e]
                * space.operations[choice[e]].apply(
                    jax.tree.map(lambda w, e=e: w[e], weights[choice[e]]), nodes[start]
                )
                for e, (start, end) in enumerate(space.edges)
                if end == node
            ]
            nodes.append(sum(parts) / (len(parts) if space.combine == "mean" else 1))
        out = nodes[-1] if space.output == "last" else sum(nodes[1:]) / (space.num_nodes - 1)
        return jnp.vdot(g, out)

    return jax.grad(value, (0, 1, 2))(weights, gates, x)


def compare(mine, theirs, atol):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), mine, theirs)


@pytest.mark.parametrize(("x64", "atol"), [(True, 1e-10), (False, 5e-6)])
@pytest.mark.parametrize("make", [lambda: nas_bench_201(NAS_BENCH_201), ptb])
def test_all_forms_agree_with_autodiff(make, x64, atol):
    space = make()
    with jax.enable_x64(x64):
        dtype = jnp.float64 if x64 else jnp.float32
        x, g, weights, gates = setup(dtype, space)
        sparse = jax.jit(
            lambda gates, choice, half: gradients(space, x, g, weights, gates, choice, half),
            static_argnums=2,
        )
        dense_gradients = jax.jit(lambda mixture: gradients(space, x, g, weights, mixture, None))
        for choice in CHOICES:
            # In units of its largest entry, since float32 rounds relative to that.
            expected = jax.jit(
                lambda w, gates, x, choice=choice: plain(space, x, g, w, gates, choice)
            )(weights, gates, x)
            scale = max(1.0, *(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected)))
            mine = sparse(gates, jnp.asarray(choice), "both")
            compare(mine, expected, scale * atol)
            by_weights = sparse(gates, jnp.asarray(choice), "weights")
            compare((by_weights[0], by_weights[2]), (expected[0], expected[2]), scale * atol)
            by_gates = sparse(gates, jnp.asarray(choice), "gates")
            compare(by_gates[1:], expected[1:], scale * atol)
            assert not any(np.any(leaf) for leaf in jax.tree.leaves((by_gates[0], by_weights[1])))
            mixture = jax.nn.one_hot(choice, space.num_operations) * gates[:, None]
            dense = dense_gradients(mixture)
            compare((dense[0], dense[2]), (expected[0], expected[2]), scale * atol)
            chosen = dense[1][np.arange(space.num_edges), choice]
            compare(chosen, expected[1], scale * atol)


def test_an_architecture_known_when_compiling_is_the_same():
    space = nas_bench_201()
    x, _, weights, gates = setup(jnp.float32, space)
    choice = (2, 0, 3, 1, 2, 2)
    run = jax.jit(lambda given: edges.cell(space, weights, gates, given, x))
    known = jax.jit(lambda: edges.cell(space, weights, gates, choice, x))
    np.testing.assert_allclose(known(), run(jnp.array(choice)), atol=1e-5)
    text = known.lower().as_text()
    assert (
        "stablehlo.case" not in text and "stablehlo.case" in run.lower(jnp.array(choice)).as_text()
    )


def test_the_zero_operation_has_a_gate_gradient_of_exactly_zero():
    space = nas_bench_201(NAS_BENCH_201)
    x, g, weights, gates = setup(jnp.float32, space)
    gate_gradient = gradients(space, x, g, weights, gates, jnp.asarray(CHOICES[0]))[1]
    assert gate_gradient[5] == 0 and (np.abs(gate_gradient[:5]) > 0).any()


def test_curvature_along_a_gate_is_that_of_autodiff():
    """Forward over reverse: the corrected advantage needs `d2 L / d gate2`."""
    space = nas_bench_201(NAS_BENCH_201)
    with jax.enable_x64(True):
        x, g, weights, gates = setup(jnp.float64, space)
        choice = jnp.asarray(CHOICES[0])

        def gate_gradient(gates, choice, mix):
            def value(gates):
                if mix:
                    gates = jax.nn.one_hot(choice, space.num_operations) * gates[:, None]
                out = edges.cell(space, weights, gates, None if mix else choice, x)
                return jnp.sum(jnp.tanh(g * out))

            return jax.grad(value)(gates)

        along = jnp.eye(6)[3]
        curves = [
            jax.jit(
                lambda gates, m=mix: jax.jvp(
                    lambda gates: gate_gradient(gates, choice, m), (gates,), (along,)
                )[1]
            )(gates)
            for mix in (False, True)
        ]
        np.testing.assert_allclose(*curves, atol=1e-10)
        assert abs(curves[0][3]) > 1e-3


def test_another_architecture_does_not_compile_again():
    space = nas_bench_201(NAS_BENCH_201)
    x, _, weights, gates = setup(jnp.float32, space)
    traced = []

    @jax.jit
    def run(choice):
        traced.append(1)
        return edges.cell(space, weights, gates, choice, x)

    outs = [run(jnp.asarray(choice)) for choice in CHOICES]
    assert len(traced) == 1
    assert not np.allclose(outs[0], outs[1])


def test_the_gradient_of_unstack_is_one_concatenation():
    tree = {"a": jnp.arange(6.0).reshape(3, 2), "b": jnp.arange(3)}
    parts = edges.unstack(tree, 3)
    assert [part["b"] for part in parts] == [0, 1, 2] and parts[1]["a"].tolist() == [2, 3]
    weight = jnp.array([1.0, -2.0, 3.0])

    def value(a):
        return sum(w * part.sum() for w, part in zip(weight, edges.unstack(a, 3), strict=True))

    np.testing.assert_array_equal(jax.grad(value)(tree["a"]), [[1, 1], [-2, -2], [3, 3]])
    text = str(jax.make_jaxpr(jax.grad(value))(tree["a"]))
    assert "concatenate" in text and " pad[" not in text
