"""A video in; an overlay video and a smoothed mesh sequence out.

    python -m hand_lib.inference.video in.mp4 out --run runs/reference --box 120 80 360 330

Each hand is followed from frame to frame: the box of a frame comes from the joints of the one
before. Then the sequence is smoothed by One-Euro filters run forwards and backwards, which has no
lag; ``both_ways=False`` shows what a live filter would, and its lag.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from hand_lib.files import written_atomically
from hand_lib.inference.smoothing import OneEuro, jitter, smooth
from hand_lib.render.camera import guessed_intrinsics, solve_translation

CODECS = {".mp4": "mp4v", ".webm": "VP80", ".avi": "MJPG", ".mov": "mp4v", ".mkv": "VP80"}
"""What OpenCV's own encoder writes; browsers play the .webm."""

ASSUMED_FPS = 30.0
ROUNDS = 4
"""Looks at the first frame, each into the box that the last one found."""

JOINTS_MARGIN = 0.06
"""Flesh around the outermost joints, over the longer side of their box."""

FOLLOWING = 0.3
"""Share of a change of size that the next box takes over; with 1.0 one bad frame loses the hand."""

PATIENCE = 10
"""Doubtful frames in a row after which a lone hand is looked for in the whole picture again."""


@dataclass(frozen=True)
class VideoInfo:
    """What the file says of itself."""

    width: int
    height: int
    fps: float
    frames: int  # as announced; a damaged file may hold fewer


@dataclass(frozen=True)
class HandSequence:
    """One hand through a video of T frames."""

    vertices: np.ndarray  # (T, V, 3) metres, camera axes, wrist at the origin
    faces: np.ndarray  # (F, 3)
    joints: np.ndarray  # (T, 21, 3) metres, the same frame
    joints_2d: np.ndarray  # (T, 21, 2) pixels of the video
    translation: np.ndarray  # (T, 3) metres, the wrist in the camera's frame
    confidence: np.ndarray  # (T,) 0 to 1; NaN where the run is not calibrated
    doubtful: np.ndarray  # (T,) bool
    times: np.ndarray  # (T,) seconds
    fps: float
    intrinsics: np.ndarray  # (3, 3) pixels
    assumed_intrinsics: bool
    side: str

    @property
    def camera_vertices(self) -> np.ndarray:
        """(T, V, 3) metres in the camera's frame."""
        return self.vertices + self.translation[:, None]


def video_info(path) -> VideoInfo:
    """Size, frame rate and length of a video file that OpenCV can read.

    raises FileNotFoundError, or ValueError for a file without a readable picture.
    """
    with _Capture(path) as capture:
        height, width = capture.first.shape[:2]
        return VideoInfo(width, height, capture.fps, capture.count)


def read_frames(path) -> Iterable[np.ndarray]:
    """The frames of a video file, one after the other, (H, W, 3) uint8 RGB, upright."""
    with _Capture(path) as capture:
        frame = capture.first
        while frame is not None:
            yield frame
            frame = capture.next()


class _Capture:
    """OpenCV's reader with clear errors."""

    def __init__(self, path):
        self.path = Path(path)

    def __enter__(self):
        if not self.path.is_file():
            what = "is a folder" if self.path.is_dir() else "does not exist"
            raise FileNotFoundError(f"video {self.path} {what}; give the path of a video file")
        self._reader = cv2.VideoCapture(str(self.path))
        self.first = self.next()
        if self.first is None:
            self._reader.release()
            raise ValueError(
                f"{self.path} is not a video that OpenCV can read ({self.path.stat().st_size} "
                "bytes); convert it, for instance to .mp4"
            )
        fps = self._reader.get(cv2.CAP_PROP_FPS)
        self.fps = float(fps) if 1 <= fps <= 1000 else ASSUMED_FPS
        self.count = max(int(self._reader.get(cv2.CAP_PROP_FRAME_COUNT)), 1)
        return self

    def next(self):
        good, frame = self._reader.read()
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if good else None

    def __exit__(self, *_):
        self._reader.release()


def write_video(path, frames, fps: float) -> Path:
    """Frames (H, W, 3) uint8 RGB -> a video file; odd sizes lose their last row or column.

    path: .mp4, .webm, .avi, .mov or .mkv; appears when it is complete.   returns the path.
    """
    path = Path(path)
    if path.suffix.lower() not in CODECS:
        raise ValueError(f"{path.name}: a video is written as one of {', '.join(CODECS)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = None
    with written_atomically(path) as temporary:
        # OpenCV chooses the container by the suffix
        partial = temporary.with_name(f".partial{temporary.name}{path.suffix.lower()}")
        try:
            for frame in frames:
                height, width = (side - side % 2 for side in frame.shape[:2])
                if writer is None:
                    code = cv2.VideoWriter_fourcc(*CODECS[path.suffix.lower()])
                    writer = cv2.VideoWriter(str(partial), code, fps, (width, height))
                    if not writer.isOpened():
                        raise ValueError(f"{path.name}: OpenCV has no encoder for it here")
                writer.write(cv2.cvtColor(frame[:height, :width], cv2.COLOR_RGB2BGR))
            if writer is None:
                raise ValueError(f"{path.name}: there is no frame to write")
            writer.release()
            partial.replace(temporary)
        finally:
            if writer is not None:
                writer.release()
            partial.unlink(missing_ok=True)
    return path


def follow_hands(
    predictor,
    video,
    boxes=None,
    sides=None,
    intrinsics=None,
    fps: float | None = None,
    progress: bool = True,
) -> list[HandSequence]:
    """The hands of a video, frame by frame, as the network sees them.

    video: path, or an iterable of frames (H, W, 3) uint8 RGB.   boxes, sides: of the first frame,
    as in ``Predictor.predict``; None: one right hand, found by looking ever closer.
    intrinsics: (3, 3) pixels or None.   fps: of an iterable.   progress: show a bar.
    returns a ``HandSequence`` for each box. A hand in doubt is looked for where it was last; one
    that was not given a box is looked for anywhere after ``PATIENCE`` frames.
    """
    frames, total = video, None
    if isinstance(video, (str, Path)):
        info = video_info(video)
        frames, fps, total = read_frames(video), info.fps, info.frames
    if fps is not None and not fps > 0:
        raise ValueError(f"fps should be positive, found {fps}")
    history: list[list] = []
    bar = tqdm(frames, desc="following", total=total, unit="frame", disable=not progress)
    for n, frame in enumerate(bar):
        if n == 0:
            first = _first_look(predictor, frame, boxes, sides, intrinsics)
            places, sides = [h.box for h in first], [h.side for h in first]
            if not places:
                raise ValueError("no hand was found in the first frame; give its box")
        elif boxes is None and len(history) >= PATIENCE:
            if all(hand.doubtful for (hand,) in history[-PATIENCE:]) and n % PATIENCE == 0:
                places = [_first_look(predictor, frame, None, sides, intrinsics)[0].box]
        hands = predictor.predict(frame, places, sides, intrinsics)
        history.append(hands)
        places = [
            old if hand.doubtful else _next_box(hand.joints_2d, old, frame.shape, FOLLOWING)
            for hand, old in zip(hands, places, strict=True)
        ]
    if not history:
        raise ValueError("the video has no frames")
    return [_sequence(hands, fps or ASSUMED_FPS) for hands in zip(*history, strict=True)]


def _first_look(predictor, frame, boxes, sides, intrinsics):
    """Hands of the first frame; without boxes look again and again into what was found."""
    hands = predictor.predict(frame, boxes, sides, intrinsics)
    for _ in range(ROUNDS if boxes is None else 0):
        place = _next_box(hands[0].joints_2d, hands[0].box, frame.shape)
        hands = predictor.predict(frame, [place], sides, intrinsics)
    return hands


def _next_box(joints_2d, old, shape, share: float = 1.0):
    """Where to look next: around these joints, at most half as large again as before or smaller.

    joints_2d: (21, 2) pixels.   old: the box they were found in.   shape: of the picture.
    share: of the change of size that is taken over, on a logarithmic scale.
    """
    low, high = joints_2d.min(axis=0), joints_2d.max(axis=0)
    before = max(old[2] - old[0], old[3] - old[1]) / 2
    wanted = (0.5 + JOINTS_MARGIN) * max((high - low).max(), 1e-3)
    half = before * np.clip(wanted / before, 1 / 1.5, 1.5) ** share
    half = float(np.clip(half, 0.03 * max(shape[:2]) + 2, max(shape[:2]) / 2))
    x, y = np.clip((low + high) / 2, 0, [shape[1] - 1, shape[0] - 1])
    return (float(x - half), float(y - half), float(x + half), float(y + half))


def _sequence(hands, fps) -> HandSequence:
    first = hands[0]
    return HandSequence(
        vertices=np.stack([h.vertices for h in hands]),
        faces=first.faces,
        joints=np.stack([h.joints for h in hands]),
        joints_2d=np.stack([h.joints_2d for h in hands]),
        translation=np.stack([h.translation for h in hands]),
        confidence=np.array([np.nan if h.confidence is None else h.confidence for h in hands]),
        doubtful=np.array([h.doubtful for h in hands]),
        times=np.arange(len(hands)) / fps,
        fps=float(fps),
        intrinsics=first.intrinsics,
        assumed_intrinsics=first.assumed_intrinsics,
        side=first.side,
    )


def smooth_sequence(
    sequence: HandSequence, settings: OneEuro | None = None, both_ways: bool = True
) -> HandSequence:
    """The sequence with steady vertices, joints and places; see ``smoothing.smooth``.

    Vertices and joints are filtered together, 2-D joints in the metres that a pixel spans at the
    hand's distance; the place in space then follows from both.
    """
    joined = np.concatenate([sequence.vertices, sequence.joints], axis=1)
    joined = smooth(joined, sequence.times, settings, both_ways)
    split = sequence.vertices.shape[1]
    metres = np.median(sequence.translation[:, 2]) / sequence.intrinsics[0, 0]
    flat = smooth(sequence.joints_2d * metres, sequence.times, settings, both_ways) / metres
    joints = joined[:, split:]
    place = solve_translation(joints, flat, sequence.intrinsics)
    changed = {"vertices": joined[:, :split], "joints": joints, "joints_2d": flat}
    return HandSequence(**{**sequence.__dict__, **changed, "translation": place})


def overlay_frames(video, sequences, progress: bool = True) -> Iterable[np.ndarray]:
    """The frames of a video with the meshes of all sequences drawn over them.

    Frames on which a hand is doubtful show it pale.
    """
    from hand_lib.render.render import draw_meshes

    frames = read_frames(video) if isinstance(video, (str, Path)) else video
    count = len(sequences[0].times)
    bar = tqdm(zip(range(count), frames, strict=False), desc="drawing", total=count, unit="frame",
               disable=not progress)  # fmt: skip
    for n, frame in bar:
        for s in sequences:
            frame = draw_meshes(
                frame, s.camera_vertices[n], s.faces, s.intrinsics,
                alpha=0.35 if s.doubtful[n] else 0.85,
            )  # fmt: skip
        yield frame


def process_video(
    predictor,
    video,
    folder,
    boxes=None,
    sides=None,
    intrinsics=None,
    settings: OneEuro | None = None,
    both_ways: bool = True,
    progress: bool = True,
) -> dict[str, Path]:
    """A video file in; overlay video, animated GLB, arrays and a report out.

    folder: where they go, made if need be.   the other arguments: as in ``follow_hands`` and
    ``smooth_sequence``.   returns name -> path: "overlay" (.mp4), for each hand "meshes" (.glb)
    and "arrays" (.npz), and "report" (.json); a second hand's names end in "_2".
    """
    from hand_lib.inference.export import save_animation, save_report, save_sequence
    from hand_lib.render.render import PREDICTION

    folder, settings = Path(folder), settings or OneEuro()
    raw = follow_hands(predictor, video, boxes, sides, intrinsics, progress=progress)
    steady = [smooth_sequence(s, settings, both_ways) for s in raw]
    paths = {
        "overlay": write_video(
            folder / "overlay.mp4", overlay_frames(video, steady, progress), steady[0].fps
        )
    }
    rows = []
    for n, (before, after) in enumerate(zip(raw, steady, strict=True)):
        tail = f"_{n + 1}" if n else ""
        paths["arrays" + tail] = save_sequence(folder / f"meshes{tail}.npz", after)
        if len(after.times) > 1:
            paths["meshes" + tail] = save_animation(
                folder / f"meshes{tail}.glb", after.camera_vertices, after.faces, after.fps,
                PREDICTION,
            )  # fmt: skip
        rows.append(_report(before, after, settings, both_ways))
    paths["report"] = save_report(folder / "report.json", rows)
    return paths


def _report(before, after, settings, both_ways) -> dict:
    """What happened to one hand, for people and programs; ``None`` is what cannot be known."""
    shaking = [
        round(jitter(s.joints, s.fps), 2) if len(s.times) > 2 else None for s in (before, after)
    ]
    known = np.isfinite(after.confidence).any()
    return {
        "side": after.side,
        "frames": len(after.times),
        "fps": after.fps,
        "lag_at_rest_s": 0.0 if both_ways else round(settings.lag_at_rest_s, 4),
        "jitter_before_m_s2": shaking[0],
        "jitter_after_m_s2": shaking[1],
        "confidence_median": round(float(np.nanmedian(after.confidence)), 3) if known else None,
        "doubtful_frames": int(after.doubtful.sum()),
        "intrinsics_assumed": after.assumed_intrinsics,
        "intrinsics_px": after.intrinsics.tolist(),
    }


def main(arguments=None) -> int:
    """The command line; the exit code is 0, or 2 for a request that cannot be met."""
    parser = argparse.ArgumentParser(prog="python -m hand_lib.inference.video", description=__doc__)
    parser.add_argument("video", help="any video that OpenCV can read")
    parser.add_argument("folder", help="where the results go")
    parser.add_argument("--run", default="", help="folder of a run; default: the reference model")
    parser.add_argument("--box", nargs=4, type=float, action="append",
                        metavar=("X0", "Y0", "X1", "Y1"),
                        help="pixels in the first frame; again for a second hand")  # fmt: skip
    parser.add_argument("--detect", action="store_true", help="let MediaPipe find the boxes")
    parser.add_argument("--side", action="append", choices=("right", "left"), help="one for each")
    parser.add_argument("--focal", type=float, help="focal length in pixels, if you know it")
    parser.add_argument("--live", action="store_true", help="smooth forwards only, as live: lags")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    options = parser.parse_args(arguments)
    from hand_lib.inference.predictor import Predictor
    from hand_lib.workbook import ensure_run

    try:
        info = video_info(options.video)
        matrix = None
        if options.focal is not None:
            matrix = guessed_intrinsics(info.width, info.height)
            matrix[0, 0] = matrix[1, 1] = options.focal
        paths = process_video(
            Predictor.load(ensure_run(options.run)), options.video, options.folder,
            "detect" if options.detect else options.box, options.side, matrix,
            both_ways=not options.live, progress=not options.quiet,
        )  # fmt: skip
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2
    sys.stdout.write("".join(f"{path}\n" for path in paths.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
