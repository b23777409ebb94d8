"""Results one can take away: PLY, OBJ, GLB (also with bones), STL, NPZ, JSON.

>>> hands = predictor.predict("photo.jpg", boxes)
>>> save_hands("hands.glb", hands)                        # where they stand
>>> save_rigged("hand.glb", *hands[0].parameters)         # Blender moves it

Meshes are in the camera's frame (x right, y down, z away, metres); OBJ and GLB viewers have y up,
so in these two everything is turned half about x.
"""

import csv
import io
import json
import struct
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from hand_lib.files import written_atomically
from hand_lib.hand.joints import JOINT_NAMES, MANO_JOINT_NAMES
from hand_lib.mesh.topology import vertex_normals

MESH_FORMATS = (".ply", ".obj", ".glb", ".stl")


def save_hands(path, hands, colours=None) -> Path:
    """Write the hands of one picture where they stand, together in one file.

    path: ends in .ply, .obj, .glb or .stl.   hands: each a ``HandPrediction`` or a pair of vertices
    (V, 3) metres in the camera's frame and faces (F, 3); order and count of vertices stay.
    colours: (3,) or (V, 3), sRGB 0 to 255, or None.   returns the path.
    """
    path = Path(path)
    if path.suffix.lower() not in MESH_FORMATS:
        raise ValueError(f"{path.name}: a mesh is saved as one of {', '.join(MESH_FORMATS)}")
    if not len(hands):
        raise ValueError(f"{path.name}: there is no hand to save")
    pairs = [h if isinstance(h, tuple) else (h.camera_vertices, h.faces) for h in hands]
    meshes = [_checked(*pair, colours) for pair in pairs]
    if path.suffix.lower() == ".glb":
        buffer, count = _Glb(), len(meshes)
        turned = [buffer.mesh(vertices * [1, -1, -1], *rest) for vertices, *rest in meshes]
        nodes = [{"name": f"hand {n + 1}", "mesh": n} for n in range(count)]
        return buffer.write(path, {"nodes": nodes, "meshes": turned}, scene=list(range(count)))
    import trimesh  # takes a third of a second

    turn = [1, -1, -1] if path.suffix.lower() == ".obj" else [1, 1, 1]
    mesh = trimesh.util.concatenate(
        [
            trimesh.Trimesh(vertices * turn, faces, vertex_colors=rgb, process=False)
            for vertices, faces, rgb in meshes
        ]
    )
    content = mesh.export(file_type=path.suffix[1:].lower())
    return _write(path, content if isinstance(content, bytes) else content.encode())


def save_rigged(path, model, pose, betas=None, translation=None, colours=None) -> Path:
    """Write a hand with its 16 bones as GLB: what opens is the pose, and its joints can be turned.

    model: a ``HandModel``.   pose: (16, 3) axis-angle.   betas: (10,) or None.   translation: (3,)
    metres or None.   colours: as in ``save_hands``. What skinning does not do, the model's
    corrections of bent joints, is a shape key for this pose; fade it for others.   returns the
    path.
    """
    path, arrays = Path(path), model.arrays()
    if path.suffix.lower() != ".glb":
        raise ValueError(f"{path.name}: a hand with bones is saved as .glb")
    betas = np.zeros(10) if betas is None else np.asarray(betas, float)
    rest = arrays["v_template"] + arrays["shapedirs"][..., : len(betas)] @ betas
    joints, parents = arrays["J_regressor"] @ rest, model.parents
    turns = model.rotations(torch.as_tensor(np.asarray(pose, np.float32)).reshape(1, 16, 3))[0]
    turns = turns.cpu().numpy()
    bent = arrays["posedirs"] @ (turns[1:] - np.eye(3)).ravel()
    bent *= bool(model.directions[10:].any())  # not of a model without corrections
    turns = Rotation.from_matrix(turns).as_quat().tolist()
    starts = joints - np.where(parents[:, None] >= 0, joints[parents], 0)
    starts[0] += 0 if translation is None else translation
    vertices, faces, rgb = _checked(rest, arrays["f"], colours)
    buffer = _Glb()
    mesh = buffer.mesh(vertices, faces, rgb)
    most = np.argsort(-arrays["weights"], axis=1, kind="stable")[:, :4]
    weights = np.take_along_axis(arrays["weights"], most, axis=1)
    attributes = mesh["primitives"][0]["attributes"]
    most = np.where(weights > 0, most, 0).astype(np.uint16)  # as the standard's validator wants
    attributes["JOINTS_0"] = buffer.add(most, "VEC4")
    mesh["primitives"][0]["targets"] = [{"POSITION": buffer.add(bent, "VEC3")}]
    mesh |= {"weights": [1.0], "extras": {"targetNames": ["bent joints"]}}
    attributes["WEIGHTS_0"] = buffer.add(weights / weights.sum(1, keepdims=True), "VEC4")
    back = np.tile(np.eye(4), (16, 1, 1))
    back[:, 3, :3] = -joints  # the inverse of each bone's place, column after column
    nodes = []
    for n, (name, start, turn) in enumerate(zip(MANO_JOINT_NAMES, starts, turns, strict=True)):
        nodes.append({"name": name, "translation": start.tolist(), "rotation": turn})
        if children := [c + 2 for c in range(1, 16) if parents[c] == n]:
            nodes[n]["children"] = children
    skin = {"joints": list(range(2, 18)), "inverseBindMatrices": buffer.add(back, "MAT4")}
    turn = {"name": "camera axes", "rotation": [1, 0, 0, 0], "children": [2]}
    hand = {"name": f"{model.side} hand", "mesh": 0, "skin": 0}
    document = {"nodes": [turn, hand, *nodes], "meshes": [mesh], "skins": [skin]}
    return buffer.write(path, document, scene=[0, 1])


def save_sequence(path, sequence) -> Path:
    """Write a ``video.HandSequence`` as a .npz of plain arrays, float32, units in the names.

    ``numpy.load(path)["vertices_m"] + numpy.load(path)["translation_m"][:, None]`` is (T, V, 3) in
    the camera's frame.   returns the path.
    """
    arrays = {
        "vertices_m": sequence.vertices,
        "joints_m": sequence.joints,
        "joints_2d_px": sequence.joints_2d,
        "translation_m": sequence.translation,
        "confidence": sequence.confidence,
        "times_s": sequence.times,
        "intrinsics_px": sequence.intrinsics,
    }
    arrays = {name: np.asarray(value, np.float32) for name, value in arrays.items()}
    arrays |= {"faces": np.asarray(sequence.faces, np.int32), "side": np.array(sequence.side)}
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return _write(Path(path), content.getvalue())


def save_predictions(path, hands) -> Path:
    """Write predictions as JSON: numbers with their units in the names, readable anywhere.

    hands: list of ``HandPrediction``. ``vertices_m`` and ``joints_m`` count from the wrist, which
    stands at ``translation_m`` in the camera's frame. The hand model shows the same mesh, also in
    the camera's frame, for ``pose_rad`` (axis-angle, zero is the flat hand), ``betas`` and
    ``model_translation_m``; null where it does not: no MANO file for a MANO mesh.
    returns the path.
    """

    def numbers(array, digits=6):
        return np.round(np.asarray(array, float), digits).tolist()

    rows = []
    for hand in hands:
        try:
            fitted = [numbers(array) for array in hand.parameters[1:]]
        except (FileNotFoundError, ValueError):
            fitted = [None] * 3
        rows.append(
            {
                "side": hand.side,
                "side_from": hand.side_from,
                "box_from": hand.box_from,
                "box_px": numbers(hand.box, 3),
                "joint_names": list(JOINT_NAMES),
                "joints_2d_px": numbers(hand.joints_2d, 3),
                "joints_m": numbers(hand.joints),
                "vertices_m": numbers(hand.vertices),
                "faces": np.asarray(hand.faces).tolist(),
                "translation_m": numbers(hand.translation),
                **dict(zip(("pose_rad", "betas", "model_translation_m"), fitted, strict=True)),
                "intrinsics_px": numbers(hand.intrinsics, 4),
                "intrinsics_assumed": bool(hand.assumed_intrinsics),
                "confidence": None if hand.confidence is None else round(hand.confidence, 4),
                "doubtful": bool(hand.doubtful),
            }
        )
    return _write(Path(path), json.dumps({"hands": rows}).encode())


def save_index(folder, found: dict) -> list[Path]:
    """The hands of many pictures in one table, as ``index.csv`` and ``index.json``; -> both paths.

    found: name of the picture -> its ``HandPrediction``s; one without hands has a row all the same.
    """
    rows, table = [], io.StringIO()
    for name, hands in found.items():
        rows += [{"picture": name, "hand": 0}] if not hands else []
        for n, hand in enumerate(hands, start=1):
            box = dict(zip(("x0_px", "y0_px", "x1_px", "y1_px"), hand.box, strict=True))
            sure = None if hand.confidence is None else round(hand.confidence, 4)
            row = {"picture": name, "hand": n, "side": hand.side, "confidence": sure}
            row |= {"doubtful": bool(hand.doubtful), "distance_m": float(hand.translation[2])}
            rows.append(row | {key: round(float(value), 1) for key, value in box.items()})
    names = ("picture", "hand", "side", "confidence", "doubtful", "distance_m", "x0_px", "y0_px",
             "x1_px", "y1_px")  # fmt: skip
    writer = csv.DictWriter(table, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    folder, texts = Path(folder), {"csv": table.getvalue(), "json": json.dumps({"hands": rows})}
    return [_write(folder / f"index.{kind}", text.encode()) for kind, text in texts.items()]


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path) as temporary:
        temporary.write_bytes(content)
    return path


def _checked(vertices, faces, colours):
    """Vertices (V, 3), faces (F, 3) and colours (V, 3) uint8 or None, or a ValueError."""
    vertices, faces = np.asarray(vertices, float), np.asarray(faces)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
        raise ValueError(f"expected finite vertices (V, 3), found {vertices.shape}")
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError(f"expected faces (F, 3) below {len(vertices)}, found {faces.shape}")
    if colours is not None:
        colours = np.broadcast_to(np.asarray(colours, np.uint8), vertices.shape)
    return vertices, faces, colours


class _Glb:
    """A glTF 2.0 binary in the making: one buffer, its accessors, one matte material."""

    KINDS = {"f": (np.float32, 5126), "u": (np.uint16, 5123), "i": (np.uint32, 5125)}

    def __init__(self):
        self.data, self.views, self.accessors = bytearray(), [], []

    def add(self, array, shape: str) -> int:
        """Append an array, floats as float32, integers as uint32.   returns its accessor."""
        dtype, code = self.KINDS[np.asarray(array).dtype.kind]
        array = np.ascontiguousarray(array, dtype)
        self.views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": array.nbytes})
        self.data += array.tobytes() + b"\0" * (-array.nbytes % 4)
        accessor = {"bufferView": len(self.views) - 1, "componentType": code, "type": shape}
        if shape == "VEC3":
            accessor |= {"min": array.min(0).tolist(), "max": array.max(0).tolist()}
        self.accessors.append(accessor | {"count": len(array)})
        return len(self.accessors) - 1

    def mesh(self, vertices, faces, colours=None) -> dict:
        """A mesh with normals, and colours in linear light as the standard wants them."""
        attributes = {
            "POSITION": self.add(vertices, "VEC3"),
            "NORMAL": self.add(vertex_normals(vertices, faces), "VEC3"),
        }
        if colours is not None:
            srgb = colours / 255.0
            linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
            attributes["COLOR_0"] = self.add(linear, "VEC3")
        indices = self.add(np.asarray(faces, int).reshape(-1), "SCALAR")
        return {"primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}

    def write(self, path: Path, document: dict, scene: list[int]) -> Path:
        """The file: header, JSON chunk, binary chunk, each padded to four bytes."""
        matte = {"metallicFactor": 0.0, "roughnessFactor": 0.8}
        document = document | {
            "asset": {"version": "2.0", "generator": "hand workbook"},
            "scene": 0,
            "scenes": [{"nodes": scene}],
            "materials": [{"pbrMetallicRoughness": matte, "doubleSided": True}],
            "buffers": [{"byteLength": len(self.data)}],
            "bufferViews": self.views,
            "accessors": self.accessors,
        }
        text = json.dumps(document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        size = 28 + len(text) + len(self.data)
        head = struct.pack("<4sIII4s", b"glTF", 2, size, len(text), b"JSON")
        return _write(path, head + text + struct.pack("<I4s", len(self.data), b"BIN\0") + self.data)
