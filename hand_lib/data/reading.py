"""What the readers of all data sets share: bounds, iteration, skipping, hands from parameters."""

import numpy as np

from hand_lib.data.sample import HandSample, make_sample
from hand_lib.files import SampleError
from hand_lib.render.images import decode_picture

FREIHAND_VERSIONS = ("gs", "hom", "sample", "auto")
"""Backgrounds of the training pictures; version v of hand i is picture i + v * (unique hands)."""

FREIHAND_CROP = 180 / 224
"""Share of FreiHAND's picture that METRO and its followers cut out: 200 px times scale 0.9."""

ERROR_MODES = ("raise", "skip")


class Reader:
    """What every reader shares: bounds, iteration, skipping. Children give ``read`` and ``len``."""

    dataset, split = "", ""
    fingertips = "as the file's maker took them"  # the table of its joints' tips; see joints
    box = "image"  # how data.HandCrops frames a hand that nobody framed; see there

    def _start(self, on_error: str) -> None:
        if on_error not in ERROR_MODES:
            raise ValueError(f"on_error must be one of {ERROR_MODES}, found {on_error!r}")
        self.on_error = on_error
        self.skipped: dict[int, str] = {}
        self.missing: list[str] = []

    def __getitem__(self, index: int) -> HandSample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.dataset}/{self.split} has {len(self)} samples, asked {index}")
        return self.read(int(index) % len(self))[0]

    def __iter__(self):
        return iterate(self, range(len(self)))

    def name(self, index: int) -> str:
        """``dataset/split[index]``, as error messages call it."""
        return f"{self.dataset}/{self.split}[{index}]"

    def _decode(self, data: bytes, index: int, what, reduce: int = 1) -> np.ndarray:
        """The picture of a sample.   what: file or key, for errors.   See ``decode_picture``."""
        return decode_picture(data, f"{self.name(index)} {what}", reduce)

    def _make(self, image, index: int, **fields) -> HandSample:
        """``make_sample`` with this reader's name; whatever it refuses is a ``SampleError``."""
        try:
            return make_sample(
                image, dataset=self.dataset, split=self.split, index=index, **fields
            )
        except ValueError as error:
            raise SampleError(str(error)) from None


def iterate(reader, indices):
    """Samples of a reader in a given order; under "skip" broken ones are noted and left out."""
    for index in indices:
        try:
            sample = reader[index]
        except SampleError as error:
            if getattr(reader, "on_error", "raise") == "raise":
                raise
            reader.skipped[int(index)] = str(error)
            continue
        yield sample


def hand_from_model(model, pose, betas) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and joints (21, 3), metres, as the model places one set of parameters.

    model: a ``HandModel``.   pose: (48,) axis-angle.   betas: (10,).
    """
    import torch  # readers of files alone need not wait for it

    pose, betas = (torch.as_tensor(np.array(x, dtype=np.float32))[None] for x in (pose, betas))
    with torch.no_grad():
        hand = model(pose, betas)
    return hand.vertices[0].numpy(), hand.joints[0].numpy()


def fits_mesh(vertices, template, faces) -> bool:
    """Whether a mesh has its vertices in the order of a template: its edges are then short.

    vertices: (V, 3) any unit.   template: (V, 3).   faces: (F, 3) of the template.
    In another order the ends of an edge lie anywhere on the hand, ten times as far apart.
    """
    if len(vertices) != len(template):
        return False
    found, expected = (_edge_share(np.asarray(v, float), faces) for v in (vertices, template))
    return bool(found < 3 * expected)


def _edge_share(vertices, faces) -> float:
    """Mean length of the faces' first edges over the mesh's radius."""
    edges = np.linalg.norm(vertices[faces[:, 0]] - vertices[faces[:, 1]], axis=1).mean()
    return float(edges / max(np.linalg.norm(vertices - vertices.mean(0), axis=1).mean(), 1e-12))
