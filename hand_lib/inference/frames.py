"""Pictures in a row, wherever they are: a video, a folder, a list.

>>> frames = Frames("clip.avi")          # anything OpenCV reads
>>> len(frames), frames[3].shape, frames.name(3)
"""

from pathlib import Path

import cv2
import numpy as np

from hand_lib.render.images import read_image

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


class Frames:
    """Frames by their number, read when they are asked for.

    source: a video file, a folder of pictures (in the order of their names), or a sequence of
    paths and arrays (H, W, 3) uint8 RGB.   ``frames[i]`` is (H, W, 3) uint8 RGB.
    """

    def __init__(self, source):
        self._video, self._next, self._list = None, 0, None
        if isinstance(source, str | Path):
            path = Path(source)
            if path.is_dir():
                self._list = [p for p in sorted(path.iterdir()) if p.suffix.lower() in PICTURES]
                if not self._list:
                    raise FileNotFoundError(f"{path}: no pictures in this folder ({PICTURES})")
            elif path.is_file():
                self._open(path)
            else:
                raise FileNotFoundError(f"{path}: no such video or folder of pictures")
            self.stem = path.stem
        else:
            self._list, self.stem = list(source), "frames"

    def _open(self, path):
        if path.suffix.lower() in PICTURES:
            self._list = [path]
            return
        self._video, self._path = cv2.VideoCapture(str(path)), path
        count = int(self._video.get(cv2.CAP_PROP_FRAME_COUNT)) if self._video.isOpened() else 0
        ok = self._video.isOpened() and self._video.read()[0]
        if not ok:
            raise ValueError(f"{path}: not a video that OpenCV can read, or it has no frame")
        self._video.set(cv2.CAP_PROP_POS_FRAMES, 0)
        self._count = count if count > 0 else self._count_frames()

    def _count_frames(self) -> int:
        count = 0
        while self._video.grab():
            count += 1
        self._video.set(cv2.CAP_PROP_POS_FRAMES, 0)
        return count

    def __len__(self) -> int:
        return self._count if self._list is None else len(self._list)

    def __getitem__(self, index: int) -> np.ndarray:
        index = int(index)
        if not 0 <= index < len(self):
            raise IndexError(f"{self.stem} has {len(self)} frames, asked for {index}")
        if self._list is not None:
            return read_image(self._list[index], self.name(index))
        if index != self._next:
            self._video.set(cv2.CAP_PROP_POS_FRAMES, index)
        ok, frame = self._video.read()
        self._next = index + 1
        if not ok:
            raise ValueError(f"{self._path}: frame {index} of {len(self)} cannot be decoded")
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the first frame, pixels."""
        height, width = self[0].shape[:2]
        return width, height

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    def name(self, index: int) -> str:
        """File name of a picture, or ``<video>/<number>``."""
        if self._list is not None and isinstance(self._list[index], str | Path):
            return Path(self._list[index]).name
        return f"{self.stem}/{index}"


def write_video(path, frames, fps: float = 15.0) -> Path:
    """Motion-JPEG AVI, which OpenCV writes everywhere.   frames: (H, W, 3) uint8 RGB each."""
    path, writer = Path(path), None
    path.parent.mkdir(parents=True, exist_ok=True)
    for frame in frames:
        if writer is None:
            size = (frame.shape[1], frame.shape[0])
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, size)
            if not writer.isOpened():
                raise OSError(f"{path}: OpenCV cannot write a Motion-JPEG AVI here")
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    if writer is None:
        raise ValueError(f"{path}: no frames to write")
    writer.release()
    return path
