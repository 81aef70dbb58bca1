# SPDX-License-Identifier: Apache-2.0
"""Images of simple geoms by casting one ray per pixel, in pure JAX: `jit`, `vmap`, no OpenGL.

Capsules, spheres, boxes and planes with Lambert shading, checkers and a sky; no shadows. Cameras
and poses are MuJoCo's: a camera looks along its own -z, its +x points right and its +y up, and
`fovy` is its vertical field of view in degrees.

All arithmetic is per pixel and unrolled over geoms, so that XLA makes one loop of it. Letters in
shapes: G geoms, H and W rows and columns.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import struct

from jaxsafe.core.checks import UserError, check_range

KINDS = ("plane", "sphere", "capsule", "box")
_FAR = 1e6
Vec = tuple[jax.Array, jax.Array, jax.Array]


class Scene(struct.PyTreeNode):
    """What there is to see, without where it is.

    Attributes:
      kinds: of each geom, out of `KINDS`; static.
      size: `[G, 3]` metres, as MuJoCo's `geom_size`: radius; radius and half length; half sides; a
        plane's half sides, where 0 is without end.
      colour: `[G, 2, 3]` in [0, 1], of a checker's even and odd squares.
      square: `[G]` metres, side of a checker's squares; 0 for none.
      light: `[3]`, direction towards the light, of length 1.
      ambient: `[]` in [0, 1], the share of light that comes from all around.
      sky: `[2, 3]`, colours at the horizon and straight above.
    """

    kinds: tuple[str, ...] = struct.field(pytree_node=False)
    size: jax.Array
    colour: jax.Array
    square: jax.Array
    light: jax.Array
    ambient: jax.Array
    sky: jax.Array


class Poses(struct.PyTreeNode):
    """Where the geoms are.

    Attributes:
      position: `[G, 3]` metres.
      rotation: `[G, 3, 3]`, from a geom's axes to the world's.
    """

    position: jax.Array
    rotation: jax.Array


class Camera(struct.PyTreeNode):
    """Where the eye is.

    Attributes:
      position: `[3]` metres.
      rotation: `[3, 3]`; its columns point right, up and backwards.
      fovy: `[]` degrees.
    """

    position: jax.Array
    rotation: jax.Array
    fovy: jax.Array


@partial(jax.jit, static_argnums=(3, 4))
def render(
    scene: Scene,
    poses: Poses,
    camera: Camera,
    size: tuple[int, int] = (64, 64),
    samples: int = 1,
) -> jax.Array:
    """Draws one image; map it with `jax.vmap`.

    Args:
      scene: geoms and light.
      poses: of the geoms.
      camera: the eye.
      size: H and W in pixels.
      samples: rays along each side of a pixel, which smooths edges.

    Returns:
      `[H, W, 3]` float32 in [0, 1].

    Raises:
      UserError: a size or `samples` is below 1, or scene and poses do not fit.
    """
    check_range("samples", samples, low=1)
    fine = (size[0] * samples, size[1] * samples)
    rays = _rays(camera, fine)
    _, index, lit, odd = _trace(scene, poses, camera, rays)
    table = jnp.concatenate([scene.colour.reshape(-1, 3), jnp.zeros((1, 3))])
    geom = jnp.where(index >= 0, 2 * index + odd, 2 * len(scene.kinds))
    bright = scene.ambient + (1 - scene.ambient) * lit
    height = jnp.clip(rays[2], 0.0, 1.0)[..., None]
    sky = (1 - height) * scene.sky[0] + height * scene.sky[1]
    image = jnp.where((index >= 0)[..., None], table[geom] * bright[..., None], sky)
    image = image.reshape(size[0], samples, size[1], samples, 3).mean((1, 3))
    return jnp.clip(image, 0.0, 1.0)


@partial(jax.jit, static_argnums=(3,))
def segment(
    scene: Scene, poses: Poses, camera: Camera, size: tuple[int, int] = (64, 64)
) -> jax.Array:
    """Tells which geom each pixel shows, `[H, W]` int32; -1 is the sky. Arguments as `render`'s."""
    return _trace(scene, poses, camera, _rays(camera, size))[1]


def to_bytes(image: jax.Array) -> jax.Array:
    """Rounds an image in [0, 1] to uint8."""
    return jnp.round(255 * jnp.clip(image, 0.0, 1.0)).astype(jnp.uint8)


def _rays(camera: Camera, size: tuple[int, int]) -> Vec:
    """Directions of length 1 through the centres of pixels, `[H, W]` each."""
    height, width = size
    check_range("size", min(size), low=1)
    half = jnp.tan(jnp.deg2rad(camera.fovy) / 2)
    up = (1 - (2 * jnp.arange(height) + 1) / height)[:, None] * half
    right = ((2 * jnp.arange(width) + 1) / width - 1)[None, :] * half * width / height
    length = jnp.sqrt(right**2 + up**2 + 1)
    r = camera.rotation
    x, y, z = ((right * r[i, 0] + up * r[i, 1] - r[i, 2]) / length for i in range(3))
    return x, y, z


def _trace(scene: Scene, poses: Poses, camera: Camera, rays: Vec):
    """Returns distance, geom or -1, Lambert's cosine and odd square of the nearest hit, `[H, W]`.

    Raises:
      UserError: scene and poses are of different numbers of geoms, or a kind is unknown.
    """
    number = len(scene.kinds)
    if poses.position.shape != (number, 3) or scene.size.shape != (number, 3):
        raise UserError(
            f"poses of shape {poses.position.shape} and sizes of shape {scene.size.shape} do not "
            f"fit {number} geoms: give [{number}, 3] each."
        )
    near = jnp.full(rays[0].shape, _FAR)
    index, lit = jnp.full(near.shape, -1, jnp.int32), jnp.zeros(near.shape)
    odd = jnp.zeros(near.shape, jnp.int32)
    for g, kind in enumerate(scene.kinds):
        if kind not in KINDS:
            raise UserError(f"kind={kind!r} is unknown: choose one of {', '.join(KINDS)}.")
        turn = poses.rotation[g]
        start = _turned(turn, _vector(camera.position - poses.position[g]))
        ray = _turned(turn, rays)
        t, normal = _HITS[kind](start, ray, scene.size[g])
        light = _dot(normal, _turned(turn, _vector(scene.light)))
        closer = (t > 1e-4) & (t < near)
        near = jnp.where(closer, t, near)
        index = jnp.where(closer, g, index)
        lit = jnp.where(closer, jnp.maximum(light, 0.0), lit)
        odd = jnp.where(closer, _odd(start, ray, t, scene.square[g]), odd)
    return near, index, lit, odd


def _vector(x: jax.Array) -> Vec:
    return x[0], x[1], x[2]


def _dot(a: Vec, b: Vec) -> jax.Array:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _turned(rotation: jax.Array, v: Vec) -> Vec:
    """A vector of the world in a geom's axes."""
    x, y, z = (_dot(_vector(rotation[:, i]), v) for i in range(3))
    return x, y, z


def _root(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Square root and whether there is one, with a gradient that is finite everywhere."""
    good = x > 0
    return jnp.sqrt(jnp.where(good, x, 1.0)), good


def _away_from_zero(x: jax.Array) -> jax.Array:
    return jnp.where(jnp.abs(x) < 1e-9, jnp.where(x < 0, -1e-9, 1e-9), x)


def _odd(start: Vec, ray: Vec, t: jax.Array, square: jax.Array) -> jax.Array:
    """Whether the point hit lies in an odd square of the geom's x-y checker."""
    side = jnp.where(square > 0, square, 1.0)
    x, y = (jnp.floor((start[i] + t * ray[i]) / side) for i in range(2))
    return jnp.where(square > 0, jnp.mod(x + y, 2.0), 0.0).astype(jnp.int32)


def _hit_plane(start: Vec, ray: Vec, size: jax.Array) -> tuple[jax.Array, Vec]:
    """Seen from above only, as MuJoCo's planes are."""
    t = -start[2] / _away_from_zero(ray[2])
    inside = ray[2] < 0
    for i in range(2):
        inside &= (size[i] <= 0) | (jnp.abs(start[i] + t * ray[i]) <= size[i])
    zero = jnp.zeros_like(t)
    return jnp.where(inside, t, _FAR), (zero, zero, jnp.ones_like(t))


def _hit_capsule(start: Vec, ray: Vec, size: jax.Array) -> tuple[jax.Array, Vec]:
    """Along z: the cylinder without end, and where it is hit beyond the half length, a cap."""
    radius, half = size[0], size[1]
    across = jnp.maximum(ray[0] ** 2 + ray[1] ** 2, 1e-9)
    middle = -(start[0] * ray[0] + start[1] * ray[1]) / across
    beside = (start[0] + middle * ray[0]) ** 2 + (start[1] + middle * ray[1]) ** 2
    root, reached = _root((radius**2 - beside) / across)
    z = start[2] + (middle - root) * ray[2]
    centre = jnp.clip(z, -half, half)
    end = jnp.where(z < 0, -half, half)
    t_cap, cap = _hit_ball((start[0], start[1], start[2] - end), ray, radius)
    side = jnp.abs(z) <= half
    t = jnp.where(side, middle - root, t_cap)
    t = jnp.where(reached & (side | cap), t, _FAR)
    x, y, z = (start[i] + t * ray[i] for i in range(3))
    return t, (x / radius, y / radius, (z - centre) / radius)


def _hit_ball(start: Vec, ray: Vec, radius: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns where a ball around 0 is hit and whether.

    By the point of the ray that is nearest to the centre: the textbook's discriminant cancels in 32
    bits from afar.
    """
    middle = -_dot(start, ray)
    x, y, z = (start[i] + middle * ray[i] for i in range(3))
    root, hit = _root(radius**2 - (x**2 + y**2 + z**2))
    return middle - root, hit


def _hit_sphere(start: Vec, ray: Vec, size: jax.Array) -> tuple[jax.Array, Vec]:
    t, hit = _hit_ball(start, ray, size[0])
    t = jnp.where(hit, t, _FAR)
    x, y, z = ((start[i] + t * ray[i]) / size[0] for i in range(3))
    return t, (x, y, z)


def _hit_box(start: Vec, ray: Vec, size: jax.Array) -> tuple[jax.Array, Vec]:
    """By the three pairs of faces: in at the last one entered, out at the first one left."""
    inverse = [1 / _away_from_zero(r) for r in ray]
    middle = [-start[i] * inverse[i] for i in range(3)]
    reach = [size[i] * jnp.abs(inverse[i]) for i in range(3)]
    enter = [m - r for m, r in zip(middle, reach, strict=True)]
    t = jnp.maximum(jnp.maximum(enter[0], enter[1]), enter[2])
    leave = jnp.minimum(
        jnp.minimum(middle[0] + reach[0], middle[1] + reach[1]), middle[2] + reach[2]
    )
    x, y, z = (jnp.where(enter[i] >= t, -jnp.sign(ray[i]), 0.0) for i in range(3))
    return jnp.where(t <= leave, t, _FAR), (x, y, z)


_HITS = {
    "plane": _hit_plane,
    "sphere": _hit_sphere,
    "capsule": _hit_capsule,
    "box": _hit_box,
}
