"""Training losses, one function per term; metres and crop units, means over what is labelled."""

import torch
from torch import Tensor
from torch.nn import functional

from hand_lib.network.coarse_to_fine import cell_centres, palm_frame, vertex_matmul

TERMS = (
    "vertices", "joints", "joints_2d", "edges", "normals", "intermediate", "canonical", "rotation",
    "heatmaps", "correspondence",
)  # fmt: skip
"""Their names, in the order of the weights in a ``TrainConfig``."""


def total_loss(prediction, batch: dict, network, config) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of all terms; 3-D joints count from the wrist, as Youtubehand has it.

    prediction: what ``network`` says of the batch's images.
    batch: vertices (B, V, 3), joints (B, 21, 3) metres, wrist at the origin; joints_2d (B, 21, 2)
    crop units; has_vertices, has_joints (B,) and valid_2d (B, 21) bool: what is not labelled does
    not count; correspondence (B, 4, n, n), if it is there, as ``SurfaceMaps`` draws it.
    network: of ``build_network``, for its faces and levels.   config: a ``TrainConfig``, whose
    ``loss_<term>`` are the weights.
    returns the total (scalar) and ``parts``, the un-weighted terms by name, detached.
    """
    for name in ("vertices", "joints", "joints_2d"):
        predicted, true = (tuple(x.shape) for x in (getattr(prediction, name), batch[name]))
        if predicted != true:
            raise ValueError(
                f"{name}: the network predicts {predicted}, the batch holds {true}; both should "
                "be (B, N, D) of the same mesh"
            )
    vertices, joints, joints_2d = batch["vertices"], batch["joints"], batch["joints_2d"]
    has_vertices, has_joints = batch["has_vertices"], batch["has_joints"]
    valid_2d, true_map = batch["valid_2d"], batch.get("correspondence")
    from_wrist = prediction.joints - prediction.joints[:, :1]
    distance = config.joint_distance
    terms = dict.fromkeys(TERMS, prediction.vertices.new_zeros(())) | {
        "vertices": vertex_loss(prediction.vertices, vertices, has_vertices),
        "joints": joint_loss(from_wrist, joints, has_joints, distance),
        "joints_2d": joint_loss(prediction.joints_2d, joints_2d, valid_2d, distance),
    }
    if config.loss_edges or config.loss_normals:
        errors = surface_errors(prediction.vertices, vertices, network.faces)
        terms["edges"], terms["normals"] = (masked_mean(error, has_vertices) for error in errors)
    if prediction.canonical is not None:  # our decoder
        direct = joint_loss(prediction.joints_2d_direct, joints_2d, valid_2d, distance)
        terms["joints_2d"] = terms["joints_2d"] + direct
        coarse, frame = vertex_matmul(network.level_down, vertices), palm_frame(joints)
        terms["intermediate"] = sum(
            vertex_loss(mesh, coarse, has_vertices) for mesh in prediction.intermediate
        )
        terms["canonical"] = vertex_loss(prediction.canonical, coarse @ frame, has_vertices)
        terms["rotation"] = vertex_loss(prediction.rotation, frame, has_joints)
        terms["heatmaps"] = heatmap_loss(prediction.heatmaps, joints_2d, valid_2d)
        terms["correspondence"] = correspondence_loss(prediction.correspondence, true_map)
    total = sum(getattr(config, f"loss_{name}") * term for name, term in terms.items())
    return total, {name: term.detach() for name, term in terms.items()}


def vertex_loss(predicted: Tensor, true: Tensor, known: Tensor | None = None) -> Tensor:
    """mean |p - t| over coordinates.   (B, V, 3) each; known: (B,) bool leaves hands out."""
    return masked_mean((predicted - true).abs().mean((1, 2)), known)


def joint_loss(
    predicted: Tensor, true: Tensor, known: Tensor | None = None, distance: str = "l1"
) -> Tensor:
    """mean |p - t| ("l1") or mean (p - t)^2 ("squared") over coordinates of labelled joints.

    predicted, true: (B, 21, D).   known: (B,) or (B, 21) bool.
    """
    error = predicted - true
    error = (error.abs() if distance == "l1" else error.square()).mean(2)
    if known is not None and known.ndim == 1:
        known = known[:, None].expand_as(error)
    return masked_mean(error, known)


def surface_errors(predicted: Tensor, true: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """How far edges are from the true ones, in length and in direction: (B,) and (B,).

    predicted, true: (B, V, 3) metres.   faces: (F, 3).   Means over faces and their three edges
    (an edge of two faces counts twice) of | |p_a - p_b| - |t_a - t_b| |, and of |e . n|: unit
    predicted edge, unit true normal, zero where each predicted face lies in the plane of the true
    one (Pixel2Mesh, Wang et al. 2018; Youtubehand's terms).
    """
    edges, true_edges = (x.roll(-1, 2) - x for x in (predicted[:, faces], true[:, faces]))
    lengths = edges.square().sum(3).clamp_min(1e-16).sqrt()  # (B, F, 3), as the edges go round
    true_lengths = true_edges.square().sum(3).sqrt()
    normals = torch.linalg.cross(true_edges[:, :, 0], true_edges[:, :, 1])
    normals = normals / normals.square().sum(2, keepdim=True).clamp_min(1e-24).sqrt()
    cosines = (edges * normals[:, :, None]).sum(3) / lengths
    return (lengths - true_lengths).abs().mean((1, 2)), cosines.abs().mean((1, 2))


def masked_mean(error: Tensor, known: Tensor | None) -> Tensor:
    """Mean of ``error`` where ``known``; zero (with a zero gradient) where nothing is known."""
    if known is None:
        return error.mean()
    if known.shape != error.shape:
        raise ValueError(f"expected flags {tuple(error.shape)}, found {tuple(known.shape)}")
    error = torch.where(known, error, torch.zeros_like(error))
    return error.sum() / known.sum().clamp_min(1)


def heatmap_loss(heatmaps: Tensor, joints_2d: Tensor, valid: Tensor, spread: float = 0.1) -> Tensor:
    """Cross entropy -sum_c t_c log softmax(heatmap)_c with Gaussians t at the joints.

    heatmaps: (B, J, h, w) logits.   joints_2d: (B, J, 2) crop units.   valid: (B, J) bool; joints
    outside the crop do not count.   spread: standard deviation of the Gaussian, crop units.
    """
    height, width = heatmaps.shape[2:]
    x = (joints_2d[..., :1] - cell_centres(width, heatmaps.device)) / spread
    y = (joints_2d[..., 1:] - cell_centres(height, heatmaps.device)) / spread
    target = torch.exp(-0.5 * (y.square()[..., :, None] + x.square()[..., None, :])).flatten(2)
    target = target / target.sum(2, keepdim=True).clamp_min(1e-8)
    entropy = -(target * heatmaps.flatten(2).log_softmax(2)).sum(2)
    inside = valid & (joints_2d.abs() < 1).all(2)
    return masked_mean(entropy, inside)


def correspondence_loss(correspondence: Tensor, true: Tensor | None) -> Tensor:
    """Binary cross entropy of the hand's share plus L1 between rest positions where the hand is.

    correspondence: (B, 4, h, w) as ``ImageHead`` gives it.   true: (B, 4, n, n), labels of the same
    kind; a hand whose map is empty has none and does not count. None: zero, and so is its
    gradient, which processes that train together wait for.
    """
    if true is None:
        return 0 * correspondence.sum()
    true = true.float()
    if correspondence.shape[2:] != true.shape[2:]:
        correspondence = functional.adaptive_avg_pool2d(correspondence, true.shape[2:])
    share = true[:, 0]
    entropy = functional.binary_cross_entropy_with_logits(
        correspondence[:, 0], share, reduction="none"
    )
    entropy = masked_mean(entropy.mean((1, 2)), share.flatten(1).amax(1) > 0)
    distance = (correspondence[:, 1:] - true[:, 1:]).abs().mean(1) * share
    return entropy + distance.sum() / share.sum().clamp_min(1)
