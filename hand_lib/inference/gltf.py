"""Animated meshes as glTF 2.0 binary: one buffer, morph targets, weights over time.

A sequence of T frames is frame 0 plus a blend of shapes. Few frames get one shape each, shown in
turn. For many the shapes are principal ones (singular vectors of the frames' differences), as few
as keep every vertex within ``TOLERANCE_M``: a minute of video then needs dozens, not thousands.
"""

import json
import struct

import numpy as np

from hand_lib.mesh.topology import vertex_normals

TOLERANCE_M = 5e-5
VERTEX_DATA, INDEX_DATA = 34962, 34963  # glTF 2.0, bufferView.target


def blend_shapes(frames, tolerance: float = TOLERANCE_M) -> tuple[np.ndarray, np.ndarray]:
    """Shapes and weights that give back a sequence.

    frames: (T, V, 3).   tolerance: the largest distance a vertex may be off, in the same unit.
    returns shapes (K, V, 3) and weights (T, K): frames = frames[0] + weights @ shapes, weights[0]
    zero; K at most T - 1.
    """
    frames = np.asarray(frames, float)
    count = len(frames)
    moved = (frames - frames[0]).reshape(count, -1)
    each = moved[1:].reshape(-1, *frames.shape[1:]), np.eye(count)[:, 1:]
    left, sizes, right = np.linalg.svd(moved, full_matrices=False)
    few = None
    low, high = 1, count - 1  # the error falls with the number of shapes: bisection
    while low < high:
        k = (low + high) // 2
        weights = left[:, :k] * sizes[:k]
        weights = weights - weights[0]  # frame 0 is the base, exactly
        off = (weights @ right[:k] - moved).reshape(frames.shape)
        if np.linalg.norm(off, axis=-1).max() <= tolerance:
            few, high = k, k
        else:
            low = k + 1
    if few is None:
        return each
    weights = left[:, :few] * sizes[:few]
    weights = weights - weights[0]
    scale = np.maximum(np.abs(weights).max(axis=0), 1e-12)
    return (right[:few] * scale[:, None]).reshape(few, *frames.shape[1:]), weights / scale


def animation_glb(frames, faces, times, colours=None) -> bytes:
    """The bytes of an animated .glb.

    frames: (T, V, 3) metres, y up.   faces: (F, 3).   times: (T,) seconds.   colours: (3,) or
    (V, 3) sRGB, 0 to 255, or None.
    """
    frames = np.asarray(frames, float)
    shapes, weights = blend_shapes(frames)
    normals = np.stack([vertex_normals(frame, faces) for frame in frames])
    turned = (normals[1:] - normals[0]).reshape(len(frames) - 1, -1)
    bends = np.linalg.lstsq(weights[1:], turned, rcond=None)[0].reshape(-1, *frames.shape[1:])
    buffer = Buffer()
    attributes = {
        "POSITION": buffer.add(frames[0], "VEC3", bounds=True, target=VERTEX_DATA),
        "NORMAL": buffer.add(normals[0], "VEC3", target=VERTEX_DATA),
    }
    if colours is not None:  # vertex colours are linear light
        rgb = np.broadcast_to(np.asarray(colours, float) / 255, frames[0].shape) ** 2.2
        attributes["COLOR_0"] = buffer.add(rgb, "VEC3", target=VERTEX_DATA)
    targets = [
        {
            "POSITION": buffer.add(shape, "VEC3", bounds=True, target=VERTEX_DATA),
            "NORMAL": buffer.add(bend, "VEC3", target=VERTEX_DATA),
        }
        for shape, bend in zip(shapes, bends, strict=True)
    ]
    indices = np.asarray(faces, np.uint32).reshape(-1)
    primitive = {
        "attributes": attributes,
        "indices": buffer.add(indices, "SCALAR", target=INDEX_DATA),
        "targets": targets,
        "material": 0,
    }
    sampler = {
        "input": buffer.add(np.asarray(times), "SCALAR", bounds=True),
        "output": buffer.add(weights.reshape(-1), "SCALAR"),
        "interpolation": "LINEAR",
    }
    channel = {"sampler": 0, "target": {"node": 0, "path": "weights"}}
    return buffer.pack(
        {
            "asset": {"version": "2.0", "generator": "hand workbook"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0, "name": "hand"}],
            "meshes": [{"primitives": [primitive], "weights": [0.0] * len(shapes)}],
            "materials": [
                {
                    "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.7},
                    "doubleSided": True,
                }
            ],
            "animations": [{"name": "sequence", "channels": [channel], "samplers": [sampler]}],
        }
    )


class Buffer:
    """Collects arrays into one binary buffer with accessors (glTF 2.0, sections 3.6 and 4.4)."""

    _KINDS = {np.dtype(np.float32): 5126, np.dtype(np.uint32): 5125}

    def __init__(self):
        self.data, self.views, self.accessors = bytearray(), [], []

    def add(self, array, shape, bounds=False, target=None) -> int:
        """Append an array; floats as float32.   returns the number of its accessor."""
        kind = np.uint32 if np.asarray(array).dtype.kind in "iu" else np.float32
        array = np.ascontiguousarray(array, kind)
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": array.nbytes}
        self.views.append(view if target is None else {**view, "target": target})
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
        """The file: header, JSON chunk, binary chunk, each padded to four bytes."""
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
