"""The tensor version of the best similarity motion against the SVD of the array version."""

import numpy as np
import pytest
import torch

from hand_lib.mesh.similarity import horn_rotation, lay_onto
from hand_lib.mesh.topology import align_similarity


def pair(noise, count=50, seed=0):
    rng = np.random.default_rng(seed)
    source = rng.normal(0, 0.05, (count, 40, 3))
    rotation = np.linalg.qr(rng.normal(size=(count, 3, 3)))[0]
    rotation *= np.linalg.det(rotation)[:, None, None]
    target = 0.7 * source @ rotation.transpose(0, 2, 1) + rng.normal(size=(count, 1, 3))
    return source, target + noise * rng.normal(0, 0.05, source.shape), rotation


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_it_equals_the_solution_by_svd(noise):
    source, target, _ = pair(noise)
    expected, _ = align_similarity(source, target)
    laid = lay_onto(torch.tensor(source), torch.tensor(target)).numpy()
    np.testing.assert_allclose(laid, expected, atol=2e-6)


def test_horn_finds_a_known_rotation_half_turns_included():
    source, target, rotation = pair(0.0)
    target = (target - target.mean(1, keepdims=True)) / 0.7
    source = source - source.mean(1, keepdims=True)
    products = torch.tensor(np.einsum("bni,bnj->bij", source, target))
    np.testing.assert_allclose(horn_rotation(products).numpy(), rotation, atol=1e-6)
    half = np.diag([1.0, -1.0, -1.0])
    products = torch.tensor(np.eye(3)[None] * np.array([3.0, 2, 1]) @ half)
    np.testing.assert_allclose(horn_rotation(products)[0].numpy(), half, atol=1e-5)


def test_a_mirrored_target_still_gets_a_proper_rotation():
    source, _, _ = pair(0.0)
    products = torch.tensor(np.einsum("bni,bnj->bij", source, source * [-1, 1, 1]))
    torch.testing.assert_close(
        torch.linalg.det(horn_rotation(products)), torch.ones(50, dtype=torch.float64)
    )


def test_its_gradient_is_that_of_finite_differences_and_finite_at_zero():
    source, target, _ = (torch.tensor(x) for x in pair(0.3, count=1))
    products = (source.transpose(1, 2) @ target).requires_grad_()
    torch.autograd.gradcheck(horn_rotation, (products,), eps=1e-7, atol=1e-4)
    points = torch.zeros(1, 40, 3, requires_grad=True)
    lay_onto(points, target).sum().backward()
    assert points.grad.isfinite().all()


def test_unlike_shapes_are_refused():
    with pytest.raises(ValueError, match="two tensors"):
        lay_onto(torch.zeros(1, 4, 3), torch.zeros(1, 5, 3))
