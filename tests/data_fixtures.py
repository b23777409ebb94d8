"""Tiny data sets for tests of readers, writers and loaders: hands that differ, no downloads."""

import json

import cv2
import numpy as np

from hand_lib.camera import project
from hand_lib.sample import make_sample


def hand_points(rng, count=778):
    """Joints (21, 3) and vertices (count, 3), metres, wrist at the origin; every joint differs."""
    fingers = np.arange(21)[:, None] * np.array([[0.004, 0.003, 0.001]])
    joints = fingers + rng.normal(size=(21, 3)) * 0.01
    joints[0] = 0
    vertices = rng.normal(size=(count, 3)) * 0.03
    return joints.astype(np.float32), vertices.astype(np.float32)


def smooth_image(rng, size=224):
    """A picture that survives JPEG: (size, size, 3) uint8."""
    noise = rng.uniform(0, 255, (size // 16, size // 16, 3)).astype(np.float32)
    return cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(
        np.uint8
    )


def make_hand(seed, size=224, with_pose=True, **fields):
    """A labelled hand whose intrinsics, place and joints all differ from its neighbour's."""
    rng = np.random.default_rng(seed)
    joints, vertices = hand_points(rng)
    focal = rng.uniform(366, 1131) * size / 224
    center = np.array([rng.uniform(107, 194), rng.uniform(80, 119)]) * size / 224
    intrinsics = np.array([[focal, 0, center[0]], [0, focal * 1.01, center[1]], [0, 0, 1]])
    root = np.array([rng.uniform(-0.02, 0.02), rng.uniform(-0.02, 0.02), rng.uniform(0.6, 0.9)])
    fields = {
        "joints": joints, "vertices": vertices, "root": root, "intrinsics": intrinsics,
        "joints_2d": project(joints + root, intrinsics), "dataset": "fixture", "split": "training",
        "index": seed,
    } | fields  # fmt: skip
    if with_pose:
        fields |= {"pose": rng.normal(size=48) * 0.3, "betas": rng.normal(size=10)}
    return make_sample(smooth_image(rng, size), **fields)


def write_freihand_fixture(folder, unique=3, versions=4, size=224, masks=True):
    """FreiHAND's training layout written independently of the library's writer."""
    (folder / "training" / "rgb").mkdir(parents=True)
    (folder / "training" / "mask").mkdir()
    lists = {"K": [], "xyz": [], "verts": [], "mano": [], "scale": []}
    for index in range(unique):
        hand = make_hand(index, size)
        xyz = hand.joints.astype(float) + hand.root
        lists["K"].append(hand.intrinsics.tolist())
        lists["xyz"].append(xyz.tolist())
        lists["verts"].append((hand.vertices.astype(float) + hand.root).tolist())
        lists["scale"].append(float(np.linalg.norm(xyz[9] - xyz[10])))
        lists["mano"].append([[*hand.pose.tolist(), *hand.betas.tolist(), 100.0, 90.0, 650.0]])
        for version in range(versions):
            number = index + version * unique
            grey = np.full((size, size, 3), (40 * version + 10 * index) % 256, np.uint8)
            picture = hand.image if version == 0 else grey
            cv2.imwrite(str(folder / "training" / "rgb" / f"{number:08d}.jpg"), picture[:, :, ::-1])
        if masks:
            mask = np.zeros((size, size, 3), np.uint8)
            mask[20 : 60 + index] = 255
            cv2.imwrite(str(folder / "training" / "mask" / f"{index:08d}.jpg"), mask)
    for name, values in lists.items():
        (folder / f"training_{name}.json").write_text(json.dumps(values))
    return folder
