"""A predictor that knows the truth, with toy hands that it knows, for tests of the evaluation."""

from types import SimpleNamespace

import numpy as np
import torch

from hand_lib.data.sample import HandSample
from hand_lib.evaluation import runs as evaluation
from hand_lib.render.camera import pixels_to_crop, project


def toy_samples(model, count=6):
    """Labelled hands on grey pictures of 64 pixels, each turned and bent in its own way."""
    rng, found = np.random.default_rng(0), []
    intrinsics = np.array([[150.0, 0, 31.5], [0, 150, 31.5], [0, 0, 1]])
    pose = torch.zeros(count, 16, 3)
    pose[:, 0] = torch.from_numpy(rng.normal(size=(count, 3)))
    pose[:, 1:] = torch.from_numpy(rng.normal(size=(count, 15, 3)) * 0.15)
    with torch.no_grad():
        hand = model(pose)
    for n in range(count):
        wrist = hand.joints[n, :1]
        joints, vertices = (hand.joints[n] - wrist).numpy(), (hand.vertices[n] - wrist).numpy()
        root = np.array([0.0, 0.02, 0.6])
        found.append(
            HandSample(
                np.full((64, 64, 3), 10 * n, np.uint8), vertices=vertices, joints=joints,
                root=root, joints_2d=project(joints + root, intrinsics), intrinsics=intrinsics,
                dataset="toy", index=n,
            )
        )  # fmt: skip
    return found


def toy_set(samples, words="six toy hands"):
    return evaluation.TestSet("toy", samples, len(samples), words)


class KnowingPredictor:
    """Answers with the truth, which it tells by the grey of the picture, and a given error."""

    image_size, device = 64, "cpu"

    def __init__(self, model, samples, name="knowing", shift=0.0, jitter=0.0):
        self.network = SimpleNamespace(faces=model.faces)
        self.samples, self.name, self.shift, self.jitter = samples, name, shift, jitter

    def predict_crops(self, crops):
        assert crops.shape[1:] == (64, 64, 3)
        rng, rows = np.random.default_rng(1), [self.samples[c[0, 0, 0] // 10] for c in crops]
        noise = rng.normal(size=(len(rows), *rows[0].vertices.shape)) * self.jitter
        pixels = np.stack([row.joints_2d for row in rows])
        return {
            "vertices": np.stack([row.vertices for row in rows]) + noise + self.shift,
            "joints": np.stack([row.joints for row in rows]) + noise[:, :21] + self.shift,
            "joints_2d": pixels_to_crop(pixels, 64),
            "camera": np.zeros((len(rows), 3)),
        }
