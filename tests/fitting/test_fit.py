"""Fitting recovers known hands from 2-D, keeps its limits, and its filters catch what is wrong."""

import numpy as np
import pytest
import torch
from benchmarks import fitting as study
from benchmarks.detections import CORRUPTIONS, corrupt
from benchmarks.fitting import CAMERA
from mano_fixture import mano_bytes

from hand_lib.fitting.fit import FitOptions, Reason, fit_hands, follow_fit
from hand_lib.fitting.skeleton import ORDER, Skeleton, pose_prior
from hand_lib.hand import joints as anatomy
from hand_lib.hand.joints import JOINT_PARENTS
from hand_lib.hand.kinematics import axis_angle_to_matrix
from hand_lib.hand.model import HandModel
from hand_lib.hand.poses import sample_poses
from hand_lib.render.camera import project
from template.build.pose_prior import draw_prior


def known_hands(count, seed=0, side="right", model=None):
    """Joints (B, 21, 3) in front of a camera, their picture (B, 21, 2), and the camera."""
    hands = study.known_hands(count, seed, model or HandModel.builtin(side))
    return hands.joints, hands.picture, CAMERA


def aligned_errors(fit, joints):
    """Mean joint error after similarity alignment, (B,) mm."""
    return study.joint_errors_mm(fit.joints, joints)


def test_the_skeleton_equals_the_model_and_its_slopes_are_right(model):
    precise = HandModel.builtin(dtype=torch.float64)
    skeleton = Skeleton(precise)
    generator = torch.Generator().manual_seed(0)
    angles = skeleton.draws[:3]
    turn, wrist = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64).unbind(0)
    betas = torch.randn(3, 10, generator=generator, dtype=torch.float64)
    rotation = axis_angle_to_matrix(turn)
    joints, slopes = skeleton.place(rotation, wrist, angles, betas)
    start = skeleton.rig.joints[0] + betas @ skeleton.rig.joint_shapes[:, 0]
    hand = precise(skeleton.pose(rotation, angles), betas, wrist - start)
    torch.testing.assert_close(hand.joints[:, ORDER], joints.mT)
    step = 1e-6
    for k in range(43):
        nudge = torch.zeros(43, dtype=torch.float64)
        nudge[k] = step
        moved, _ = skeleton.place(
            axis_angle_to_matrix(nudge[None, :3]) @ rotation,
            wrist + nudge[3:6],
            angles + nudge[6:33],
            betas + nudge[33:],
        )
        difference = (moved - joints) / step - slopes[:, k]
        assert difference[..., :16].abs().max() < 1e-5
        assert difference[..., 16:].abs().max() < 0.02  # tips: taken as rigid


def test_the_prior_that_lies_beside_the_hand_is_that_of_todays_poses():
    for kept, drawn in zip(pose_prior(), draw_prior().values(), strict=True):
        np.testing.assert_allclose(kept, drawn, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("side", ["right", "left"])
def test_exact_keypoints_give_the_hand_back(side):
    model = HandModel.builtin(side)
    joints, picture, camera = known_hands(64, side=side)
    fit = fit_hands(model, picture, intrinsics=camera)
    assert np.median(fit.reprojection_px) < 0.5
    assert np.median(aligned_errors(fit, joints)) < 5
    assert fit.accepted.mean() > 0.95
    hand = model(*(torch.from_numpy(x).float() for x in (fit.pose, fit.betas, fit.translation)))
    np.testing.assert_allclose(hand.joints.numpy(), fit.joints, atol=1e-5)
    np.testing.assert_allclose(project(fit.joints, camera), fit.joints_2d, atol=1e-3)


def test_noisy_keypoints_with_gaps_give_nearly_the_hand_back(model):
    joints, picture, camera = known_hands(64, seed=1)
    rng = np.random.default_rng(0)
    noisy = picture + rng.normal(0, 3, picture.shape)
    seen = (rng.random(noisy.shape[:2]) > 0.15).astype(float)
    noisy[seen == 0] = np.nan  # what is not seen is not looked at
    fit = fit_hands(model, noisy, seen, camera)
    assert np.median(fit.reprojection_px) < 3.5
    assert np.median(aligned_errors(fit, joints)) < 10
    assert np.isnan(fit.residual_px[seen == 0]).all()


def test_joint_limits_hold_whatever_the_keypoints_say(model):
    rng = np.random.default_rng(0)
    fit = fit_hands(model, rng.uniform(0, 224, (16, 21, 2)))
    angles = anatomy.angles_from_pose(fit.pose)[:, 1:]
    low, high = anatomy.JOINT_LIMITS[1:, :, 0], anatomy.JOINT_LIMITS[1:, :, 1]
    assert (angles >= low - 2e-3).all() and (angles <= high + 2e-3).all()
    assert np.abs(fit.betas).max() <= 4
    assert not fit.accepted.any()


def test_a_guessed_camera_still_finds_the_pose(model):
    joints, picture, _ = known_hands(32, seed=2)
    fit = fit_hands(model, picture, image_size=(224, 224))
    assert np.median(aligned_errors(fit, joints)) < 8
    assert fit.intrinsics[0, 0, 0] == pytest.approx(224 / 2 / np.tan(np.pi / 6))


def test_more_starts_leave_no_hand_worse(model):
    _, picture, camera = known_hands(64, seed=3)
    one = fit_hands(model, picture, intrinsics=camera, options=FitOptions(starts=1))
    three = fit_hands(model, picture, intrinsics=camera, options=FitOptions(starts=3))
    assert three.energy.mean() <= one.energy.mean() + 0.1


def test_a_track_shares_its_shape_and_moves_smoothly(model):
    rng = np.random.default_rng(0)
    ends = torch.from_numpy(sample_poses(2, rng)).float()
    share = torch.linspace(0, 1, 12)[:, None, None]
    pose = (1 - share) * ends[:1] + share * ends[1:]
    pose[:, 0] = torch.tensor([0.3, 0.2, 1.0]) + share[:, 0] * 0.5
    betas = torch.from_numpy(rng.normal(size=10)).float()
    joints = model(pose, betas, torch.tensor([0.0, 0, 0.6])).joints.double().numpy()
    camera = np.array([[450.0, 0, 111.5], [0, 450, 111.5], [0, 0, 1]])
    noisy = project(joints, camera) + rng.normal(0, 3, (12, 21, 2))
    alone = fit_hands(model, noisy, intrinsics=camera)
    track = fit_hands(model, noisy, intrinsics=camera, options=FitOptions(track=True))
    assert np.ptp(track.betas, axis=0).max() == 0 and np.ptp(alone.betas, axis=0).max() > 0.1

    def unrest(fit):
        return np.linalg.norm(np.diff(fit.joints, 2, axis=0), axis=2).mean()

    assert unrest(track) < 0.8 * unrest(alone)
    assert aligned_errors(track, joints).mean() < aligned_errors(alone, joints).mean()
    noisy[5] += 200
    jumped = fit_hands(model, noisy, intrinsics=camera, options=FitOptions(track=True))
    assert jumped.reason[5] is Reason.JUMP and jumped.accepted[[0, 1, 8, 9]].all()


def test_filters_reject_corrupted_detections_and_keep_good_ones(model):
    rng = np.random.default_rng(5)
    _, picture, camera = known_hands(150, seed=5)
    points, boxes, kind = corrupt(picture + rng.normal(0, 2, picture.shape), rng)
    bad = kind != ""
    fit = fit_hands(model, points, intrinsics=camera, boxes=boxes)
    assert (~fit.accepted[bad]).mean() >= 0.9
    assert (~fit.accepted[~bad]).mean() <= 0.05
    assert all(bool(fit.why(row)) != good for row, good in enumerate(fit.accepted))


def test_rows_that_cannot_be_fitted_say_why_and_the_rest_goes_on(model):
    _, picture, camera = known_hands(6, seed=6)
    seen = np.ones((6, 21))
    seen[1] = 0
    seen[2, 5:] = 0
    picture[3] = 50.0
    seen[4] = 0.1
    tiny = picture.copy()
    tiny[5] = 100 + picture[5] / 20
    fit = fit_hands(model, tiny, seen, camera)
    parts = ("", "no hand", "only 5 of 21", "px large", "confidence", "px large")
    for row, part in enumerate(parts):
        assert part in fit.why(row), (row, fit.why(row))
    assert fit.accepted.tolist() == [True] + [False] * 5
    assert np.isnan(fit.pose[1]).all() and np.isfinite(fit.pose[0]).all()


def test_a_wrong_scale_is_said(model):
    _, picture, camera = known_hands(2, seed=6)
    far = camera.copy()
    far[0, 0] = far[1, 1] = 45000.0
    fit = fit_hands(model, picture, intrinsics=far)
    assert fit.reason[0] is Reason.SCALE and fit.kind(0) == "scale" and " m away" in fit.why(0)


def test_bad_inputs_are_named(model):
    with pytest.raises(ValueError, match=r"\(B, 21, 2\), found \(1, 20, 2\)"):
        fit_hands(model, np.zeros((1, 20, 2)))
    with pytest.raises(ValueError, match="confidence"):
        fit_hands(model, np.zeros((2, 21, 2)), np.ones((1, 21)))
    with pytest.raises(ValueError, match="not negative"):
        fit_hands(model, np.zeros((1, 21, 2)), -np.ones((1, 21)))
    with pytest.raises(ValueError, match="intrinsics"):
        fit_hands(model, np.zeros((1, 21, 2)), intrinsics=np.eye(4))
    for fy, words in ((1.4, "look normalised"), (-400.0, "should be positive")):
        with pytest.raises(ValueError, match=words):
            fit_hands(model, np.zeros((1, 21, 2)), intrinsics=np.diag([400.0, fy, 1.0]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_it_fits_on_a_gpu():
    joints, picture, camera = known_hands(32)
    fit = fit_hands(HandModel.builtin().cuda(), picture, intrinsics=camera)
    assert np.median(aligned_errors(fit, joints)) < 5


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_file_in_manos_schema_is_fitted(side, tmp_path):
    arrays = HandModel.builtin(side).arrays()
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(10, 10)))[0]  # other shape directions, as MANO has
    arrays["shapedirs"] = arrays["shapedirs"] @ turn
    arrays["hands_mean"] = rng.normal(0, 0.1, 45)
    path = tmp_path / f"MANO_{side.upper()}.pkl"
    path.write_bytes(mano_bytes(arrays))
    model = HandModel.from_mano(path, side=side)
    joints, picture, camera = known_hands(32, model=model)
    fit = fit_hands(model, picture, intrinsics=camera)
    assert np.median(fit.reprojection_px) < 1 and np.median(aligned_errors(fit, joints)) < 5
    assert fit.accepted.mean() > 0.9


def test_bone_lengths_keep_their_proportions(model):
    _, picture, camera = known_hands(24, seed=13)
    picture = picture + np.random.default_rng(0).normal(0, 4, picture.shape)

    def spread(proportions):
        fit = fit_hands(model, picture, None, camera, FitOptions(proportions=proportions))
        betas = torch.cat([torch.zeros(1, 10), torch.from_numpy(fit.betas).float()])
        rest = model(torch.zeros(25, 16, 3), betas).joints.numpy()
        length = np.linalg.norm(rest[:, 1:] - rest[:, JOINT_PARENTS[1:]], axis=2)
        ratio = length[1:] / length[0]
        return (ratio / ratio.mean(1, keepdims=True)).std(1).mean()

    assert spread(20.0) < 0.6 * spread(0.0)


def test_a_track_chooses_one_side_of_the_mirror(model):
    rng = np.random.default_rng(1)
    pose = torch.from_numpy(sample_poses(1, rng)).float().repeat(30, 1, 1)
    share = torch.linspace(0, 1, 30)
    pose[:, 0] = torch.stack([0.4 + 0.3 * share, 1.2 - 0.6 * share, 1.0 + 0.2 * share], 1)
    joints = model(pose, None, torch.tensor([0.0, 0, 1.6])).joints.double().numpy()
    camera = np.array([[1400.0, 0, 111.5], [0, 1400, 111.5], [0, 0, 1]])  # nearly parallel rays
    noisy = project(joints, camera) + rng.normal(0, 3, (30, 21, 2))
    track = fit_hands(model, noisy, intrinsics=camera, options=FitOptions(track=True))
    flipped = study.depth_flipped(track.joints, joints)
    assert flipped.mean() in (0.0, 1.0)  # never to and fro
    alone = fit_hands(model, noisy, intrinsics=camera)
    assert aligned_errors(track, joints).mean() < aligned_errors(alone, joints).mean()


def test_a_turn_that_no_hand_makes_is_a_jump_along_the_track(model):
    joints, picture, camera = known_hands(1, seed=4)
    frames = np.repeat(picture, 7, 0) + np.random.default_rng(0).normal(0, 1, (7, 21, 2))
    middle = frames[3].mean(0)
    frames[3] = 2 * middle - frames[3]  # upside down in its place
    fit = fit_hands(model, frames, intrinsics=camera, options=FitOptions(track=True))
    assert not fit.accepted[3] and fit.accepted[[0, 1, 5, 6]].all()


def test_every_step_of_a_fit_can_be_followed(model):
    _, picture, camera = known_hands(1, seed=6)
    paths = follow_fit(model, picture[0], None, camera)
    fit = fit_hands(model, picture, None, camera)
    assert len(paths) == 3 and len(paths[0]) == 22 and len(paths[1]) == 8
    energies = [step.energy[0] for step in paths[0]]
    assert all(b <= a + 1e-3 for a, b in zip(energies[:-1], energies[1:], strict=True))
    np.testing.assert_allclose(paths[0][-1].pose, fit.pose, atol=1e-4)
    assert paths[0][7].energy[0] <= min(path[-1].energy[0] for path in paths[1:]) + 1e-3
    with pytest.raises(ValueError, match="at least 6"):
        follow_fit(model, picture[0], np.eye(1, 21)[0])


def test_corruption_spoils_as_many_detections_as_it_says():
    picture = study.known_hands(40).picture
    points, boxes, kind = corrupt(picture, np.random.default_rng(0))
    changed = (points != picture).any((1, 2))
    assert changed.sum() == 8 and (changed == (kind != "")).all()
    assert {k: int((kind == k).sum()) for k in CORRUPTIONS} == dict.fromkeys(CORRUPTIONS, 2)
    inside = (picture >= boxes[:, None, :2]) & (picture <= boxes[:, None, 2:])
    assert inside.all()
    for name in ("swapped", "shuffled"):  # the same points in another order
        for i in np.flatnonzero(kind == name):
            np.testing.assert_allclose(np.sort(points[i], axis=0), np.sort(picture[i], axis=0))
