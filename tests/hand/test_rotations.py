import numpy as np
import torch
from scipy.spatial.transform import Rotation

from hand_lib.hand import rotations as r


def random_axis_angles(count=500, limit=np.pi - 1e-3):
    generator = torch.Generator().manual_seed(0)
    axis = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    angle = torch.rand(count, 1, generator=generator, dtype=torch.float64) * limit
    return axis / axis.norm(dim=1, keepdim=True) * angle


def test_axis_angle_agrees_with_scipy_at_all_sizes():
    for scale in (1.0, 1e-2, 1e-5, 0.0):
        vectors = random_axis_angles() * scale
        expected = Rotation.from_rotvec(vectors.numpy()).as_matrix()
        assert np.abs(r.axis_angle_to_matrix(vectors).numpy() - expected).max() < 1e-12


def test_axis_angle_there_and_back():
    vectors = random_axis_angles()
    back = r.matrix_to_axis_angle(r.axis_angle_to_matrix(vectors))
    assert (back - vectors).abs().max() < 1e-9
    half_turn = torch.tensor([[np.pi, 0, 0], [0, 0, np.pi]], dtype=torch.float64)
    matrices = r.axis_angle_to_matrix(half_turn)
    again = r.axis_angle_to_matrix(r.matrix_to_axis_angle(matrices))
    assert (again - matrices).abs().max() < 1e-9


def test_gradients_are_exact_at_and_near_zero():
    for size in (0.0, 1e-9, 1e-4, 1.0):
        vector = torch.full((2, 3), size, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(r.axis_angle_to_matrix, (vector,), atol=1e-5)


def test_six_numbers_give_rotations_and_come_back():
    matrices = r.axis_angle_to_matrix(random_axis_angles())
    six = r.matrix_to_rotation_6d(matrices)
    assert (r.rotation_6d_to_matrix(six) - matrices).abs().max() < 1e-9
    anything = r.rotation_6d_to_matrix(torch.randn(50, 6, dtype=torch.float64))
    assert (anything @ anything.mT - torch.eye(3, dtype=torch.float64)).abs().max() < 1e-9
    assert (torch.linalg.det(anything) - 1).abs().max() < 1e-9
