# SPDX-License-Identifier: Apache-2.0
"""Images that are there are split, augmented and drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.data import image_files, images


def test_digits_are_split_once_and_for_all():
    found = images.digits()
    assert found.train.images.shape == (1438, 8, 8, 1) and found.test.labels.shape == (359,)
    assert found.train.images.dtype == np.uint8 and found.train.images.max() == 255
    assert set(found.test.labels) == set(range(10)) and not found.flip
    again = images.digits()
    np.testing.assert_array_equal(found.test.images, again.test.images)
    pixels = found.train.images / 255
    np.testing.assert_allclose((found.mean[0], found.std[0]), (pixels.mean(), pixels.std()), 1e-5)


def test_a_split_has_no_overlap_and_loses_nothing():
    part = image_files.Part(np.arange(50).reshape(50, 1, 1, 1), np.arange(50))
    first, second = images.split(part, 0.5, seed=3)
    assert sorted([*first.labels, *second.labels]) == list(range(50)) and len(first.labels) == 25
    assert all(x.images.ravel().tolist() == x.labels.tolist() for x in (first, second))
    assert first.labels.tolist() != images.split(part, 0.5, seed=4)[0].labels.tolist()
    for fraction in (0.0, 1.0, 0.001, 1.5):
        with pytest.raises(UserError, match="fraction="):
            images.split(part, fraction, 0)


def moved(image, down, right, mirrored):
    """Image whose pixel (r, c) is the given one's (r + down, c + right), zeros outside."""
    height, width, _ = image.shape
    out = np.zeros_like(image)
    for r in range(height):
        for c in range(width):
            if 0 <= r + down < height and 0 <= c + right < width:
                out[r, c] = image[r + down, (width - 1 - c - right) if mirrored else c + right]
    return out


@pytest.mark.parametrize("flip", [False, True])
def test_augmentation_moves_and_mirrors_and_does_all_of_it(flip):
    image = np.arange(1, 31, dtype=np.uint8).reshape(5, 3, 2)
    batch = jnp.asarray(np.broadcast_to(image, (600, 5, 3, 2)))
    out = np.asarray(
        jax.jit(images.augment, static_argnums=(2, 3))(jax.random.key(0), batch, 1, flip)
    )
    assert out.dtype == np.uint8
    kinds = [
        moved(image, d, r, m)
        for d in (-1, 0, 1)
        for r in (-1, 0, 1)
        for m in ((False, True) if flip else (False,))
    ]
    counts = [int((out == kind).all((1, 2, 3)).sum()) for kind in kinds]
    assert sum(counts) == 600
    # Each of 9 or 18 with its share: within 5 standard errors.
    share = 600 / len(kinds)
    assert all(abs(count - share) < 5 * share**0.5 for count in counts)


def test_batches_are_normalised_images_with_their_labels():
    found = images.digits()
    part = image_files.Part(*map(jnp.asarray, found.train))
    batch = jax.jit(lambda key: images.draw_batch(key, part, found.mean, found.std, 512))(
        jax.random.key(0)
    )
    assert batch.images.shape == (512, 8, 8, 1) and batch.labels.shape == (512,)
    assert abs(batch.images.mean()) < 0.05 and abs(batch.images.std() - 1) < 0.05
    raw = np.round((np.asarray(batch.images) * found.std + found.mean) * 255).astype(np.uint8)
    of_label = {(image.tobytes(), label) for image, label in zip(*found.train, strict=True)}
    assert all((r.tobytes(), int(y)) in of_label for r, y in zip(raw, batch.labels, strict=True))
