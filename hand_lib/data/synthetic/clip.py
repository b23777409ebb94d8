"""A clip of one synthetic hand, which travels, turns and changes its gesture."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from hand_lib.data.synthetic.draw import sample_parameters
from hand_lib.data.synthetic.hands import CLEAR, SyntheticHands
from hand_lib.data.synthetic.scene import aim
from hand_lib.hand.poses import GESTURES


class MovingHand(SyntheticHands):
    """A clip: frame n is sample n, one hand that travels, turns and changes its gesture.

    The camera does not move.   size: side of the frames in pixels.   seed: which clip.   count:
    frames.   fps: per second.   speed: 1 changes the gesture about once a second; 0 keeps the hand
    still.   knobs: fields of ``SyntheticConfig``; by default nothing hides the hand.

    >>> clip = MovingHand(size=256, seed=1, count=60, fps=30.0)
    >>> clip[0].image.shape, clip.times[-1]    # a sample per frame, labels as in SyntheticHands
    ((256, 256, 3), 1.966...)
    """

    MARGIN = 1.25  # side of the picture over the side of the square that all joints lie in

    def __init__(
        self, size: int = 256, seed: int = 0, count: int = 90, fps: float = 30.0,
        speed: float = 1.0, **knobs,
    ):  # fmt: skip
        super().__init__(size, seed, count, split="clip", **{**CLEAR, **knobs})
        if not (fps > 0 and speed >= 0):
            raise ValueError(f"fps should be positive and speed not negative, found {fps}, {speed}")
        self.fps = float(fps)
        self._frames = self._make(self.times * speed)

    @property
    def times(self) -> NDArray:
        """(T,) seconds."""
        return np.arange(self.count) / self.fps

    def parameters(self, indices, epochs=0) -> NDArray:
        """The numbers that the frames are made of, (B,) of ``PARAMETERS``."""
        return self._frames[self._check(indices)].copy()

    def _make(self, way):
        rng = np.random.default_rng([self.seed, 5])
        first = sample_parameters(self.config, self.seed, [0], self.size, self.banks)
        out = np.repeat(first, self.count)
        out["index"] = np.arange(self.count)
        out["pose"] = _between_gestures(rng, way)
        turn = Rotation.from_rotvec(_wander(rng, way, 3) * np.deg2rad([16, 22, 16])).as_matrix()
        out["frame"] = turn @ first["frame"][0].astype(float)
        out["pose"][:, 0] = Rotation.from_matrix(out["frame"] @ self.banks.axes.T).as_rotvec()
        out["off_axis"] = 0.10 * _wander(rng, way, 2)
        out["distance"] = first["distance"] * np.exp(0.12 * _wander(rng, way, 1)[:, 0])
        for name in ("grain_u", "grain_v"):
            out["camera"][name] = rng.integers(0, 4096, self.count)
        # framing and shift that undo each frame's own aim: one focal length and centre for all
        out["framing"], out["shift"] = 1.0, 0.0
        aims, root = np.empty((self.count, 3), np.float32), np.empty(3, np.float32)
        for frame, joints, lens in zip(out, self.posed(out).joints, aims, strict=True):
            aim(frame, joints, self.size, root, lens)
        aims = aims.astype(float)
        side = self.size / aims[:, :1]  # of the joints' bounding square, tangents
        middle = ((self.size - 1) / 2 - aims[:, 1:]) / aims[:, :1]
        low, high = (middle - side / 2).min(axis=0), (middle + side / 2).max(axis=0)
        seen = self.MARGIN * (high - low).max()
        out["framing"], out["shift"] = seen / side[:, 0], (middle - (low + high) / 2) / seen
        return out


def _wander(rng, way, count):
    """Smooth curves (T, count) of spread about 1: three slow waves each."""
    rates = np.array([0.17, 0.31, 0.53])[:, None]
    waves = np.sin(2 * np.pi * (way[:, None, None] * rates + rng.random((3, count))))
    return (waves * np.array([0.9, 0.7, 0.4])[:, None]).sum(axis=1) / 1.2


def _between_gestures(rng, way):
    """Poses (T, 16, 3): half a second from one named gesture to the next, half a second there."""
    stops = int(np.floor(way[-1])) + 2
    table = np.stack(list(GESTURES.values()))
    picks = rng.integers(0, len(table), stops + 1)
    at = np.minimum(way.astype(int), stops - 1)
    part = np.clip((way - at) * 2, 0, 1)
    part = (part * part * (3 - 2 * part))[:, None, None]
    return table[picks[at]] * (1 - part) + table[picks[at + 1]] * part
