"""Begin with the weights of another run: the same mesh, or another hand's.

A network learns hands on one mesh (the built-in one, say) and goes on with another (MANO's): the
encoder and the latent stay, and what it says of each vertex is carried over the surface.
"""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from hand_lib.training import checkpoints

MESH = ("regressor", "faces", "level_down", "decoder.mean", "decoder.mean_canonical")
"""Buffers of a network that are its mesh's, beside the matrices and spirals of its levels."""

_PER_VERTEX = {"decoder.coarse": "decoder.mean", "decoder.canonical": "decoder.mean_canonical"}


def start_from(network, run_folder) -> list[str]:
    """Fill a fresh network with the weights of a run, whose mesh may be another one.

    run_folder: name or folder of a run with the same backbone and decoder.
    returns the names of the weights that did not fit and stay fresh.
    raises ValueError where backbone or decoder differ, and what ``load_network`` raises.

    >>> start_from(build_network(config, hierarchy_of_mano), "runs/reference")
    []
    """
    from hand_lib.inference.predictor import load_network

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # another hand is what this is for
        source, config = load_network(checkpoints.run_folder(run_folder))
    fresh = carry_over(source, network)
    taken = len(network.state_dict()) - len(fresh)
    if len(fresh) > taken:
        raise ValueError(
            f"start_from={str(run_folder)!r}: its network ({config.backbone}, {config.decoder}) is "
            f"another one; {len(fresh)} weights do not fit, {fresh[0]} for instance"
        )
    return fresh


@torch.no_grad()
def carry_over(source, target) -> list[str]:
    """Copy weights between networks; returns the names in ``target`` that had nothing to take."""
    old, new = source.state_dict(), target.state_dict()
    over = None
    if "decoder.mean_canonical" in new and "decoder.mean_canonical" in old:
        over = affine_blend(*(s["decoder.mean_canonical"].double().numpy() for s in (old, new)))
        over = torch.from_numpy(over).float()
    fresh = []
    for name, value in new.items():
        if name in MESH or name.startswith("decoder.up") or name.endswith("spirals"):
            continue
        layer = name.rpartition(".")[0]
        if over is not None and layer in _PER_VERTEX:
            moved = torch.einsum("nm,mk->nk", over, old[name].reshape(len(over[0]), -1))
            moved = moved.reshape(-1, *old[name].shape[1:])
            if name.endswith("bias"):  # predictions are mean + 0.1 of what the layer says
                mean = _PER_VERTEX[layer]
                moved += 10 * (over @ old[mean] - new[mean]).flatten()
        elif over is not None and name == "decoder.vertex_embedding":
            moved = over @ old[name]
        else:
            moved = old.get(name)
        if moved is None or moved.shape != value.shape:
            fresh.append(name)
        else:
            value.copy_(moved)
    return fresh


def affine_blend(old: NDArray, new: NDArray, neighbours: int = 8) -> NDArray[np.float64]:
    """Matrix (N, M) that carries values at points ``old`` (M, 3) to points ``new`` (N, 3).

    Moving least squares of degree one (Levin 1998): affine functions of position, a rotation of
    the whole hand for instance, are carried exactly, and a point that stays keeps its value.

    >>> affine_blend(points, points) @ values          # values
    """
    old, new = np.asarray(old, np.float64), np.asarray(new, np.float64)
    distance, near = cKDTree(old).query(new, k=min(neighbours, len(old)))
    unit = distance.mean()
    weight = 1 / ((distance / unit) ** 2 + 1e-9)
    known = np.concatenate([np.ones((*near.shape, 1)), (old[near] - new[:, None]) / unit], 2)
    weighted = known * weight[..., None]
    gram = np.swapaxes(known, 1, 2) @ weighted
    gram += 1e-6 * np.diag([0, 1, 1, 1]) * weight.sum(1)[:, None, None]
    at = np.zeros((len(new), 4, 1))
    at[:, 0] = 1  # the point itself is the origin of its neighbours' coordinates
    blend = np.zeros((len(new), len(old)))
    np.put_along_axis(blend, near, (weighted @ np.linalg.solve(gram, at))[..., 0], axis=1)
    return blend
