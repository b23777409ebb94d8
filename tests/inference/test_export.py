import csv
import json
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh
from mesh_shapes import icosphere
from scipy.spatial.transform import Rotation

from hand_lib.hand.model import HandModel
from hand_lib.inference.export import (
    save_hands,
    save_index,
    save_predictions,
    save_rigged,
    save_sequence,
)
from hand_lib.inference.predictor import HandPrediction

VERTICES, FACES = icosphere(2)
VERTICES *= [0.09, 0.05, 0.02]
ONE = [(VERTICES, FACES)]
COLOURS = np.random.default_rng(0).integers(0, 256, VERTICES.shape, dtype=np.uint8)


def shown(linear):
    """What a viewer shows of colours in linear light, 0 to 255."""
    linear = np.asarray(linear, float)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(255 * srgb).astype(int)


@pytest.mark.parametrize("kind", ["ply", "obj", "glb"])
def test_a_saved_mesh_opens_with_its_vertices_faces_and_colours_in_order(tmp_path, kind):
    path = save_hands(tmp_path / "new" / f"hand.{kind}", ONE, COLOURS)
    mesh = trimesh.load(path, process=False, force="mesh", maintain_order=True)
    up = [1, 1, 1] if kind == "ply" else [1, -1, -1]
    assert np.allclose(mesh.vertices, VERTICES * up, atol=1e-6)
    assert np.array_equal(mesh.faces, FACES)
    if kind != "glb":
        assert np.abs(mesh.visual.vertex_colors[:, :3].astype(int) - COLOURS).max() <= 1
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_glb_holds_linear_colours_normals_and_a_matte_material_with_both_sides(tmp_path):
    document, array = read_glb(save_hands(tmp_path / "hand.glb", ONE, COLOURS))
    primitive = document["meshes"][0]["primitives"][0]
    assert np.array_equal(shown(array(primitive["attributes"]["COLOR_0"])), COLOURS)
    assert np.allclose(np.linalg.norm(array(primitive["attributes"]["NORMAL"]), axis=1), 1)
    material = document["materials"][primitive["material"]]
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0 and material["doubleSided"]
    plain, _ = read_glb(save_hands(tmp_path / "plain.glb", ONE))
    assert "COLOR_0" not in plain["meshes"][0]["primitives"][0]["attributes"]
    assert plain["materials"] == document["materials"]


@pytest.mark.parametrize("kind", ["ply", "obj", "glb", "stl"])
def test_two_hands_stand_together_in_one_file_where_they_are(tmp_path, kind):
    place = np.array([[0.1, 0, 0.5], [-0.2, 0.05, 0.7]])
    hands = [SimpleNamespace(camera_vertices=VERTICES + p, faces=FACES) for p in place]
    path = save_hands(tmp_path / f"hands.{kind}", hands, (200, 150, 120))
    mesh = trimesh.load(path, force="mesh", process=kind == "stl")  # STL repeats its corners
    turn = [1, -1, -1] if kind in ("obj", "glb") else [1, 1, 1]
    parts = sorted(mesh.split(only_watertight=False), key=lambda part: -part.centroid[0])
    found = [part.bounds.mean(0) * turn for part in parts]
    assert np.allclose(found, place + (VERTICES.max(0) + VERTICES.min(0)) / 2, atol=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_rigged_hand_opens_in_its_pose_and_its_bones_carry_the_skin(tmp_path, side):
    model = HandModel.builtin(side)
    rng = np.random.default_rng(0)
    pose, betas = rng.normal(0, 0.3, (16, 3)), rng.normal(size=10)
    place = np.array([0.1, -0.05, 0.6])
    document, array = read_glb(save_rigged(tmp_path / "rig.glb", model, pose, betas, place))
    nodes, skin = document["nodes"], document["skins"][0]
    world = {}

    def visit(index, above):
        local = np.eye(4)
        local[:3, :3] = Rotation.from_quat(nodes[index].get("rotation", [0, 0, 0, 1])).as_matrix()
        local[:3, 3] = nodes[index].get("translation", [0, 0, 0])
        world[index] = above @ local
        for child in nodes[index].get("children", ()):
            visit(child, world[index])

    for root in document["scenes"][0]["nodes"]:
        visit(root, np.eye(4))
    inverse = array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(1, 2)
    bones = np.stack([world[j] for j in skin["joints"]]) @ inverse
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    rest, which, weights = (array(attributes[k]) for k in ("POSITION", "JOINTS_0", "WEIGHTS_0"))
    mesh = document["meshes"][0]
    rest = rest + mesh["weights"][0] * array(mesh["primitives"][0]["targets"][0]["POSITION"])
    blended = np.einsum("vk,vkij->vij", weights, bones[which])
    skinned = (blended @ np.c_[rest, np.ones(len(rest))][..., None])[:, :3, 0] * [1, -1, -1]
    expected = model(
        *(torch.tensor(x, dtype=torch.float32)[None] for x in (pose, betas, place))
    ).vertices[0]
    gap = np.linalg.norm(skinned - expected.numpy(), axis=1)
    assert gap.max() < 3e-3 and gap.mean() < 2e-4  # four bones a vertex are all that glTF takes
    assert nodes[skin["joints"][0]]["name"] == "wrist" and len(skin["joints"]) == 16


def test_a_rigged_file_keeps_the_rules_of_gltf(tmp_path):
    path = save_rigged(tmp_path / "rig.glb", HandModel.builtin(), np.zeros((16, 3)), None, None, 90)
    document, array = read_glb(path)
    (length,) = [buffer["byteLength"] for buffer in document["buffers"]]
    for accessor in document["accessors"]:
        view = document["bufferViews"][accessor["bufferView"]]
        assert view["byteOffset"] % 4 == 0 and view["byteOffset"] + view["byteLength"] <= length
        assert accessor["componentType"] in (5123, 5125, 5126) and accessor["count"] > 0
    primitive, skin = document["meshes"][0]["primitives"][0], document["skins"][0]
    index = primitive["attributes"]
    found = {name: array(number) for name, number in index.items()}
    assert {len(values) for values in found.values()} == {778}
    bounds = [document["accessors"][index["POSITION"]][end] for end in ("min", "max")]
    assert np.array_equal(bounds, [found["POSITION"].min(0), found["POSITION"].max(0)])
    assert array(primitive["indices"]).max() == 777 and found["COLOR_0"].max() <= 1
    weights, joints = found["WEIGHTS_0"].astype(float), found["JOINTS_0"]
    assert weights.min() >= 0 and np.abs(weights.sum(1) - 1).max() < 8e-7
    assert joints.max() < len(skin["joints"]) and not joints[weights == 0].any()
    back = array(skin["inverseBindMatrices"]).reshape(16, 4, 4).swapaxes(1, 2)
    assert (back[:, 3] == [0, 0, 0, 1]).all()
    nodes = document["nodes"]
    above = {child: n for n, node in enumerate(nodes) for child in node.get("children", ())}
    for joint, matrix in zip(skin["joints"], back, strict=True):
        place = np.zeros(3)
        while joint != 0:  # up to the node that turns the camera's axes
            assert np.allclose(nodes[joint]["rotation"], [0, 0, 0, 1])
            place, joint = place + nodes[joint]["translation"], above[joint]
        assert np.allclose(matrix[:3, 3], -place, atol=1e-6)  # the bind pose is the template
    opened = trimesh.load(path, process=False)
    assert len(opened.geometry) == 1 and len(opened.graph.nodes) >= 18


def test_outward_normals_stay_outward_in_every_format(tmp_path):
    for kind in ("ply", "obj", "glb", "stl"):
        path = save_hands(tmp_path / f"hand.{kind}", ONE)
        assert trimesh.load(path, force="mesh").volume > 0


def read_glb(path):
    data = path.read_bytes()
    magic, version, total = struct.unpack("<4sII", data[:12])
    assert (magic, version, total) == (b"glTF", 2, len(data))
    size, kind = struct.unpack("<I4s", data[12:20])
    assert kind == b"JSON" and size % 4 == 0
    document = json.loads(data[20 : 20 + size])
    binary = data[28 + size :]

    def array(index):
        accessor = document["accessors"][index]
        view = document["bufferViews"][accessor["bufferView"]]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}[accessor["type"]]
        kinds = {5126: np.float32, 5125: np.uint32, 5123: np.uint16}
        kind = kinds[accessor["componentType"]]
        flat = np.frombuffer(binary, kind, accessor["count"] * width, view["byteOffset"])
        return flat.reshape(-1, width)

    return document, array


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_prediction_has_the_angles_that_make_its_mesh_also_in_json(tmp_path, side):
    model, rng = HandModel.builtin(side), np.random.default_rng(3)
    pose = torch.tensor(model.sample_poses(1, rng), dtype=torch.float32)
    with torch.no_grad():
        made = model(pose, torch.tensor(rng.normal(size=(1, 10)), dtype=torch.float32))
    wrist, place = made.joints[0, 0].numpy(), np.array([0.05, -0.1, 0.6])
    hand = HandPrediction(
        vertices=made.vertices[0].numpy() - wrist, faces=model.faces.numpy(),
        joints=made.joints[0].numpy() - wrist, joints_2d=np.full((21, 2), 7.5), camera=np.ones(3),
        translation=place, intrinsics=np.eye(3), assumed_intrinsics=True, affine=np.eye(2, 3),
        box=(1, 2, 30, 40), side=side, confidence=0.25, doubtful=True,
    )  # fmt: skip
    assert hand.pose.shape == (16, 3) and hand.betas.shape == (10,)
    (row,) = json.loads(save_predictions(tmp_path / "hands.json", [hand]).read_text())["hands"]
    fitted = (row[name] for name in ("pose_rad", "betas", "model_translation_m"))
    again = model(*(torch.tensor(x)[None] for x in fitted)).vertices[0].detach().numpy()
    assert np.linalg.norm(again - hand.camera_vertices, axis=1).mean() < 1e-3
    assert np.allclose(np.add(row["vertices_m"], row["translation_m"]), again, atol=5e-3)
    assert row["side"] == side and row["intrinsics_assumed"] is True
    assert row["joints_2d_px"][3] == [7.5, 7.5] and row["joint_names"][8] == "index_tip"
    assert (row["confidence"], row["doubtful"]) == (0.25, True)


def test_an_index_has_a_row_for_every_hand_and_for_pictures_without_one(tmp_path):
    place = np.array([0.1, 0, 0.6])
    hand = SimpleNamespace(side="left", confidence=0.25, doubtful=True, translation=place,
                           box=(1, 2, 30, 40))  # fmt: skip
    csv_path, json_path = save_index(tmp_path / "out", {"a.jpg": [hand, hand], "b, c.jpg": []})
    rows = list(csv.DictReader(csv_path.open()))
    assert [(r["picture"], r["hand"], r["side"]) for r in rows] == [
        ("a.jpg", "1", "left"), ("a.jpg", "2", "left"), ("b, c.jpg", "0", "")
    ]  # fmt: skip
    found = json.loads(json_path.read_text())["hands"]
    assert len(found) == 3 and found[1]["distance_m"] == float(rows[1]["distance_m"])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda p: save_hands(p / "hand.fbx", ONE), "one of .ply"),
        (lambda p: save_hands(p / "hand.ply", [(VERTICES * np.nan, FACES)]), "finite"),
        (lambda p: save_hands(p / "hand.ply", [(VERTICES, FACES + 9)]), "below"),
        (lambda p: save_hands(p / "hand.glb", []), "no hand"),
        (lambda p: save_rigged(p / "a.ply", HandModel.builtin(), np.zeros((16, 3))), "glb"),
    ],
)
def test_what_cannot_be_saved_is_refused_and_leaves_no_file(tmp_path, call, message):
    with pytest.raises(ValueError, match=message):
        call(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_sequence_comes_back_with_its_units(tmp_path):
    sequence = SimpleNamespace(
        vertices=np.stack([VERTICES] * 3), faces=FACES, joints=np.ones((3, 21, 3)), side="left",
        joints_2d=np.full((3, 21, 2), 7.5), translation=np.ones((3, 3)), times=np.arange(3) / 25,
        confidence=np.array([0.5, np.nan, 1]), intrinsics=np.eye(3),
    )  # fmt: skip
    with np.load(save_sequence(tmp_path / "new" / "meshes.npz", sequence)) as arrays:
        assert np.allclose(arrays["vertices_m"], sequence.vertices, atol=1e-6)
        assert str(arrays["side"]) == "left" and np.array_equal(arrays["faces"], FACES)
        assert np.isnan(arrays["confidence"][1]) and arrays["times_s"][2] == np.float32(0.08)
