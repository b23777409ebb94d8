"""Accepted fits as labelled samples: for ``write_freihand``, or as YouTube 3D Hands' JSON."""

import json
from pathlib import Path

import numpy as np
import torch

from hand_lib.data.sample import make_sample
from hand_lib.hand.model import mirror_pose


def fitted_hand(model, fit, rows):
    """Vertices (N, V, 3) and joints (N, 21, 3), metres, camera axes, of some rows of a fit."""
    kind = model.template
    parts = (fit.pose[rows], fit.betas[rows], fit.translation[rows])
    with torch.no_grad():
        hand = model(*(torch.as_tensor(x, dtype=kind.dtype, device=kind.device) for x in parts))
    return hand.vertices.cpu().numpy(), hand.joints.cpu().numpy()


def fit_samples(model, fit, images, dataset="fitted", split="training", names=None):
    """Yield a right-handed ``HandSample`` per accepted hand, ready for ``write_freihand``.

    images: B pictures (H, W, 3) uint8 RGB, one per row of the fit.   names: B keys or None.
    A left hand is mirrored, picture and all. The pose counts from the model's own mean pose.
    """
    if len(images) != len(fit.accepted):
        raise ValueError(f"expected {len(fit.accepted)} images, found {len(images)}")
    for index in np.flatnonzero(fit.accepted):
        vertices, joints = (x[0] for x in fitted_hand(model, fit, [index]))
        image, pose = np.asarray(images[index]), fit.pose[index]
        camera, flat = fit.intrinsics[index].copy(), fit.joints_2d[index].copy()
        if model.side == "left":
            last = image.shape[1] - 1
            image, pose = np.ascontiguousarray(image[:, ::-1]), mirror_pose(pose)
            vertices, joints = vertices * (-1, 1, 1), joints * (-1, 1, 1)
            camera[0, 2], flat[:, 0] = last - camera[0, 2], last - flat[:, 0]
        yield make_sample(
            image, vertices=vertices - joints[0], joints=joints - joints[0], root=joints[0],
            joints_2d=flat, intrinsics=camera, pose=pose.reshape(48), betas=fit.betas[index],
            dataset=dataset, split=split, index=int(index), key=names[index] if names else "",
        )  # fmt: skip


def write_youtube(path, model, fit, names, sizes) -> Path:
    """Write accepted fits as ``youtube_*.json``: meshes in pixels of the frame, z on their scale.

    names: B frame names as the file's ``name``.   sizes: B (width, height).
    model: one ``HandModel``, or B of them.
    z counts from the wrist, times std(x in pixels) / std(x), as the authors do.
    """
    models = list(model) if isinstance(model, list | tuple) else [model] * len(fit.accepted)
    rows = np.flatnonzero(fit.accepted)
    if len(names) != len(fit.accepted) or len(sizes) != len(fit.accepted):
        raise ValueError(f"expected {len(fit.accepted)} names and sizes, found {len(names)}")
    images, annotations, known = [], [], {}
    for index in rows:
        vertices, joints = (x[0].astype(float) for x in fitted_hand(models[index], fit, [index]))
        pixels = vertices @ fit.intrinsics[index].T
        pixels = pixels[:, :2] / pixels[:, 2:]
        scale = pixels[:, 0].std() / vertices[:, 0].std()
        mesh = np.concatenate([pixels, (vertices[:, 2:] - joints[0, 2]) * scale], 1)
        if names[index] not in known:
            known[names[index]] = len(images)
            width, height = (int(n) for n in sizes[index])
            images.append(
                {"name": names[index], "width": width, "height": height, "id": len(images)}
            )
        annotations.append(
            {
                "vertices": np.round(mesh, 3).tolist(),
                "is_left": int(models[index].side == "left"),
                "image_id": known[names[index]],
                "id": len(annotations),
            }
        )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path
