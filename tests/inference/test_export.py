import json
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh

from hand_lib.inference.export import (
    save_animation,
    save_mesh,
    save_predictions,
    save_report,
    save_sequence,
)
from hand_lib.inference.gltf import TOLERANCE_M, blend_shapes
from hand_lib.mesh.topology import vertex_normals

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
        assumed_intrinsics=True, confidence=0.25, doubtful=True,
    )  # fmt: skip
    (row,) = json.loads(save_predictions(tmp_path / "hands.json", [hand]).read_text())["hands"]
    assert row["side"] == "left" and row["intrinsics_assumed"] is True
    assert np.allclose(row["vertices_m"], VERTICES, atol=1e-6)
    assert row["joints_2d_px"][3] == [7.5, 7.5] and row["joint_names"][8] == "index_tip"
    assert (row["confidence"], row["doubtful"]) == (0.25, True)
    assert row["translation_m"] == [0, 0, 0.5] and np.array_equal(row["faces"], FACES)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda p: save_mesh(p / "hand.fbx", VERTICES, FACES), "one of .ply"),
        (lambda p: save_mesh(p / "hand.ply", VERTICES * np.nan, FACES), "finite"),
        (lambda p: save_mesh(p / "hand.ply", VERTICES, FACES + 9), "below"),
        (lambda p: save_animation(p / "a.glb", VERTICES[None], FACES), "T of 2"),
        (
            lambda p: save_animation(p / "a.glb", np.stack([VERTICES, VERTICES * np.nan]), FACES),
            "frame 1 is not finite",
        ),
        (lambda p: save_animation(p / "a.ply", np.stack([VERTICES] * 2), FACES), "glb"),
        (lambda p: save_animation(p / "a.glb", np.stack([VERTICES] * 2), FACES, fps=0), "fps"),
    ],
)
def test_what_cannot_be_saved_is_refused_and_leaves_no_file(tmp_path, call, message):
    with pytest.raises(ValueError, match=message):
        call(tmp_path)
    assert list(tmp_path.iterdir()) == []


def waving(count):
    """A ball that turns while two smooth waves deform it: a long motion of low rank."""
    t = np.arange(count)[:, None] / 9
    turn = np.stack([np.cos(t), np.sin(t), -np.sin(t), np.cos(t)], -1).reshape(count, 2, 2)
    frames = VERTICES[None] * (1 + 0.1 * np.sin(2 * t)[..., None])
    frames[..., :2] = frames[..., :2] @ turn
    return frames + np.stack([0.1 * np.sin(t), 0.05 * np.cos(t), 0.6 + 0.1 * t], -1)


def test_a_long_sequence_needs_few_shapes_and_stays_true():
    frames = waving(120)
    shapes, weights = blend_shapes(frames)
    assert len(shapes) < 20 and not weights[0].any()
    back = frames[0] + np.einsum("tk,kvc->tvc", weights, shapes)
    assert np.linalg.norm(back - frames, axis=-1).max() <= TOLERANCE_M
    noise = np.random.default_rng(0).normal(0, 0.01, (6, 50, 3))
    exact, turns = blend_shapes(noise)  # nothing to save: one shape for each frame
    assert np.array_equal(turns, np.eye(6)[:, 1:]) and np.allclose(noise[0] + exact, noise[1:])


def test_the_animation_is_valid_gltf_with_normals_that_turn_along(tmp_path):
    frames = waving(40)
    path = save_animation(tmp_path / "long.glb", frames, FACES, fps=25, colours=COLOURS)
    document, array = read_glb(path)
    views = document["bufferViews"]
    for accessor in document["accessors"]:
        view = views[accessor["bufferView"]]
        size = 4 * accessor["count"] * (3 if accessor["type"] == "VEC3" else 1)
        assert view["byteOffset"] % 4 == 0 and view["byteLength"] == size
        assert view["byteOffset"] + size <= document["buffers"][0]["byteLength"]
    primitive = document["meshes"][0]["primitives"][0]
    named = [primitive["attributes"], *primitive["targets"]]
    for entry in named:
        accessor = document["accessors"][entry["POSITION"]]
        assert np.allclose(accessor["min"], array(entry["POSITION"]).min(0))
        assert np.allclose(accessor["max"], array(entry["POSITION"]).max(0))
    sampler = document["animations"][0]["samplers"][0]
    weights = array(sampler["output"]).reshape(40, -1)
    assert weights.shape[1] == len(primitive["targets"]) == len(document["meshes"][0]["weights"])
    base, *bends = (array(entry["NORMAL"]) for entry in named)
    shown = base + np.einsum("tk,kvc->tvc", weights, np.stack(bends))
    true = np.stack([vertex_normals(f, FACES) for f in frames * [1, -1, -1]])
    cosine = (shown * true).sum(-1) / np.linalg.norm(shown, axis=-1)
    assert cosine.min() > np.cos(np.deg2rad(5))


def test_a_sequence_and_a_report_come_back_with_their_units(tmp_path):
    sequence = SimpleNamespace(
        vertices=waving(3), faces=FACES, joints=np.ones((3, 21, 3)), side="left",
        joints_2d=np.full((3, 21, 2), 7.5), translation=np.ones((3, 3)), times=np.arange(3) / 25,
        confidence=np.array([0.5, np.nan, 1]), intrinsics=np.eye(3),
    )  # fmt: skip
    with np.load(save_sequence(tmp_path / "new" / "meshes.npz", sequence)) as arrays:
        assert np.allclose(arrays["vertices_m"], sequence.vertices, atol=1e-6)
        assert str(arrays["side"]) == "left" and np.array_equal(arrays["faces"], FACES)
        assert np.isnan(arrays["confidence"][1]) and arrays["times_s"][2] == np.float32(0.08)
    path = save_report(tmp_path / "new" / "report.json", [{"side": "left"}])
    assert json.loads(path.read_text()) == {"hands": [{"side": "left"}]}
