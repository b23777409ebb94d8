"""Small meshes and networks for the tests of networks and losses."""

import functools

import numpy as np
import torch
from mesh_shapes import icosphere

from hand_lib.hand.model import HandModel
from hand_lib.mesh.hierarchy import build_hierarchy
from hand_lib.network.model import build_network
from hand_lib.network.youtubehand import youtubehand_names
from hand_lib.training.config import make_config


@functools.cache
def ball_hierarchy(subdivisions=2, factors=(2, 2)):
    """Levels of a 10 cm ball: 162, 81, 41 vertices by default."""
    vertices, faces = icosphere(subdivisions)
    return build_hierarchy(vertices * (0.1, 0.07, 0.04), faces, factors, method="barycentric")


@functools.cache
def hand_hierarchy():
    """Three levels of the built-in hand, quickly made: 778, 389, 195 vertices."""
    model = HandModel.builtin()
    vertices, faces = model.vertices.numpy(), np.asarray(model.faces)
    return build_hierarchy(vertices, faces, (2, 2), method="barycentric")


@functools.cache
def ball_regressor(count=162):
    """(21, V) one-hot rows: scattered vertices play the joints."""
    regressor = np.zeros((21, count), np.float32)
    regressor[np.arange(21), np.random.default_rng(3).permutation(count)[:21]] = 1
    return regressor


def network_config(decoder="coarse_to_fine", backbone="regnety_002", size=64, **fields):
    """A ``TrainConfig`` whose network sees crops of ``size`` pixels."""
    preset = "youtubehand" if decoder == "youtubehand" else "full"
    fields = {"image_size": size, "view_size": 0, "pretrained": False} | fields
    return make_config(preset, backbone=backbone, decoder=decoder, **fields)


def small_network(decoder="coarse_to_fine", backbone="regnety_002", size=64, seed=0, **fields):
    """A network on the ball's mesh, from random weights."""
    torch.manual_seed(seed)
    if decoder == "youtubehand":
        fields = {"channels": (4, 8), "spiral_length": 7} | fields
    config = network_config(decoder, backbone, size, **fields)
    return build_network(config, ball_hierarchy(), ball_regressor())


def random_batch(network, count=4, size=64, seed=0):
    """Images of noise with ball-like meshes, labelled throughout."""
    rng = np.random.default_rng(seed)
    template = ball_hierarchy().vertices[0]
    turn = np.linalg.qr(rng.normal(size=(count, 3, 3)))[0]
    vertices = np.einsum("vi,bij->bvj", template, turn) + rng.normal(size=(count, 1, 3)) * 0.01
    vertices = torch.tensor(vertices, dtype=torch.float32)
    joints = network.regressor @ vertices
    vertices, joints = vertices - joints[:, :1], joints - joints[:, :1]
    return {
        "image": torch.tensor(rng.integers(0, 256, (count, 3, size, size)), dtype=torch.uint8),
        "vertices": vertices,
        "joints": joints,
        "joints_2d": 5 * joints[..., :2] + 0.1,
        "has_vertices": torch.ones(count, dtype=torch.bool),
        "has_joints": torch.ones(count, dtype=torch.bool),
        "valid_2d": torch.ones(count, 21, dtype=torch.bool),
    }


def youtubehand_state_dict(network):
    """The weights under Youtubehand's names, encoder entries doubled as in its own files."""
    own = network.state_dict()
    return {name: own[ours] for ours, both in youtubehand_names(network).items() for name in both}
