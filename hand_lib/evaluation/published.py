"""Published results on FreiHAND's evaluation set, with where each number was read.

Every row was reported by others, for aligned predictions, in mm; none was measured here. Methods
whose numbers could not be read at a source are not listed.
"""

from dataclasses import dataclass

DATA = "FreiHAND evaluation set, 3,960 images"
ALIGNMENT = "similarity (PA); mirroring allowed where FreiHAND's scorer made the number"

SURVEY = "table of the Hand3DResearch collection"
YOUTUBEHAND = "README of Youtubehand"
HYPER = "leaderboard of hyper.ai"


@dataclass(frozen=True)
class Published:
    """One published row; None: not reported, or not read at a source."""

    method: str
    year: int | None
    backbone: str
    pa_mpjpe_mm: float | None
    pa_mpvpe_mm: float | None
    f_5: float | None
    f_15: float | None
    source: str


PUBLISHED = (
    Published("Boukhayma et al.", 2019, "ResNet-50", 35.0, 13.2, 0.427, 0.895, SURVEY),
    Published("ObMan", 2019, "ResNet-18", 13.3, 13.3, 0.429, 0.907, SURVEY),
    Published("FreiHAND baseline", 2019, "ResNet-50", 11.0, 10.9, 0.516, 0.934, SURVEY),
    Published("YouTubeHand (paper)", 2020, "ResNet-50", 8.4, 8.6, 0.614, 0.966, SURVEY),
    Published("Youtubehand", None, "ResNet-18", 8.6, 8.7, None, None, YOUTUBEHAND),
    Published("Youtubehand", None, "ResNet-50", 7.7, 7.7, None, None, YOUTUBEHAND),
    Published("Youtubehand", None, "HRNet-W64", 7.2, 7.4, None, None, YOUTUBEHAND),
    Published("Pose2Pose", 2020, "ResNet-50", 7.8, 7.8, 0.661, 0.970, SURVEY),
    Published("Pose2Mesh", 2020, "2-D pose as input", 7.7, 7.8, 0.674, 0.969, SURVEY),
    Published("I2L-MeshNet", 2020, "ResNet-50", 7.4, 7.6, 0.681, 0.973, SURVEY),
    Published("PeCLR", 2021, "ResNet-152", 7.3, None, None, None, SURVEY),
    Published("HIU-DMTL", 2021, "custom", 7.1, 7.3, 0.699, 0.974, SURVEY),
    Published("CMR-PG", 2021, "ResNet-18", 7.4, 7.5, 0.687, 0.973, SURVEY),
    Published("CMR-PG", 2021, "ResNet-50", 6.9, 7.0, 0.715, 0.977, SURVEY),
    Published("I2UV-HandNet", 2021, "ResNet-50", 6.8, 6.9, 0.707, 0.977, SURVEY),
    Published("Tang et al.", 2021, "ResNet-50", 6.7, 6.7, 0.724, 0.981, SURVEY),
    Published("METRO", 2021, "HRNet-W64", 6.7, 6.8, 0.717, 0.981, SURVEY),
    Published(
        "METRO, test-time augmentation", 2021, "HRNet-W64", 6.2, 6.3, 0.743, 0.984,
        "METRO repository",
    ),
    Published(
        "Mesh Graphormer, test-time augmentation", 2021, "HRNet-W64", 5.9, 6.0, 0.764, 0.986,
        f"its repository, {HYPER}",
    ),
    Published("MobRecon, light", 2022, "DenseStack", 6.9, None, None, None, "README of HandMesh"),
    Published("MobRecon, extra data", 2022, "ResNet-50", 5.7, 5.9, 0.784, 0.986, SURVEY),
    Published("FastMETRO-L", 2022, "HRNet-W64", 6.5, 7.1, 0.687, 0.983, HYPER),
    Published(
        "SimpleHand", 2024, "FastViT / HRNet", 5.7, 6.0, 0.772, 0.986, "SimpleHand repository"
    ),
    Published("Hamba", 2024, "ViT and state space model", None, 5.3, None, 0.992, "abstract"),
    Published(
        "LiteSpiralGCN", 2024, "DenseStack, spiral", 6.5, 6.6, None, None, "page of the journal"
    ),
    Published("ReJSHand", 2025, "", 6.3, 6.4, 0.756, 0.984, "arXiv 2503.05995"),
    Published("DiffHand", None, "", 5.8, None, None, None, "table on the web"),
    Published(
        "MaskHand", 2024, "ViT", 5.5, 5.4, 0.801, 0.991, "mirror of paperswithcode.com"
    ),
    Published("HandOS", 2025, "", 5.0, None, None, None, "table on the web"),
    Published("SAM 3D Body", 2025, "", 5.5, 6.2, 0.737, 0.988, "issue 122 of sam-3d-body"),
)  # fmt: skip
"""Roughly in order of publication."""


def published_rows() -> list[dict]:
    """The table as dicts with the same keys as a measured row, ``kind`` set to ``published``.

    >>> published_rows()[3]["method"]
    'YouTubeHand (paper)'
    """
    return [
        {"kind": "published", "data": DATA, "alignment": ALIGNMENT, **vars(row)}
        for row in PUBLISHED
    ]
