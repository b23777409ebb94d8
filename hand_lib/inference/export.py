"""Results one can take away: PLY, OBJ, GLB (a sequence as one animated GLB), NPZ, JSON.

>>> save_mesh("hand.glb", vertices, faces, colours)
>>> save_animation("wave.glb", frames, faces, fps=30)
"""

import json
from pathlib import Path

import numpy as np

from hand_lib.files import write_text, written_atomically
from hand_lib.hand.joints import JOINT_NAMES
from hand_lib.inference.gltf import animation_glb

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
    """Write a mesh sequence as one animated GLB.

    frames: (T, V, 3) metres, camera axes.   faces: (F, 3).   fps: frames per second.
    colours: (3,) or (V, 3), 0 to 255, or None.
    Plays in any glTF 2.0 viewer; between two frames the vertices move linearly. Long sequences are
    stored as a blend of few shapes, true to 0.05 mm (see ``gltf``).   returns the path.
    """
    path, frames = Path(path), np.asarray(frames, float)
    if frames.ndim != 3 or frames.shape[2] != 3 or len(frames) < 2:
        raise ValueError(f"expected frames (T, V, 3) with T of 2 or more, found {frames.shape}")
    if path.suffix.lower() != ".glb":
        raise ValueError(f"{path.name}: an animation is saved as .glb")
    if not fps > 0:
        raise ValueError(f"fps should be positive, found {fps}")
    if not np.isfinite(frames).all():
        bad = int(np.argmax(~np.isfinite(frames).all(axis=(1, 2))))
        raise ValueError(f"frame {bad} is not finite; leave frames without a hand out")
    _checked(frames[0], faces)
    times = np.arange(len(frames)) / fps
    content = animation_glb(frames * [1, -1, -1], np.asarray(faces), times, colours)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path) as temporary:
        Path(temporary).write_bytes(content)
    return path


def save_sequence(path, sequence) -> Path:
    """Write a ``video.HandSequence`` as a .npz of plain arrays, float32, units in the names.

    ``numpy.load(path)["vertices_m"] + numpy.load(path)["translation_m"][:, None]`` is (T, V, 3) in
    the camera's frame.   returns the path.
    """
    path = Path(path)
    arrays = {
        "vertices_m": sequence.vertices,
        "joints_m": sequence.joints,
        "joints_2d_px": sequence.joints_2d,
        "translation_m": sequence.translation,
        "confidence": sequence.confidence,
        "times_s": sequence.times,
        "intrinsics_px": sequence.intrinsics,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            faces=np.asarray(sequence.faces, np.int32),
            side=np.array(sequence.side),
            **{name: np.asarray(value, np.float32) for name, value in arrays.items()},
        )
    return path


def save_report(path, rows: list[dict]) -> Path:
    """Write what happened to each hand of a video as JSON.   returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"hands": rows}, indent=1) + "\n")
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
                "confidence": None if hand.confidence is None else round(hand.confidence, 4),
                "doubtful": bool(hand.doubtful),
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
