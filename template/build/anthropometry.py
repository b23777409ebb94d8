"""Published measurements of hands and the same measurements taken on a hand mesh (numpy only).

``compare`` puts them side by side; anthropometry.csv keeps the table, notebook 01 shows it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hand_lib.hand import joints as skeleton
from hand_lib.hand.joints import MANO_FINGERS
from hand_lib.mesh.topology import as_mesh_arrays

_BURYANOV = "Buryanov and Kotiuk 2010, Int. J. Morphol. 28(3)"
_ANSUR = "ANSUR, Gordon et al. 1989, NATICK TR-89/044"
_GREINER = "Greiner 1991, NATICK TR-92/011"
_FAA = "FAA Human Factors Design Standard, appendix B"

BONE_LENGTHS_MM = {
    "thumb": ((46.22, 3.94), (31.57, 3.13), (21.67, 1.60)),
    "index": ((39.78, 4.94), (22.38, 2.51), (15.82, 2.26)),
    "middle": ((44.63, 3.81), (26.33, 3.00), (17.40, 1.85)),
    "ring": ((41.37, 3.87), (25.65, 3.29), (17.30, 2.22)),
    "little": ((32.74, 2.77), (18.11, 2.54), (15.96, 2.45)),
}
"""Mean and standard deviation in radiographs of 66 adults (Buryanov and Kotiuk 2010): the thumb's
metacarpal and both phalanges, the three phalanges of each finger."""

TIP_TISSUE_MM = {"thumb": 5.67, "index": 3.84, "middle": 3.95, "ring": 3.95, "little": 3.73}
"""Soft tissue beyond the last bone, same source."""

WHOLE_HAND_MM = {
    "hand length": ((193.8, 9.8), (180.5, 9.7)),
    "hand breadth": ((90.4, 4.2), (79.4, 3.8)),
    "hand circumference": ((213.8, 9.7), (186.2, 8.6)),
}
"""Mean and standard deviation of men, then of women (ANSUR). Greiner's tables, of 1003 men and 1304
women of the same survey, have them within 0.6 mm."""

FINGER_MM = {
    ("thumb", "IP", "girth"): ((72.3, 2.9), (63.0, 2.5)),
    ("index", "PIP", "girth"): ((68.4, 1.8), (61.2, 2.0)),
    ("index", "DIP", "girth"): ((57.4, 1.6), (50.8, 1.9)),
    ("middle", "PIP", "girth"): ((69.6, 2.0), (61.3, 1.9)),
    ("middle", "DIP", "girth"): ((57.8, 1.6), (50.9, 1.7)),
    ("ring", "PIP", "girth"): ((64.9, 1.9), (57.4, 1.9)),
    ("little", "PIP", "girth"): ((57.8, 1.8), (50.6, 1.7)),
    ("index", "PIP", "breadth"): ((23.0, 1.6), (19.9, 1.3)),
    ("middle", "PIP", "breadth"): ((22.5, 1.6), (19.3, 1.3)),
}
"""Girth round and breadth across a finger joint, mean and standard deviation of men, then of women
(Greiner 1991, by a public transcription of the scan, DTIC ADA244533)."""

INDEX_BREADTH_FAA_MM = ((21.0, 1.2), (18.0, 1.5))
"""Medians of men and women across the middle joint; deviations from the 5th and 95th percentiles,
19 to 23 and 16 to 21 mm (as quoted from the FAA's survey by a public page)."""


_PHALANGES = ("proximal", "middle", "distal")


@dataclass(frozen=True)
class Measurement:
    """One row of the table: ours and theirs in millimetres, and where theirs is from."""

    name: str
    ours_mm: float
    theirs_mm: float
    spread_mm: float
    source: str

    @property
    def deviation(self) -> float:
        """Difference in standard deviations of the published number."""
        return (self.ours_mm - self.theirs_mm) / self.spread_mm


def section(vertices: NDArray, faces: NDArray, point, normal) -> NDArray:
    """Line segments (N, 2, 3) in which a plane cuts the mesh, in the unit of the vertices."""
    vertices, faces = as_mesh_arrays(vertices, faces)
    height = (vertices - np.asarray(point)) @ np.asarray(normal)
    height = np.where(height == 0, 1e-12, height)
    ends = []
    for k in range(3):
        a, b = faces[:, k], faces[:, (k + 1) % 3]
        cut = height[a] * height[b] < 0
        share = np.where(cut, height[a] / np.where(cut, height[a] - height[b], 1.0), np.nan)
        ends.append(vertices[a] + share[:, None] * (vertices[b] - vertices[a]))
    ends = np.stack(ends, axis=1)  # (F, 3, 3), NaN where an edge is not cut
    crossed = np.isfinite(ends[..., 0])
    rows = crossed.sum(1) == 2
    return ends[rows][crossed[rows]].reshape(-1, 2, 3)


def girth(vertices, faces, point, normal, reach: float) -> float:
    """Length of the section within ``reach`` of the point, in the unit of the vertices."""
    segments = section(vertices, faces, point, normal)
    near = np.linalg.norm(segments.mean(1) - point, axis=1) < reach
    return float(np.linalg.norm(segments[near, 0] - segments[near, 1], axis=1).sum())


def outline(vertices, faces, point, normal) -> NDArray:
    """Segments (N, 2, 3) of the one closed line of a section that runs nearest round a point."""
    segments = section(vertices, faces, point, normal)
    _, ends = np.unique(np.round(segments.reshape(-1, 3), 8), axis=0, return_inverse=True)
    ends = ends.reshape(-1, 2)
    label = np.arange(ends.max() + 1)
    while True:  # the least number spreads along the line
        low = label[ends].min(1)
        spread = label.copy()
        np.minimum.at(spread, ends.ravel(), low.repeat(2))
        if (spread == label).all():
            break
        label = spread
    lines = label[ends[:, 0]]
    found = [segments[lines == line] for line in np.unique(lines)]
    return min(found, key=lambda line: np.linalg.norm(line.mean((0, 1)) - point))


def finger_size(vertices, faces, digit: str, joint: str) -> tuple[float, float]:
    """Girth round and breadth across a joint of the built-in hand at rest, in its unit.

    joint: "PIP" or "DIP" of a finger, "MCP" or "IP" of the thumb.
    """
    level = {"PIP": 1, "DIP": 2, "MCP": 1, "IP": 2}[joint]
    this = MANO_FINGERS[digit][level]
    above = MANO_FINGERS[digit][level - 1]
    along = skeleton.FRAMES[this][:, 0] + skeleton.FRAMES[above][:, 0]
    line = outline(vertices, faces, skeleton.REST_JOINTS[this], along / np.linalg.norm(along))
    across = line.reshape(-1, 3) @ skeleton.FRAMES[this][:, 1]
    return float(np.linalg.norm(line[:, 0] - line[:, 1], axis=1).sum()), float(np.ptp(across))


def _both(men_and_women) -> tuple[float, float]:
    """Mean and standard deviation of as many men as women."""
    (men, men_sd), (women, women_sd) = men_and_women
    spread = np.sqrt((men_sd**2 + women_sd**2) / 2 + ((men - women) / 2) ** 2)
    return (men + women) / 2, float(spread)


def compare(vertices: NDArray, faces: NDArray) -> list[Measurement]:
    """Measure the built-in hand in its rest pose against the published numbers.

    vertices: (778, 3) metres, rest frame.   faces: (1538, 3).
    Hands differ in size, so bone lengths are compared at equal length of the middle finger.
    """
    vertices, faces = as_mesh_arrays(vertices, faces)
    vertices = np.asarray(vertices, dtype=np.float64)
    rows = []
    length = 1000 * vertices[:, 0].max()
    palm = section(vertices, faces, (0.078, 0, 0), (1, 0, 0)).reshape(-1, 3)
    palm = palm[palm[:, 1] < 0.048]
    around = 1000 * girth(vertices, faces, np.array([0.078, -0.004, -0.003]), (1, 0, 0), 0.052)
    whole = {
        "hand length": length,
        "hand breadth": 1000 * np.ptp(palm[:, 1]),
        "hand circumference": around,
    }
    for name, published in WHOLE_HAND_MM.items():
        rows.append(Measurement(name, whole[name], *_both(published), _ANSUR))
    for (digit, joint, what), published in FINGER_MM.items():
        size = 1000 * finger_size(vertices, faces, digit, joint)[what == "breadth"]
        rows.append(Measurement(f"{digit} {joint} {what}", size, *_both(published), _GREINER))
    size = 1000 * finger_size(vertices, faces, "index", "PIP")[1]
    rows.append(Measurement("index PIP breadth", size, *_both(INDEX_BREADTH_FAA_MM), _FAA))
    middle = sum(mean for mean, _ in BONE_LENGTHS_MM["middle"]) + TIP_TISSUE_MM["middle"]
    ours = sum(skeleton.SEGMENTS["middle"][1:]) * skeleton.HAND_LENGTH * 1000
    for name, bones in BONE_LENGTHS_MM.items():
        chain = skeleton.REST_CHAIN[name] * 1000
        labels = ("metacarpal", "proximal", "distal") if name == "thumb" else _PHALANGES
        for i, (mean, spread) in enumerate(bones):
            tissue = TIP_TISSUE_MM[name] if i == 2 else 0.0
            segment = float(np.linalg.norm(chain[i + 1] - chain[i]))
            if i == 2:  # theirs ends at the skin, so does ours
                along = skeleton.FRAMES[MANO_FINGERS[name][2]][:, 0]
                offset = 1000 * vertices - chain[2]
                near = np.linalg.norm(offset, axis=1) < 1.6 * segment
                segment = float((offset[near] @ along).max())
            scale = ours / middle
            rows.append(
                Measurement(
                    f"{name} {labels[i]}",
                    segment,
                    scale * (mean + tissue),
                    scale * spread,
                    _BURYANOV,
                )
            )
    return rows
