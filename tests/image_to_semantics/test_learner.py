# SPDX-License-Identifier: Apache-2.0
"""Networks, losses and updates: published sizes, losses by hand, groups that do not mix."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsafe import image_to_semantics as i2s
from jaxsafe.core.checks import UserError
from jaxsafe.image_to_semantics import algorithm, losses, modules, networks

TINY = i2s.Config(widths=(4,) * 6, decoder_widths=(4,) * 4, latent=3, head_width=5)


def count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def shapes(function, *arguments):
    return jax.eval_shape(function, *arguments)


@pytest.mark.parametrize(("views", "vae"), [(1, 162_931), (3, 488_793), (6, 977_586)])
def test_published_sizes_of_the_autoencoder(views, vae):
    config = dataclasses.replace(i2s.PAPER, frames=views)
    params = shapes(lambda key: networks.init_vae(key, config), jax.random.key(0))
    assert count(params) == vae
    assert count(params["encoder"]) == 55_488 * views
    assert count(params["decoder"]) == 107_443 * views


@pytest.mark.parametrize(
    ("views", "size", "expected"), [(1, 2, 20_994), (3, 9, 131_337), (6, 26, 539_162)]
)
def test_published_sizes_of_the_predictor(views, size, expected):
    config = dataclasses.replace(i2s.PAPER, frames=views)
    params = shapes(lambda key: networks.init_heads(key, config, size, 1), jax.random.key(0))
    assert count(params) == expected


@pytest.mark.parametrize("encoders", ["shared", "separate", "joint"])
@pytest.mark.parametrize(("encoder", "decoder"), [("points", "subpixel"), ("dense", "transposed")])
def test_shapes_there_and_back(encoders, encoder, decoder):
    config = dataclasses.replace(TINY, encoders=encoders, encoder=encoder, decoder=decoder)
    images = jax.ShapeDtypeStruct((5, 2, 64, 64, 3), jnp.uint8)
    params = shapes(lambda key: networks.init_vae(key, config), jax.random.key(0))
    codes = shapes(lambda p, x: networks.encode(p, config, x), params, images)
    assert codes.mean.shape == codes.logvar.shape == (5, 6)
    decoded = shapes(lambda p, z: networks.decode(p, config, z), params, codes.mean)
    assert decoded.shape == images.shape


def test_divergence_by_hand():
    def kl(mean, logvar):
        return float(losses.divergence(i2s.Latents(jnp.array([mean]), jnp.array([logvar]))))

    assert kl(0.0, 0.0) == 0
    assert kl(0.6, 0.0) == pytest.approx(0.18)
    assert kl(0.0, np.log(4)) == pytest.approx(0.806853, abs=1e-6)


def test_reconstruction_by_hand():
    black = jnp.zeros((2, 1, 64, 64, 3))
    grey = losses.reconstruction(black, black + 0.5)
    np.testing.assert_allclose(50 * grey, 153_600)
    noise = jax.random.uniform(jax.random.key(0), (4, 1, 64, 64, 3))
    np.testing.assert_allclose(
        50 * losses.reconstruction(noise, noise * 0 + 0.5), 51_200, rtol=0.02
    )


def test_colour_weighs_by_saturation():
    """One pixel of (0.8, 0.3, 0.5) against black has errors of 0.98, and weighs 1 + 4 * 0.5."""
    image = jnp.zeros((1, 1, 64, 64, 3)).at[0, 0, 5, 7].set(jnp.array([0.8, 0.3, 0.5]))
    for weight, expected in ((0.0, 0.98), (4.0, 2.94)):
        found = losses.reconstruction(image, 0 * image, weight)
        np.testing.assert_allclose(found, [expected], rtol=1e-5)
    grey = jnp.full((1, 1, 64, 64, 3), 0.5)
    np.testing.assert_array_equal(
        losses.reconstruction(grey, 0 * grey, 9.0), losses.reconstruction(grey, 0 * grey)
    )


def test_places_by_hand():
    """A channel that is strong in one pixel is there, one that is level in the middle."""
    maps = jnp.zeros((1, 5, 9, 3)).at[0, 4, 2, 0].set(50.0).at[0, 0, 0, 1].set(50.0)
    maps = maps.at[0, 0, 8, 1].set(50.0)  # in two, between them
    expected = [[[1.0, -0.5], [-1.0, 0.0], [0.0, 0.0]]]
    np.testing.assert_allclose(modules.places(maps), expected, atol=1e-5)


def test_noise_on_latents_is_of_their_own_size():
    """A predictor that hands a latent on errs by the noise: 0.5 of a deviation of 3, squared."""
    config = dataclasses.replace(TINY, latent_noise=0.5)
    z = 3.0 * jax.random.normal(jax.random.key(0), (1, 4000, config.encoded))
    pairs = i2s.Pairs(i2s.Latents(z, 0 * z), z[..., :2])
    range_ = i2s.Range(jnp.zeros(2), jnp.ones(2))

    def loss(config, key):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(networks, "normalised_prediction", lambda p, c, s, z: z[..., :s])
            return float(losses.heads_loss({"none": jnp.zeros(1)}, range_, pairs, key, config)[0])

    assert loss(config, jax.random.key(1)) == pytest.approx(2.25, rel=0.1)
    assert loss(dataclasses.replace(config, latent_noise=0.0), jax.random.key(1)) == 0
    sampled = dataclasses.replace(config, sample_latents=True)  # of logarithm 0, so of deviation 1
    assert loss(sampled, jax.random.key(1)) == pytest.approx(1.0, rel=0.1)


def pictures(key, *shape):
    return jax.random.randint(key, (*shape, 64, 64, 3), 0, 256).astype(jnp.uint8)


@pytest.fixture(scope="module")
def separate():
    config = dataclasses.replace(TINY, encoders="separate", frames=2)
    params = networks.init_vae(jax.random.key(0), config)
    return config, params, jax.jit(lambda p, x: networks.encode(p, config, x))


def test_a_frame_changes_its_own_latents_only(separate):
    config, params, encode = separate
    images = pictures(jax.random.key(1), 2, 2)
    other = images.at[:, 1].set(pictures(jax.random.key(2), 2))
    before, after = encode(params, images).mean, encode(params, other).mean
    np.testing.assert_array_equal(before[:, : config.latent], after[:, : config.latent])
    assert (before[:, config.latent :] != after[:, config.latent :]).any()


def test_a_dimensions_layers_change_its_output_only():
    params = networks.init_heads(jax.random.key(0), TINY, 4, 1)
    one = jax.tree.map(lambda x: x[0], params)
    z = jax.random.normal(jax.random.key(1), (3, TINY.encoded))
    changed = jax.tree.map(lambda x: x, one)
    changed["params"]["kernel_1"] = one["params"]["kernel_1"].at[2].add(1.0)
    before, after = (networks.normalised_prediction(p, TINY, 4, z) for p in (one, changed))
    np.testing.assert_array_equal(before[:, [0, 1, 3]], after[:, [0, 1, 3]])
    assert (before[:, 2] != after[:, 2]).any()


def test_shared_codes_of_a_data_set_are_those_of_stacks():
    """Encoding each frame once and stacking codes is encoding stacks; blocks do not show."""
    images = pictures(jax.random.key(0), 7)
    stacks = jnp.array([[0, 0], [1, 0], [2, 1], [3, 3], [4, 3], [5, 4], [6, 5]])
    params = networks.init_vae(jax.random.key(1), TINY)
    encode = jax.jit(
        lambda x, block: algorithm.encode_rows(params, TINY, x, stacks, block), static_argnums=1
    )
    direct = networks.encode(params, TINY, images[stacks])
    for block in (3, 7):
        found = encode(images, block)
        for a, b in zip(found, direct, strict=True):
            assert a.shape == (7, TINY.encoded)
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_ranges_by_hand_and_back():
    """Known answer 10: with the published margin a range of 1 maps its maximum to 1 / 1.01."""
    buffer = jnp.array([[0.0, -3.0], [1.0, 5.0], [0.5, 0.0]])
    absolute = i2s.make_range(buffer, "absolute")
    np.testing.assert_allclose(networks.normalised(absolute, buffer)[1, 0], 0.990099, atol=1e-6)
    relative = i2s.make_range(buffer)
    np.testing.assert_allclose(networks.normalised(relative, buffer).max(0), 1.0, atol=1e-5)
    for range_ in (absolute, relative):
        back = networks.raw(range_, networks.normalised(range_, buffer))
        np.testing.assert_allclose(back, buffer, atol=1e-5)
    constant = i2s.make_range(jnp.ones((4, 1)))
    assert np.isfinite(networks.normalised(constant, jnp.ones((4, 1)))).all()


def test_predictors_learn_a_linear_map_side_by_side():
    """Two predictors with other targets, each as if it were alone."""
    config = dataclasses.replace(TINY, head_lr=3e-3, head_width=16, latent_noise=0.0)
    range_ = i2s.Range(jnp.zeros(2), jnp.ones(2))
    maps = jax.random.normal(jax.random.key(5), (2, config.encoded, 2)) / 2

    def pairs(key):
        z = jax.random.normal(key, (1, 64, config.encoded)).repeat(2, axis=0)
        return i2s.Pairs(i2s.Latents(z, 0 * z), jnp.einsum("vbz,vzs->vbs", z, maps))

    state = algorithm.init(jax.random.key(0), config, range_, 2)

    @jax.jit
    def train(state):
        def one(state, i):
            batch = pairs(jax.random.fold_in(jax.random.key(1), i))
            return algorithm.heads_update(state, batch, config)

        return jax.lax.scan(one, state, jnp.arange(600))

    state, metrics = train(state)
    assert metrics["heads/worst_loss"][0] > 0.2 and metrics["heads/worst_loss"][-1] < 0.02


def test_one_step_is_adams():
    """The first step of Adam moves every parameter by its rate, against its gradient."""
    config = dataclasses.replace(TINY, vae_lr=1e-3)
    range_ = i2s.Range(jnp.zeros(2), jnp.ones(2))
    state = algorithm.init(jax.random.key(0), config, range_)
    images = pictures(jax.random.key(1), 4, 1)
    after, metrics = jax.jit(lambda s, x: algorithm.vae_update(s, x, config))(state, images)
    moved = optax.tree.sub(after.vae, state.vae)
    sizes = np.concatenate([np.abs(leaf).ravel() for leaf in jax.tree.leaves(moved)])
    assert sizes.max() <= 1.001e-3 and np.median(sizes) == pytest.approx(1e-3, rel=0.01)
    assert metrics["vae/loss"] == pytest.approx(
        10 * float(metrics["vae/reconstruction"]) + float(metrics["vae/kl"]), rel=1e-5
    )
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), after.heads, state.heads))


def test_bad_images_and_configs():
    params = networks.init_vae(jax.random.key(0), TINY)
    for images in (jnp.zeros((2, 2, 32, 32, 3), jnp.uint8), jnp.zeros((2, 2, 64, 64, 3))):
        with pytest.raises(UserError, match=r"give uint8 \[B, frames, 64, 64, 3\]"):
            networks.encode(params, TINY, images)
    with pytest.raises(UserError, match=r"algo.widths=4,4 has 2 values: give 6"):
        i2s.validate(dataclasses.replace(TINY, widths=(4, 4)))
