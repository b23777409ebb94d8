"""What is known of poses, by which fits hold them: template/pose_prior.npz."""

import numpy as np

from hand_lib.fitting.skeleton import FREE
from hand_lib.hand.poses import sample_angles


def draw_prior(count: int = 3000) -> dict[str, np.ndarray]:
    """Mean (27,), precision (27, 27) and 20 draws (20, 27) of the free angles, radians."""
    angles = sample_angles(count, np.random.default_rng(0))[:, 1:]
    draws = angles[:, FREE[:, 0], FREE[:, 1]]
    covariance = np.cov(draws.T) + np.diag(np.full(len(FREE), np.deg2rad(3.0) ** 2))
    precision = np.linalg.inv(covariance)
    return {"mean": draws.mean(0), "precision": precision, "draws": draws[:20]}
