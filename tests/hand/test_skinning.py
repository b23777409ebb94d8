"""Rotations, chain and skinning with the batch last, against plain matrix products."""

import pytest
import torch

from hand_lib.hand import skinning
from hand_lib.hand.joints import MANO_PARENTS
from hand_lib.hand.rotations import axis_angle_to_matrix


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_matrices_of_half_vectors_are_those_of_the_axis_angle():
    first, second = (torch.from_numpy(table) for table in skinning.quaternion_products())
    pose = normal(7, 16, 3)
    pose[0] = 0
    found = skinning.rotation_matrices(pose.permute(2, 1, 0) / 2, first, second)
    expected = axis_angle_to_matrix(pose).permute(2, 3, 1, 0)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_composing_is_the_matrix_product_of_every_column():
    rotations, steps = normal(3, 4, 5, 2), normal(3, 4, 5, 2, seed=1)
    expected = torch.einsum("rkfb,kcfb->rcfb", rotations[:, :3], steps)
    torch.testing.assert_close(skinning.compose(rotations, steps), expected)


def test_the_chain_is_the_product_of_all_rotations_above_a_joint():
    rotations, bones, start = normal(3, 3, 16, 2), normal(3, 15, 2, seed=1), normal(3, 1, 2, seed=2)
    root, others = rotations.split([1, 15], 2)
    turned, placed = skinning.chain(root, others, bones, start)
    matrices, where = {0: rotations[:, :, 0]}, {0: start[:, 0]}
    for joint in range(1, 16):
        above = matrices[int(MANO_PARENTS[joint])]
        matrices[joint] = torch.einsum("rkb,kcb->rcb", above, rotations[:, :, joint])
        moved = torch.einsum("rkb,kb->rb", above, bones[:, joint - 1])
        where[joint] = where[int(MANO_PARENTS[joint])] + moved
    torch.testing.assert_close(turned, torch.stack([*matrices.values()], 2))
    torch.testing.assert_close(placed, torch.stack([*where.values()], 1))


@pytest.mark.parametrize("used", ["vertices", "tips", "both"])
def test_the_gradient_of_skinning_is_autograds_own_also_when_differentiated_again(used):
    maps, shaped = normal(3, 4, 16, 2).requires_grad_(), normal(2, 3, 8, seed=1).requires_grad_()
    skin, tips = normal(16, 8, seed=2).softmax(0), torch.tensor([0, 2, 2, 4, 5])
    parts = {"vertices": slice(0, 1), "tips": slice(1, 2), "both": slice(0, 2)}[used]

    def run(maps, shaped):
        return skinning.skin_vertices(maps, shaped, skin, tips, 6)[parts]

    with torch.no_grad():
        vertices, ends = skinning.skin_vertices(maps, shaped, skin, tips, 6)
        expected = torch.einsum("rkjb,bkv,jv->bvr", maps[:, :3], shaped, skin)
        expected += torch.einsum("rjb,jv->bvr", maps[:, 3], skin)
    torch.testing.assert_close(vertices, expected[:, :6])
    assert (ends == vertices[:, tips]).all()
    assert torch.autograd.gradcheck(run, (maps, shaped))
    assert torch.autograd.gradgradcheck(run, (maps, shaped))
