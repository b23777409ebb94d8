"""Fitting recovers known hands from 2-D, keeps its limits, and its filters catch what is wrong."""

import numpy as np
import pytest
import torch

from hand_lib import anatomy
from hand_lib.camera import project
from hand_lib.fitting import fit_hands, hand_size
from hand_lib.fitting_skeleton import FREE, ORDER, Skeleton, bone_frames, pose_prior
from hand_lib.geometry import align_similarity
from hand_lib.hand_model import HandModel, mirror_pose
from hand_lib.joints import FINGERS
from hand_lib.rotations import axis_angle_to_matrix, matrix_to_axis_angle


@pytest.fixture(scope="module")
def model():
    return HandModel.builtin()


def known_hands(count, seed=0, side="right", model=None):
    """Joints (B, 21, 3) in front of a camera, their picture (B, 21, 2), and the camera."""
    rng = np.random.default_rng(seed)
    model = model or HandModel.builtin(side)
    pose = torch.from_numpy(anatomy.sample_poses(count, rng)).float()
    turn = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(count, 3))), dim=1)
    turn = turn * torch.from_numpy(rng.uniform(0, 3.1, (count, 1)))
    pose[:, 0] = turn.float()
    if side == "left":
        pose = mirror_pose(pose)
    if not model.flat_mean:
        pose[:, 1:] -= model.pose_mean.view(15, 3)
    betas = torch.from_numpy(rng.normal(size=(count, 10))).float()
    joints = model(pose, betas).joints.double().numpy()
    joints += np.array([0.0, 0, 0.5]) - joints.mean(1, keepdims=True)
    camera = np.array([[450.0, 0, 111.5], [0, 450, 111.5], [0, 0, 1]])
    return joints, project(joints, camera), camera


def aligned_errors(fit, joints):
    """Mean joint error after similarity alignment, (B,) mm."""
    aligned, _ = align_similarity(fit.joints, joints)
    return 1000 * np.linalg.norm(aligned - joints, axis=2).mean(1)


def test_the_skeleton_equals_the_model_and_its_slopes_are_right(model):
    precise = HandModel.builtin(dtype=torch.float64)
    skeleton = Skeleton(precise, torch.float64)
    generator = torch.Generator().manual_seed(0)
    angles = skeleton.draws[:3]
    turn, wrist = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64).unbind(0)
    betas = torch.randn(3, 10, generator=generator, dtype=torch.float64)
    rotation = axis_angle_to_matrix(turn)
    joints, slopes = skeleton.place(rotation, wrist, angles, betas)
    start = skeleton.wrist + betas @ skeleton.wrist_shapes
    hand = precise(skeleton.pose(rotation, angles), betas, wrist - start)
    torch.testing.assert_close(hand.joints[:, ORDER], joints)
    slopes, step = torch.stack(slopes, -1), 1e-6
    for k in range(43):
        nudge = torch.zeros(43, dtype=torch.float64)
        nudge[k] = step
        moved, _ = skeleton.place(
            axis_angle_to_matrix(nudge[None, :3]) @ rotation,
            wrist + nudge[3:6],
            angles + nudge[6:33],
            betas + nudge[33:],
            slopes=False,
        )
        difference = (moved - joints) / step - slopes[:, k]
        assert difference[:, :16].abs().max() < 1e-5
        assert difference[:, 16:].abs().max() < 0.02  # tips: taken as rigid


def test_the_axes_of_another_skeleton_follow_its_bones():
    turn = axis_angle_to_matrix(torch.tensor([0.4, -1.0, 2.0], dtype=torch.float64)).numpy()
    frames = bone_frames(1.1 * anatomy.REST_JOINTS @ turn.T)
    np.testing.assert_allclose(frames, turn @ anatomy.FRAMES[1:], atol=1e-6)


def test_the_prior_covers_every_free_angle():
    mean, precision, draws = pose_prior()
    assert mean.shape == (27,) and len(FREE) == 27 and draws.shape[1] == 27
    away = draws - mean
    assert np.einsum("ni,ij,nj->n", away, precision, away).mean() < 27


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


def test_a_model_with_a_mean_pose_is_fitted_alike():
    model = HandModel.builtin(flat_mean=False)
    joints, picture, camera = known_hands(16, model=model)
    fit = fit_hands(model, picture, intrinsics=camera)
    assert np.median(aligned_errors(fit, joints)) < 5


def test_a_guessed_camera_still_finds_the_pose(model):
    joints, picture, _ = known_hands(32, seed=2)
    fit = fit_hands(model, picture, image_size=(224, 224))
    assert np.median(aligned_errors(fit, joints)) < 8
    assert fit.intrinsics[0, 0, 0] == pytest.approx(224 / 2 / np.tan(np.pi / 6))


def test_more_starts_leave_no_hand_worse(model):
    _, picture, camera = known_hands(64, seed=3)
    one = fit_hands(model, picture, intrinsics=camera, starts=1)
    three = fit_hands(model, picture, intrinsics=camera, starts=3)
    assert three.energy.mean() <= one.energy.mean() + 0.1


def test_a_track_shares_its_shape_and_moves_smoothly(model):
    rng = np.random.default_rng(0)
    ends = torch.from_numpy(anatomy.sample_poses(2, rng)).float()
    share = torch.linspace(0, 1, 12)[:, None, None]
    pose = (1 - share) * ends[:1] + share * ends[1:]
    pose[:, 0] = torch.tensor([0.3, 0.2, 1.0]) + share[:, 0] * 0.5
    betas = torch.from_numpy(rng.normal(size=10)).float()
    joints = model(pose, betas, torch.tensor([0.0, 0, 0.6])).joints.double().numpy()
    camera = np.array([[450.0, 0, 111.5], [0, 450, 111.5], [0, 0, 1]])
    noisy = project(joints, camera) + rng.normal(0, 3, (12, 21, 2))
    alone = fit_hands(model, noisy, intrinsics=camera)
    track = fit_hands(model, noisy, intrinsics=camera, track=True)
    assert np.ptp(track.betas, axis=0).max() == 0 and np.ptp(alone.betas, axis=0).max() > 0.1

    def unrest(fit):
        return np.linalg.norm(np.diff(fit.joints, 2, axis=0), axis=2).mean()

    assert unrest(track) < 0.8 * unrest(alone)
    assert aligned_errors(track, joints).mean() < aligned_errors(alone, joints).mean()
    noisy[5] += 200
    jumped = fit_hands(model, noisy, intrinsics=camera, track=True)
    assert "jumps" in jumped.reason[5] and jumped.accepted[[0, 1, 8, 9]].all()


def test_filters_reject_corrupted_detections_and_keep_good_ones(model):
    rng = np.random.default_rng(5)
    _, picture, camera = known_hands(150, seed=5)
    points = picture + rng.normal(0, 2, picture.shape)
    low, high = picture.min(1), picture.max(1)
    margin = 0.2 * (high - low).max(1, keepdims=True)
    boxes = np.concatenate([low - margin, high + margin], 1)
    size = hand_size(points, np.ones((150, 21)))
    bad = np.arange(150) % 5 == 0
    for n, i in enumerate(np.flatnonzero(bad)):
        if n % 4 == 0:
            points[i][list(FINGERS["index"])], points[i][list(FINGERS["little"])] = (
                points[i][list(FINGERS["little"])].copy(),
                points[i][list(FINGERS["index"])].copy(),
            )
        elif n % 4 == 1:
            points[i] = points[(i + 7) % 150] + (1.2 * size[i], 0)  # another hand beside it
        elif n % 4 == 2:
            points[i] = rng.permutation(points[i])
        else:
            points[i, rng.permutation(21)[:6]] += 0.3 * size[i]
    fit = fit_hands(model, points, intrinsics=camera, boxes=boxes)
    assert (~fit.accepted[bad]).mean() >= 0.9
    assert (~fit.accepted[~bad]).mean() <= 0.05
    assert all(bool(why) != good for why, good in zip(fit.reason, fit.accepted, strict=True))


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
    for row, part in (
        (1, "no hand"),
        (2, "only 5 of 21"),
        (3, "px large"),
        (4, "confidence"),
        (5, "px large"),
    ):
        assert part in fit.reason[row], (row, fit.reason[row])
    assert fit.accepted.tolist() == [True] + [False] * 5
    assert np.isnan(fit.pose[1]).all() and np.isfinite(fit.pose[0]).all()


def test_a_wrong_scale_is_said(model):
    _, picture, camera = known_hands(2, seed=6)
    far = camera.copy()
    far[0, 0] = far[1, 1] = 45000.0
    assert "implausible scale" in fit_hands(model, picture, intrinsics=far).reason[0]


def test_bad_inputs_are_named(model):
    with pytest.raises(ValueError, match=r"\(B, 21, 2\), found \(1, 20, 2\)"):
        fit_hands(model, np.zeros((1, 20, 2)))
    with pytest.raises(ValueError, match="confidence"):
        fit_hands(model, np.zeros((2, 21, 2)), np.ones((1, 21)))
    with pytest.raises(ValueError, match="not negative"):
        fit_hands(model, np.zeros((1, 21, 2)), -np.ones((1, 21)))
    with pytest.raises(ValueError, match="intrinsics"):
        fit_hands(model, np.zeros((1, 21, 2)), intrinsics=np.eye(4))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_it_fits_on_a_gpu():
    joints, picture, camera = known_hands(32)
    fit = fit_hands(HandModel.builtin().cuda(), picture, intrinsics=camera)
    assert np.median(aligned_errors(fit, joints)) < 5


def test_rotations_round_trip_for_the_fixture():
    turn = torch.tensor([[0.1, -0.4, 2.0]])
    torch.testing.assert_close(matrix_to_axis_angle(axis_angle_to_matrix(turn)), turn)
