"""Rotations against SciPy; the chain and skinning against plain matrix products."""

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from hand_lib.hand import kinematics
from hand_lib.hand.joints import MANO_PARENTS


def random_axis_angles(count=500, limit=np.pi - 1e-3):
    generator = torch.Generator().manual_seed(0)
    axis = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    angle = torch.rand(count, 1, generator=generator, dtype=torch.float64) * limit
    return axis / axis.norm(dim=1, keepdim=True) * angle


def test_axis_angle_agrees_with_scipy_at_all_sizes():
    for scale in (1.0, 1e-2, 1e-5, 0.0):
        vectors = random_axis_angles() * scale
        expected = Rotation.from_rotvec(vectors.numpy()).as_matrix()
        assert np.abs(kinematics.axis_angle_to_matrix(vectors).numpy() - expected).max() < 1e-12


def test_axis_angle_there_and_back():
    vectors = random_axis_angles()
    back = kinematics.matrix_to_axis_angle(kinematics.axis_angle_to_matrix(vectors))
    assert (back - vectors).abs().max() < 1e-9
    half_turn = torch.tensor([[np.pi, 0, 0], [0, 0, np.pi]], dtype=torch.float64)
    matrices = kinematics.axis_angle_to_matrix(half_turn)
    again = kinematics.axis_angle_to_matrix(kinematics.matrix_to_axis_angle(matrices))
    assert (again - matrices).abs().max() < 1e-9


def test_gradients_are_exact_at_and_near_zero():
    for size in (0.0, 1e-9, 1e-4, 1.0):
        vector = torch.full((2, 3), size, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(kinematics.axis_angle_to_matrix, (vector,), atol=1e-5)


def test_six_numbers_give_rotations_and_come_back():
    matrices = kinematics.axis_angle_to_matrix(random_axis_angles())
    six = matrices[..., :2].mT.flatten(1)  # the first two columns
    assert (kinematics.rotation_6d_to_matrix(six) - matrices).abs().max() < 1e-9
    anything = kinematics.rotation_6d_to_matrix(torch.randn(50, 6, dtype=torch.float64))
    assert (anything @ anything.mT - torch.eye(3, dtype=torch.float64)).abs().max() < 1e-9
    assert (torch.linalg.det(anything) - 1).abs().max() < 1e-9


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_chain_is_the_product_of_all_rotations_above_a_joint():
    rotations, bones, start = normal(3, 3, 16, 2), normal(3, 15, 2, seed=1), normal(3, 1, 2, seed=2)
    root, others = rotations.split([1, 15], 2)
    turned, placed = kinematics.chain(root, others, bones, start)
    matrices, where = {0: rotations[:, :, 0]}, {0: start[:, 0]}
    for joint in range(1, 16):
        above = matrices[int(MANO_PARENTS[joint])]
        matrices[joint] = torch.einsum("rkb,kcb->rcb", above, rotations[:, :, joint])
        moved = torch.einsum("rkb,kb->rb", above, bones[:, joint - 1])
        where[joint] = where[int(MANO_PARENTS[joint])] + moved
    torch.testing.assert_close(turned, torch.stack([*matrices.values()], 2))
    torch.testing.assert_close(placed, torch.stack([*where.values()], 1))


def test_skinning_is_a_mean_of_moved_points():
    maps, shaped = normal(3, 4, 16, 2), normal(2, 3, 8, seed=1)
    skin = normal(16, 8, seed=2).softmax(0)
    expected = torch.einsum("rkjb,bkv,jv->brv", maps[:, :3], shaped, skin)
    expected += torch.einsum("rjb,jv->brv", maps[:, 3], skin)
    torch.testing.assert_close(kinematics.skin_vertices(maps, shaped, skin), expected)
