"""HaMeR's evaluation lists: boxes, sides, key points and MANO parameters in one ``.npz``."""

import zipfile
from pathlib import Path

import numpy as np

from hand_lib.files import SampleError, check_folder, read_bytes
from hand_lib.reading import Reader, hand_from_model
from hand_lib.sample import HandSample

_REQUIRED = {"imgname": (), "center": (2,), "scale": None}
_OPTIONAL = {
    "right": (), "hand_pose": (48,), "betas": (10,), "hand_keypoints_2d": (21, 3),
    "hand_keypoints_3d": (21, 4),
}  # fmt: skip


class HamerList(Reader):
    """Hands of an ``.npz`` as HaMeR and WiLoR evaluate on.

    npz_file: arrays imgname (N,), center (N, 2) pixels, scale (N,) or (N, 2) in 200 pixels, and
    where known right (N,), hand_pose (N, 48), betas (N, 10), hand_keypoints_2d (N, 21, 3) and
    hand_keypoints_3d (N, 21, 4), the last column their confidence.   images_root: folder that
    ``imgname`` starts from.   model: a right ``HandModel`` for vertices.   on_error: "raise" or
    "skip".
    Joints of the file go before the model's. A left hand's pose is taken as that of a left hand.
    The camera is not known, so ``root`` and ``intrinsics`` are None.
    """

    dataset = "HaMeR"

    def __init__(self, npz_file, images_root, model=None, on_error="raise"):
        self._start(on_error)
        self.path = Path(npz_file).expanduser()
        if not self.path.is_file():
            raise FileNotFoundError(
                f"HaMeR: no file {self.path}. The lists are part of hamer_evaluation_data, see "
                "https://github.com/geopavlakos/hamer"
            )
        self.root = check_folder(images_root, self.dataset, "It holds the pictures of the list.")
        self.split, self.model = self.path.stem, model
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                names = [n for n in (*_REQUIRED, *_OPTIONAL) if n in archive.files]
                self.arrays = {name: archive[name] for name in names}
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"HaMeR: {self.path} is not an .npz of plain arrays ({error})"
            ) from None
        if missing := [name for name in _REQUIRED if name not in self.arrays]:
            raise ValueError(f"HaMeR: {self.path} lacks {', '.join(missing)}; it has {names}")
        for name, shape in (_REQUIRED | _OPTIONAL).items():
            if name not in self.arrays or shape is None:
                continue
            expected, found = (len(self), *shape), self.arrays[name].shape
            if found != expected:
                raise ValueError(
                    f"HaMeR: {name} in {self.path} should be {expected}, found {found}"
                )
        self.groups = np.unique(self.arrays["imgname"], return_inverse=True)[1]

    def __len__(self) -> int:
        return len(self.arrays["imgname"])

    def frame(self, index: int) -> tuple[float, float, float]:
        """Centre (x, y) and side in pixels of the list's box."""
        x, y = self.arrays["center"][index].tolist()
        return x, y, 200 * float(np.max(self.arrays["scale"][index]))

    def labels(self, index: int) -> dict:
        """All of a sample but its picture, as ``make_sample`` takes it."""
        one = {name: values[index] for name, values in self.arrays.items()}
        left = not one.get("right", 1)
        fields = {"key": str(one["imgname"]), "side": "left" if left else "right"}
        if "hand_keypoints_2d" in one:
            points = one["hand_keypoints_2d"]
            fields |= {"joints_2d": points[:, :2], "valid_2d": points[:, 2] > 0}
        if "hand_pose" in one and "betas" in one:
            fields |= {"pose": one["hand_pose"], "betas": one["betas"]}
            if self.model is not None:
                from hand_lib.hand_model import mirror_pose  # brings torch, which files do not need

                pose = mirror_pose(one["hand_pose"]) if left else one["hand_pose"]
                vertices, joints = hand_from_model(self.model, pose, one["betas"])
                flip = np.float32([-1 if left else 1, 1, 1])
                fields["vertices"] = (vertices - joints[0]) * flip
                fields["joints"] = (joints - joints[0]) * flip
        points = one.get("hand_keypoints_3d")
        if points is not None and (points[:, 3] > 0).all():
            fields["joints"] = points[:, :3] - points[0, :3]
        return fields

    def picture_bytes(self, index: int) -> bytes:
        """The picture as it lies on the disk."""
        return read_bytes(self.root / str(self.arrays["imgname"][index]), self.name(index))

    def read(self, index: int, choose_reduction=None) -> tuple[HandSample, int]:
        """A sample whose picture may be decoded smaller; see ``FreiHand.read``."""
        data, labels = self.picture_bytes(index), self.labels(index)
        if not self.frame(index)[2] > 0:
            raise SampleError(f"{self.name(index)}: its box has no extent")
        reduce = choose_reduction(labels, data) if choose_reduction else 1
        image = self._decode(data, index, labels["key"], reduce)
        return self._make(image, index, **labels), reduce
