"""Bones, joint axes, limits, gestures and the pose prior of the built-in hand."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hand_lib.hand import joints as anatomy
from hand_lib.hand.joints import FINGER_NAMES, MANO_FINGERS, MANO_PARENTS
from hand_lib.hand.poses import (
    GESTURE_ANGLES,
    GESTURES,
    penetration_depth,
    pose_joints,
    sample_angles,
    sample_poses,
)

DEG = np.pi / 180


def chains(pose):
    """Joint centres and tip (4, 3) of each digit in one pose, metres."""
    rotations, joints = pose_joints(pose[None])
    out = {}
    for name in FINGER_NAMES:
        ids = list(MANO_FINGERS[name])
        bone = anatomy.REST_CHAIN[name][3] - anatomy.REST_CHAIN[name][2]
        tip = joints[0, ids[-1]] + rotations[0, ids[-1]] @ bone
        out[name] = np.concatenate([joints[0, ids], tip[None]])
    return out


def one_joint(joint, flexion=0.0, abduction=0.0, twist=0.0):
    angles = np.zeros((16, 3))
    angles[joint] = flexion, abduction, twist
    return anatomy.pose_from_angles(angles)


def random_angles(n, seed=0):
    rng = np.random.default_rng(seed)
    low, high = anatomy.JOINT_LIMITS[..., 0], anatomy.JOINT_LIMITS[..., 1]
    angles = low + (high - low) * rng.random((n, 16, 3))
    angles[:, 0] = 0.4 * rng.standard_normal((n, 3))
    return angles


def within_limits(angles):
    low, high = np.moveaxis(anatomy.JOINT_LIMITS, 2, 0)
    return ((angles >= low - 1e-9) & (angles <= high + 1e-9)).all()


def test_frames_are_right_handed_and_follow_the_bones():
    turned = anatomy.FRAMES @ anatomy.FRAMES.transpose(0, 2, 1)
    np.testing.assert_allclose(turned, np.tile(np.eye(3), (16, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(anatomy.FRAMES), 1.0)
    for name in FINGER_NAMES:
        bones = np.diff(anatomy.REST_CHAIN[name], axis=0)
        bones /= np.linalg.norm(bones, axis=1, keepdims=True)
        along = anatomy.FRAMES[list(MANO_FINGERS[name]), :, 0]
        np.testing.assert_allclose(along, bones, atol=1e-12)


def test_the_thumbs_nail_faces_60_to_90_degrees_away_from_the_fingers():
    thumb = anatomy.FRAMES[15][:, 2]
    for name in ("index", "middle"):
        nail = anatomy.FRAMES[MANO_FINGERS[name][2]][:, 2]
        assert 50 < np.degrees(np.arccos(thumb @ nail)) < 95


def test_positive_angles_curl_and_swing_every_digit_the_right_way():
    for name in FINGER_NAMES[1:]:
        rest = anatomy.REST_CHAIN[name][3]
        for joint in MANO_FINGERS[name]:  # towards the palm
            assert chains(one_joint(joint, flexion=40 * DEG))[name][3, 2] < rest[2] - 0.008
        swung = chains(one_joint(MANO_FINGERS[name][0], abduction=12 * DEG))[name][3]
        assert swung[1] > rest[1] + 0.01  # to the thumb's side
    rest, bent = anatomy.REST_CHAIN["thumb"][3], chains(one_joint(13, flexion=35 * DEG))["thumb"][3]
    assert bent[1] < rest[1] - 0.02 and bent[2] < rest[2]  # across the palm
    assert chains(one_joint(13, abduction=20 * DEG))["thumb"][3, 2] < -0.055  # off it


def test_a_single_flexion_is_a_turn_about_the_published_axis():
    for joint in (1, 5, 9, 13, 15):
        pose = one_joint(joint, flexion=0.7)
        np.testing.assert_allclose(pose[joint], 0.7 * anatomy.FRAMES[joint, :, 1], atol=1e-12)
        pose = one_joint(joint, abduction=0.2)
        np.testing.assert_allclose(pose[joint], 0.2 * anatomy.FRAMES[joint, :, 2], atol=1e-12)


def test_angles_and_poses_are_inverse_to_each_other_over_the_whole_range():
    angles = random_angles(400)
    pose = anatomy.pose_from_angles(angles)
    np.testing.assert_allclose(anatomy.angles_from_pose(pose), angles, atol=1e-9)
    again = anatomy.pose_from_angles(anatomy.angles_from_pose(pose))
    np.testing.assert_allclose(again, pose, atol=1e-9)


def test_the_axes_of_another_skeleton_follow_its_bones():
    turn = Rotation.from_rotvec([0.4, -1.0, 2.0]).as_matrix()
    frames = anatomy.bone_frames(1.1 * anatomy.REST_JOINTS @ turn.T)
    np.testing.assert_allclose(frames, turn @ anatomy.FRAMES, atol=1e-6)


def test_forward_kinematics_keeps_bone_lengths_and_turns_with_the_wrist():
    pose = anatomy.pose_from_angles(random_angles(30, seed=3))
    rotations, joints = pose_joints(pose)
    for j in range(1, 16):
        parent = MANO_PARENTS[j]
        length = np.linalg.norm(joints[:, j] - joints[:, parent], axis=1)
        rest = np.linalg.norm(anatomy.REST_JOINTS[j] - anatomy.REST_JOINTS[parent])
        np.testing.assert_allclose(length, rest)
    still = pose.copy()
    still[:, 0] = 0
    _, unturned = pose_joints(still)
    turned = np.einsum("nab,njb->nja", rotations[:, 0], unturned)
    np.testing.assert_allclose(turned, joints, atol=1e-12)


def test_samples_are_within_limits_apart_and_leave_the_wrist_still():
    angles = sample_angles(300, np.random.default_rng(4))
    assert angles.shape == (300, 16, 3) and (angles[:, 0] == 0).all()
    assert within_limits(angles)
    depth = penetration_depth(anatomy.pose_from_angles(angles))
    assert depth.max() <= 0.0018 + 1e-9


def test_samples_repeat_with_the_seed_and_differ_otherwise():
    first = sample_poses(20, np.random.default_rng(5))
    np.testing.assert_array_equal(first, sample_poses(20, np.random.default_rng(5)))
    assert np.abs(first - sample_poses(20, np.random.default_rng(6))).max() > 0.1
    assert sample_poses(0, np.random.default_rng(5)).shape == (0, 16, 3)


def test_gestures_share_draws_round_the_named_gestures():
    bank = np.stack(list(GESTURE_ANGLES.values()))[:, None]
    gaps = [
        np.linalg.norm(sample_angles(200, np.random.default_rng(8), share) - bank, axis=(2, 3))
        for share in (0.0, 1.0)
    ]
    free, named = (np.median(gap.min(axis=0)) for gap in gaps)
    assert named < 0.6 * free


def test_samples_cover_open_and_closed_hands_and_move_digits_independently():
    angles = sample_angles(1000, np.random.default_rng(7), gestures_share=0.0)
    curl = angles[:, [1, 4, 10, 7], 0]
    middle = angles[:, [2, 5, 11, 8], 0]
    assert np.percentile(middle, 5) < 12 * DEG and np.percentile(middle, 95) > 70 * DEG
    neighbours = np.corrcoef(curl.T)
    assert 0.3 < neighbours[0, 1] < 0.95 and neighbours[0, 1] > neighbours[0, 3] - 0.05
    ends = np.corrcoef(angles[:, 2, 0], angles[:, 3, 0])[0, 1]
    assert ends > 0.8  # the end joint follows the middle joint


def test_every_promised_gesture_is_there_within_limits():
    promised = "flat fist point pinch ok victory thumbs_up grasp claw spread three call_me"
    assert set(promised.split()) <= set(GESTURES)
    for name, angles in GESTURE_ANGLES.items():
        assert within_limits(angles), name
        np.testing.assert_allclose(GESTURES[name], anatomy.pose_from_angles(angles))


def test_gestures_do_what_their_names_say():
    for name in ("pinch", "ok"):
        tips = chains(GESTURES[name])
        assert np.linalg.norm(tips["thumb"][3] - tips["index"][3]) < 0.022
    fist = chains(GESTURES["fist"])
    for name in ("index", "middle", "ring", "little"):
        assert fist[name][3, 0] < 0.085 and fist[name][3, 2] < -0.005
    pointing = chains(GESTURES["point"])
    assert pointing["index"][3, 0] > 0.16 and pointing["middle"][3, 0] < 0.085
    up = chains(GESTURES["thumbs_up"])["thumb"]
    assert up[3, 1] > 0.09
    victory = chains(GESTURES["victory"])
    gap = np.linalg.norm(victory["index"][3] - victory["middle"][3])
    assert gap > 1.3 * np.linalg.norm(
        anatomy.REST_CHAIN["index"][3] - anatomy.REST_CHAIN["middle"][3]
    )


def test_penetration_is_positive_where_digits_cross_and_negative_where_they_are_apart():
    crossed = np.zeros((16, 3))
    crossed[1, 1], crossed[4, 1] = -15 * DEG, 14 * DEG
    through = np.zeros((16, 3))
    for joint, angle in zip(MANO_FINGERS["middle"], (90, 105, 0), strict=True):
        through[joint, 0] = (angle + 25) * DEG
    poses = anatomy.pose_from_angles(np.stack([crossed, through, GESTURE_ANGLES["spread"]]))
    depth = penetration_depth(poses)
    assert depth[0] > 0.004 and depth[1] > 0.004 and depth[2] < -0.003
    assert max(penetration_depth(np.stack(list(GESTURES.values())))) < 0.002


def test_bad_arguments_are_refused_with_what_was_found():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"\(16, 3\).*\(15, 3\)"):
        anatomy.pose_from_angles(np.zeros((15, 3)))
    with pytest.raises(ValueError, match="gestures_share"):
        sample_angles(3, rng, gestures_share=1.5)
    with pytest.raises(ValueError, match="-1"):
        sample_poses(-1, rng)
