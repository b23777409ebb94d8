"""Closed hands are closed: pads on the palm, no hole to look through, pad on pad in a pinch."""

import igl
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial.transform import Rotation

from hand_lib import ROOT
from hand_lib.hand.joints import FRAMES, MANO_FINGERS, REST_CHAIN
from hand_lib.hand.model import HandModel
from hand_lib.hand.poses import GESTURES

MODEL = HandModel.builtin()
FACES = np.asarray(MODEL.faces, dtype=np.int64)
REST = MODEL(torch.zeros(1, 16, 3)).vertices[0].double().numpy()
with np.load(ROOT / "template" / "hand.npz") as stored:
    OWNER = stored["weights"].argmax(axis=1)  # the joint that moves each vertex most
FOLDED = {
    "fist": "index middle ring little", "thumbs_up": "index middle ring little",
    "grip": "index middle ring little",
    "point": "middle ring little", "call_me": "index middle ring", "victory": "ring little",
    "three": "little",
}  # fmt: skip
PIXEL_MM = 0.5


def posed(name):
    pose = torch.tensor(GESTURES[name][None], dtype=torch.float32)
    return MODEL(pose).vertices[0].double().numpy()


def pad(finger):
    """Vertices in the middle of the palmar side of a finger's end phalanx."""
    end = MANO_FINGERS[finger][2]
    base, tip = REST_CHAIN[finger][-2:]
    along = (tip - base) / np.linalg.norm(tip - base)
    palmar = np.cross(FRAMES[end][:, 1], along)
    own = np.flatnonzero(OWNER == end)
    share = (REST[own] - base) @ along / np.linalg.norm(tip - base)
    facing = igl.per_vertex_normals(REST, FACES)[own] @ palmar > 0.55
    return own[(share > 0.35) & (share < 0.95) & facing]


def gap_mm(points, vertices, faces):
    """Mean distance from points to a piece of the mesh, negative inside."""
    square, nearest, foot = igl.point_mesh_squared_distance(points, vertices, faces)
    a, b, c = vertices[faces[nearest]].transpose(1, 0, 2)
    side = np.sign(np.einsum("ij,ij->i", points - foot, np.cross(b - a, c - a)))
    return 1000 * (np.sqrt(square) * side).mean()


def largest_hole_mm2(vertices):
    """The largest hole in the hand's outline, seen along the axis from thumb to little finger."""
    seen = (vertices[:, [0, 2]] - vertices[:, [0, 2]].min(axis=0)) * 1000 / PIXEL_MM + 3
    picture = Image.new("1", tuple(np.ceil(seen.max(axis=0) + 4).astype(int)))
    for face in FACES:
        ImageDraw.Draw(picture).polygon([tuple(point) for point in seen[face]], fill=1)
    labels, _ = ndimage.label(~np.asarray(picture))
    areas = np.bincount(labels[labels > 0])
    areas[labels[0, 0]] = 0  # what lies around the hand
    return areas.max(initial=0) * PIXEL_MM**2


@pytest.mark.parametrize("name", FOLDED)
def test_pads_of_folded_fingers_touch_the_palm_and_leave_no_hole(name):
    vertices = posed(name)
    palm = FACES[np.isin(OWNER[FACES], (0, 13)).all(axis=1)]
    gaps = [gap_mm(vertices[pad(finger)], vertices, palm) for finger in FOLDED[name].split()]
    assert np.abs(gaps).max() < 2.0 and np.abs(gaps).mean() < 1.5
    assert largest_hole_mm2(vertices) < 20


@pytest.mark.parametrize("axis", "xz")
@pytest.mark.parametrize("degrees", [-20, -10, 10, 20])
def test_nobody_looks_through_a_fist_from_beside_either(axis, degrees):
    turn = Rotation.from_euler(axis, degrees, degrees=True)
    assert largest_hole_mm2(turn.apply(posed("fist"))) < 20


@pytest.mark.parametrize("name", ["pinch", "ok"])
def test_the_pads_of_thumb_and_index_face_and_touch(name):
    vertices = posed(name)
    normals = igl.per_vertex_normals(vertices, FACES)
    index, thumb = pad("index"), pad("thumb")
    end = {finger: FACES[(OWNER[FACES] == MANO_FINGERS[finger][2]).all(axis=1)]
           for finger in ("index", "thumb")}  # fmt: skip
    assert abs(gap_mm(vertices[index], vertices, end["thumb"])) < 2
    assert abs(gap_mm(vertices[thumb], vertices, end["index"])) < 2
    assert normals[index].mean(axis=0) @ normals[thumb].mean(axis=0) < -0.3
