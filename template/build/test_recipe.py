"""The built-in hand as it lies in template/hand.npz, and its recipe: run it when that changes."""

import igl
import numpy as np
import pytest
from template_checks import arrays, closed, posed, volumes

from hand_lib import ROOT
from hand_lib.hand import joints as anatomy
from hand_lib.hand.joints import FINGER_NAMES, FINGERTIP_VERTICES, MANO_FINGERS, MANO_PARENTS
from hand_lib.hand.poses import GESTURES, pose_joints, sample_poses
from hand_lib.mesh.topology import boundary_loops, check_mesh, unique_edges
from template.build import anthropometry
from template.build import pose as build_pose
from template.build import skin as build_skin
from template.build import surface as build_surface
from template.build.template import build, main


@pytest.fixture(scope="module")
def bent():
    """2,000 sampled poses and every gesture, posed with corrections."""
    pose = sample_poses(2000, np.random.default_rng(21))
    pose = np.concatenate([pose, np.stack(list(GESTURES.values()))])
    return pose, posed(pose)


def lengths(vertices, edges):
    return np.linalg.norm(vertices[..., edges[:, 0], :] - vertices[..., edges[:, 1], :], axis=-1)


def corner_angles(vertices, faces):
    """Smallest angle (F,) of each face, degrees."""
    corner, angles = vertices[faces], []
    for k in range(3):
        a = corner[:, (k + 1) % 3] - corner[:, k]
        b = corner[:, (k + 2) % 3] - corner[:, k]
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        angles.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    return np.min(angles, axis=0)


def crossing_faces(vertices, faces):
    """Number of pairs of faces without a common vertex that cut each other."""
    corner = vertices[faces]
    low, high = corner.min(1), corner.max(1)
    order = np.argsort(low[:, 0], kind="stable")
    last = np.searchsorted(low[order, 0], high[order, 0])
    first = np.concatenate([np.full(last[i] - i - 1, i) for i in range(len(order))])
    second = np.concatenate([np.arange(i + 1, last[i]) for i in range(len(order))])
    f, g = order[first], order[second]
    touch = ((low[f] <= high[g]) & (low[g] <= high[f])).all(1)
    touch &= ~(faces[f][:, :, None] == faces[g][:, None, :]).any((1, 2))
    f, g = f[touch], g[touch]
    hits = np.zeros(len(f), bool)
    for one, other in ((f, g), (g, f)):
        for k in range(3):
            a, b = corner[one, k], corner[one, (k + 1) % 3]
            hits |= _cuts(a, b, corner[other])
    return int(hits.sum())


def _cuts(a, b, triangle):
    """Whether segments a b (N, 3) pass through triangles (N, 3, 3): Moeller and Trumbore."""
    edge1, edge2 = triangle[:, 1] - triangle[:, 0], triangle[:, 2] - triangle[:, 0]
    direction, offset = b - a, a - triangle[:, 0]
    across = np.cross(direction, edge2)
    determinant = (edge1 * across).sum(1)
    safe = np.where(np.abs(determinant) < 1e-18, 1e-18, determinant)
    u = (offset * across).sum(1) / safe
    turned = np.cross(offset, edge1)
    v, t = (direction * turned).sum(1) / safe, (edge2 * turned).sum(1) / safe
    return (u >= 0) & (v >= 0) & (u + v <= 1) & (t >= 0) & (t <= 1)


def parts():
    """Digit of every vertex beyond the webs, -1 on palm and wrist."""
    digit, position = build_skin.digit_of(arrays()["v_template"] * 1000)
    return np.where(position > np.where(digit == 0, 1.05, 0.55), digit, -1)


def test_the_mesh_is_a_manifold_with_one_flat_rim_of_16_and_outward_normals():
    vertices, faces = arrays()["v_template"], arrays()["f"]
    check_mesh(vertices, faces)
    (rim,) = boundary_loops(faces)
    assert len(rim) == 16
    np.testing.assert_allclose(vertices[rim, 0], build_surface.WRIST_CUT_MM / 1000, atol=1e-6)
    assert 2e-4 < volumes(vertices[None], faces)[0] < 5e-4  # m^3, so the normals point outward


def test_the_rest_mesh_does_not_cut_itself_and_the_check_can_tell():
    vertices, faces = arrays()["v_template"], arrays()["f"]
    assert crossing_faces(vertices, faces) == 0
    pushed = vertices.copy()
    pushed[320] = vertices[443]
    assert crossing_faces(pushed, faces) > 0


def test_triangles_are_well_shaped():
    angles = corner_angles(arrays()["v_template"], arrays()["f"])
    assert np.mean(angles > 12) > 0.99
    assert angles.min() > 10 and np.median(angles) > 35


def test_faces_are_denser_where_the_hand_bends():
    vertices, faces = arrays()["v_template"] * 1000, arrays()["f"]
    corner = vertices[faces]
    centre = corner.mean(1)
    area = 0.5 * np.linalg.norm(
        np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1
    )
    along = np.linalg.norm(centre[:, None] - 1000 * anatomy.REST_JOINTS[1:], axis=2).min(1)
    wrist = np.median(area[centre[:, 0] < 40])
    assert np.median(area[along < 12]) < 0.5 * wrist
    spacing = lengths(vertices, unique_edges(faces))
    assert spacing.max() < 20 and spacing.min() > 1.5


def test_weights_are_convex_and_stay_on_their_digit():
    weights = arrays()["weights"]
    assert (weights >= 0).all()
    np.testing.assert_array_equal(weights.sum(1), 1.0)
    for k, name in enumerate(FINGER_NAMES):
        own = [0, *MANO_FINGERS[name]]
        foreign = np.setdiff1d(np.arange(16), own)
        assert (weights[np.ix_(parts() == k, foreign)] == 0).all(), name
    tips = arrays()["fingertips"]
    ends = [MANO_FINGERS[name][2] for name in FINGER_NAMES]
    assert (weights[tips, ends] > 0.93).all()


def test_joints_are_local_averages_of_the_skin_and_sit_at_the_bones():
    regressor = arrays()["J_regressor"]
    assert (regressor >= 0).all()
    np.testing.assert_array_equal(regressor.sum(1), 1.0)
    joints = regressor @ arrays()["v_template"]
    np.testing.assert_allclose(joints, anatomy.REST_JOINTS, atol=2e-4)
    for j in range(1, 16):
        used = arrays()["v_template"][regressor[j] > 1e-4]
        assert np.linalg.norm(used - anatomy.REST_JOINTS[j], axis=1).max() < 0.045
        assert len(used) >= 5


@pytest.mark.parametrize("k", range(10))
def test_joints_move_with_every_shape_direction(k):
    name = build_skin.SHAPE_NAMES[k]
    assert arrays()["shape_names"][k] == name
    moved = arrays()["J_regressor"] @ arrays()["shapedirs"][:, :, k] * 1000
    _, expected = build_skin._bone_maps(name, build_skin.SHAPE_SPREAD[k])
    if name != "joint_size":
        np.testing.assert_allclose(moved, expected - 1000 * anatomy.REST_JOINTS, atol=0.35)
    else:
        assert np.abs(moved).max() < 0.1
    assert np.abs(arrays()["shapedirs"][:, :, k]).max() > 2e-4


def test_shape_directions_do_what_they_are_called():
    names = [str(n) for n in arrays()["shape_names"]]
    vertices, shapes = arrays()["v_template"], arrays()["shapedirs"]

    def size(beta):
        moved = vertices + shapes @ np.eye(10)[names.index(beta)] * 2
        joints = arrays()["J_regressor"] @ moved
        finger = np.linalg.norm(np.diff(joints[[4, 5, 6]], axis=0), axis=1).sum()
        thumb = np.linalg.norm(np.diff(joints[[13, 14, 15]], axis=0), axis=1).sum()
        width = np.linalg.norm(joints[1] - joints[7])
        girth = anthropometry.girth(moved, arrays()["f"], joints[5], anatomy.FRAMES[5][:, 0], 0.016)
        return np.array([finger, thumb, width, joints[4, 0], girth])

    rest = size("digit_ratio") * 0 + np.array([*size("joint_size")[:4], size("palm_width")[4]])
    change = {name: size(name) / rest - 1 for name in names}
    assert (change["size"] > 0.1).all()
    assert change["finger_length"][0] > 0.06 and abs(change["finger_length"][2]) < 0.01
    assert change["thumb_length"][1] > 0.08 and abs(change["thumb_length"][0]) < 0.005
    assert change["palm_width"][2] > 0.07 and abs(change["palm_width"][0]) < 0.005
    assert change["palm_length"][3] > 0.05 and abs(change["palm_length"][2]) < 0.03
    assert change["finger_girth"][4] > 0.08 and abs(change["finger_girth"][0]) < 0.005
    assert change["joint_size"][4] > 0.08


def test_random_shapes_stay_sound_meshes():
    rng = np.random.default_rng(0)
    faces, edges = arrays()["f"], unique_edges(arrays()["f"])
    rest = lengths(arrays()["v_template"], edges)
    for _ in range(20):
        shaped = arrays()["v_template"] + arrays()["shapedirs"] @ rng.normal(size=10)
        ratio = lengths(shaped, edges) / rest
        assert 0.6 < ratio.min() and ratio.max() < 1.6
        assert crossing_faces(shaped, faces) == 0


def test_every_fingertip_table_names_a_vertex_on_the_right_fingertip():
    vertices = arrays()["v_template"]
    np.testing.assert_array_equal(arrays()["fingertips"], FINGERTIP_VERTICES["freihand"]["right"])
    for name, tip in zip(FINGER_NAMES, arrays()["fingertips"], strict=True):
        axis = anatomy.FRAMES[MANO_FINGERS[name][2]][:, 0]
        own = parts() == FINGER_NAMES.index(name)
        assert vertices[tip] @ axis > np.max(vertices[own] @ axis) - 3e-4
        assert np.linalg.norm(vertices[tip] - anatomy.REST_CHAIN[name][3]) < 0.005
    for source, table in FINGERTIP_VERTICES.items():
        for row in table.values():
            for tip, other in zip(arrays()["fingertips"], row, strict=True):
                assert np.linalg.norm(vertices[tip] - vertices[other]) < 0.009, source


def test_measurements_follow_published_anthropometry():
    rows = anthropometry.compare(arrays()["v_template"], arrays()["f"])
    assert len(rows) == 28
    for row in rows:
        bound = 0.3 if row.name.startswith("hand") else 0.7 if "breadth" in row.name else 1.0
        assert abs(row.deviation) < bound, row
        if "girth" in row.name:
            assert abs(row.ours_mm / row.theirs_mm - 1) < 0.02 and abs(row.deviation) < 0.25, row
    assert {row.name for row in rows} >= {"hand length", "hand breadth", "thumb metacarpal"}
    assert {row.name for row in rows} >= {f"{d} PIP girth" for d in FINGER_NAMES[1:]}


def test_a_thicker_finger_measures_more_and_its_neighbour_is_left_out():
    vertices, faces = arrays()["v_template"], arrays()["f"]
    names = [str(n) for n in arrays()["shape_names"]]
    thicker = vertices + 2 * arrays()["shapedirs"][:, :, names.index("finger_girth")]
    for digit in FINGER_NAMES:
        joint = "IP" if digit == "thumb" else "PIP"
        girth, breadth = anthropometry.finger_size(vertices, faces, digit, joint)
        assert 2.2 < girth / breadth < 3.4  # one round outline, not two
        assert anthropometry.finger_size(thicker, faces, digit, joint)[0] > 1.05 * girth


def test_a_section_measures_a_known_cylinder():
    turn = np.linspace(0, 2 * np.pi, 65)[:-1]
    ring = np.stack([np.zeros(64), np.cos(turn), np.sin(turn)], 1)
    vertices = np.concatenate([ring, ring + (1, 0, 0)])
    i, j = np.arange(64), (np.arange(64) + 1) % 64
    faces = np.concatenate([np.stack([i, j, i + 64], 1), np.stack([j, j + 64, i + 64], 1)])
    around = anthropometry.girth(vertices, faces, np.array([0.5, 0, 0]), (1, 0, 0), 2.0)
    assert around == pytest.approx(2 * np.pi, rel=2e-3)
    assert len(anthropometry.section(vertices, faces, (0.5, 0, 0), (1, 0, 0))) == 128
    two = np.concatenate([vertices, vertices * (1, 2, 2) + (0, 4, 0)])
    both = np.concatenate([faces, faces + 128])
    for y, times in ((0.2, 1), (3.5, 2)):
        line = anthropometry.outline(two, both, np.array([0.5, y, 0]), (1, 0, 0))
        length = np.linalg.norm(line[:, 0] - line[:, 1], axis=1).sum()
        assert length == pytest.approx(2 * np.pi * times, rel=2e-3)


def test_volume_stays_within_a_tenth_over_poses_and_gestures(bent):
    _, vertices = bent
    ratio = volumes(vertices, arrays()["f"]) / volumes(arrays()["v_template"][None], arrays()["f"])
    assert np.mean(np.abs(ratio - 1) < 0.10) >= 0.99
    assert (np.abs(ratio[2000:] - 1) < 0.10).all()  # every gesture


def test_no_edge_at_the_webs_shoots_up_in_a_fist():
    edges = unique_edges(arrays()["f"])
    fist = posed(GESTURES["fist"][None])[0]
    ratio = lengths(fist, edges) / lengths(arrays()["v_template"], edges)
    assert ratio.max() < 2.2
    web = np.flatnonzero((parts() < 0) & (arrays()["v_template"][:, 0] > 0.09))
    joints = pose_joints(GESTURES["fist"][None])[1][0]
    assert fist[web, 0].max() < joints[[1, 4, 7, 10], 0].max() + 0.022


@pytest.mark.parametrize("name", ["index", "middle", "ring", "little", "thumb"])
def test_knuckles_keep_their_girth_when_bent_at_right_angles(name):
    for joint in MANO_FINGERS[name][1:]:
        parent, girths = MANO_PARENTS[joint], []
        for degrees in (0.0, 50.0, min(90.0, np.degrees(anatomy.JOINT_LIMITS[joint, 0, 1]))):
            angles = np.zeros((16, 3))
            angles[joint, 0] = np.deg2rad(degrees)
            pose = anatomy.pose_from_angles(angles)[None]
            rotations, joints = pose_joints(pose)
            axis = rotations[0, joint] @ anatomy.FRAMES[joint][:, 0]
            axis = axis + rotations[0, parent] @ anatomy.FRAMES[parent][:, 0]
            axis /= np.linalg.norm(axis)
            hand = posed(pose)[0]
            girths.append(anthropometry.girth(hand, arrays()["f"], joints[0, joint], axis, 0.020))
        ratio = np.array(girths) / girths[0]
        assert (ratio > 0.92).all() and (ratio < 1.25).all(), (name, joint, ratio)


def test_pose_blend_shapes_vanish_at_rest_are_local_and_give_volume_back():
    rest = posed(np.zeros((1, 16, 3)))[0]
    np.testing.assert_allclose(rest, arrays()["v_template"], atol=1e-9)
    reach = np.linalg.norm(arrays()["posedirs"].reshape(778, 3, 15, 9), axis=(1, 3))
    for joint in range(1, 16):
        used = arrays()["v_template"][reach[:, joint - 1] > 1e-6]
        gap = np.linalg.norm(used - anatomy.REST_JOINTS[joint], axis=1)
        assert gap.max() < (0.0701 if MANO_PARENTS[joint] == 0 else 0.0421)
    fist = GESTURES["fist"][None]
    rest_volume = volumes(rest[None], arrays()["f"])[0]
    plain = volumes(posed(fist, correct=False), arrays()["f"])[0] / rest_volume
    corrected = volumes(posed(fist), arrays()["f"])[0] / rest_volume
    assert plain < 0.91 and corrected > plain + 0.04


def deepest(vertices, part, shells, faces_count=778):
    """Deepest any digit reaches into another or into the palm, metres."""
    worst = 0.0
    for k, (shell, rim) in shells.items():
        solid = np.concatenate([vertices, vertices[rim].mean(0, keepdims=True)])
        outside = (part != k) & ((part >= 0) | (arrays()["v_template"][:, 0] < 0.088))
        low, high = vertices[part == k].min(0), vertices[part == k].max(0)
        asked = np.flatnonzero(outside & ((vertices > low) & (vertices < high)).all(1))
        if len(asked):
            worst = max(worst, -igl.signed_distance(vertices[asked], solid, shell)[0].min())
    return worst


def test_digits_do_not_pass_through_each_other_or_the_palm(bent):
    part, faces = parts(), arrays()["f"]
    shells = {k: closed(faces[(part[faces] == k).all(1)], 778) for k in range(5)}
    depth = np.array([deepest(v, part, shells) for v in bent[1][500:1500]])
    assert np.mean(depth <= 0.003) >= 0.99
    through = GESTURES["flat"].copy()
    through[1], through[4] = 0.5 * -anatomy.FRAMES[1, :, 2], 0.2 * anatomy.FRAMES[4, :, 2]
    assert deepest(posed(through[None])[0], part, shells) > 0.004  # the check can tell


def test_pose_components_are_orthonormal_and_carry_the_sampled_poses():
    rows = arrays()["hands_components"]
    np.testing.assert_allclose(rows @ rows.T, np.eye(45), atol=1e-9)
    pose = sample_poses(1500, np.random.default_rng(3))[:, 1:].reshape(-1, 45)
    offset = pose - arrays()["hands_mean"]
    assert np.abs(offset.mean(0)).max() < 0.05
    variance = ((offset @ rows.T) ** 2).mean(0)
    assert (np.diff(variance[:8]) < 0.02).all()
    assert variance[:15].sum() > 0.95 * variance.sum()
    mean = anatomy.angles_from_pose(np.r_[np.zeros(3), arrays()["hands_mean"]].reshape(16, 3))
    assert (np.degrees(mean[[2, 5, 8, 11], 0]) > 15).all()  # relaxed, not flat


def test_rebuilding_gives_the_committed_arrays(monkeypatch):
    stored = arrays()
    monkeypatch.setattr(build_pose, "pose_basis", lambda v, f, w: 1000 * stored["posedirs"])
    built = build()
    assert set(built) == set(stored)
    for name, array in built.items():
        if array.dtype.kind in "iU":
            np.testing.assert_array_equal(array, stored[name], err_msg=name)
        elif name != "hands_components":  # directions of no variance may turn freely
            np.testing.assert_allclose(array, stored[name], atol=2e-5, err_msg=name)


def test_each_joint_is_trained_over_its_whole_range():
    for joint in (1, 2, 13, 15):
        angles = build_pose.training_angles(joint)
        low, high = anatomy.JOINT_LIMITS[joint].T
        np.testing.assert_allclose(angles.min(0), low, atol=1e-9)
        np.testing.assert_allclose(angles.max(0), high, atol=1e-9)


def test_rebuilding_one_joints_corrections_gives_the_committed_ones():
    vertices, faces, weights = (arrays()[k] for k in ("v_template", "f", "weights"))
    added, features = build_pose.corrections(vertices * 1000, faces, weights, 2)
    stored = arrays()["posedirs"][:, :, 9:18] * 1000
    again = np.einsum("nk,vck->nvc", features, stored)
    assert np.abs(again - added).max() < 2.5 and np.abs(again - added).mean() < 0.02
    assert np.abs(added).max() > 1.0


def test_the_implicit_surface_is_zero_on_the_mesh_and_turns_with_the_bones():
    points = arrays()["v_template"] * 1000
    rows = build_surface.primitives()
    assert np.abs(build_surface.distance(points, rows)).max() < 0.05
    lifted = points + 2.0 * build_surface.gradient(points, rows)
    back = build_surface.project(lifted, rows)
    assert np.abs(build_surface.distance(back, rows)).max() < 0.05
    pose = np.zeros((1, 16, 3))
    pose[0, 0] = 0.3, -0.2, 0.5
    turn = build_pose.bone_transforms(pose)[0]
    moved, linear = build_pose.blend(points, arrays()["weights"], turn)
    np.testing.assert_allclose(moved, points @ turn[0, :3, :3].T, atol=1e-9)
    np.testing.assert_allclose(linear, np.broadcast_to(turn[0, :3, :3], linear.shape), atol=1e-12)
    np.testing.assert_allclose(
        build_surface.distance(moved, rows, turn), build_surface.distance(points, rows), atol=1e-6
    )


def test_saving_twice_gives_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("template.build.template.build", arrays)
    for folder in (tmp_path / "one", tmp_path / "two"):
        assert main(folder) == 0
    for name in ("hand.npz", "anthropometry.csv"):
        one, two = (tmp_path / folder / name for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
    committed = (ROOT / "template" / "anthropometry.csv").read_text()
    assert two.read_text() == committed
