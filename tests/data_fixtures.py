"""Tiny data sets for tests of readers, writers and loaders: hands that differ, no downloads."""

import json

import cv2
import numpy as np

from hand_lib.data.sample import HandSample
from hand_lib.render.camera import project


def hand_points(rng, count=778):
    """Joints (21, 3) and vertices (count, 3), metres, wrist at the origin; every joint differs."""
    fingers = np.arange(21)[:, None] * np.array([[0.004, 0.003, 0.001]])
    joints = fingers + rng.normal(size=(21, 3)) * 0.01
    joints[0] = 0
    vertices = rng.normal(size=(count, 3)) * 0.03
    return joints.astype(np.float32), vertices.astype(np.float32)


def smooth_image(rng, size=224):
    """A picture that survives JPEG: (size, size, 3) uint8."""
    noise = rng.uniform(0, 255, (size // 16, size // 16, 3)).astype(np.float32)
    return cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(
        np.uint8
    )


def make_hand(seed, size=224, with_pose=True, **fields):
    """A labelled hand whose intrinsics, place and joints all differ from its neighbour's."""
    rng = np.random.default_rng(seed)
    joints, vertices = hand_points(rng)
    focal = rng.uniform(366, 1131) * size / 224
    center = np.array([rng.uniform(107, 194), rng.uniform(80, 119)]) * size / 224
    intrinsics = np.array([[focal, 0, center[0]], [0, focal * 1.01, center[1]], [0, 0, 1]])
    root = np.array([rng.uniform(-0.02, 0.02), rng.uniform(-0.02, 0.02), rng.uniform(0.6, 0.9)])
    fields = {
        "joints": joints, "vertices": vertices, "root": root, "intrinsics": intrinsics,
        "joints_2d": project(joints + root, intrinsics), "dataset": "fixture", "split": "training",
        "index": seed,
    } | fields  # fmt: skip
    if with_pose:
        fields |= {"pose": rng.normal(size=48) * 0.3, "betas": rng.normal(size=10)}
    return HandSample(smooth_image(rng, size), **fields)


def write_freihand_fixture(folder, unique=3, versions=4, size=224, masks=True):
    """FreiHAND's training layout written independently of the library's writer."""
    (folder / "training" / "rgb").mkdir(parents=True)
    (folder / "training" / "mask").mkdir()
    lists = {"K": [], "xyz": [], "verts": [], "mano": [], "scale": []}
    for index in range(unique):
        hand = make_hand(index, size)
        xyz = hand.joints.astype(float) + hand.root
        lists["K"].append(hand.intrinsics.tolist())
        lists["xyz"].append(xyz.tolist())
        lists["verts"].append((hand.vertices.astype(float) + hand.root).tolist())
        lists["scale"].append(float(np.linalg.norm(xyz[9] - xyz[10])))
        lists["mano"].append([[*hand.pose.tolist(), *hand.betas.tolist(), 100.0, 90.0, 650.0]])
        for version in range(versions):
            number = index + version * unique
            grey = np.full((size, size, 3), (40 * version + 10 * index) % 256, np.uint8)
            picture = hand.image if version == 0 else grey
            cv2.imwrite(str(folder / "training" / "rgb" / f"{number:08d}.jpg"), picture[:, :, ::-1])
        if masks:
            mask = np.zeros((size, size, 3), np.uint8)
            mask[20 : 60 + index] = 255
            cv2.imwrite(str(folder / "training" / "mask" / f"{index:08d}.jpg"), mask)
    for name, values in lists.items():
        (folder / f"training_{name}.json").write_text(json.dumps(values))
    return folder


def foreign_hand(arrays):
    """A hand model's arrays in another vertex order, as MANO's is another than ours.

    The fingertips come to lie where the tables ``freihand`` and ``smplx`` look for them.
    returns the arrays, and the number in the old order of each vertex of the new one.
    """
    order = np.random.default_rng(0).permutation(len(arrays["v_template"]))
    template, tips = arrays["v_template"], np.asarray(arrays["fingertips"])
    near = np.linalg.norm(template[:, None] - template[tips], axis=2).argsort(axis=0)[:2]
    for old, new in [*zip(near[0], (744, 320, 443, 555, 672), strict=True), (near[1][3], 554),
                     (near[1][4], 671)]:  # fmt: skip
        at = int(np.flatnonzero(order == old)[0])
        order[[at, new]] = order[[new, at]]
    by_vertex = ("v_template", "shapedirs", "posedirs", "weights")
    moved = {name: arrays[name][order] for name in by_vertex}
    moved["J_regressor"] = arrays["J_regressor"][:, order]
    moved["f"] = np.argsort(order)[arrays["f"]]
    return {k: v for k, v in arrays.items() if k != "fingertips"} | moved, order


def write_freihand_in_the_wild(folder, order, count=10, size=96):
    """Rendered hands as the real FreiHAND comes: two backgrounds, foreign vertices, some damage.

    order: of the vertices.   One picture is damaged in its middle, one is missing.
    """
    from hand_lib.data.freihand import write_freihand
    from hand_lib.data.synthetic.hands import SyntheticHands

    hands = list(SyntheticHands(size, 3, count))
    write_freihand(folder, hands)
    (folder / "training_box.json").unlink(missing_ok=True)
    verts = np.array(json.loads((folder / "training_verts.json").read_text()))
    (folder / "training_verts.json").write_text(json.dumps(verts[:, order].tolist()))
    rgb = folder / "training" / "rgb"
    for number in range(count):
        data = (rgb / f"{number:08d}.jpg").read_bytes()
        (rgb / f"{number + count:08d}.jpg").write_bytes(data)
    (rgb / f"{count + 1:08d}.jpg").unlink()
    data = (rgb / "00000002.jpg").read_bytes()
    middle = len(data) * 2 // 3
    (rgb / "00000002.jpg").write_bytes(data[:middle] + bytes(200) + data[middle + 200 :])
    return folder


def write_youtube_in_the_wild(folder, order, count=10, size=160):
    """Rendered hands as YouTube 3D Hands comes: frames, pixels, left hands, a frame missing."""
    from hand_lib.data.synthetic.hands import SyntheticHands

    document = {"images": [], "annotations": []}
    for number, hand in enumerate(SyntheticHands(size, 4, count)):
        placed = hand.vertices.astype(float) + hand.root
        flat, scale = project(placed, hand.intrinsics), hand.intrinsics[0, 0] / placed[:, 2].mean()
        mesh = np.c_[flat, (placed[:, 2] - hand.root[2]) * scale][order]
        picture = cv2.copyMakeBorder(hand.image, 0, 0, 40, 40, cv2.BORDER_REPLICATE)
        mesh[:, 0] += 40
        left = number % 3 == 1
        if left:
            picture, mesh = picture[:, ::-1], mesh * [-1, 1, 1] + [size + 79, 0, 0]
        name = f"youtube/v{number % 4}/video/frames/{number * 7}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if number != 5:
            cv2.imwrite(str(folder / name), picture[:, :, ::-1])
        image = {"name": name, "width": size + 80, "height": size, "id": number}
        document["images"].append(image)
        document["annotations"].append({
            "vertices": mesh.tolist(), "is_left": int(left), "image_id": number, "id": number,
        })  # fmt: skip
    path = folder / "youtube_train.json"
    path.write_text(json.dumps(document))
    return path
