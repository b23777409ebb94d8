"""A moving hand for videos: one synthetic scene whose hand travels, turns and changes gesture.

>>> clip = MovingHand(size=256, seed=1, count=60, fps=30.0)
>>> clip[0].image.shape, clip.times[-1]        # a sample per frame, all labels as in SyntheticHands
((256, 256, 3), 1.966...)
"""

import numpy as np
from numpy.typing import NDArray

from hand_lib.data.synthetic.config import Draws
from hand_lib.data.synthetic.draw import draw_parameters, rotations_from, vectors_from
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.data.synthetic.scene import make_scratch, place_parts
from hand_lib.hand.poses import GESTURES

CLEAR = {"occluder": 0.0, "object_in_hand": 0.0, "second_hand": 0.0, "truncated": 0.0}
MARGIN = 1.25
"""Side of the picture over the side of the square that all frames' joints lie in."""


class MovingHand(SyntheticHands):
    """A clip: frame n is sample n, seen by one camera that does not move.

    size: side of the frames in pixels.   seed: which clip.   count: frames.   fps: per second.
    speed: 1 changes the gesture about once a second; 0 keeps the hand still.
    knobs: fields of ``SyntheticConfig``; by default nothing hides the hand.
    """

    def __init__(
        self, size: int = 256, seed: int = 0, count: int = 90, fps: float = 30.0,
        speed: float = 1.0, **knobs,
    ):  # fmt: skip
        super().__init__(size, seed, count, split="clip", **{**CLEAR, **knobs})
        if not (fps > 0 and speed >= 0):
            raise ValueError(f"fps should be positive and speed not negative, found {fps}, {speed}")
        self.fps, self.speed = float(fps), float(speed)
        self._frames = self._make()

    @property
    def times(self) -> NDArray:
        """(T,) seconds."""
        return np.arange(self.count) / self.fps

    def parameters(self, indices, epochs=0) -> NDArray:
        """The numbers that the frames are made of, (B,) of ``PARAMETERS``."""
        return self._frames[self._check(indices)].copy()

    def _make(self):
        draws = Draws(self.seed, [0])
        first = draw_parameters(self.config, self.seed, np.array([0]), self.size, self.banks)
        out = np.repeat(first, self.count)
        out["index"] = np.arange(self.count)
        way = self.times * self.speed
        out["pose"][:, 1:] = _between_gestures(draws, way)[:, 1:]
        turn = _wander(draws, "turn", way, 3) * np.deg2rad([16, 22, 16])
        start = rotations_from(first["pose"][:, 0])
        out["pose"][:, 0] = vectors_from(rotations_from(turn) @ start)
        out["off_axis"] = 0.10 * _wander(draws, "place", way, 2)
        out["distance"] = first["distance"] * np.exp(0.12 * _wander(draws, "near", way, 1)[:, 0])
        grain = Draws(self.seed, np.arange(self.count)).whole("grain", 4096, 2)
        out["camera"][:, 9:11] = grain
        return self._hold_camera(out)

    def _hold_camera(self, out):
        """Framing and shift that undo each frame's own aim: one focal length and centre for all."""
        banks, scratch = self.banks, make_scratch(self.banks.layout, self.size)
        joints, spare = np.empty((21, 3), np.float32), np.empty((21, 3), np.float32)
        root, view = np.empty(3, np.float32), np.empty(3, np.float32)
        out["framing"], out["shift"] = 1.0, 0.0
        aims = np.empty((len(out), 3))
        for frame, aim in zip(out, aims, strict=True):
            place_parts(frame, banks.body, banks.layout, scratch, joints, spare, root, view)
            aim[:] = view
        side = self.size / aims[:, 0]  # of the joints' bounding square, tangents
        middle = ((self.size - 1) / 2 - aims[:, 1:]) / aims[:, :1]
        low = (middle - side[:, None] / 2).min(axis=0)
        high = (middle + side[:, None] / 2).max(axis=0)
        seen = MARGIN * (high - low).max()
        out["framing"] = seen / side
        out["shift"] = (middle - (low + high) / 2) / seen
        return out


def _wander(draws, purpose, way, count):
    """Smooth curves (T, count) of spread about 1: three slow waves each."""
    u = draws.uniform("clip-" + purpose, 3 * count)[0].reshape(3, count)
    rates = np.array([0.17, 0.31, 0.53])[:, None]
    waves = np.sin(2 * np.pi * (way[:, None, None] * rates + u))
    return (waves * np.array([0.9, 0.7, 0.4])[:, None]).sum(axis=1) / 1.2


def _between_gestures(draws, way):
    """Poses (T, 16, 3): half a second from one named gesture to the next, half a second there."""
    stops = int(np.floor(way[-1])) + 2
    table = np.stack(list(GESTURES.values()))
    picks = draws.whole("clip-gestures", len(table), stops + 1)[0]
    at = np.minimum(way.astype(int), stops - 1)
    part = np.clip((way - at) * 2, 0, 1)
    part = (part * part * (3 - 2 * part))[:, None, None]
    return table[picks[at]] * (1 - part) + table[picks[at + 1]] * part
