"""How sure a mean error is, which of two runs is better, and where errors are large."""

from dataclasses import dataclass

import numpy as np

from hand_lib import metrics
from hand_lib.hand.joints import JOINT_NAMES

WRIST, INDEX_MCP, MIDDLE_MCP, LITTLE_MCP = (
    JOINT_NAMES.index(name) for name in ("wrist", "index_mcp", "middle_mcp", "little_mcp")
)


def bootstrap_means(values, draws: int = 2000, seed: int = 0, groups=None) -> np.ndarray:
    """Means of samples drawn with replacement (Efron, 1979).

    values: (N,) one number per hand.   groups: (N,) labels; hands of one group are drawn together
    (four versions of one picture, frames of one video).   returns (draws,).
    """
    values = np.asarray(values, float)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"expected one value per hand, (N,) with N > 0, found {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"value {int(np.argmin(np.isfinite(values)))} is not finite")
    groups = np.arange(len(values)) if groups is None else np.asarray(groups)
    if groups.shape != values.shape:
        raise ValueError(f"expected a group for each of {len(values)} values, found {groups.shape}")
    _, group = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(group, values), np.bincount(group)
    rng, count, found = np.random.default_rng(seed), len(sums), []
    for _ in range(0, draws, 100):
        pick = rng.integers(count, size=(100, count))
        found.append(sums[pick].sum(1) / sizes[pick].sum(1))
    return np.concatenate(found)[:draws]


def bootstrap_interval(values, level: float = 0.95, draws: int = 2000, seed: int = 0, groups=None):
    """Mean with its percentile bootstrap interval.

    values, groups: as in ``bootstrap_means``.   returns mean, low, high.

    >>> bootstrap_interval([2.0, 2.0, 2.0])
    (2.0, 2.0, 2.0)
    """
    means = bootstrap_means(values, draws, seed, groups)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(np.mean(values)), float(low), float(high)


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same hands; ``str(comparison)`` is the verdict in one sentence."""

    first: str
    second: str
    gain_mm: float  # mean error of the first minus that of the second
    low_mm: float  # 95 % bootstrap interval of the gain
    high_mm: float
    better_share: float  # of hands on which the second has the smaller error
    count: int
    metric: str

    @property
    def decided(self) -> bool:
        """True when the interval of the gain leaves out zero."""
        return self.low_mm > 0 or self.high_mm < 0

    def __str__(self) -> str:
        evidence = (
            f"({self.metric}, {self.count} hands, 95 % interval {self.low_mm:+.2f} to "
            f"{self.high_mm:+.2f} mm; smaller error on {100 * self.better_share:.0f} % of them)"
        )
        margin = (self.high_mm - self.low_mm) / 2
        if not self.decided:
            return (
                f"{self.second} and {self.first} cannot be told apart: {self.second} gains "
                f"{self.gain_mm:.2f} +- {margin:.2f} mm {evidence}"
            )
        word = "better" if self.gain_mm > 0 else "worse"
        return (
            f"{self.second} is {word} than {self.first} by {abs(self.gain_mm):.2f} +- "
            f"{margin:.2f} mm {evidence}"
        )


def compare(first, second, names=("A", "B"), metric="error", groups=None, seed: int = 0):
    """Paired comparison of two runs over the same hands in the same order.

    first, second: (N,) error per hand, metres.   names: of the runs.   metric: what was measured.
    returns a ``Comparison``; pairing removes what makes a hand hard for both.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.shape != second.shape:
        raise ValueError(
            f"a paired comparison needs the same hands twice, found {first.shape}, {second.shape}"
        )
    gain = 1000 * (first - second)
    mean, low, high = bootstrap_interval(gain, seed=seed, groups=groups)
    better = float(np.mean(second < first))
    return Comparison(*names, mean, low, high, better, len(first), metric)


def mean_by_bin(values, by, edges) -> list[dict]:
    """Mean of ``values`` over the hands whose ``by`` lies in each bin [low, high).

    values, by: (N,).   edges: ascending; the last bin includes its upper edge.
    returns one dict per bin with low, high, count, mean, mean_low, mean_high (95 % bootstrap
    interval); mean and interval are None for an empty bin.
    """
    values, by, edges = (np.asarray(a, float) for a in (values, by, edges))
    if values.shape != by.shape:
        raise ValueError(f"expected one value per hand in both, found {values.shape}, {by.shape}")
    rows = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (by >= low) & ((by < high) | ((high == edges[-1]) & (by == high)))
        if inside.any():
            mean, mean_low, mean_high = bootstrap_interval(values[inside], draws=1000)
        else:
            mean = mean_low = mean_high = None
        row = {"low": float(low), "high": float(high), "count": int(inside.sum())}
        rows.append({**row, "mean": mean, "mean_low": mean_low, "mean_high": mean_high})
    return rows


def palm_angles_deg(joints, roots=None) -> np.ndarray:
    """Viewpoint: angle between the palm's normal and the way to the camera.

    joints: (N, 21, 3) metres of right hands, camera axes.   roots: (N, 3) wrists in the camera's
    frame for root-relative joints; None: the camera looks along z.
    returns (N,) degrees: 0 the palm faces the camera, 90 seen from the side, 180 its back.
    """
    joints = np.asarray(joints, float)
    wrist = joints[:, WRIST]
    normal = np.cross(joints[:, INDEX_MCP] - wrist, joints[:, LITTLE_MCP] - wrist)
    way = np.broadcast_to([0.0, 0.0, -1.0], normal.shape) if roots is None else -np.asarray(roots)
    lengths = np.linalg.norm(normal, axis=1) * np.linalg.norm(way, axis=1)
    cosine = np.einsum("ni,ni->n", normal, way) / np.maximum(lengths, 1e-12)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def in_plane_angles_deg(joints) -> np.ndarray:
    """How the hand is turned in the picture.

    joints: (N, 21, 3), camera axes.   returns (N,) degrees in (-180, 180]: 0 fingers up, 90 to the
    right, of the middle finger's base seen from the wrist.
    """
    joints = np.asarray(joints, float)
    x, y = (joints[:, MIDDLE_MCP] - joints[:, WRIST])[:, :2].T
    return np.degrees(np.arctan2(x, -y))


def pose_distances(joints, reference=None) -> np.ndarray:
    """How far each pose is from an ordinary one.

    joints: (N, 21, 3) metres.   reference: (21, 3); None: the mean hand of the set, found by
    aligning all hands to the first and then to their mean (Gower, 1975).
    returns (N,) metres: mean distance of the joints after similarity alignment.
    """
    joints = np.asarray(joints, float)
    given = reference is not None
    reference = np.asarray(reference, float) if given else joints[0]
    for _ in range(0 if given else 3):
        target = np.broadcast_to(reference, joints.shape)
        reference = metrics.align(joints, target, "rotation").mean(0)
    target = np.broadcast_to(reference, joints.shape)
    return metrics.mesh_errors(joints, target)["pa"]
