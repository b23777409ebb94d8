"""Results one can take away: PLY, OBJ, GLB (a sequence as one animated GLB), JSON.

>>> save_mesh("hand.glb", vertices, faces, colours)
>>> save_animation("wave.glb", frames, faces, fps=30)
"""

import json
import struct
from pathlib import Path

import numpy as np

from hand_lib.checkpoints import written_atomically
from hand_lib.geometry import vertex_normals
from hand_lib.joints import JOINT_NAMES

MESH_FORMATS = (".ply", ".obj", ".glb", ".stl")


def save_mesh(path, vertices, faces, colours=None) -> Path:
    """Write one mesh; vertex order and count stay as they are.

    path: ends in .ply, .obj, .glb or .stl.   vertices: (V, 3) metres, camera axes (x right,
    y down, z away).   faces: (F, 3).   colours: (3,) or (V, 3), 0 to 255, or None.
    GLB and OBJ viewers have y up, so in these two the hand is turned half about x.
    returns the path.
    """
    import trimesh

    path = Path(path)
    vertices, faces = _checked(vertices, faces)
    if path.suffix.lower() not in MESH_FORMATS:
        raise ValueError(f"{path.name}: a mesh is saved as one of {', '.join(MESH_FORMATS)}")
    if path.suffix.lower() in (".obj", ".glb"):
        vertices = vertices * [1, -1, -1]
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    if colours is not None:
        rgb = np.broadcast_to(np.asarray(colours, np.uint8), vertices.shape)
        mesh.visual.vertex_colors = np.column_stack([rgb, np.full(len(rgb), 255, np.uint8)])
    content = mesh.export(file_type=path.suffix[1:].lower())
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path) as temporary:
        Path(temporary).write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def save_animation(path, frames, faces, fps: float = 30.0, colours=None) -> Path:
    """Write a mesh sequence as one animated GLB: one morph target per frame, shown in turn.

    frames: (T, V, 3) metres, camera axes.   faces: (F, 3).   fps: frames per second.
    Plays in any glTF 2.0 viewer; between two frames the vertices move linearly.   returns the path.
    """
    path, frames = Path(path), np.asarray(frames, float)
    if frames.ndim != 3 or frames.shape[2] != 3 or len(frames) < 2:
        raise ValueError(f"expected frames (T, V, 3) with T of 2 or more, found {frames.shape}")
    if path.suffix.lower() != ".glb":
        raise ValueError(f"{path.name}: an animation is saved as .glb")
    if not fps > 0:
        raise ValueError(f"fps should be positive, found {fps}")
    _checked(frames[0], faces)
    frames = (frames * [1, -1, -1]).astype(np.float32)
    count = len(frames)
    gltf = _Gltf()
    attributes = {
        "POSITION": gltf.add(frames[0], "VEC3", bounds=True),
        "NORMAL": gltf.add(vertex_normals(frames[0], np.asarray(faces)).astype("f4"), "VEC3"),
    }
    if colours is not None:
        rgb = np.broadcast_to(np.asarray(colours, float) / 255, frames[0].shape) ** 2.2
        attributes["COLOR_0"] = gltf.add(rgb.astype(np.float32), "VEC3")
    targets = [{"POSITION": gltf.add(f - frames[0], "VEC3", bounds=True)} for f in frames[1:]]
    times = (np.arange(count) / fps).astype(np.float32)
    weights = np.vstack([np.zeros((1, count - 1)), np.eye(count - 1)]).astype(np.float32)
    primitive = {
        "attributes": attributes,
        "indices": gltf.add(np.asarray(faces, np.uint32).reshape(-1), "SCALAR"),
        "targets": targets,
        "material": 0,
    }
    sampler = {
        "input": gltf.add(times, "SCALAR", bounds=True),
        "output": gltf.add(weights.reshape(-1), "SCALAR"),
        "interpolation": "LINEAR",
    }
    channel = {"sampler": 0, "target": {"node": 0, "path": "weights"}}
    document = {
        "asset": {"version": "2.0", "generator": "hand workbook"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "hand"}],
        "meshes": [{"primitives": [primitive], "weights": [0.0] * (count - 1)}],
        "materials": [
            {"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.7},
             "doubleSided": True}
        ],
        "animations": [{"name": "sequence", "channels": [channel], "samplers": [sampler]}],
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path) as temporary:
        Path(temporary).write_bytes(gltf.pack(document))
    return path


def save_predictions(path, hands) -> Path:
    """Write predictions as JSON: numbers with their units in the names, readable anywhere.

    hands: list of ``inference.HandPrediction``.   returns the path.
    """
    path = Path(path)
    rows = []
    for hand in hands:
        rows.append(
            {
                "side": hand.side,
                "box_px": [round(float(v), 3) for v in hand.box],
                "joint_names": list(JOINT_NAMES),
                "joints_2d_px": np.round(hand.joints_2d.astype(float), 3).tolist(),
                "joints_m": np.round(hand.joints.astype(float), 6).tolist(),
                "vertices_m": np.round(hand.vertices.astype(float), 6).tolist(),
                "faces": np.asarray(hand.faces).tolist(),
                "translation_m": np.round(hand.translation.astype(float), 6).tolist(),
                "intrinsics_px": np.round(np.asarray(hand.intrinsics, float), 4).tolist(),
                "intrinsics_assumed": bool(hand.assumed_intrinsics),
            }
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path) as temporary:
        Path(temporary).write_text(json.dumps({"hands": rows}))
    return path


def _checked(vertices, faces):
    vertices, faces = np.asarray(vertices, float), np.asarray(faces)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
        raise ValueError(f"expected finite vertices (V, 3), found {vertices.shape}")
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError(f"expected faces (F, 3) below {len(vertices)}, found {faces.shape}")
    return vertices, faces


class _Gltf:
    """Collects arrays into one binary buffer with accessors (glTF 2.0, sections 3.6 and 4.4)."""

    _KINDS = {np.dtype(np.float32): 5126, np.dtype(np.uint32): 5125}

    def __init__(self):
        self.data, self.views, self.accessors = bytearray(), [], []

    def add(self, array, shape, bounds=False) -> int:
        array = np.ascontiguousarray(array)
        self.views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": array.nbytes})
        self.data += array.tobytes()
        accessor = {
            "bufferView": len(self.views) - 1,
            "componentType": self._KINDS[array.dtype],
            "count": len(array),
            "type": shape,
        }
        if bounds:
            flat = array.reshape(len(array), -1)
            accessor |= {"min": flat.min(0).tolist(), "max": flat.max(0).tolist()}
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def pack(self, document) -> bytes:
        document = document | {
            "buffers": [{"byteLength": len(self.data)}],
            "bufferViews": self.views,
            "accessors": self.accessors,
        }
        text = json.dumps(document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        data = bytes(self.data) + b"\0" * (-len(self.data) % 4)
        total = 12 + 8 + len(text) + 8 + len(data)
        header = struct.pack("<4sII", b"glTF", 2, total)
        chunk_text = struct.pack("<I4s", len(text), b"JSON") + text
        return header + chunk_text + struct.pack("<I4s", len(data), b"BIN\0") + data
