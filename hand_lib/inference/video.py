"""A video in; an overlay video and a smoothed mesh sequence out.

    python -m hand_lib.inference.video in.mp4 out --run runs/reference --box 120 80 360 330

``in.mp4`` may be a folder of pictures too. Each hand is followed from frame to frame: the box of a
frame comes from the joints of the one before. Then the sequence is smoothed by One-Euro filters run
forwards and backwards, which has no lag; ``both_ways=False`` shows what a live filter would.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hand_lib.files import find_run, write_json
from hand_lib.inference.export import MESH_FORMATS, save_hands, save_sequence
from hand_lib.inference.frames import Frames, write_video
from hand_lib.inference.predictor import Predictor
from hand_lib.render.camera import solve_translation
from hand_lib.render.render import PREDICTION, draw_meshes

ROUNDS, PATIENCE = 4, 10
"""Looks at the first frame, each into the box that the last one found; doubtful frames in a row
after which a lone hand is looked for in the whole picture again."""

JOINTS_MARGIN = 0.06
"""Flesh around the outermost joints, over the longer side of their box."""

FOLLOWING = 0.3
"""Share of a change of size that the next box takes over; with 1.0 one bad frame loses the hand."""

EVERY_FRAME = ("vertices", "joints", "joints_2d", "translation", "confidence", "doubtful")
"""What a ``HandSequence`` holds of every frame."""


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
    times: np.ndarray  # (T,) seconds, the container's own
    intrinsics: np.ndarray  # (3, 3) pixels
    assumed_intrinsics: bool
    side: str


def follow_hands(
    predictor, video, boxes=None, sides=None, intrinsics=None, fps=None, progress=True,
    keypoints=None,
) -> list[HandSequence]:  # fmt: skip
    """The hands of a video, frame by frame: held by key points where there are some.

    video: whatever ``Frames`` takes, or a ``Frames``.   boxes, sides: of the first frame, as in
    ``Predictor.predict``; None: the network finds them, or looks ever closer at one right hand.
    intrinsics: as there.   fps: of pictures without times.   progress: show a bar.
    keypoints: for each frame what ``Predictor.predict`` takes, None where there is none; "detect":
    MediaPipe's in every frame, which boxes="detect" brings too. A hand without any is looked for
    where its last mesh was.
    returns a ``HandSequence`` for each box. A hand in doubt is looked for where it was last; one
    that was not given a box is looked for anywhere after ``PATIENCE`` frames.
    """
    frames = video if isinstance(video, Frames) else Frames(video, fps)
    tracks, absent = [], []
    if keypoints is None and isinstance(boxes, str) and boxes == "detect":
        keypoints = boxes
    for n, frame in enumerate(tqdm(frames, "following", len(frames), disable=not progress)):
        if n == 0:
            first = _first_look(predictor, frame, boxes, sides, intrinsics)
            places, sides = [h.box for h in first], [h.side for h in first]
            if not places:
                raise ValueError("no hand was found in the first frame; give its box")
            assumed, intrinsics = first[0].assumed_intrinsics, first[0].intrinsics  # for all frames
        elif boxes is None and len(absent) >= PATIENCE:
            if all(absent[-PATIENCE:]) and len(places) == 1 and n % PATIENCE == 0:
                again = _first_look(predictor, frame, None, sides, intrinsics)
                places = [hand.box for hand in again] or places
        points = keypoints[n] if isinstance(keypoints, list) else keypoints
        hands = predictor.predict(frame, places, sides, intrinsics, points)
        tracks = tracks or [_empty_sequence(hand, frames.times, assumed) for hand in hands]
        for track, hand in zip(tracks, hands, strict=True):
            for name in EVERY_FRAME:
                getattr(track, name)[n] = getattr(hand, name)
        absent.append(all(hand.absent for hand in hands))
        places = [
            old if hand.absent else _next_box(hand.joints_2d, old, frame.shape, FOLLOWING)
            for hand, old in zip(hands, places, strict=True)
        ]
    if not tracks:
        raise ValueError("the video has no frames")
    return tracks


def _first_look(predictor, frame, boxes, sides, intrinsics):
    """Hands of the first frame; without boxes look again and again into what was found."""
    hands = predictor.predict(frame, boxes, sides, intrinsics)
    for _ in range(ROUNDS if hands and hands[0].box_from == "whole" else 0):
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


def _empty_sequence(hand, times, assumed: bool) -> HandSequence:
    """A hand's sequence, to be filled: what would be kept frame by frame would leave holes between
    the frames, in which the next one has no room, and memory would grow by a picture a frame."""
    kinds = {"vertices": np.float32, "doubtful": bool}
    return HandSequence(
        **{name: np.empty((len(times), *np.shape(getattr(hand, name))), kinds.get(name, float))
           for name in EVERY_FRAME},
        **{name: getattr(hand, name) for name in ("faces", "intrinsics", "side")},
        assumed_intrinsics=assumed,
        times=np.asarray(times, float),
    )  # fmt: skip


@dataclass(frozen=True)
class OneEuro:
    """Knobs of the One-Euro filter (Casiez, Roussel and Vogel, CHI 2012).

    A hand at rest is filtered with ``min_cutoff_hz``; each m/s of speed adds ``beta`` Hz, so a fast
    hand is followed at once. At rest the causal filter lags by 1 / (2 pi min_cutoff_hz) seconds.
    """

    min_cutoff_hz: float = 1.2  # at rest: lower is steadier and lags more
    beta: float = 14.0  # Hz per m/s: higher follows fast motion sooner
    speed_cutoff_hz: float = 1.5  # of the low-pass through which speed is measured

    def __post_init__(self):
        if not (self.min_cutoff_hz > 0 and self.beta >= 0 and self.speed_cutoff_hz > 0):
            raise ValueError(f"cutoffs should be positive and beta not negative, found {self}")

    @property
    def lag_at_rest_s(self) -> float:
        """Group delay of the causal filter for slow motion, seconds."""
        return 1 / (2 * np.pi * self.min_cutoff_hz)


def smooth(points, times, settings: OneEuro | None = None, both_ways: bool = True) -> np.ndarray:
    """A whole sequence smoothed.

    points: (T, N, 2 or 3) metres.   times: (T,) seconds, increasing.   both_ways: the mean of a
    pass forwards and one backwards, whose lags cancel; False: what a live filter would show.
    returns (T, N, 2 or 3).
    """
    points, times = np.asarray(points), np.asarray(times, float)
    if points.ndim != 3 or times.shape != points.shape[:1]:
        raise ValueError(
            f"expected points (T, N, 2 or 3) and times (T,), found {points.shape}, {times.shape}"
        )
    if (np.diff(times) <= 0).any():
        frame = int(np.argmax(np.diff(times) <= 0)) + 1
        raise ValueError(f"times should increase, frame {frame} does not come after the last")
    settings = settings or OneEuro()
    steady = np.empty(points.shape, np.result_type(points, np.float32))
    for n, frame in enumerate(_one_euro(points, times, settings)):
        steady[n] = frame
    if both_ways:
        for n, frame in enumerate(_one_euro(points[::-1], -times[::-1], settings), 1):
            steady[-n] = (steady[-n] + frame) / 2
    return steady


def _one_euro(points, times, settings: OneEuro) -> Iterable[np.ndarray]:
    """The causal filter, frame by frame. All points of a frame share one cutoff, from their mean
    speed, so that a mesh stays a blend of meshes and is not torn."""

    def weight(cutoff_hz, step):  # of the new value in a first-order low-pass
        turn = 2 * np.pi * cutoff_hz * step
        return turn / (1 + turn)

    yield from points[:1]
    smoothed, velocity = points[:1].astype(float), 0.0
    for point, step in zip(points[1:], np.diff(times), strict=False):
        change = point - smoothed
        velocity = velocity + weight(settings.speed_cutoff_hz, step) * (change / step - velocity)
        speed = np.linalg.norm(velocity, axis=-1).mean()
        cutoff = settings.min_cutoff_hz + settings.beta * speed
        smoothed = smoothed + weight(cutoff, step) * change
        yield smoothed[0]


def jitter(points, times) -> float:
    """Restlessness of a sequence: root mean square acceleration of its points.

    points: (T, N, 2 or 3) metres.   times: (T,) seconds, ascending.   returns m/s^2.
    """
    steps = np.diff(times)[:, None, None]
    speed = np.diff(np.asarray(points, float), axis=0) / steps
    bend = np.diff(speed, axis=0) / ((steps[1:] + steps[:-1]) / 2)
    return float(np.sqrt((bend**2).sum(axis=-1).mean()))


def smooth_sequence(
    sequence: HandSequence, settings: OneEuro | None = None, both_ways: bool = True
) -> HandSequence:
    """The sequence with steady vertices, joints and places; see ``smooth``.

    Vertices and joints are filtered together, 2-D joints in the metres that a pixel spans at the
    hand's distance; the place in space then follows from both.
    """
    joined = np.concatenate([sequence.vertices, sequence.joints], axis=1, dtype=np.float32)
    joined = smooth(joined, sequence.times, settings, both_ways)
    vertices, joints = np.split(joined, [sequence.vertices.shape[1]], axis=1)
    metres = np.median(sequence.translation[:, 2]) / sequence.intrinsics[0, 0]
    flat = smooth(sequence.joints_2d * metres, sequence.times, settings, both_ways) / metres
    place = solve_translation(joints, flat, sequence.intrinsics)
    return replace(sequence, vertices=vertices, joints=joints, joints_2d=flat, translation=place)


def overlay_frames(video, sequences, progress: bool = True) -> Iterable[np.ndarray]:
    """The frames of a video with the meshes of all sequences drawn over them.

    Frames on which a hand is doubtful show it pale.
    """
    frames = video if isinstance(video, Frames) else Frames(video)
    count = min(len(frames), len(sequences[0].times))
    for n in tqdm(range(count), "drawing", disable=not progress):
        frame = frames[n]
        for s in sequences:
            alpha = 0.35 if s.doubtful[n] else 0.85
            place = s.vertices[n] + s.translation[n]
            frame = draw_meshes(frame, place, s.faces, s.intrinsics, alpha=alpha)
        yield frame


def process_video(
    predictor, video, folder, boxes=None, sides=None, intrinsics=None, both_ways=True, meshes="",
    progress=True,
) -> dict[str, Path]:  # fmt: skip
    """A video in; overlay video, arrays and a report out, and one mesh file per frame if wanted.

    folder: where they go, made if need be.   meshes: "" or the kind of the mesh files, such as
    "ply": all hands of a frame where they stand, in the camera's frame.   the other arguments: as
    in ``follow_hands`` and ``smooth_sequence``.   returns name -> path: "overlay" (.mp4), for each
    hand "arrays" (.npz), "report" (.json), "meshes" (a folder); a second hand's end in "_2".
    """
    if meshes and f".{meshes}" not in MESH_FORMATS:
        raise ValueError(f"meshes should be one of {', '.join(MESH_FORMATS)}, found {meshes!r}")
    folder, frames = Path(folder), video if isinstance(video, Frames) else Frames(video)
    raw = follow_hands(predictor, frames, boxes, sides, intrinsics, progress=progress)
    steady = [smooth_sequence(s, both_ways=both_ways) for s in raw]
    drawn = overlay_frames(frames, steady, progress)
    paths = {"overlay": write_video(folder / "overlay.mp4", drawn, frames.fps, frames.times)}
    hands = []
    for n, (before, after) in enumerate(zip(raw, steady, strict=True)):
        tail = f"_{n + 1}" if n else ""
        paths["arrays" + tail] = save_sequence(folder / f"meshes{tail}.npz", after)
        shaking = [jitter(s.joints, s.times) if len(s.times) > 2 else None for s in (before, after)]
        known = np.isfinite(after.confidence).any()
        hands.append({
            "side": after.side,
            "frames": len(after.times),
            "seconds": round(float(after.times[-1]), 4),
            "lag_at_rest_s": 0.0 if both_ways else round(OneEuro().lag_at_rest_s, 4),
            "jitter_before_m_s2": shaking[0],
            "jitter_after_m_s2": shaking[1],
            "confidence_median": round(float(np.nanmedian(after.confidence)), 3) if known else None,
            "doubtful_frames": int(after.doubtful.sum()),
            "intrinsics_assumed": after.assumed_intrinsics,
            "intrinsics_px": after.intrinsics.tolist(),
        })  # fmt: skip
    if meshes:
        paths["meshes"] = folder / "meshes"
        for n in tqdm(range(len(frames)), "meshes", disable=not progress):
            pairs = [(s.vertices[n] + s.translation[n], s.faces) for s in steady]
            save_hands(folder / "meshes" / f"{n:06d}.{meshes}", pairs, PREDICTION)
    write_json(folder / "report.json", {"hands": hands})
    return paths | {"report": folder / "report.json"}


def main(arguments=None) -> int:
    """The command line; the exit code is 0, or 2 for a request that cannot be met."""
    parser = argparse.ArgumentParser(prog="python -m hand_lib.inference.video", description=__doc__)
    parser.add_argument("video", help="any video that FFmpeg can read, or a folder of pictures")
    parser.add_argument("folder", help="where the results go")
    parser.add_argument("--run", default="reference", help="name or folder of a run")
    parser.add_argument("--box", nargs=4, type=float, action="append",
                        metavar=("X0", "Y0", "X1", "Y1"),
                        help="pixels in the first frame; again for a second hand")  # fmt: skip
    parser.add_argument("--detect", action="store_true", help="by MediaPipe, key points too")
    parser.add_argument("--side", action="append", choices=("right", "left"), help="one for each")
    parser.add_argument("--focal", type=float, help="focal length in pixels, if you know it")
    parser.add_argument("--fps", type=float, help="pictures a second of a folder")
    parser.add_argument("--live", action="store_true", help="smooth forwards only, as live: lags")
    parser.add_argument("--meshes", default="", choices=[kind[1:] for kind in MESH_FORMATS],
                        help="also one mesh file for each frame")  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    given = parser.parse_args(arguments)
    try:
        frames = Frames(given.video, given.fps)
        paths = process_video(
            Predictor.load(find_run(given.run)), frames, given.folder,
            "detect" if given.detect else given.box, given.side, given.focal,
            both_ways=not given.live, meshes=given.meshes, progress=not given.quiet,
        )  # fmt: skip
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2
    sys.stdout.write("".join(f"{path}\n" for path in paths.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
