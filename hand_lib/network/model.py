"""The network: image -> hand mesh, 2-D joints and camera. Arrays come in, never paths.

network = build_network(make_config("small", view_size=0, image_size=128), hierarchy)
prediction = network(images)                # (B, 3, 128, 128) uint8 or float in [0, 1]
prediction.vertices.shape, prediction.joints.shape, prediction.camera.shape
# ((B, 778, 3), (B, 21, 3), (B, 3))

``network(images)`` reads one crop, in training and in use alike. A trained network is used through
``second_look.predict_crops``, which looks again and more closely.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import RBFInterpolator
from torch import Tensor, nn

from hand_lib.hand.model import HandModel
from hand_lib.network.coarse_to_fine import CoarseToFineDecoder, vertex_matmul
from hand_lib.network.encoders import GridEncoder, PooledEncoder
from hand_lib.network.spiral_conv import PUBLISHED_CHANNELS, YoutubehandDecoder
from hand_lib.render.camera import fit_weak_perspective, project_weak_perspective

_OF_MESH = ("regressor", "faces", "level_down", "decoder.mean", "decoder.mean_canonical")
_PER_VERTEX = {"decoder.coarse": "decoder.mean", "decoder.canonical": "decoder.mean_canonical"}


@dataclass
class Prediction:
    """What the network says about a batch of crops."""

    vertices: Tensor  # (B, V, 3) metres, camera axes, wrist at the origin
    joints: Tensor  # (B, 21, 3) metres, the same frame
    camera: Tensor  # (B, 3) s (1/m), tx, ty (m): weak perspective onto the crop
    joints_2d: Tensor  # (B, 21, 2) crop units: the joints through the camera
    joints_2d_direct: Tensor | None = None  # (B, 21, 2) crop units, read from the image
    intermediate: tuple[Tensor, ...] = ()  # (B, Vi, 3) metres: the coarse mesh, guess by guess
    canonical: Tensor | None = None  # (B, Vi, 3) metres, vertices in the palm's own frame
    rotation: Tensor | None = None  # (B, 3, 3) from the palm's frame to camera axes
    heatmaps: Tensor | None = None  # (B, 21, h, w) logits of each joint's cell
    correspondence: Tensor | None = None  # (B, 4, h, w) hand's share (logit), rest position
    spread: Tensor | None = None  # (B,) ``heatmap_spread`` of the closest crop, where there are two


class NormalizeImages(nn.Module):
    """Pixel values to what an encoder's weights expect: (image - mean) / std, both as buffers.

    mean, std: three numbers each. A run keeps its own in its weights file.
    """

    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1)[None])
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1)[None])

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, 3, H, W) RGB, uint8 or float in [0, 1].   returns (B, 3, H, W) float32."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected images (B, 3, H, W), found {tuple(images.shape)}")
        if images.dtype == torch.uint8:
            images = images.to(self.mean.dtype) / 255
        return (images.to(self.mean.dtype) - self.mean) / self.std


class HandNetwork(nn.Module):
    """Encoder, decoder, and the fixed arrays of the mesh; use ``build_network``.

    view_size: side in pixels of what it was made to read; 0: crops as they come.
    """

    def __init__(self, encoder, decoder, regressor, faces, level_down, view_size: int):
        super().__init__()
        self.view_size = view_size
        self.normalize = NormalizeImages(encoder.mean, encoder.std)
        self.encoder = encoder
        self.decoder = decoder
        self.register_buffer("regressor", regressor)  # (21, V)
        self.register_buffer("faces", faces)  # (F, 3) int64
        self.register_buffer("level_down", level_down)  # (Vi, V) to the decoder's coarse level

    def forward(self, images: Tensor) -> Prediction:
        """images: (B, 3, H, W) RGB, uint8 or float in [0, 1].   returns a ``Prediction``."""
        out = self.decoder(self.encoder(self.normalize(images)))
        if "camera" not in out:  # ours: a fit; Youtubehand's decoder predicts one
            return Prediction(**out | self.fitted(out["vertices"], out["joints_2d_direct"]))
        joints = vertex_matmul(self.regressor, out["vertices"])
        vertices, joints = out["vertices"] - joints[:, :1], joints - joints[:, :1]
        joints_2d = project_weak_perspective(joints, out["camera"])
        return Prediction(vertices, joints, out["camera"], joints_2d)

    def fitted(self, vertices: Tensor, joints_2d: Tensor) -> dict[str, Tensor]:
        """A hand that stands at its wrist, with the camera that lays its joints onto 2-D ones.

        vertices: (B, V, 3) metres.   joints_2d: (B, 21, 2) crop units.
        returns vertices, joints, camera and joints_2d of a ``Prediction``.
        """
        joints = vertex_matmul(self.regressor, vertices)
        wrist = joints[:, :1]
        vertices, joints = vertices - wrist, joints - wrist
        camera = fit_weak_perspective(joints, joints_2d)
        fields = {"vertices": vertices, "joints": joints, "camera": camera}
        return fields | {"joints_2d": project_weak_perspective(joints, camera)}


def build_network(config, hierarchy, joint_regressor=None) -> HandNetwork:
    """The network that ``config`` describes, for the mesh of ``hierarchy``.

    config: a ``TrainConfig``.   hierarchy: a ``MeshHierarchy``.
    joint_regressor: (21, V), from vertices to joints; None takes the built-in hand's.
    """
    count = len(hierarchy.vertices[0])
    if joint_regressor is None:
        joint_regressor = regressor_of(HandModel.builtin())
    regressor = torch.tensor(np.asarray(joint_regressor, np.float32))
    if regressor.shape != (21, count):
        raise ValueError(
            f"expected joint_regressor (21, {count}) for a mesh of {count} vertices, "
            f"found {tuple(regressor.shape)}"
        )
    faces = torch.tensor(np.asarray(hierarchy.faces[0], np.int64))  # a copy, to load into
    if config.decoder == "youtubehand":
        encoder = PooledEncoder(config.backbone, config.pretrained)
        spirals = hierarchy.spirals(config.spiral_length or 27, config.dilation)
        channels = config.channels or PUBLISHED_CHANNELS.get(config.backbone, (64, 128, 256, 512))
        decoder = YoutubehandDecoder(encoder.channels, hierarchy, channels, spirals)
        level_down = np.zeros((0, count))
    else:
        size = config.view_size or config.image_size
        encoder = GridEncoder(
            config.backbone, size, pretrained=config.pretrained, stride=config.encoder_stride
        )
        spiral = config.spiral_length or 9, config.dilation
        channels = config.channels or (128, 512, 64)
        decoder = CoarseToFineDecoder(encoder.channels, hierarchy, regressor, spiral, channels)
        level_down = np.eye(count)[hierarchy.kept(decoder.level)]
    level_down = torch.tensor(level_down, dtype=torch.float32)
    return HandNetwork(encoder, decoder, regressor, faces, level_down, config.view_size)


def regressor_of(hand) -> np.ndarray:
    """(21, V) from vertices to joints of a right ``HandModel``."""
    basis = torch.eye(len(hand.vertices))
    return hand.regress_joints(basis[:, :, None].expand(-1, -1, 3))[..., 0].T.cpu().numpy()


@torch.no_grad()
def carry_over(source: nn.Module, target: nn.Module) -> list[str]:
    """Copy weights between networks, whose meshes may differ.

    What a decoder of ours knows of each vertex is carried over the surface.
    returns the names in ``target`` that had nothing to take.
    """
    old, new = source.state_dict(), target.state_dict()
    over = None
    if "decoder.mean_canonical" in new and "decoder.mean_canonical" in old:
        points = (state["decoder.mean_canonical"].double().numpy() for state in (old, new))
        over = torch.from_numpy(affine_blend(*points)).float()
    fresh = []
    for name, value in new.items():
        if name in _OF_MESH or name.endswith("spirals") or "up" in name.split("."):
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


def affine_blend(old: np.ndarray, new: np.ndarray, neighbours: int = 12) -> np.ndarray:
    """Matrix (N, M) that carries values at points ``old`` (M, 3) to points ``new`` (N, 3).

    Radial basis functions with a linear part: affine functions of position, a rotation of the
    whole hand for instance, are carried exactly, and a point that stays keeps its value.
    """
    near = min(neighbours, len(old))
    return RBFInterpolator(old, np.eye(len(old)), near, kernel="linear", degree=1)(new)
