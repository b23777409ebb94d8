import numpy as np
import pytest

from hand_lib.data.synthetic.hands import MovingHand
from hand_lib.render.camera import pixels_to_crop, project


@pytest.fixture(scope="module")
def clip():
    return MovingHand(size=64, seed=3, count=24, fps=12.0)


@pytest.fixture(scope="module")
def batch(clip):
    return clip.fetch_batch(np.arange(24))


def test_one_camera_sees_all_frames_and_the_hand_stays_in_the_picture(batch):
    assert np.allclose(batch["intrinsics"], batch["intrinsics"][0], rtol=1e-4, atol=0.01)
    assert np.abs(batch["joints_2d"]).max() < 1
    seen = project(batch["joints"] + batch["root"][:, None], batch["intrinsics"])
    assert np.allclose(pixels_to_crop(seen, 64), batch["joints_2d"], atol=1e-3)


def test_the_hand_moves_smoothly_and_changes_its_pose(batch):
    speed = np.linalg.norm(np.diff(batch["joints"], axis=0) * 12, axis=-1).mean(axis=1)
    assert 0.02 < speed.mean() < 1 and speed.max() < 2
    assert np.ptp(batch["pose"][:, 3:], axis=0).max() > 0.5
    assert np.linalg.norm(np.ptp(batch["root"], axis=0)) > 0.02
    assert not np.array_equal(batch["image"][0], batch["image"][12])


def test_speed_zero_keeps_it_still_but_for_the_camera_noise():
    still = MovingHand(size=64, seed=3, count=3, speed=0.0, noise=(3.0, 3.0))
    batch = still.fetch_batch([0, 1, 2])
    assert np.array_equal(batch["joints"][0], batch["joints"][2])
    off = batch["image"][0].astype(int) - batch["image"][2]
    assert off.any() and np.abs(off).mean() < 12


def test_a_frame_is_a_function_of_seed_and_index_and_a_full_sample(clip, batch):
    again = MovingHand(size=64, seed=3, count=24, fps=12.0)[5]
    assert np.array_equal(again.image, batch["image"][5].transpose(1, 2, 0))
    assert again.split == "clip" and np.allclose(clip.times, np.arange(24) / 12)
    with pytest.raises(ValueError, match="fps should be positive"):
        MovingHand(size=64, count=3, fps=0)
