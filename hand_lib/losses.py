"""Training losses, one function per term; metres and crop units, means over what is labelled."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .decoders import apply_rows, palm_frame
from .network import LossMesh


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms; the defaults belong to our network."""

    loss_vertices: float = 10.0  # L1 between vertices, metres
    loss_joints: float = 20.0  # between 3-D joints, metres
    joint_distance: str = "l1"  # "l1", or "squared" as Youtubehand has it
    loss_joints_2d: float = 1.0  # between 2-D joints, crop units
    loss_edges: float = 1.0  # L1 between edge lengths, metres
    loss_normals: float = 0.1  # cosine between predicted edges and true normals
    loss_levels: float = 5.0  # L1 between vertices of coarser levels, metres
    loss_canonical: float = 5.0  # L1 between vertices in the palm's frame, metres
    loss_rotation: float = 0.2  # L1 between entries of the palm's rotation


YOUTUBEHAND_LOSSES = LossConfig(1.0, 1.0, "squared", 0.1, 1.0, 0.1, 0.0, 0.0, 0.0)
"""Weights of Youtubehand's later revision (its run.py and options.py)."""


def total_loss(prediction, batch: dict, mesh: LossMesh, config=None) -> tuple[Tensor, dict]:
    """Weighted sum of all terms.

    prediction: what a network of ``build_network`` returns.
    batch: vertices (B, V, 3), joints (B, 21, 3) metres, wrist at the origin; joints_2d (B, 21, 2)
    crop units; has_vertices, has_joints (B,) and valid_2d (B, 21) bool: what is not labelled does
    not count.   mesh: faces and level matrices.   config: the weights (``LossConfig`` or alike).
    returns the total (scalar) and ``parts``, the un-weighted terms by name, detached.
    """
    config = config or LossConfig()
    vertices, joints = batch["vertices"], batch["joints"]
    _same("vertices", prediction.vertices, vertices)
    _same("joints", prediction.joints, joints)
    _same("joints_2d", prediction.joints_2d, batch["joints_2d"])
    has_vertices, has_joints = batch["has_vertices"], batch["has_joints"]
    zero = prediction.vertices.new_zeros(())
    terms = {
        "vertices": vertex_loss(prediction.vertices, vertices, has_vertices),
        "joints": joint_loss(prediction.joints, joints, has_joints, config.joint_distance),
        "joints_2d": joint_loss(
            prediction.joints_2d, batch["joints_2d"], batch["valid_2d"], config.joint_distance
        ),
        "edges": zero,
        "normals": zero,
        "levels": zero,
        "canonical": zero,
        "rotation": zero,
    }
    if prediction.joints_2d_direct is not None:
        terms["joints_2d"] = terms["joints_2d"] + joint_loss(
            prediction.joints_2d_direct,
            batch["joints_2d"],
            batch["valid_2d"],
            config.joint_distance,
        )
    if _weight(config, "loss_edges"):
        terms["edges"] = edge_loss(prediction.vertices, vertices, mesh.faces, has_vertices)
    if _weight(config, "loss_normals"):
        terms["normals"] = normal_loss(prediction.vertices, vertices, mesh.faces, has_vertices)
    if _weight(config, "loss_levels") and prediction.levels:
        truth = apply_rows(mesh.level_down, vertices)
        terms["levels"] = sum(
            vertex_loss(level, truth, has_vertices) for level in prediction.levels
        )
    if prediction.canonical is not None:
        frame = palm_frame(joints)
        truth = apply_rows(mesh.level_down, vertices) @ frame
        terms["canonical"] = vertex_loss(prediction.canonical, truth, has_vertices)
        terms["rotation"] = vertex_loss(prediction.rotation, frame, has_joints)
    total = sum(_weight(config, f"loss_{name}") * term for name, term in terms.items())
    return total, {name: term.detach() for name, term in terms.items()}


def _weight(config, name: str) -> float:
    """A config without a term's weight has the default one."""
    return getattr(config, name, getattr(LossConfig, name))


def vertex_loss(predicted: Tensor, true: Tensor, known: Tensor | None = None) -> Tensor:
    """mean |p - t| over coordinates.   (B, V, 3) each; known: (B,) bool leaves hands out."""
    return _mean((predicted - true).abs().mean((1, 2)), known)


def joint_loss(
    predicted: Tensor, true: Tensor, known: Tensor | None = None, distance: str = "l1"
) -> Tensor:
    """mean |p - t| ("l1") or mean (p - t)^2 ("squared") over coordinates of labelled joints.

    predicted, true: (B, 21, D).   known: (B,) or (B, 21) bool.
    """
    if distance not in ("l1", "squared"):
        raise ValueError(f"joint_distance should be 'l1' or 'squared', found {distance!r}")
    error = predicted - true
    error = (error.abs() if distance == "l1" else error.square()).mean(2)
    if known is not None and known.ndim == 1:
        known = known[:, None].expand_as(error)
    return _mean(error, known)


def edge_loss(
    predicted: Tensor, true: Tensor, faces: Tensor, known: Tensor | None = None
) -> Tensor:
    """mean over faces and their three edges of | |p_a - p_b| - |t_a - t_b| | (Wang et al. 2018).

    predicted, true: (B, V, 3) metres.   faces: (F, 3).
    """
    lengths = _edges(predicted, faces).square().sum(2).clamp_min(1e-16).sqrt()
    true_lengths = _edges(true, faces).square().sum(2).sqrt()
    return _mean((lengths - true_lengths).abs().mean((0, 1)), known)


def normal_loss(
    predicted: Tensor, true: Tensor, faces: Tensor, known: Tensor | None = None
) -> Tensor:
    """mean over faces and their three edges of |e . n|: unit predicted edge, unit true normal.

    predicted, true: (B, V, 3).   faces: (F, 3).   It is zero when each predicted face lies in the
    plane of the true one (Pixel2Mesh, Wang et al. 2018; Youtubehand's normal term).
    """
    edges = _edges(predicted, faces)
    edges = edges / edges.square().sum(2, keepdim=True).clamp_min(1e-16).sqrt()
    true_edges = _edges(true, faces)
    normals = torch.linalg.cross(true_edges[0], true_edges[1], dim=1)
    normals = normals / normals.square().sum(1, keepdim=True).clamp_min(1e-24).sqrt()
    return _mean((edges * normals).sum(2).abs().mean((0, 1)), known)


def _edges(vertices: Tensor, faces: Tensor) -> Tensor:
    """The edges ab, bc, ca of each face as vectors.   (B, V, 3) -> (3, F, 3, B), hands last."""
    a, b, c = vertices.permute(1, 2, 0).index_select(0, faces.T.reshape(-1)).chunk(3)
    return torch.stack([b - a, c - b, a - c])


def _mean(error: Tensor, known: Tensor | None) -> Tensor:
    """Mean of ``error`` where ``known``; zero (with a zero gradient) where nothing is known."""
    if known is None:
        return error.mean()
    if known.shape != error.shape:
        raise ValueError(f"expected flags {tuple(error.shape)}, found {tuple(known.shape)}")
    error = torch.where(known, error, torch.zeros_like(error))
    return error.sum() / known.sum().clamp_min(1)


def _same(name: str, predicted: Tensor, true: Tensor) -> None:
    if predicted.shape != true.shape:
        raise ValueError(
            f"{name}: the network predicts {tuple(predicted.shape)}, the batch holds "
            f"{tuple(true.shape)}; both should be (B, N, D) of the same mesh"
        )
