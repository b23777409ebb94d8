"""The study of the fit measures what it says."""

from benchmarks import fitting as study


def test_the_study_measures_what_it_says():
    found = study.accuracy(40)
    assert found["exact"]["reprojection_px"] < 0.6 and found["noisy"]["reprojection_px"] < 3.5
    assert found["exact"]["pa_mm"] < found["noisy"]["pa_mm"] < 10
    assert found["noisy"]["hands_per_s"] > 5
    rows = study.rejections(60)
    assert rows["good"][0] == 48 and rows["all corrupt"][0] == 12
    assert rows["good"][1] <= 0.1 and rows["all corrupt"][1] >= 0.8
    assert "accepted" in study.accuracy_table(found) and "shuffled" in study.rejection_table(rows)


def test_a_hand_mirrored_in_depth_is_flipped_and_itself_is_not():
    joints = study.known_hands(8).joints
    assert not study.depth_flipped(joints, joints).any()
    mirrored = joints * (1, 1, -1) + (0, 0, 1)
    assert study.depth_flipped(mirrored, joints).all()
