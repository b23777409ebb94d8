"""One labelled hand image, checked once where it is made."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class HandSample:
    """A picture of one hand with what is known of it; what is not known is ``None``."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    vertices: np.ndarray | None = None  # (V, 3) float32 metres, camera axes, wrist at the origin
    joints: np.ndarray | None = None  # (21, 3) float32 metres, the same frame
    root: np.ndarray | None = None  # (3,) float32 metres, the wrist in the camera frame
    joints_2d: np.ndarray | None = None  # (21, 2) float32 pixels of this image
    valid_2d: np.ndarray | None = None  # (21,) bool, which of joints_2d are known
    intrinsics: np.ndarray | None = None  # (3, 3) float32 pixels
    mask: np.ndarray | None = None  # (H, W) bool, True on the hand
    pose: np.ndarray | None = None  # (48,) float32 axis-angle in MANO's order, global row first
    betas: np.ndarray | None = None  # (10,) float32
    side: str = "right"  # the hand in the picture
    dataset: str = ""
    split: str = ""
    index: int = -1
    key: str = ""  # file name or another name a person can find it by

    @property
    def name(self) -> str:
        """``dataset/split[index]``, as error messages call it."""
        return f"{self.dataset or 'sample'}/{self.split or '-'}[{self.index}] {self.key}".rstrip()


_SHAPES = {
    "vertices": (None, 3),
    "joints": (21, 3),
    "root": (3,),
    "joints_2d": (21, 2),
    "intrinsics": (3, 3),
    "pose": (48,),
    "betas": (10,),
}


def make_sample(image, **fields) -> HandSample:
    """Build a ``HandSample``: converts number types and checks shapes, finiteness and ranges.

    image: (H, W, 3) uint8 RGB.   fields: those of ``HandSample``; arrays of any float type.
    raises ValueError naming data set, split, index and field.

    >>> make_sample(np.zeros((8, 8, 3), np.uint8), dataset="mine", index=3).name
    'mine/-[3]'
    """
    name = f"{fields.get('dataset', '')}/{fields.get('split', '')}[{fields.get('index', -1)}]"

    def refuse(field, expected, found):
        raise ValueError(f"sample {name}: {field} should be {expected}, found {found}")

    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        refuse("image", "(H, W, 3) uint8", f"{image.shape} {image.dtype}")
    for field, shape in _SHAPES.items():
        value = fields.get(field)
        if value is None:
            continue
        value = np.asarray(value, dtype=np.float32)
        fits = value.ndim == len(shape) and all(
            want in (None, got) for want, got in zip(shape, value.shape, strict=True)
        )
        if not fits:
            refuse(field, tuple("V" if n is None else n for n in shape), value.shape)
        if not np.isfinite(value).all():
            row = int(np.argwhere(~np.isfinite(value))[0][0])
            refuse(
                field, "finite", f"{value.reshape(-1)[~np.isfinite(value.reshape(-1))][0]} at {row}"
            )
        fields[field] = value
    for field in ("vertices", "joints"):
        value = fields.get(field)
        if value is not None and np.abs(value).max() > 1.0:
            reach = float(np.abs(value).max())
            refuse(
                field, "metres relative to the wrist (below 1 m)", f"a coordinate of {reach:.3g}"
            )
    if fields.get("joints_2d") is not None:
        valid = fields.get("valid_2d")
        valid = np.ones(21, bool) if valid is None else np.asarray(valid).astype(bool)
        if valid.shape != (21,):
            refuse("valid_2d", (21,), valid.shape)
        fields["valid_2d"] = valid
    if fields.get("mask") is not None:
        mask = np.asarray(fields["mask"]).astype(bool)
        if mask.shape != image.shape[:2]:
            refuse("mask", image.shape[:2], mask.shape)
        fields["mask"] = mask
    if fields.get("side", "right") not in ("right", "left"):
        refuse("side", "'right' or 'left'", repr(fields["side"]))
    return HandSample(image=image, **fields)
