"""Our decoder: from feature maps of the image to a coarse mesh and to finer ones."""

import numpy as np
import torch
from scipy.sparse import identity
from torch import Tensor, nn
from torch.nn import functional

from hand_lib.hand.kinematics import rotation_6d_to_matrix
from hand_lib.mesh.similarity import lay_onto
from hand_lib.network.decoders import DenseRows, apply_rows
from hand_lib.network.heads import ImageHead, expected_places, surface_summary
from hand_lib.render.camera import fit_weak_perspective

SHAPE_SHARE = 0.7
"""How much of the shown shape is the canonical hand's; the rest is the corrected mesh's own."""

MOST_MIXED = 256
"""Vertices up to which training applies spirals as one matrix per channel; beyond, it gathers."""


class SpiralMix(nn.Module):
    """Residual block on vertices: normalise, depthwise spiral, pointwise expansion.

    x + W2 gelu(W1 sum_k w_k * norm(x)_s(v,k)): the separable form of a spiral convolution costs
    K C + 2 r C^2 multiplications per vertex instead of K C^2. A coarse mesh has so few vertices
    that one small matrix per channel, M_c(v, u) = sum of w_kc over the k with s(v,k) = u, beats
    gathering K neighbours in training: five times faster for 98 vertices and 64 hands. In use,
    with few hands and no way back, gathering is faster.
    """

    def __init__(self, channels: int, spirals: np.ndarray, expansion: int = 2):
        super().__init__()
        self.register_buffer("spirals", torch.tensor(np.asarray(spirals, np.int64)))
        length = spirals.shape[1]
        self.norm = nn.LayerNorm(channels)
        self.taps = nn.Parameter(torch.randn(length, channels) / length**0.5)
        self.widen = nn.Linear(channels, expansion * channels)
        self.narrow = nn.Linear(expansion * channels, channels)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, x: Tensor) -> Tensor:
        vertices, length = self.spirals.shape
        y = self.norm(x)
        if self.training and vertices <= MOST_MIXED:
            taken = self.spirals.T[..., None] == torch.arange(vertices, device=x.device)
            mixing = torch.einsum("kc,kvu->cvu", self.taps, taken.to(self.taps.dtype))
            y = (mixing @ y.permute(2, 0, 1)).permute(1, 2, 0)
        else:
            y = y.index_select(0, self.spirals.T.reshape(-1)).unflatten(0, (length, vertices))
            y = (y * self.taps.to(y.dtype)[:, None, None]).sum(0)
        return x + self.narrow(functional.gelu(self.widen(y)))


class CoarseToFineDecoder(nn.Module):
    """Feature maps -> heat and surface maps -> 2-D joints, a coarse mesh, finer meshes.

    The image head reads the joints' places and the surface cell by cell. Its answers, features
    looked up at the joints, and the coarsest map, flattened and not averaged so that places in the
    image stay apart, make a latent; from it come the vertices of a coarse level as offsets from the
    mean mesh. Features looked up where those vertices project, mixed along spirals, correct them;
    fixed affine matrices bring them to the finest level.

    In training the corrected mesh is what the losses see. In use the canonical hand, which knows
    no direction and so keeps its shape where the direction is in doubt, is laid onto the corrected
    mesh by the best similarity motion: place, turn and size from one, shape mostly
    (``SHAPE_SHARE``) from the other.
    """

    def __init__(
        self,
        channels_in,
        hierarchy,
        regressor: Tensor,
        spirals,
        channels=(128, 512, 64),
        grid: int = 4,
    ):
        super().__init__()
        reduced, latent, width = channels
        sizes = [len(v) for v in hierarchy.vertices]
        start = max((i for i, n in enumerate(sizes) if n >= 90), default=0)
        self.register_buffer("mean", _tensor(hierarchy.vertices[start]))
        self.head = ImageHead(channels_in)
        self.at_joints = nn.Linear(self.head.width, 24)
        self.reduce = nn.Sequential(
            nn.Conv2d(channels_in[-1], reduced, 1, bias=False), nn.BatchNorm2d(reduced), nn.ReLU()
        )
        self.pool = nn.AdaptiveAvgPool2d(grid)
        known = reduced * grid * grid + 21 * (24 + 2) + 4 * 64
        self.trunk = nn.Sequential(
            nn.Linear(known, latent, bias=False),
            nn.BatchNorm1d(latent),
            nn.ReLU(),
            nn.Linear(latent, latent),
            nn.ReLU(),
        )
        self.coarse = nn.Linear(latent, sizes[start] * 3)
        self.joints_2d = nn.Linear(latent, 42)
        self.canonical = nn.Linear(latent, sizes[start] * 3)
        self.turn = nn.Linear(latent, 6)
        self.trust = nn.Linear(latent, 1)
        joints = regressor @ _tensor(hierarchy.vertices[0])
        self.register_buffer("mean_canonical", self.mean @ palm_frame(joints))
        up = identity(sizes[0], format="csr")
        for i in range(start):
            up = up @ hierarchy.up[i]
        self.up = DenseRows(up)
        self.level = start
        self.shape_share = SHAPE_SHARE
        self.context = nn.Linear(latent, width)
        self.seen = nn.Linear(reduced, width)
        self.place = nn.Linear(5, width)
        self.who = nn.Parameter(torch.randn(sizes[start], width) * 0.5)
        self.mix = nn.Sequential(*(SpiralMix(width, spirals[start]) for _ in range(2)))
        self.correct = nn.Linear(width, 3)
        self.register_buffer("regressor", regressor.clone(), persistent=False)
        for layer in (self.coarse, self.canonical):
            nn.init.normal_(layer.weight, std=1e-3)
        for layer in (self.correct, self.joints_2d):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.joints_2d.bias)

    def forward(self, maps) -> dict[str, Tensor]:
        """maps: (B, C, h, w) each, fine to coarse.   returns the fields of ``Prediction``.

        In training it goes along with autocast. In use it computes in float32: bfloat16 would move
        the mesh of a trained network by a quarter of a millimetre.
        """
        if self.training:
            return self._decode(maps)
        with torch.autocast(maps[0].device.type, enabled=False):
            return self._decode([m.to(self.mean.dtype) for m in maps])

    def _decode(self, maps) -> dict[str, Tensor]:
        joined, heat, surface = self.head(maps)
        read = expected_places(heat)
        here = self.at_joints(look_up(joined, read.detach()))
        grid = self.reduce(maps[-1])
        known = [self.pool(grid).flatten(1), here.flatten(1), read.flatten(1).detach()]
        known.append(surface_summary(surface).detach())
        latent = self.trunk(torch.cat([k.to(grid.dtype) for k in known], 1))
        # the heat maps end at the border of the crop, the correction from the latent does not
        joints_2d = read + self.joints_2d(latent).float().unflatten(1, (21, 2))
        direct = self.mean + 0.1 * self.coarse(latent).float().unflatten(1, (-1, 3))
        canonical = self.canonical(latent).float().unflatten(1, (-1, 3))
        canonical = self.mean_canonical + 0.1 * canonical
        rotation = rotation_6d_to_matrix(self.turn(latent).float())
        with torch.autocast(direct.device.type, enabled=False):
            placed = canonical @ rotation.transpose(1, 2)
        coarse = torch.lerp(direct, placed, self.trust(latent).float().sigmoid()[:, None])
        camera = fit_weak_perspective(apply_rows(self.regressor, self.up(coarse)), joints_2d)
        seen_at = camera[:, None, :1] * (coarse[..., :2] + camera[:, None, 1:])
        seen = look_up(grid, seen_at.detach())
        place = torch.cat([10 * coarse, seen_at], 2).detach()
        x = self.seen(seen) + self.place(place) + self.context(latent)[:, None] + self.who
        x = self.correct(self.mix(x.transpose(0, 1).contiguous())).transpose(0, 1)
        finer = coarse + 0.1 * x.float()
        shown = finer
        if not self.training:
            shown = torch.lerp(finer, lay_onto(canonical, finer), self.shape_share)
        return {
            "vertices": self.up(shown),
            "camera": None,
            "joints_2d_direct": joints_2d,
            "intermediate": (direct, coarse, finer),
            "canonical": canonical,
            "rotation": rotation,
            "heatmaps": heat,
            "correspondence": surface,
        }


def palm_frame(joints: Tensor) -> Tensor:
    """Axes of the palm: wrist to middle knuckle, towards the index side, out of the palm.

    joints: (..., 21, 3), any unit.   returns (..., 3, 3), the axes as columns: a rotation that
    turns palm coordinates into those of ``joints``.
    """
    along = joints[..., 9, :] - joints[..., 0, :]
    across = joints[..., 5, :] - joints[..., 17, :]
    return rotation_6d_to_matrix(torch.cat([along, across], -1))


def look_up(grid: Tensor, places: Tensor) -> Tensor:
    """Bilinear look-up in a feature map, as two hat functions and one product.

    grid: (B, C, H, W) covering the crop.   places: (B, N, 2) crop units; outside gives the border.
    returns (B, N, C).
    """
    height, width = grid.shape[2:]
    x = ((places[..., 0] + 1) * width - 1) / 2
    y = ((places[..., 1] + 1) * height - 1) / 2
    columns = torch.arange(width, device=grid.device, dtype=x.dtype)
    rows = torch.arange(height, device=grid.device, dtype=y.dtype)
    hat_x = (1 - (x.clamp(0, width - 1)[..., None] - columns).abs()).clamp_min(0)
    hat_y = (1 - (y.clamp(0, height - 1)[..., None] - rows).abs()).clamp_min(0)
    weight = (hat_y[..., :, None] * hat_x[..., None, :]).flatten(2)
    return weight.to(grid.dtype) @ grid.flatten(2).transpose(1, 2)


def _tensor(array) -> Tensor:
    return torch.tensor(np.asarray(array, np.float32))
