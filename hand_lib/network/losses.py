"""Training losses, one function per term; metres and crop units, means over what is labelled."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakTensorKeyDictionary

from hand_lib.network.coarse_to_fine import palm_frame
from hand_lib.network.decoders import apply_rows
from hand_lib.network.heads import heat_loss, surface_loss
from hand_lib.network.model import LossMesh


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
    loss_heat: float = 0.05  # cross entropy of the heat maps of the joints
    loss_surface: float = 0.5  # of the surface maps: cross entropy, and L1 in units of 5 cm


YOUTUBEHAND_LOSSES = LossConfig(1.0, 1.0, "squared", 0.1, 1.0, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0)
"""Weights of Youtubehand's later revision (its run.py and options.py)."""


def total_loss(prediction, batch: dict, mesh: LossMesh, config=None) -> tuple[Tensor, dict]:
    """Weighted sum of all terms; 3-D joints count from the wrist, as Youtubehand has it.

    prediction: what a network of ``build_network`` returns.
    batch: vertices (B, V, 3), joints (B, 21, 3) metres, wrist at the origin; joints_2d (B, 21, 2)
    crop units; has_vertices, has_joints (B,) and valid_2d (B, 21) bool: what is not labelled does
    not count; surface (B, 4, n, n), if it is there, as ``SurfaceMaps`` draws it.
    mesh: faces and level matrices.   config: the weights (``LossConfig`` or alike).
    returns the total (scalar) and ``parts``, the un-weighted terms by name, detached.
    """
    config = config or LossConfig()
    vertices, joints = batch["vertices"], batch["joints"]
    _same("vertices", prediction.vertices, vertices)
    _same("joints", prediction.joints, joints)
    _same("joints_2d", prediction.joints_2d, batch["joints_2d"])
    has_vertices, has_joints = batch["has_vertices"], batch["has_joints"]
    zero = prediction.vertices.new_zeros(())
    from_wrist = prediction.joints - prediction.joints[:, :1]
    terms = {
        "vertices": vertex_loss(prediction.vertices, vertices, has_vertices),
        "joints": joint_loss(from_wrist, joints, has_joints, config.joint_distance),
        "joints_2d": joint_loss(
            prediction.joints_2d, batch["joints_2d"], batch["valid_2d"], config.joint_distance
        ),
        "edges": zero,
        "normals": zero,
        "levels": zero,
        "canonical": zero,
        "rotation": zero,
        "heat": zero,
        "surface": zero,
    }
    if prediction.joints_2d_direct is not None:
        terms["joints_2d"] = terms["joints_2d"] + joint_loss(
            prediction.joints_2d_direct,
            batch["joints_2d"],
            batch["valid_2d"],
            config.joint_distance,
        )
    if _weight(config, "loss_edges") or _weight(config, "loss_normals"):
        surface = surface_errors(prediction.vertices, vertices, mesh.faces)
        terms["edges"], terms["normals"] = (_mean(error, has_vertices) for error in surface)
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
    if prediction.heat is not None:
        terms["heat"] = heat_loss(prediction.heat, batch["joints_2d"], batch["valid_2d"])
    if prediction.surface is not None and "surface" in batch:
        terms["surface"] = surface_loss(prediction.surface, batch["surface"].float())
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

    predicted, true: (B, V, 3) metres.   faces: (F, 3).   An edge of two faces counts twice.
    """
    return _mean(surface_errors(predicted, true, faces)[0], known)


def normal_loss(
    predicted: Tensor, true: Tensor, faces: Tensor, known: Tensor | None = None
) -> Tensor:
    """mean over faces and their three edges of |e . n|: unit predicted edge, unit true normal.

    predicted, true: (B, V, 3).   faces: (F, 3).   It is zero when each predicted face lies in the
    plane of the true one (Pixel2Mesh, Wang et al. 2018; Youtubehand's normal term).
    """
    return _mean(surface_errors(predicted, true, faces)[1], known)


def surface_errors(predicted: Tensor, true: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """What ``edge_loss`` and ``normal_loss`` are means of, for each hand: (B,) and (B,).

    predicted, true: (B, V, 3) metres.   faces: (F, 3).
    """
    return _SurfaceErrors.apply(predicted, true, *mesh_edges(faces), faces)


def mesh_edges(faces: Tensor) -> tuple[Tensor, Tensor]:
    """Every edge once: its ends (2, E), and the faces it belongs to (N, E).

    faces: (F, 3).   N: the most faces that share an edge, two on a surface; an edge of fewer faces
    has F, which is no face, in the places left over.
    """
    known = _EDGES.get(faces)
    if known and known[0] == faces._version:
        return known[1]
    first, second = faces.T.flatten(), faces.roll(-1, 1).T.flatten()
    count = int(faces.max()) + 1
    key = torch.minimum(first, second) * count + torch.maximum(first, second)
    key, edge, shared = torch.unique(key, return_inverse=True, return_counts=True)
    order = edge.argsort(stable=True)
    turn = torch.arange(len(edge), device=faces.device) - (shared.cumsum(0) - shared)[edge[order]]
    sides = faces.new_full((int(shared.max()), len(key)), len(faces))
    sides[turn, edge[order]] = order % len(faces)
    found = torch.stack([key // count, key % count]), sides
    _EDGES[faces] = faces._version, found
    return found


_EDGES = WeakTensorKeyDictionary()
"""Faces -> their version and ``mesh_edges``, while the faces live: a network asks every step."""


class _SurfaceErrors(torch.autograd.Function):
    """Both errors of each hand with their gradient, each edge handled once, by coordinates.

    Written by hand because it is a fifth of a small network's step otherwise. With d = p_b - p_a,
    l = |d|, u = d / l, true length m, and true normals n of the faces f that share the edge:
    the gradient for p_b (for p_a its negative) of l's error is sign(l - m) u for every f, and of
    sum_f |u . n_f| it is (g - (g . u) u) / l with g = sum_f sign(u . n_f) n_f.
    """

    @staticmethod
    def forward(ctx, predicted, true, ends, sides, faces):
        p, t = (x.permute(2, 1, 0).contiguous() for x in (predicted, true))  # (3, V, B)
        unit = p.index_select(1, ends[1]).sub_(p.index_select(1, ends[0]))
        length = _dot(unit, unit).clamp_min_(1e-16).sqrt_()
        unit /= length
        edge = t.index_select(1, ends[1]).sub_(t.index_select(1, ends[0]))
        longer = length - _dot(edge, edge).sqrt_()
        share = (sides < len(faces)).sum(0).to(p)[:, None] / (3 * len(faces))
        edges = (longer.abs() * share).sum(0)
        normals = _normals(t, torch.cat([faces, torch.zeros_like(faces[:1])]))  # of no face: zero
        pull, cosines = torch.zeros_like(unit), 0
        for side in sides:
            normal = normals.index_select(1, side)
            cosine = _dot(unit, normal)
            pull += normal.mul_(cosine.sign())
            cosines = cosines + cosine.abs_().sum(0)
        pull.addcmul_(unit, _dot(pull, unit), value=-1).div_(length.mul_(3 * len(faces)))
        ctx.save_for_backward(unit.mul_(longer.sign_().mul_(share)), pull, ends)
        ctx.shape = p.shape
        return edges, cosines / (3 * len(faces))

    @staticmethod
    @once_differentiable
    def backward(ctx, of_edges, of_normals):
        along, pull, (first, second) = ctx.saved_tensors
        force = (along * of_edges).addcmul_(pull, of_normals)
        gradient = force.new_zeros(ctx.shape)
        gradient.index_add_(1, second, force).index_add_(1, first, force, alpha=-1)
        return gradient.permute(2, 1, 0), None, None, None, None


def _normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals of faces, zero where a face has no area.   (3, V, B) -> (3, F, B)."""
    a, b, c = (vertices.index_select(1, corner) for corner in faces.T)
    (bx, by, bz), (cx, cy, cz) = b - a, c - a
    normal = torch.stack([by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx])
    return normal.div_(_dot(normal, normal).clamp_min_(1e-24).sqrt_())


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Scalar products over the leading axis, which holds x, y, z."""
    return (one[0] * other[0]).addcmul_(one[1], other[1]).addcmul_(one[2], other[2])


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
