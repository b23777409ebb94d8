import io

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
import pytest
from mesh_shapes import cut_open, icosphere
from PIL import Image

from hand_lib.hand.joints import FINGERS
from hand_lib.hand.model import HandModel
from hand_lib.mesh.topology import boundary_loops, unique_edges
from hand_lib.viewers import figures as v
from hand_lib.viewers import flat
from hand_lib.viewers.explorer import LiveFigure

VERTICES, FACES = icosphere(2)
VERTICES *= 0.05
JOINTS = np.random.default_rng(0).normal(scale=0.04, size=(21, 3))
HAND = v.DrawnHand(VERTICES, FACES)


def ink(picture):
    """Centre of what is not white, relative to the picture's middle, in units of its side."""
    dark = np.argwhere((np.asarray(picture) < 200).any(axis=2))
    middle = dark.mean(axis=0) / np.array(np.asarray(picture).shape[:2]) - 0.5
    return middle[::-1]


def test_views_are_rotations_and_stand_up_shows_the_palm_or_the_back():
    for view in v.VIEWS.values():
        assert np.allclose(view @ view.T, np.eye(3)) and np.isclose(np.linalg.det(view), 1)
    distal, radial, dorsal = np.eye(3)
    assert np.allclose(v.to_camera_view(distal), [0, -1, 0])  # fingers up
    assert np.allclose(v.to_camera_view(dorsal), [0, 0, 1])  # back away from the camera
    assert np.allclose(v.to_camera_view(radial), [1, 0, 0])
    assert np.allclose(v.to_camera_view(dorsal, "back"), [0, 0, -1])
    with pytest.raises(ValueError, match="palm"):
        v.to_camera_view(distal, "front")


def test_mesh_trace_holds_the_mesh_in_small_numbers():
    trace = v.mesh_trace(HAND)
    assert np.allclose(np.stack([trace.x, trace.y, trace.z], 1), VERTICES, atol=1e-7)
    assert np.array_equal(np.stack([trace.i, trace.j, trace.k], 1), FACES)
    assert trace.x.dtype == np.float32 and trace.i.dtype == np.uint16
    assert v.mesh_trace(v.DrawnHand(VERTICES, FACES, colour=(1, 2, 3))).color == "rgb(1,2,3)"
    painted = v.mesh_trace(v.DrawnHand(VERTICES, FACES, error_mm=np.arange(len(VERTICES))))
    assert painted.cmax == len(VERTICES) - 1 and painted.colorbar.title.text == "mm"


def test_skeleton_has_one_chain_per_finger_from_the_wrist():
    traces = v.hand_traces(v.DrawnHand(joints=JOINTS))
    assert [t.name for t in traces] == list(FINGERS)
    for trace, chain in zip(traces, FINGERS.values(), strict=True):
        assert np.allclose(np.stack([trace.x, trace.y, trace.z], 1), JOINTS[[0, *chain]], atol=1e-7)


def test_figure_panels_share_cameras_and_keep_proportions():
    figure = v.hand_figure([HAND, [HAND, HAND]], ["a", "b"], ["front", "left"])
    assert len(figure.data) == 3 and figure.data[2].scene == "scene2"
    assert figure.layout.scene.aspectmode == "data" and figure.layout.scene.camera.up.y == -1
    assert figure.layout.scene.camera.eye.z < 0 and abs(figure.layout.scene2.camera.eye.x) > 1
    assert [a.text for a in figure.layout.annotations] == ["a", "b"]
    live = LiveFigure(v.hand_figure([HAND], ["live"]))
    assert isinstance(live, go.FigureWidget)
    assert np.array_equal(live._widget_data[0]["x"], np.float32(VERTICES[:, 0]))
    assert live._widget_layout["annotations"][0]["text"] == "live"
    with pytest.raises(ValueError, match="2 panels, 1 titles"):
        v.hand_figure([HAND, HAND], ["a"])
    with pytest.raises(ValueError, match="front"):
        v.hand_figure([HAND], view="behind")


def test_plotlys_code_is_sent_once_a_kernel(monkeypatch):
    monkeypatch.setattr(LiveFigure, "_sent", False)
    sizes = [len(str(LiveFigure().get_state())) for _ in range(2)]
    assert sizes[0] > 1_000_000 and sizes[1] < 10_000


def test_still_shows_each_view_from_its_side():
    bump = VERTICES.copy()
    far = bump[:, 2] > 0.02  # away from the camera
    colours = np.where(far[:, None], (0, 0, 0), (250, 190, 150)).astype(np.uint8)
    seen = {}
    for view in ("front", "back"):
        hand = v.DrawnHand(bump, FACES, colour=colours)
        picture = np.asarray(v.still([hand], view=view, size=80))
        seen[view] = (picture < 60).all(axis=2).mean()
    assert seen["back"] > 0.1 > seen["front"]


def test_still_panels_share_one_scale_and_lay_out_in_columns():
    small = v.DrawnHand(VERTICES / 2, FACES)
    picture = np.asarray(v.still([HAND, small], ["large", "small"], size=100))
    height = picture.shape[0]
    large_area = (picture[height - 100 :, :100] < 240).any(axis=2).sum()
    small_area = (picture[height - 100 :, -100:] < 240).any(axis=2).sum()
    assert 3.3 < large_area / small_area < 4.8
    assert v.still([HAND] * 3, size=50, columns=2).size == (104, 104)


def test_still_draws_skeletons_and_translucent_hands():
    alone = np.asarray(v.still([v.DrawnHand(joints=JOINTS)], size=120)).astype(int)
    assert np.ptp(alone, axis=2).max() > 100  # coloured lines
    clear = np.asarray(v.still([v.DrawnHand(VERTICES, FACES, opacity=0.3)], size=80)).astype(int)
    solid = np.asarray(v.still([HAND], size=80)).astype(int)
    assert clear[40, 40].sum() > solid[40, 40].sum()


def test_errors_are_painted_on_one_scale():
    errors = np.array([0.0, 5.0, 10.0, 20.0])
    colours = v.DrawnHand(error_mm=errors, error_max_mm=10.0).colours().astype(int)
    assert colours[0].sum() < colours[1].sum() < colours[2].sum()
    assert np.array_equal(colours[2], colours[3])


def test_edges_and_rims_are_complete_lines_and_panels_share_one_bar_of_errors():
    vertices, faces = cut_open(VERTICES, FACES)
    mesh, edges, rim = v.hand_traces(v.DrawnHand(vertices, faces, edges=True))
    assert np.isfinite(edges.x).sum() == 2 * len(unique_edges(faces))
    assert np.isfinite(rim.x).sum() == len(boundary_loops(faces)[0]) + 1
    assert not np.isfinite(v.hand_traces(v.DrawnHand(VERTICES, FACES, edges=True))[2].x).any()
    errors = np.linspace(0, 4, len(vertices))
    hands = [v.DrawnHand(vertices, faces, error_mm=e, error_max_mm=5) for e in (errors, errors / 2)]
    figure = v.hand_figure(hands)
    assert [trace.cmax for trace in figure.data] == [5, 5]
    assert [trace.showscale for trace in figure.data] == [False, None]


def test_a_still_draws_the_edges_that_are_seen_the_path_on_top_and_points():
    plain = np.asarray(v.still([HAND], size=90)).astype(int)
    lined = np.asarray(v.still([v.DrawnHand(VERTICES, FACES, edges=True)], size=90)).astype(int)
    assert lined[30:60, 30:60].mean() < plain[30:60, 30:60].mean() - 3
    far = VERTICES[VERTICES[:, 2] > 0.02]  # behind the ball, and yet a path is seen
    walk = np.asarray(v.still([v.DrawnHand(VERTICES, FACES, path=far)], size=90)).astype(int)
    assert (np.abs(walk - plain).sum(axis=2) > 60).sum() > 20
    red = np.tile([255, 0, 0], (len(VERTICES), 1))
    for faces in (FACES, None):
        middle = np.asarray(v.still([v.DrawnHand(VERTICES, faces, colour=red)], size=90))[45, 45]
        assert middle[0] > 100 and middle[1:].max() < 60


def test_joints_are_drawn_where_they_are_and_only_the_valid_ones():
    blank = np.full((100, 160, 3), 255, np.uint8)
    points = np.tile([120.0, 30.0], (21, 1))
    drawn = flat.draw_joints(blank, points)
    turned = np.ascontiguousarray(blank.transpose(2, 0, 1)).transpose(1, 2, 0)  # as of a batch
    assert np.array_equal(flat.draw_joints(turned, points), drawn)
    assert np.allclose(ink(drawn), [120 / 160 - 0.5, 30 / 100 - 0.5], atol=0.02)
    valid = np.zeros(21, bool)
    assert np.array_equal(flat.draw_joints(blank, points, valid), blank)
    with pytest.raises(ValueError, match=r"\(21, 2\)"):
        flat.draw_joints(blank, points[:20])


def test_grids_hold_every_picture_in_order():
    pictures = [np.full((10, 20, 3), 40 * n, np.uint8) for n in range(5)]
    sheet = np.asarray(flat.image_grid(pictures, columns=3, gap=2))
    assert sheet.shape == (22, 64, 3)
    assert sheet[5, 10, 0] == 0 and sheet[5, 54, 0] == 80 and sheet[17, 32, 0] == 160
    assert flat.image_grid(pictures, [str(n) for n in range(5)], 3).size[1] > 22
    with pytest.raises(ValueError, match="at least one"):
        flat.image_grid([])
    with pytest.raises(ValueError, match="5 pictures and 2 titles"):
        flat.image_grid(pictures, ["a", "b"])


def test_fitting_into_a_square_keeps_proportions():
    wide = np.zeros((30, 60, 3), np.uint8)
    square = flat.fit_square(wide, 120)
    assert square.shape == (120, 120, 3)
    assert (square[:29] == 255).all() and (square[31:89] == 0).all() and (square[91:] == 255).all()


def test_png_is_small_and_true_to_the_picture():
    picture = v.still([HAND], size=120)
    data = flat.png_bytes(picture)
    back = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert len(data) < 14_000 and np.abs(back - np.asarray(picture)).mean() < 2


def test_photographs_are_stored_as_jpeg_and_line_drawings_as_png():
    photo = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    photo = np.asarray(Image.fromarray(photo).resize((240, 240), Image.BICUBIC))
    (kind,) = flat.still_bundle(photo)
    data = flat.still_bundle(photo)[kind]
    back = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    assert kind == "image/jpeg" and np.abs(back - photo).mean() < 14
    lines = np.full((200, 300, 3), 255, np.uint8)
    lines[50:52, 20:280] = lines[20:180, 90:92] = 0
    assert list(flat.still_bundle(lines)) == ["image/png"]


def test_show_gives_a_png_headless_and_the_live_figure_alone_in_jupyterlab(monkeypatch):
    shown, said = [], []

    def display(what, raw=False, metadata=None):
        shown.append(what)
        said.append(metadata)

    monkeypatch.setattr("IPython.display.display", display)
    v.show(v.hand_figure([HAND]), v.still([HAND], size=40), "two hands")
    assert set(shown[0]) == {"text/plain", "image/png", "application/vnd.plotly.v1+json"}
    assert shown[0]["text/plain"] == "two hands"

    class Kernel:
        def get_parent(self):
            return {"metadata": {"cellId": "abc"}}

    monkeypatch.setattr("IPython.get_ipython", lambda: type("Shell", (), {"kernel": Kernel()})())
    assert flat.in_live_frontend()
    v.show(v.hand_figure([HAND]), v.still([HAND], size=40))
    assert "image/png" not in shown[1] and "application/vnd.plotly.v1+json" in shown[1]
    v.show(None, v.still([HAND], size=40))
    assert {"image/png", "image/jpeg"} & set(shown[2])
    v.show(None, v.still([HAND], size=40), private=True)  # no file keeps what a widget shows
    assert isinstance(shown[3], widgets.Image) and said == [None] * 4
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    v.show(None, v.still([HAND], size=40), private=True)
    assert said[4] == {"private": True}


def test_the_built_in_hand_has_skin_in_figures_and_stills_and_other_surfaces_have_none():
    model = HandModel.builtin("left")
    hand = v.DrawnHand(model.vertices.numpy(), model.faces.numpy())
    assert hand.colours().shape == (778, 3) and np.ptp(hand.colours(), axis=0).max() > 40
    assert np.array_equal(v.mesh_trace(hand).vertexcolor, hand.colours())
    assert np.array_equal(HAND.colours(), v.PREDICTION)


def test_more_strokes_frame_and_words_are_drawn_in_both():
    stroke = v.Stroke([[[0, 0, 0], [0.2, 0, 0]]], (200, 0, 0), 6, texts=("", "x"), name="axis")
    hand = v.DrawnHand(VERTICES, FACES, more=(stroke,))
    figure, picture = v.hand_figure([hand]), np.asarray(v.still([hand], size=120)).astype(int)
    assert figure.data[1].name == "axis" and figure.data[1].text == ("", "x")
    red = np.argwhere((picture[..., 0] > 150) & (picture[..., 1:].max(2) < 90))
    assert len(red) and np.ptp(red[:, 1]) > 40  # and the frame holds all of it
    plain = v.still([v.DrawnHand(VERTICES, FACES, more=(v.Stroke(stroke.lines, (200, 0, 0), 6),))],
                    size=120)  # fmt: skip
    assert (np.asarray(plain) != picture).any()


def test_a_mix_shows_less_of_the_upper_picture_and_nothing_left_of_the_wipe():
    under, over = np.zeros((4, 40, 3), np.uint8), np.full((4, 40, 3), 200, np.uint8)
    assert (flat.mixed(under, over, 0.5) == 100).all()
    wiped = flat.mixed(under, over, 1.0, 0.5)
    assert (wiped[:, :18] == 0).all() and (wiped[:, 20:] == 200).all() and (under == 0).all()


def test_rows_have_words_beside_them():
    pictures = [np.full((30, 30, 3), 200, np.uint8)] * 4
    plain = flat.image_grid(pictures, columns=2)
    sheet = flat.image_grid(pictures, columns=2, labels=("truth", "prediction"))
    left = sheet.width - plain.width
    assert left > 20 and sheet.height == plain.height
    rows = (np.asarray(sheet)[:, :left] < 128).any((1, 2))
    assert rows[:15].any() and rows[15:30].any() and rows[34:49].any()
