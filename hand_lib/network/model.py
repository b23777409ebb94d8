"""The network: image -> hand mesh, 2-D joints and camera. Arrays come in, never paths.

network = build_network(make_config("small", view_size=0, image_size=128), hierarchy)
prediction = network(images)                # (B, 3, 128, 128) uint8 or float in [0, 1]
prediction.vertices.shape, prediction.joints.shape, prediction.camera.shape
# ((B, 778, 3), (B, 21, 3), (B, 3))

``network(images)`` reads one crop, in training and in use alike. A trained network is used through
``predict_crops``: find the hand, turn it upright, cut it tightly, read it again. A network that
sees every hand upright, in the middle and as large as it can be needs far fewer pictures to learn
fingers from than one that sees hands turned anyhow. Which way up it is and where follow from the
2-D joints that the look at the whole crop gives (as MediaPipe turns its crops, Zhang et al. 2020);
in training from those of the labels (``data.augment``). Turning a picture about its middle turns
the hand about the optical axis, so nothing is lost on the way back.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

from hand_lib.hand.model import HandModel
from hand_lib.mesh.topology import procrustes_align
from hand_lib.network.coarse_to_fine import (
    CoarseToFineDecoder,
    cell_centres,
    heatmap_spread,
    soft_argmax,
    vertex_matmul,
)
from hand_lib.network.encoders import GridEncoder, PooledEncoder
from hand_lib.network.spiral_conv import PUBLISHED_CHANNELS, YoutubehandDecoder
from hand_lib.render.camera import fit_weak_perspective, project_weak_perspective, upright_square

SHAPE_BLEND = 0.7
"""How much of the shown shape is the canonical hand's; the rest is the corrected mesh's own."""

PEAKS_SHARE = 0.3
"""How much of the 2-D joints of a close crop its heat maps alone say, twice as sharp."""

LAST_CROP = 0.7
"""Share of a tight crop in where the hand is; the rest is that of the crops before it."""

_OF_MESH = ("regressor", "faces", "level_down", "decoder.mean", "decoder.mean_canonical")
_PER_VERTEX = {
    "decoder.coarse.weight": "", "decoder.coarse.bias": "decoder.mean",
    "decoder.canonical.weight": "", "decoder.canonical.bias": "decoder.mean_canonical",
    "decoder.vertex_embedding": "",
}  # fmt: skip


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
        return Prediction(
            **out | self.fitted(out["vertices"], out.get("joints_2d_direct"), out.get("camera"))
        )

    def fitted(self, vertices: Tensor, joints_2d=None, camera=None) -> dict[str, Tensor]:
        """A hand that stands at its wrist, with its camera or one that lays it onto 2-D joints.

        vertices: (B, V, 3) metres.   joints_2d: (B, 21, 2) crop units.   camera: (B, 3).
        returns vertices, joints, camera and joints_2d of a ``Prediction``.
        """
        joints = vertex_matmul(self.regressor, vertices)
        wrist = joints[:, :1]
        vertices, joints = vertices - wrist, joints - wrist
        if camera is None:  # Youtubehand's decoder predicts one
            camera = fit_weak_perspective(joints, joints_2d)
        fields = {"vertices": vertices, "joints": joints, "camera": camera}
        return fields | {"joints_2d": project_weak_perspective(joints, camera)}


def build_network(config, hierarchy, joint_regressor=None, weights=None) -> HandNetwork:
    """The network that ``config`` describes, for the mesh of ``hierarchy``.

    config: a ``TrainConfig``.   hierarchy: a ``MeshHierarchy``.
    joint_regressor: (21, V), from vertices to joints; None takes the built-in hand's.
    weights: names of all that it will be given, where they are known: no trial shows what is used.
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
        known = {name.removeprefix("encoder.net.") for name in weights or ()}
        encoder = GridEncoder(
            config.backbone, size, config.pretrained, config.encoder_stride, known
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
def settle(network: HandNetwork, size: int) -> None:
    """Make a trained network faster that learns no more, in place; it says the same, to rounding.

    Batch norms go into the convolutions whose output they take, which a blank crop of ``size``
    pixels shows, and channels come last. Its weights no longer have the names of a run's.
    """
    made, pairs = {}, {}

    def note(module, given, out):
        if isinstance(module, nn.Conv2d):
            made[id(out)] = module, out  # kept: another could get its id
        elif isinstance(module, nn.BatchNorm2d) and id(given[0]) in made:
            pairs[module] = made[id(given[0])][0]

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    network(network.regressor.new_zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    for parent in list(network.modules()):
        for name, norm in list(parent.named_children()):
            if norm in pairs and not norm._forward_hooks:  # timm takes some maps by hooks
                conv = pairs[norm]
                conv.weight, conv.bias = fuse_conv_bn_weights(
                    conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps,
                    norm.weight, norm.bias,
                )  # fmt: skip
                setattr(parent, name, getattr(norm, "act", nn.Identity()))
    network.to(memory_format=torch.channels_last)


def predict_crops(
    network: HandNetwork, images: Tensor, n_crops: int = 2, shape_blend: float = SHAPE_BLEND
) -> Prediction:
    """What a trained network says of whole crops: the answer of ``n_crops`` looks, in float32.

    images: (B, 3, H, W) RGB, uint8 or float in [0, 1], of any size.   n_crops: 1 reads the whole
    crop, each more an upright, tight one around where the hand was found. The shape is the last
    crop's; place, turn and size are a mean over all, which errs less than either. Youtubehand's
    decoder reads the whole crop only.   shape_blend: see ``blend_shapes``.
    Autocast is off: bfloat16 would move the mesh of a trained network by a quarter of a millimetre.
    """
    size = network.view_size or images.shape[-1]
    with torch.autocast(images.device.type, enabled=False):
        if images.dtype == torch.uint8:
            images = images.float() / 255
        prediction = network(cut(images, size))
        if prediction.canonical is None:
            return prediction
        prediction = blend_shapes(network, prediction, shape_blend)
        for _ in range(1, n_crops):
            square = upright_square(prediction.joints_2d_direct)
            closer = network(cut(images, size, square, network.normalize.mean))
            peaks = soft_argmax(2 * closer.heatmaps)
            direct = torch.lerp(closer.joints_2d_direct, peaks, PEAKS_SHARE)
            closer = replace(closer, joints_2d_direct=direct)
            closer = blend_shapes(network, closer, shape_blend)
            prediction = merge_crops(network, prediction, closer, square)
    return prediction


def blend_shapes(network: HandNetwork, prediction: Prediction, share: float) -> Prediction:
    """The canonical hand laid onto the corrected mesh, mixed with it by ``share``.

    The canonical hand knows no direction and so keeps its shape where the direction is in doubt:
    place, turn and size come from one, shape mostly from the other.
    """
    finer = prediction.intermediate[-1]
    coarse = torch.lerp(finer, procrustes_align(prediction.canonical, finer), share)
    vertices = vertex_matmul(network.decoder.up, coarse)
    return replace(prediction, **network.fitted(vertices, prediction.joints_2d_direct))


def merge_crops(network: HandNetwork, before: Prediction, closer: Prediction, square) -> Prediction:
    """What was read from a square, beside what was read before from the crop that it is cut from.

    The hand turns back about the optical axis. Its shape is the closer crop's; place, turn and size
    are of both, mostly the closer's (``LAST_CROP``); maps of the image are the whole crop's.
    """
    turn = functional.pad(square[0], (0, 1, 0, 1))
    turn[:, 2, 2] = 1
    vertices = closer.vertices @ turn
    mean = torch.lerp(before.vertices, vertices, LAST_CROP)
    direct = square_to_crop(square, closer.joints_2d_direct)
    direct = torch.lerp(before.joints_2d_direct, direct, LAST_CROP)
    return Prediction(
        **network.fitted(procrustes_align(vertices, mean), direct),
        joints_2d_direct=direct,
        heatmaps=before.heatmaps,
        correspondence=before.correspondence,
        spread=heatmap_spread(closer.heatmaps, closer.joints_2d_direct),
    )


def square_to_crop(square: tuple, points: Tensor) -> Tensor:
    """Points (B, N, 2) of squares in units of the crop that ``upright_square`` found them in."""
    turn, centre, half = square
    return points @ turn * half[:, None, None] + centre[:, None]


def cut(images: Tensor, size: int, square: tuple | None = None, border=0.0) -> Tensor:
    """Squares of pictures, bilinearly.

    images: (B, 3, H, W).   size: side of the result.   square: None is the whole crop.
    border: colour beyond the picture, (3, 1, 1) or a number.   returns (B, 3, size, size).
    """
    if square is None and images.shape[2:] == (size, size):
        return images
    axis = cell_centres(size, images.device)
    grid = torch.stack([axis.expand(size, size), axis[:, None].expand(size, size)], 2)
    points = grid.reshape(1, -1, 2).expand(len(images), -1, -1)
    if square is not None:
        points = square_to_crop(square, points)
    points = points.unflatten(1, (size, size)).to(images.dtype)
    return functional.grid_sample(images - border, points, align_corners=False) + border


@torch.no_grad()
def carry_over(source: nn.Module, target: nn.Module) -> list[str]:
    """Copy weights between networks, whose meshes may differ.

    What a decoder of ours knows of each vertex is carried over the surface.
    returns the names in ``target`` that had nothing to take.
    """
    from scipy.interpolate import RBFInterpolator  # takes a tenth of a second

    old, new, fresh = source.state_dict(), target.state_dict(), []
    if "decoder.mean_canonical" in old.keys() & new.keys():
        here, there = (state["decoder.mean_canonical"].double().numpy() for state in (old, new))
        # affine functions of position, a rotation for instance, are carried exactly
        near = {"neighbors": min(12, len(here)), "kernel": "linear", "degree": 1}
        over = torch.from_numpy(RBFInterpolator(here, np.eye(len(here)), **near)(there)).float()
        for name, mean in _PER_VERTEX.items():
            moved = over @ old[name].reshape(over.shape[1], -1)
            if mean:  # predictions are mean + 0.1 of what the layer says
                moved += 10 * (over @ old[mean] - new[mean])
            old[name] = moved.reshape(-1, *old[name].shape[1:])
    for name, value in new.items():
        if name in _OF_MESH or name.endswith("spirals") or "up" in name.split("."):
            continue
        if name in old and old[name].shape == value.shape:
            value.copy_(old[name])
        else:
            fresh.append(name)
    return fresh
