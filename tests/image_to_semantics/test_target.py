# SPDX-License-Identifier: Apache-2.0
"""Target worlds: physics that differ as said, looks that stay in an episode, data that repeat."""

import copy

import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.envs import mujoco_spec
from jaxsafe.image_to_semantics import collect, evaluate, mjcf, study, target, worlds
from jaxsafe.image_to_semantics.collect import Recipe
from jaxsafe.image_to_semantics.target import Fleet, Gap

# What a MuJoCo model's motion comes from.
PHYSICS = (
    *("dof_damping", "dof_frictionloss", "dof_armature", "dof_M0", "body_mass", "body_inertia"),
    *("body_pos", "body_ipos", "jnt_range", "jnt_stiffness", "qpos0", "actuator_gear"),
    *("geom_friction", "geom_size", "geom_solimp", "geom_solref", "actuator_ctrlrange"),
)


@pytest.fixture(scope="module")
def arm():
    return worlds.make("reacher")


def drive(world, gap, actions, seed=0):
    """Positions `[T + 1, nq]` and returns under open-loop actions `[T, A]`."""
    qpos, qvel = world.start(np.random.default_rng(seed))
    fleet = Fleet(world, gap, qpos[None], qvel[None], threads=1)
    path = [fleet.qpos[0]]
    for action in actions:
        fleet.step(action[None])
        path.append(fleet.qpos[0])
    fleet.close()
    return np.stack(path), fleet.returns[0]


@pytest.fixture(scope="module")
def actions(arm):
    return worlds.held_actions(np.random.default_rng(3), arm, 20)


def test_weaker_motors_are_smaller_actions(arm, actions):
    weak, _ = drive(arm, Gap(gear=0.8), actions)
    small, _ = drive(arm, Gap(), 0.8 * actions)
    np.testing.assert_allclose(weak, small, atol=1e-9)
    assert np.abs(weak - drive(arm, Gap(), actions)[0]).max() > 0.01


def test_a_delay_is_a_step_without_action_first(arm, actions):
    late, _ = drive(arm, Gap(delay=1), actions)
    shifted, _ = drive(arm, Gap(), np.vstack([np.zeros((1, 2)), actions[:-1]]))
    np.testing.assert_allclose(late, shifted, atol=1e-12)  # a file has 6 digits of a rotation


def test_mass_damping_and_gear_together_change_nothing(arm, actions):
    """All three scale the equation of motion, which has no other force."""
    heavy, _ = drive(arm, Gap(mass=1.5, damping=1.5, gear=1.5), actions)
    np.testing.assert_allclose(heavy, drive(arm, Gap(), actions)[0], atol=1e-9)


def test_dry_friction_holds_still(arm):
    """MuJoCo's friction is a soft constraint, which creeps in proportion to the force it holds."""
    push = np.full((10, 2), 0.3)
    moved = {
        friction: np.abs(np.ptp(drive(arm, Gap(joint_friction=friction), push)[0], axis=0))[:2]
        for friction in (0.0, 5.0)
    }
    assert (moved[0.0] > 0.1).all() and (moved[5.0] < 0.02).all()


def test_the_levels_are_as_published():
    none, looks, small, large = target.LEVELS
    assert none == Gap() and looks == Gap(look=True) and small.delay == 0 and large.delay == 1
    assert (small.damping, small.mass, large.gear) == (1.2, 1.1, 0.8)


def changed_in_memory(world, gap):
    """The source's compiled model with the gap's factors: what the file is to give."""
    model = copy.copy(world.task.host.model)
    model.dof_damping[:] *= gap.damping
    model.body_mass[:] *= gap.mass
    model.body_inertia[:] *= gap.mass
    model.actuator_gear[:] *= gap.gear
    model.geom_friction[:, 0] *= gap.friction
    model.dof_frictionloss[model.jnt_dofadr[model.actuator_trnid[:, 0]]] += gap.joint_friction
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


@pytest.mark.parametrize("name", worlds.BODIES)
def test_the_target_has_a_file_of_its_own(name, tmp_path):
    world = worlds.make(name)
    source = mujoco_spec.mjcf(world.task.host.spec)
    for level, gap in enumerate(target.LEVELS):
        text = mjcf.target_xml(world, gap)
        assert (text == source) == (level < 2)
        path = tmp_path / f"{level}.xml"
        path.write_text(text)
        with mujoco_spec.quiet_mujoco():
            model = mujoco.MjModel.from_xml_path(str(path))
        assert mjcf.delay_of(model) == mjcf.delay_of(target.physics(world, gap)) == gap.delay
        wanted = changed_in_memory(world, gap)
        for field in PHYSICS:
            found, expected = getattr(model, field), getattr(wanted, field)
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6, err_msg=field)
        assert np.any(model.dof_damping != world.task.host.model.dof_damping) == (level > 1)


@pytest.fixture(scope="module")
def data():
    return {level: collect.collect(Recipe("reacher", level, 0), 4) for level in (0, 2)}


def test_data_are_whole_and_repeat(data, arm):
    one = data[2]
    assert one.images.shape == (200, 64, 64, 3) and one.truth.shape == (200, 8)
    np.testing.assert_array_equal(one.lengths, 50)
    again = collect.collect(Recipe("reacher", 2, 0), 2)
    for a, b in zip(again[:2], one[:2], strict=True):
        np.testing.assert_array_equal(a, b[:100])
    # Starts and actions are the same at every level, images are not.
    np.testing.assert_array_equal(one.truth[::50], data[0].truth[::50])
    np.testing.assert_array_equal(one.actions, data[0].actions)
    assert (one.images != data[0].images).mean() > 0.5


def test_a_look_stays_for_an_episode_and_noise_does_not(data):
    corner = data[2].images[:, :6, :6].astype(float)  # floor, which the arm seldom covers
    within = np.median(corner[:50], axis=0)
    assert np.abs(corner[:50] - within).mean() < 6 and corner[:50].std(0).mean() > 2
    means = np.median(data[2].images.reshape(4, -1, 3), axis=1)
    assert np.ptp(means, axis=0).max() > 8
    plain = data[0].images[:, 0, 0]
    assert (plain == plain[0]).all()


def test_blur_by_hand():
    image = np.zeros((4, 5, 1), np.float32)
    image[0, 2] = 16
    expected = np.zeros((4, 5))
    expected[0, 1:4], expected[1, 1:4] = [3, 6, 3], [1, 2, 1]  # the first row stands in for -1
    np.testing.assert_allclose(target._blurred(jnp.asarray(image))[..., 0], expected)


def test_a_zero_gap_has_no_drift_and_physics_have_some(data, arm):
    """MJX in 32 bits replays MuJoCo C in 64 to rounding; at level 2 labels drift."""
    std = data[0].truth.std(0)
    assert np.nanmax(evaluate.label_drift(arm, data[0], std)) < 2e-4
    drift = evaluate.label_drift(arm, data[2], std)
    assert drift[0] < 1e-6 and 0.02 < drift[10] < 0.5


def test_tables_hold_stacks_that_stay_in_their_episode(data):
    laid = study.table(data[0], 3, np.ones(8))
    stacks = np.asarray(laid.stacks)
    np.testing.assert_array_equal(
        stacks[[0, 1, 2, 50, 52]],
        [
            [0, 0, 0],
            [1, 0, 0],
            [2, 1, 0],
            [50, 50, 50],
            [52, 51, 50],
        ],
    )
    with pytest.raises(UserError, match=r"truth has 8 numbers an image and the world 5 semantics"):
        study.table(data[0], 1, np.ones(5))


def test_a_perfect_translator_is_the_policy_on_true_states(monkeypatch, arm):
    """With F_hat := F the agent earns what pi earns on true states (known answer 12)."""
    fleets = []

    class Seen(Fleet):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            fleets.append(self)

    def act(world, config, gain, policy, images, key, before):
        truth = fleets[0].semantics.reshape(*images.shape[:2], -1)
        return world.policy(np, truth.astype(np.float64)), truth

    recipe = Recipe("reacher", 3, 7)
    true, behaviour = evaluate.true_state_returns(recipe, 3), collect.behaviour_returns(recipe, 3)
    monkeypatch.setattr(target, "open_fleet", Seen)
    monkeypatch.setattr(evaluate, "_act", act)
    from jaxsafe.image_to_semantics.config import Config
    from jaxsafe.image_to_semantics.types import Range

    policy = evaluate.Policy(None, np.zeros(2), Range(np.zeros(8), np.ones(8)))
    run = evaluate.transfer(policy, Config(), recipe, 3)
    np.testing.assert_allclose(run.returns, np.stack([true, true]), atol=1e-9)
    np.testing.assert_array_equal(run.distance, 0)
    assert true.mean() > behaviour.mean() + 5
    assert evaluate.normalised_return(true, true.mean(), behaviour.mean()).mean() == pytest.approx(
        1
    )


def test_distances_by_hand():
    from jaxsafe.image_to_semantics.types import Range

    truth = np.array([[0.0, 0.0], [2.0, 4.0]])
    found = np.array([[1.0, 0.0], [2.0, 0.0]])
    errors = evaluate.squared_errors(truth, found, Range(np.zeros(2), np.array([2.0, 4.0])))
    np.testing.assert_allclose(errors, [0.125, 0.5])


def test_a_hopper_falls_and_its_episodes_end_there():
    data = collect.collect(Recipe("hopper", 0, 0), 2)
    assert (data.lengths < 200).all() and data.truth.shape[1] == 11
    assert data.ends.sum() == 2 and len(np.unique(data.images[:, 40:])) > 20
    with pytest.raises(UserError, match="hopper comes without a policy"):
        evaluate.true_state_returns(Recipe("hopper", 0, 0), 1)


@pytest.mark.slow
def test_a_cheetah_runs_to_the_end_and_is_seen():
    data = collect.collect(Recipe("half_cheetah", 2, 0), 2)
    np.testing.assert_array_equal(data.lengths, 200)
    assert data.truth.shape[1] == 17 and (data.images[0] != data.images[150]).mean() > 0.05


def test_bad_recipes():
    for recipe, message in (
        (Recipe("reacher", 4, 0), r"level=4 is out of range"),
        (Recipe("recher", 0, 0), r"world='recher' is unknown. Did you mean 'reacher'"),
    ):
        with pytest.raises(UserError, match=message):
            collect.collect(recipe, 1)


@pytest.mark.slow
def test_processes_change_no_data():
    alone, together = (collect.collect(Recipe("reacher", 2, 0), 5, n) for n in (1, 3))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)
