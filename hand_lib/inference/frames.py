"""Pictures in a row, wherever they are: a video, a folder, a list. Only this file knows PyAV.

>>> frames = Frames("clip.mp4")          # whatever FFmpeg reads
>>> len(frames), frames[3].shape, frames.times[3], frames.name(3)
"""

import contextlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from hand_lib import ROOT
from hand_lib.data.open import load_examples
from hand_lib.files import natural_key, resolve, written_atomically
from hand_lib.render.images import read_image

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif")
PHOTOS = "data/photos"
"""Where demos look for one's own pictures, from the workbook's folder."""
VIDEOS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""What a video is written as, with FFmpeg's name for it: H.264, which browsers play."""

ASSUMED_FPS = 30.0
_CLOCK = 90_000
"""Ticks a second of the videos written here, the usual clock of MPEG."""

_NEAR = 24
"""So many frames further on are decoded on the way rather than looked up by the container."""


class Frames:
    """Frames by their number, decoded when they are asked for: ``frames[i]`` (H, W, 3) uint8 RGB.

    source: a video file, a folder of pictures (2.png before 10.png), one picture, or a sequence of
    paths and arrays.   fps: of pictures, which carry no times.
    A video is decoded once when it is opened, so that frame i is the i-th in every order of asking
    and ``times`` (N,) are the container's own, seconds from the first; a damaged end is left out.
    Frames are upright, turned as the file says.
    """

    def __init__(self, source, fps: float | None = None):
        if fps is not None and not fps > 0:
            raise ValueError(f"fps should be positive, found {fps}")
        self._list, self._container, self.stem = None, None, "frames"
        if isinstance(source, str | Path):
            path = resolve(source)
            self.stem = path.stem
            if path.is_file() and path.suffix.lower() not in PICTURES:
                self._index(path)
                return
            source = find_pictures(path)[0].values()
        self._list = list(source)
        self.times = np.arange(len(self._list)) / (fps or ASSUMED_FPS)

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, index: int) -> np.ndarray:
        index = int(index)
        if not 0 <= index < len(self):
            raise IndexError(f"{self.stem} has {len(self)} frames, asked for {index}")
        if self._list is not None:
            return read_image(self._list[index], self.name(index))
        if not self._next <= index <= self._next + _NEAR:
            self._seek(index)
        while True:
            try:
                frame = next(self._decoding)
            except StopIteration:
                raise ValueError(f"{self._path}: frame {index} cannot be decoded again") from None
            self._next += 1
            if self._next > index:
                upright = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                return np.ascontiguousarray(upright)

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the first frame, pixels."""
        height, width = self[0].shape[:2]
        return width, height

    @property
    def fps(self) -> float:
        """Frames a second, on average."""
        if len(self) < 2:
            return ASSUMED_FPS
        return float((len(self) - 1) / (self.times[-1] - self.times[0]))

    def name(self, index: int) -> str:
        """File name of a picture, or ``<video>/<number>``."""
        if self._list is not None and isinstance(self._list[index], str | Path):
            return Path(self._list[index]).name
        return f"{self.stem}/{index}"

    def _index(self, path: Path) -> None:
        """Decode a video once: how many frames there are, and when each is shown."""
        self._path, self._stamps, seconds = path, [], []
        with contextlib.suppress(av.FFmpegError):
            self._start()
            for frame in self._decoding:
                self._stamps.append(frame.pts)
                seconds.append(frame.time)
        if not seconds:
            raise ValueError(
                f"{path} is not a video that can be read ({path.stat().st_size} bytes), or it has "
                "no picture; convert it, for instance to .mp4"
            )
        rate = self._container.streams.video[0].average_rate
        rate = float(rate) if rate and 1 <= rate <= 1000 else ASSUMED_FPS
        self.times = np.arange(len(seconds)) / rate
        self._stamped = None not in seconds and bool((np.diff(seconds) > 0).all())
        if self._stamped:
            self.times = np.array(seconds, float) - seconds[0]
        self._start()

    def _start(self) -> None:
        """Stand before the first frame. An absolute path has no colon that names a protocol."""
        self._container, self._next = av.open(f"file:{self._path.absolute()}"), 0
        video = self._container.streams.video
        if not video:
            raise ValueError(f"{self._path} has no pictures, only sound")
        video[0].thread_type = "AUTO"
        self._decoding = self._decode(self._container, video[0])

    def _decode(self, container, stream):
        """Frames from where the container stands; damaged packets are left out."""
        with contextlib.suppress(av.FFmpegError):
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    continue
                with contextlib.suppress(av.FFmpegError):
                    yield from packet.decode()

    def _seek(self, index: int) -> None:
        """Stand before a frame: at the key frame before it, else at the first frame of all."""
        if self._stamped and index > _NEAR:
            stream = self._container.streams.video[0]
            self._container.seek(self._stamps[index], stream=stream)
            first = next(self._decode(self._container, stream), None)
            if first is not None and first.pts in self._stamps[: index + 1]:
                self._container.seek(self._stamps[index], stream=stream)
                self._decoding = self._decode(self._container, stream)
                self._next = self._stamps.index(first.pts)
                return
        self._start()


def find_pictures(place, base=None) -> tuple[dict[str, Path], dict[str, str]]:
    """Somebody's pictures, and what lies beside them with the reason why it is left out.

    place: a folder or one picture.   base: as in ``files.resolve``, ``ROOT`` in a notebook.
    returns names in natural order -> paths, and names -> reasons; no picture is decoded.
    raises FileNotFoundError that says where was looked, or what there is instead of pictures.
    """
    path = resolve(place, base)
    files = [path] if path.is_file() else [p for p in path.iterdir() if p.name[0] != "."]
    pictures, others = {}, {}
    for file in sorted(files, key=lambda p: natural_key(p.name)):
        if file.suffix.lower() in PICTURES and file.is_file():
            pictures[file.name] = file
        else:
            others[file.name] = f"no picture, which end in {', '.join(PICTURES)}"
            if file.suffix.lower() in (*VIDEOS, ".avi", ".webm", ".m4v"):
                others[file.name] = "a video, for hand_lib.inference.video"
            elif file.is_dir():
                others[file.name] = "a folder"
    if not pictures:
        found = "; ".join(f"{name} is {why}" for name, why in list(others.items())[:3])
        raise FileNotFoundError(f"{path}: no pictures here ({found or 'the folder is empty'})")
    return pictures, others


def pictures_or_examples(place=PHOTOS):
    """What a demo shows: the pictures at a place or, where the usual place has none, the examples.

    place: a folder or one picture, from the workbook's folder.
    returns names -> paths, names -> examples (``data.open.load_examples``), none of which there are
    for one's own pictures, and names -> why something there is left out.
    raises FileNotFoundError where a place that was asked for holds no picture.
    """
    try:
        paths, left_out = find_pictures(place, ROOT)
        return paths, {}, left_out
    except FileNotFoundError as missing:
        if place != PHOTOS:
            raise
        examples = {example.name: example for example in load_examples()}
        left_out = {PHOTOS: str(missing)} if (ROOT / PHOTOS).exists() else {}
        return {name: example.path for name, example in examples.items()}, examples, left_out


def read_pictures(paths: dict[str, Path], left_out: dict[str, str]):
    """Yield name and picture (H, W, 3) uint8 RGB, each decoded when its turn comes.

    A picture that cannot be read goes into ``left_out`` with the reason.
    """
    for name, path in paths.items():
        try:
            picture = read_image(path)
        except (ValueError, OSError) as error:
            left_out[name] = str(error)
            continue
        yield name, picture


def write_video(path, frames, fps: float = ASSUMED_FPS, times=None) -> Path:
    """Frames (H, W, 3) uint8 RGB -> H.264 that browsers play; odd sizes lose a row or column.

    path: .mp4, .mov or .mkv; appears when it is complete.   times: seconds at which each frame is
    shown, ascending; None: ``fps`` frames a second.   returns the path.
    """
    path = Path(path)
    if path.suffix.lower() not in VIDEOS:
        raise ValueError(f"{path.name}: a video is written as one of {', '.join(VIDEOS)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    stream, tick = None, Fraction(1, _CLOCK)
    kind = VIDEOS[path.suffix.lower()]
    options = {} if kind == "matroska" else {"movflags": "+faststart"}
    with written_atomically(path) as temporary:
        with av.open(str(temporary), "w", kind, options=options) as container:
            for n, picture in enumerate(frames):
                height, width = (side - side % 2 for side in picture.shape[:2])
                if stream is None:
                    stream = container.add_stream("libx264", Fraction(fps).limit_denominator(1001))
                    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                    stream.options = {"crf": "20", "preset": "veryfast"}
                    stream.codec_context.time_base = tick
                picture = np.ascontiguousarray(picture[:height, :width])
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                seconds = n / fps if times is None else times[n] - times[0]
                frame.pts, frame.time_base = round(seconds * _CLOCK), tick
                container.mux(stream.encode(frame))
            if stream is None:
                raise ValueError(f"{path.name}: there are no frames to write")
            container.mux(stream.encode())
    return path
