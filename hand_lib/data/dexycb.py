"""DexYCB: hands that grasp objects, seen by eight cameras, as its archive lays them out."""

import re
import zipfile
from pathlib import Path

import numpy as np
import yaml

from hand_lib.data.reading import Reader, hand_from_model
from hand_lib.data.sample import HandSample
from hand_lib.files import SampleError, check_folder, read_bytes

_WHERE = "Get DexYCB from https://dex-ycb.github.io and unpack it there."


class DexYcb(Reader):
    """Frames of DexYCB.

    root: folder that holds ``calibration`` and one folder a subject.   subjects: their names, such
    as "20200709-weiy"; all that are there when None.   step: take every step-th frame.   model: a
    MANO ``HandModel`` of the side wanted; hands of that side get vertices.   on_error: "skip" by
    default, because in many frames no hand is in sight, which only its label file tells.

    Joints are the file's own (metres, camera axes). Crops default to the box around them; left
    hands stay left here and crops mirror them. ``groups`` numbers the subjects.
    """

    dataset, split = "DexYCB", "all"
    box = "joints"
    fingertips = "manopth"  # the toolkit's hand layer

    def __init__(self, root, subjects=None, step: int = 1, model=None, on_error="skip"):
        self._start(on_error)
        self.root = check_folder(root, self.dataset, _WHERE)
        self.model = model
        there = sorted(p.name for p in self.root.iterdir() if re.match(r"\d{8}-", p.name))
        subjects = there if subjects is None else list(subjects)
        if unknown := [name for name in subjects if name not in there]:
            raise FileNotFoundError(
                f"DexYCB: {self.root} has no subject {unknown[0]}; it has {there}"
            )
        self.frames, self.sequences, self.cameras, groups = [], [], {}, []
        for number, subject in enumerate(subjects):
            for sequence in sorted(p for p in (self.root / subject).iterdir() if p.is_dir()):
                meta = self._yaml(sequence / "meta.yml", ("num_frames", "mano_sides", "mano_calib"))
                self.sequences.append((sequence, meta["mano_sides"][0], meta["mano_calib"][0]))
                for camera in sorted(p.name for p in sequence.iterdir() if p.is_dir()):
                    found = range(0, int(meta["num_frames"]), step)
                    self.frames += [(len(self.sequences) - 1, camera, frame) for frame in found]
                    groups += [number] * len(found)
        if not self.frames:
            raise FileNotFoundError(f"DexYCB: {self.root} holds no frames. {_WHERE}")
        self.groups, self._betas = np.array(groups), {}

    def _yaml(self, path: Path, fields) -> dict:
        if not path.is_file():
            raise FileNotFoundError(f"DexYCB: no file {path}. {_WHERE}")
        values = yaml.safe_load(path.read_text())
        if not isinstance(values, dict) or (lacking := [f for f in fields if f not in values]):
            raise ValueError(f"DexYCB: {path} should hold {', '.join(fields)}; lacks {lacking}")
        return values

    def __len__(self) -> int:
        return len(self.frames)

    def intrinsics(self, camera: str) -> np.ndarray:
        """(3, 3) pixels of a camera's colour pictures.   camera: its serial number."""
        if camera not in self.cameras:
            path = self.root / "calibration" / "intrinsics" / f"{camera}_640x480.yml"
            c = self._yaml(path, ("color",))["color"]
            self.cameras[camera] = np.array(
                [[c["fx"], 0, c["ppx"]], [0, c["fy"], c["ppy"]], [0, 0, 1]], dtype=np.float64
            )
        return self.cameras[camera]

    def betas(self, calibration: str) -> np.ndarray:
        """(10,) shape of a subject's hand."""
        if calibration not in self._betas:
            path = self.root / "calibration" / f"mano_{calibration}" / "mano.yml"
            self._betas[calibration] = np.array(self._yaml(path, ("betas",))["betas"], np.float32)
        return self._betas[calibration]

    def _path(self, index: int, what: str) -> Path:
        sequence, camera, frame = self.frames[index]
        return self.sequences[sequence][0] / camera / what.format(frame)

    def labels(self, index: int) -> dict:
        """All of a sample but its picture, as ``make_sample`` takes it."""
        path = self._path(index, "labels_{:06d}.npz")
        read_bytes(path, self.name(index))
        try:
            with np.load(path, allow_pickle=False) as archive:
                joints, flat, pose = (archive[k][0] for k in ("joint_3d", "joint_2d", "pose_m"))
        except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
            raise SampleError(
                f"{self.name(index)}: {path} is no label of DexYCB ({error})"
            ) from None
        if (joints == -1).all():
            raise SampleError(f"{self.name(index)}: no hand in sight ({path.name})")
        sequence, camera, _frame = self.frames[index]
        _folder, side, calibration = self.sequences[sequence]
        fields = {
            "joints": joints - joints[0], "root": joints[0], "joints_2d": flat, "side": side,
            "intrinsics": self.intrinsics(camera), "key": str(path.relative_to(self.root)),
        }  # fmt: skip
        if self.model is not None and self.model.side == side:
            betas = self.betas(calibration)
            coefficients = self.model.template.new_tensor(pose[3:48])[None]
            turn = self.model.template.new_tensor(pose[:3])[None]
            full = self.model.pose_from_pca(coefficients, turn)[0].reshape(48).numpy()
            vertices, own = hand_from_model(self.model, full, betas)
            fields |= {"vertices": vertices - own[0], "pose": full, "betas": betas}
        return fields

    def picture_bytes(self, index: int) -> bytes:
        """The colour picture as it lies on the disk."""
        return read_bytes(self._path(index, "color_{:06d}.jpg"), self.name(index))

    def read(self, index: int, choose_reduction=None) -> tuple[HandSample, int]:
        """A sample whose picture may be decoded smaller; see ``FreiHand.read``."""
        labels = self.labels(index)
        data = self.picture_bytes(index)
        reduce = choose_reduction(labels, data) if choose_reduction else 1
        image = self._decode(data, index, labels["key"], reduce)
        return self._make(image, index, **labels), reduce
