"""The network: image -> hand mesh, 2-D joints and camera. Arrays come in, never paths.

network = build_network(make_config("small", view_size=0, image_size=128), hierarchy)
prediction = network(images)                # (B, 3, 128, 128) uint8 or float in [0, 1]
prediction.vertices.shape, prediction.joints.shape, prediction.camera.shape
# ((B, 778, 3), (B, 21, 3), (B, 3))
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import identity
from torch import Tensor, nn

from hand_lib.mesh.similarity import lay_onto
from hand_lib.network.coarse_to_fine import CoarseToFineDecoder
from hand_lib.network.decoders import YoutubehandDecoder, apply_rows, published_channels
from hand_lib.network.encoders import GridEncoder, NormalizeImages, PooledEncoder
from hand_lib.network.second_look import brought_back, cut, look_at
from hand_lib.render.camera import fit_weak_perspective, project_weak_perspective

DECODERS = ("coarse_to_fine", "youtubehand")

LAST_LOOK = 0.7
"""Share of a closer look in where the hand is; the rest is that of the looks before it."""


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
    heatmaps: Tensor | None = None  # (B, 21, h, w) logits of each joint's cell; first look only
    correspondence: Tensor | None = None  # (B, 4, h, w) hand's share (logit), rest position; same


torch.export.register_dataclass(
    Prediction, serialized_type_name="hand_lib.network.model.Prediction"
)


class HandNetwork(nn.Module):
    """Encoder, decoder, and the fixed arrays of the mesh; use ``build_network``.

    In training it reads each crop once, as it is. In use it looks ``looks`` times: at the whole
    crop, then upright and tightly at where the hand was found (``looking``). The shape is the last
    look's; place, turn and size are a mean over the looks, which errs less than either.
    """

    def __init__(
        self, encoder, decoder, regressor: Tensor, faces: Tensor, level_down: Tensor,
        view_size: int = 0, looks: int = 1,
    ):  # fmt: skip
        super().__init__()
        self.view_size, self.looks = view_size, looks
        self.normalize = NormalizeImages()
        self.encoder = encoder
        self.decoder = decoder
        self.register_buffer("regressor", regressor)
        self.register_buffer("faces", faces)
        self.register_buffer("level_down", level_down)

    def forward(self, images: Tensor) -> Prediction:
        """images: (B, 3, H, W) RGB, uint8 or float in [0, 1].   returns a ``Prediction``."""
        images = self.normalize(images)
        size = self.view_size or images.shape[-1]
        if self.training or (self.looks == 1 and not self.view_size):
            return self.read(images)
        prediction = self.read(cut(images, size))
        for _ in range(1, self.looks):
            with torch.autocast(images.device.type, enabled=False):  # places need all their digits
                look = look_at(prediction.joints_2d_direct)
                closer = cut(images, size, look)
            seen = self.read(closer)
            with torch.autocast(images.device.type, enabled=False):
                closer = Prediction(**brought_back(seen, look))
                prediction = self._together(prediction, closer)
        return prediction

    def _together(self, before: Prediction, closer: Prediction) -> Prediction:
        """Shape of the closer look; place, turn and size of both, mostly its (``LAST_LOOK``)."""
        direct = torch.lerp(before.joints_2d_direct, closer.joints_2d_direct, LAST_LOOK)
        meant = torch.lerp(before.vertices, closer.vertices, LAST_LOOK)
        vertices = lay_onto(closer.vertices, meant)
        joints = apply_rows(self.regressor, vertices)
        vertices, joints = vertices - joints[:, :1], joints - joints[:, :1]
        camera = fit_weak_perspective(joints, direct)
        return replace(
            closer,
            vertices=vertices,
            joints=joints,
            camera=camera,
            joints_2d=project_weak_perspective(joints, camera),
            joints_2d_direct=direct,
        )

    def read(self, images: Tensor) -> Prediction:
        """One look.   images: (B, 3, S, S) normalised."""
        out = self.decoder(self.encoder(images))
        vertices = out["vertices"]
        with torch.autocast(vertices.device.type, enabled=False):
            joints = apply_rows(self.regressor, vertices)
            wrist = joints[:, :1]
            direct = out.get("joints_2d_direct")
            camera = out["camera"]
            if camera is None:
                camera = fit_weak_perspective(joints - wrist, direct)
                vertices, joints = vertices - wrist, joints - wrist
            joints_2d = project_weak_perspective(joints, camera)
        names = ("intermediate", "canonical", "rotation", "heatmaps", "correspondence")
        rest = {name: out[name] for name in names if name in out}
        return Prediction(vertices, joints, camera, joints_2d, direct, **rest)


def build_network(config, hierarchy, joint_regressor=None) -> HandNetwork:
    """The network that ``config`` describes, for the mesh of ``hierarchy``.

    config: a ``TrainConfig``.   hierarchy: a ``MeshHierarchy``.
    joint_regressor: (21, V), from vertices to joints; None takes the built-in hand's.
    """
    regressor = _regressor(joint_regressor, len(hierarchy.vertices[0]))
    faces = torch.tensor(np.asarray(hierarchy.faces[0], np.int64))  # a copy, to load into
    view_size = config.view_size
    if config.decoder == "youtubehand":
        encoder = PooledEncoder(config.backbone, config.pretrained)
        spirals = hierarchy.spirals(config.spiral_length or 27, config.dilation)
        channels = config.channels or published_channels(config.backbone)
        decoder = YoutubehandDecoder(encoder.channels, hierarchy, channels, spirals)
        down = torch.zeros(0, len(regressor[0]))
        return HandNetwork(encoder, decoder, regressor, faces, down, view_size, looks=1)
    if config.decoder != "coarse_to_fine":
        raise ValueError(f"unknown decoder {config.decoder!r}; known: {', '.join(DECODERS)}")
    encoder = GridEncoder(
        config.backbone, view_size or config.image_size, pretrained=config.pretrained
    )
    spirals = hierarchy.spirals(config.spiral_length or 9, config.dilation)
    decoder = CoarseToFineDecoder(
        encoder.channels,
        hierarchy,
        regressor,
        spirals,
        *([config.channels] * bool(config.channels)),
    )
    down = identity(len(hierarchy.vertices[0]), format="csr")
    for i in range(decoder.level):
        down = hierarchy.down[i] @ down
    down = torch.as_tensor(down.toarray().astype(np.float32))
    return HandNetwork(encoder, decoder, regressor, faces, down, view_size, config.n_crops)


def joint_regressor(hand, count: int | None = None) -> np.ndarray:
    """(21, V) from vertices to joints of a right ``HandModel``."""
    basis = torch.eye(count or len(hand.vertices))
    return hand.regress_joints(basis[:, :, None].expand(-1, -1, 3))[..., 0].T.cpu().numpy()


def _regressor(given, count: int) -> Tensor:
    if given is None:
        from hand_lib.hand.model import HandModel

        given = joint_regressor(HandModel.builtin(), count)
    regressor = torch.tensor(np.asarray(given, np.float32))
    if regressor.shape != (21, count):
        raise ValueError(
            f"expected joint_regressor (21, {count}) for a mesh of {count} vertices, "
            f"found {tuple(regressor.shape)}"
        )
    return regressor
