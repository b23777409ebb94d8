import json
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh

from hand_lib.export import save_animation, save_mesh, save_predictions

BALL = trimesh.creation.icosphere(2)
VERTICES, FACES = np.array(BALL.vertices) * [0.09, 0.05, 0.02], np.array(BALL.faces)
COLOURS = np.random.default_rng(0).integers(0, 256, VERTICES.shape, dtype=np.uint8)


@pytest.mark.parametrize("kind", ["ply", "obj", "glb"])
def test_a_saved_mesh_opens_with_its_vertices_faces_and_colours_in_order(tmp_path, kind):
    path = save_mesh(tmp_path / "new" / f"hand.{kind}", VERTICES, FACES, COLOURS)
    mesh = trimesh.load(path, process=False, force="mesh", maintain_order=True)
    up = [1, 1, 1] if kind == "ply" else [1, -1, -1]
    assert np.allclose(mesh.vertices, VERTICES * up, atol=1e-6)
    assert np.array_equal(mesh.faces, FACES)
    assert np.abs(mesh.visual.vertex_colors[:, :3].astype(int) - COLOURS).max() <= 1
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_outward_normals_stay_outward_in_every_format(tmp_path):
    for kind in ("ply", "obj", "glb", "stl"):
        path = save_mesh(tmp_path / f"hand.{kind}", VERTICES, FACES)
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
        width = 3 if accessor["type"] == "VEC3" else 1
        kind = {5126: np.float32, 5125: np.uint32}[accessor["componentType"]]
        flat = np.frombuffer(binary, kind, accessor["count"] * width, view["byteOffset"])
        return flat.reshape(-1, width)

    return document, array


def test_an_animation_shows_frame_t_at_time_t(tmp_path):
    wave = np.sin(np.arange(5))[:, None, None] * 0.02
    frames = VERTICES + wave * VERTICES[:, :1]
    path = save_animation(tmp_path / "wave.glb", frames, FACES, fps=10, colours=(200, 150, 120))
    document, array = read_glb(path)
    primitive = document["meshes"][0]["primitives"][0]
    base = array(primitive["attributes"]["POSITION"])
    targets = np.stack([array(t["POSITION"]) for t in primitive["targets"]])
    sampler = document["animations"][0]["samplers"][0]
    times = array(sampler["input"])[:, 0]
    weights = array(sampler["output"]).reshape(len(times), -1)
    assert np.allclose(times, np.arange(5) / 10)
    shown = base + np.einsum("tk,kvc->tvc", weights, targets)
    assert np.allclose(shown, frames * [1, -1, -1], atol=1e-6)
    assert np.array_equal(array(primitive["indices"])[:, 0], FACES.ravel())
    assert isinstance(trimesh.load(path, force="mesh"), trimesh.Trimesh)


def test_predictions_are_json_that_says_its_units(tmp_path):
    hand = SimpleNamespace(
        side="left", box=(1, 2, 30, 40), joints_2d=np.full((21, 2), 7.5), joints=np.ones((21, 3)),
        vertices=VERTICES, faces=FACES, translation=np.array([0, 0, 0.5]), intrinsics=np.eye(3),
        assumed_intrinsics=True,
    )  # fmt: skip
    (row,) = json.loads(save_predictions(tmp_path / "hands.json", [hand]).read_text())["hands"]
    assert row["side"] == "left" and row["intrinsics_assumed"] is True
    assert np.allclose(row["vertices_m"], VERTICES, atol=1e-6)
    assert row["joints_2d_px"][3] == [7.5, 7.5] and row["joint_names"][8] == "index_tip"
    assert row["translation_m"] == [0, 0, 0.5] and np.array_equal(row["faces"], FACES)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda p: save_mesh(p / "hand.fbx", VERTICES, FACES), "one of .ply"),
        (lambda p: save_mesh(p / "hand.ply", VERTICES * np.nan, FACES), "finite"),
        (lambda p: save_mesh(p / "hand.ply", VERTICES, FACES + 9), "below"),
        (lambda p: save_animation(p / "a.glb", VERTICES[None], FACES), "T of 2"),
        (lambda p: save_animation(p / "a.ply", np.stack([VERTICES] * 2), FACES), "glb"),
        (lambda p: save_animation(p / "a.glb", np.stack([VERTICES] * 2), FACES, fps=0), "fps"),
    ],
)
def test_what_cannot_be_saved_is_refused_and_leaves_no_file(tmp_path, call, message):
    with pytest.raises(ValueError, match=message):
        call(tmp_path)
    assert list(tmp_path.iterdir()) == []
