"""The hand model: laws of skinning, agreement with smplx, both hands, files, gradients."""

import time
import warnings

import numpy as np
import pytest
import torch
from benchmarks.model import measure_hand_model
from mano_fixture import mano_bytes

from hand_lib.hand.joints import FINGERTIP_VERTICES, MANO_PARENTS, MANO_TO_21, TIPS_21
from hand_lib.hand.kinematics import axis_angle_to_matrix, matrix_to_axis_angle
from hand_lib.hand.mano import builtin_path, left_shape_is_wrong, mirror_arrays, read_mano
from hand_lib.hand.model import HandModel, mirror_pose
from hand_lib.mesh.topology import procrustes_align


@pytest.fixture(scope="module")
def arrays():
    """The built-in hand's arrays with a mean pose and components that are not trivial."""
    arrays = read_mano(builtin_path())
    rng = np.random.default_rng(3)
    arrays["hands_mean"] = 0.2 * rng.normal(size=45)
    return arrays


def random_inputs(count, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((count, 16, 3), 0.5), ((count, 10), 1.0), ((count, 3), 0.2)
    return [s * torch.randn(*n, generator=generator, dtype=dtype) for n, s in shapes]


def naive(arrays, pose, betas):
    """MANO's equations with loops, in double precision."""
    rotations = axis_angle_to_matrix(torch.from_numpy(pose)).numpy()
    features = (rotations[1:] - np.eye(3)).reshape(135)
    shaped = arrays["v_template"] + arrays["shapedirs"] @ betas
    rest = arrays["J_regressor"] @ shaped
    shaped = shaped + arrays["posedirs"] @ features
    turned, placed = [rotations[0]], [rest[0]]
    for j in range(1, 16):
        parent = MANO_PARENTS[j]
        turned.append(turned[parent] @ rotations[j])
        placed.append(placed[parent] + turned[parent] @ (rest[j] - rest[parent]))
    vertices = np.zeros_like(shaped)
    for j in range(16):
        moved = (shaped - rest[j]) @ turned[j].T + placed[j]
        vertices += arrays["weights"][:, j, None] * moved
    return vertices, np.array(placed)


def test_the_fast_model_equals_the_naive_loops(arrays):
    model = HandModel(arrays, flat_mean=True, dtype=torch.float64)
    pose, betas, _ = random_inputs(3, dtype=torch.float64)
    hand = model(pose, betas)
    for i in range(3):
        vertices, joints = naive(arrays, pose[i].numpy(), betas[i].numpy())
        np.testing.assert_allclose(hand.vertices[i], vertices, atol=1e-12)
        np.testing.assert_allclose(hand.joints[i, MANO_TO_21], joints, atol=1e-12)
        np.testing.assert_allclose(
            hand.joints[i, list(TIPS_21)], vertices[arrays["fingertips"]], atol=1e-12
        )


@pytest.mark.parametrize("kind", ["pkl", "npz"])
def test_it_agrees_with_smplx_on_the_file_it_saved(arrays, kind, tmp_path):
    smplx = pytest.importorskip("smplx")
    model = HandModel(arrays)
    path = model.save_mano(tmp_path / f"MANO_RIGHT.{kind}")
    theirs = smplx.MANO(str(path), use_pca=False, ext=kind, batch_size=500)
    pose, betas, place = random_inputs(500)
    flat = pose.view(500, 48)
    with torch.no_grad():
        expected = theirs(
            betas=betas, global_orient=flat[:, :3], hand_pose=flat[:, 3:], transl=place
        )
        hand = model(pose, betas, place)
    assert (hand.vertices - expected.vertices).abs().max() < 1e-6
    assert (hand.joints[:, MANO_TO_21] - expected.joints).abs().max() < 1e-6
    again = HandModel.from_mano(path)
    assert (again(pose, betas, place).vertices - hand.vertices).abs().max() < 1e-6
    assert (again.faces == model.faces).all() and (again.tips == model.tips).all()


def test_pca_poses_agree_with_smplx(arrays, tmp_path):
    smplx = pytest.importorskip("smplx")
    model = HandModel(arrays)
    path = model.save_mano(tmp_path / "MANO_RIGHT.npz")
    theirs = smplx.MANO(str(path), use_pca=True, num_pca_comps=6, ext="npz", batch_size=4)
    coefficients, turn = torch.randn(4, 6), torch.randn(4, 3)
    with torch.no_grad():
        expected = theirs(global_orient=turn, hand_pose=coefficients).vertices
    pose = torch.cat([turn, coefficients @ model.pose_components[:6]], 1)
    assert (model(pose).vertices - expected).abs().max() < 1e-6


def test_it_is_faster_than_smplx():
    pytest.importorskip("smplx")
    rows = measure_hand_model(batch=64, repeats=20, clock=time.process_time)
    assert [r["what"].split(", ")[-1] for r in rows] == ["forward", "forward + backward"]
    assert all(row["ratio"] == row["theirs_ms"] / row["ours_ms"] for row in rows)
    assert all(row["ratio"] > 1.4 for row in rows)  # more than 2 where nothing else runs


def test_pose_zero_is_the_template_unless_the_mean_pose_is_asked_for(model, arrays):
    hand = model(torch.zeros(1, 48))
    torch.testing.assert_close(hand.vertices[0], model.vertices)
    bent = HandModel(arrays, flat_mean=False)
    mean = torch.from_numpy(arrays["hands_mean"]).float()
    pose = torch.cat([torch.zeros(3), mean])[None]
    flat = HandModel(arrays, flat_mean=True)
    torch.testing.assert_close(bent(torch.zeros(1, 48)).vertices, flat(pose).vertices)


def test_without_pose_corrections_it_is_plain_linear_blend_skinning(arrays):
    pose, betas, _ = random_inputs(2)
    plain = HandModel(arrays, flat_mean=True, pose_corrections=False)
    expected = HandModel({**arrays, "posedirs": 0 * arrays["posedirs"]}, flat_mean=True)
    assert torch.equal(plain(pose, betas).vertices, expected(pose, betas).vertices)
    assert not HandModel.builtin(pose_corrections=False).directions[10:].any()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("flat_mean", [True, False])
def test_every_model_samples_poses_about_its_own_axes(arrays, side, flat_mean):
    turned = axis_angle_to_matrix(torch.tensor([0.4, -1.0, 2.0], dtype=torch.float64)).numpy()
    other = {**arrays, "v_template": arrays["v_template"] @ turned.T}
    other["posedirs"] = 0 * arrays["posedirs"]
    if side == "left":
        other = mirror_arrays(other)
    own = HandModel.builtin(pose_corrections=False)
    model = HandModel(other, side, flat_mean)
    hands = []
    for one in (own, model):
        pose = torch.from_numpy(one.sample_poses(20, np.random.default_rng(4))).float()
        hands.append(one(pose).joints.numpy() * ((-1, 1, 1) if one.side == "left" else 1))
    aligned = procrustes_align(hands[1], hands[0])
    assert np.linalg.norm(aligned - hands[0], axis=2).max() < 2e-4


def test_a_global_rotation_and_translation_move_the_hand_rigidly(model):
    pose, betas, place = random_inputs(2)
    turned = pose.clone()
    rotation = axis_angle_to_matrix(torch.tensor([0.3, -1.0, 0.5]))
    turned[:, 0] = matrix_to_axis_angle(rotation @ axis_angle_to_matrix(pose[:, 0]))
    before, after = model(pose, betas), model(turned, betas, place)
    for name in ("vertices", "joints"):
        points, moved = getattr(before, name), getattr(after, name)
        root = before.joints[:, :1]
        expected = (points - root) @ rotation.T + root + place[:, None]
        torch.testing.assert_close(moved, expected, atol=2e-6, rtol=0)


def test_rotation_matrices_are_taken_as_they_are(arrays):
    model = HandModel(arrays, flat_mean=False)
    pose, betas, _ = random_inputs(2)
    matrices = model.rotations(pose)
    torch.testing.assert_close(model(matrices, betas).vertices, model(pose, betas).vertices)
    bare = HandModel(arrays, flat_mean=True).rotations(pose)
    torch.testing.assert_close(bare, axis_angle_to_matrix(pose), atol=2e-6, rtol=0)


def test_the_left_hand_is_the_mirror_image_of_the_right_one(model):
    pose, betas, _ = random_inputs(3)
    left = HandModel.builtin("left")
    mirror = torch.tensor([-1.0, 1.0, 1.0])
    right_hand, left_hand = model(pose, betas), left(mirror_pose(pose), betas)
    torch.testing.assert_close(left_hand.vertices, right_hand.vertices * mirror, atol=1e-6, rtol=0)
    torch.testing.assert_close(left_hand.joints, right_hand.joints * mirror, atol=1e-6, rtol=0)
    assert (left.faces == model.faces.flip(1)).all()
    np.testing.assert_allclose(mirror_pose(pose.numpy()), mirror_pose(pose).numpy())


def test_the_sign_error_of_mano_left_is_corrected_and_said(arrays, tmp_path, caplog):
    left = mirror_arrays(arrays)
    good = HandModel(left, "left")
    left["shapedirs"][:, 0] *= -1  # as in the official file
    assert left_shape_is_wrong(left) and not left_shape_is_wrong(good.arrays())
    (tmp_path / "MANO_LEFT.pkl").write_bytes(mano_bytes(left))
    model = HandModel.from_mano(tmp_path, side="left", fingertips="freihand")
    assert "sign error" in caplog.text
    pose, betas, _ = random_inputs(2)
    torch.testing.assert_close(model(pose, betas).vertices, good(pose, betas).vertices)


def test_one_side_of_mano_serves_as_the_other(arrays, tmp_path, caplog):
    HandModel(arrays).save_mano(tmp_path / "MANO_RIGHT.pkl")
    left = HandModel.from_mano(tmp_path, side="left")
    assert left.side == "left" and "mirrored" in caplog.text
    pose, betas, _ = random_inputs(2)
    expected = HandModel(mirror_arrays(arrays), "left")(pose, betas)
    torch.testing.assert_close(left(pose, betas).vertices, expected.vertices)


def test_gradients_are_right_and_finite_at_zero(model):
    precise = HandModel.builtin(flat_mean=False, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in random_inputs(1, dtype=torch.float64)]

    def some(*x):
        hand = precise(*x)
        return hand.joints[:, ::4], hand.vertices[:, ::150]

    assert torch.autograd.gradcheck(some, inputs, fast_mode=True)
    zero = [torch.zeros_like(x).float().requires_grad_() for x in inputs]
    model(*zero).vertices.square().sum().backward()
    assert all(torch.isfinite(x.grad).all() and x.grad.abs().max() > 0 for x in zero)


def test_it_can_be_mapped_over(model):
    pose = random_inputs(2, dtype=torch.float32)[0]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")  # vmap of addcmul_
        jacobian = torch.func.vmap(torch.func.jacrev(lambda p: model(p[None]).joints[0]))(pose)
    assert jacobian.shape == (2, 21, 3, 16, 3)


def outputs_and_gradients(run, inputs):
    """Vertices, joints and the slopes of a sum of their squares, on the CPU."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    hand = run(*inputs)
    (hand.vertices.square().sum() + hand.joints.square().sum()).backward()
    return [x.detach().cpu() for x in (hand.vertices, hand.joints, *(x.grad for x in inputs))]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("side", ["right", "left"])
def test_it_runs_on_a_gpu_with_the_same_results_and_gradients(side):
    here, there = HandModel.builtin(side), HandModel.builtin(side).cuda()
    assert all(buffer.is_cuda for buffer in there.buffers())
    inputs = random_inputs(4)
    expected = outputs_and_gradients(here, inputs)
    found = outputs_and_gradients(there, [x.cuda() for x in inputs])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)
    vertices = there(inputs[0].cuda()).vertices
    joints = there.regress_joints(vertices)
    assert joints.is_cuda
    torch.testing.assert_close(joints.cpu(), here.regress_joints(vertices.cpu()))


def test_every_array_of_the_model_moves_with_it(model):
    moved = HandModel.builtin().to("meta")  # a device on which nothing can be left behind
    assert {name for name, _ in moved.named_buffers()} == set(model.state_dict())
    hand = moved(*(x.to("meta") for x in random_inputs(2)))
    assert hand.vertices.is_meta and hand.vertices.shape == (2, 778, 3)
    assert hand.joints.is_meta and hand.joints.shape == (2, 21, 3)


def test_regressed_joints_agree_with_the_model_at_rest(model):
    betas = random_inputs(4)[1]
    hand = model(torch.zeros(4, 16, 3), betas)
    found = model.regress_joints(hand.vertices)
    torch.testing.assert_close(found, hand.joints, atol=1e-6, rtol=0)
    one = model.regress_joints(hand.vertices[0].numpy())
    np.testing.assert_allclose(one, hand.joints[0].numpy(), atol=1e-6)


@pytest.mark.parametrize("source", FINGERTIP_VERTICES)
def test_fingertips_come_from_the_named_table(arrays, source, tmp_path):
    path = HandModel(arrays).save_mano(tmp_path / "MANO_RIGHT.npz")
    model = HandModel.from_mano(path, fingertips=source)
    hand = model(random_inputs(1)[0])
    expected = hand.vertices[:, list(FINGERTIP_VERTICES[source]["right"])]
    assert (hand.joints[:, list(TIPS_21)] == expected).all()


def test_fewer_and_shared_shape_parameters_are_filled_up(model):
    pose, betas, _ = random_inputs(3)
    few = torch.nn.functional.pad(betas[:, :4], (0, 6))
    torch.testing.assert_close(model(pose, betas[:, :4]).vertices, model(pose, few).vertices)
    shared = model(pose, betas[0]).vertices
    torch.testing.assert_close(shared, model(pose, betas[:1].expand(3, 10)).vertices)


def test_bad_inputs_are_named(model):
    for pose in (torch.zeros(1, 45), torch.zeros(16, 3, 1), torch.zeros(2, 15, 3)):
        with pytest.raises(ValueError, match="expected pose"):
            model(pose)
    with pytest.raises(ValueError, match=r"betas \(2, 10\), found \(2, 11\)"):
        model(torch.zeros(2, 48), torch.zeros(2, 11))
    with pytest.raises(ValueError, match=r"translation \(2, 3\)"):
        model(torch.zeros(2, 48), translation=torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"vertices \(B, 778, 3\)"):
        model.regress_joints(torch.zeros(2, 777, 3))
    with pytest.raises(ValueError, match="side must be"):
        HandModel.builtin("both")
    with pytest.raises(ValueError, match=r"ending in \.npz or \.pkl"):
        model.save_mano("hand.obj")


def test_a_missing_mano_says_where_it_comes_from_and_what_needs_none(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        HandModel.from_mano(tmp_path / "MANO_RIGHT.pkl")
    text = str(caught.value)
    for part in ("MANO_RIGHT.pkl", "template/", "Max Planck", "mano.is.tue.mpg.de", "builtin()"):
        assert part in text
    with pytest.raises(FileNotFoundError, match="Register"):
        HandModel.from_mano(tmp_path)
