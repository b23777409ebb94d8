"""The study of the fit measures what it says."""

from benchmarks import fitting as study


def test_a_hand_mirrored_in_depth_is_flipped_and_itself_is_not():
    joints = study.known_hands(8).joints
    assert not study.depth_flipped(joints, joints).any()
    mirrored = joints * (1, 1, -1) + (0, 0, 1)
    assert study.depth_flipped(mirrored, joints).all()
