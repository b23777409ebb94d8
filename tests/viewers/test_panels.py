import base64
import datetime
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pillow_heif import register_heif_opener

from hand_lib import ROOT
from hand_lib.hand.model import HandModel
from hand_lib.inference.predictor import HandPrediction
from hand_lib.viewers import panels as demo

MODEL = HandModel.builtin()
PHOTO = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)


class FakePredictor:
    """Puts the template half a metre away and remembers what it was asked."""

    def __init__(self):
        self.asked, self.meanwhile, self.surer = [], lambda: None, "right"

    def predict(self, image, boxes=None, sides=None, intrinsics=None, **how):
        self.asked.append((how, boxes, sides))
        self.meanwhile()
        side = self.surer if sides is None else sides[0]
        if boxes and boxes[0][0] > 100:
            raise ValueError("box lies outside the picture")
        vertices = MODEL.vertices.numpy()
        joints = MODEL.regress_joints(vertices)
        return [
            HandPrediction(
                vertices, MODEL.faces.numpy(), joints, np.full((21, 2), 60.0), np.ones(3),
                np.array([0, 0, 0.5]), np.array([[200.0, 0, 80], [0, 200, 60], [0, 0, 1]]), True,
                np.eye(3)[:2], (0, 0, 9, 9), side, side_from="given" if sides else "found",
            )
        ]  # fmt: skip


@pytest.fixture
def panel():
    return demo.demo_panel(FakePredictor(), {"noise": PHOTO, "flipped": PHOTO[:, ::-1]})


def drag(figure, x0, y0, x1, y1):
    """What the browser says after a box was drawn."""
    shape = {"type": "rect", "x0": x0, "y0": y0, "x1": x1, "y1": y1, "legendrank": object()}
    demo._drawn(figure, {"relayout_data": {"shapes": [shape]}})


def test_all_hands_are_drawn_over_a_picture_and_none_leave_it_bare():
    one = FakePredictor().predict(PHOTO, None, ["right"])[0]
    other = replace(one, translation=one.translation + [0.05, 0, 0], joints_2d=one.joints_2d + 9)
    drawn = demo.draw_hands(PHOTO, [one])
    assert np.array_equal(drawn["picture"], PHOTO) and list(drawn) == ["picture", *demo.SHOWS]
    assert len({picture.tobytes() for picture in drawn.values()}) == 4
    two = demo.draw_hands(PHOTO, [one, other])
    for show in demo.SHOWS:
        assert (two[show] != drawn[show]).any()
        assert np.array_equal(demo.draw_hands(PHOTO, [])[show], PHOTO)


def test_hands_over_large_pictures_are_drawn_at_a_size_for_screens():
    hand = FakePredictor().predict(PHOTO, None, ["right"])[0]
    large = replace(hand, intrinsics=np.diag([20.0, 20, 1]) @ hand.intrinsics)
    drawn = demo.draw_hands(np.repeat(np.repeat(PHOTO, 20, 0), 20, 1), [large])
    assert drawn["mesh"].shape == (1200, 1600, 3)


def test_a_remark_says_what_is_doubted_and_assumed():
    hand = FakePredictor().predict(PHOTO, None, ["right"])[0]
    assert "nobody knows the camera" in demo.remark([hand]) and "right" in demo.remark([hand])
    sure, doubtful = replace(hand, confidence=0.9), replace(hand, confidence=0.1, doubtful=True)
    assert "right 0.90, right 0.10?" in demo.remark([sure, doubtful])
    doubt = demo.remark([replace(hand, confidence=0.1, doubtful=True, assumed_intrinsics=False)])
    assert "is it read well?" in doubt and "camera" not in doubt
    assert "is there a hand?" in demo.remark([replace(hand, absent=True)])
    assert "looks like a left hand" in demo.remark([hand], "left")
    assert "no hand found" in demo.remark([])


def test_the_network_alone_the_joint_fit_or_key_points_make_the_mesh():
    predictor = FakePredictor()
    panel = demo.demo_panel(predictor, {"noise": PHOTO})
    for way, asked in (("network", {"refined": False}), ("key points", {"keypoints": "detect"})):
        panel.way.value = way
        assert predictor.asked[0][0] == {} and predictor.asked[-1][0] == asked

    def missing():
        raise ModuleNotFoundError("MediaPipe finds key points: pip install ...")

    predictor.meanwhile = missing
    panel.side.value = "left"
    assert "pip install" in panel.message.value and panel.hands == []


def test_a_side_that_the_network_doubts_is_noticed():
    predictor = FakePredictor()
    panel = demo.demo_panel(predictor, {"noise": PHOTO}, sides={"noise": "left"})
    assert panel.hands[0].side == "left" and "looks like a right hand" in panel.message.value
    predictor.surer = "left"
    panel.side.value = "any"
    assert panel.hands[0].side == "left" and "looks like" not in panel.message.value


def pictures_of_notebook_05(place) -> dict:
    """What the notebook's cell finds where ``place`` is its parameter ``pictures``."""
    book = json.loads((ROOT / "notebooks" / "05_demo.ipynb").read_text())
    code = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
    names = {}
    for source in code[:2]:
        exec(source, names)
    names["pictures"] = str(place)
    exec(next(source for source in code if "pictures_or_examples(pictures" in source), names)
    return names


def test_notebook_05_shows_one_s_own_pictures_and_names_what_is_left_out(tmp_path, capsys):
    for name in ("b10.jpg", "b9.png", "7.heic"):
        register_heif_opener()
        Image.fromarray(PHOTO).save(tmp_path / name)
    (tmp_path / "8.jpg").write_bytes(b"torn")
    (tmp_path / "notes.txt").write_text("no picture")
    found = pictures_of_notebook_05(tmp_path)
    assert list(found["images"]) == ["7.heic", "b9.png", "b10.jpg"]
    said = capsys.readouterr().out
    assert "left out: 8.jpg" in said and "left out: notes.txt" in said and "your own" in said
    assert list(pictures_of_notebook_05(tmp_path / "b9.png")["images"]) == ["b9.png"]
    assert list(pictures_of_notebook_05("data/examples/hand_2.jpg")["images"]) == ["hand_2.jpg"]


def test_pages_of_pictures_are_read_when_they_are_opened(tmp_path):
    for n in range(5):
        Image.fromarray(PHOTO).save(tmp_path / f"{n}.png")
    (tmp_path / "torn.png").write_bytes(b"torn")
    predictor, paths = FakePredictor(), {path.name: path for path in sorted(tmp_path.iterdir())}
    panel = demo.results_panel(predictor, paths, {"4.png": "left"}, page=4)
    first = panel.grid.value
    assert panel.pager.max == 2 and len(predictor.asked) == 4
    panel.pager.value = 2
    assert [sides for *_, sides in predictor.asked[4:]] == [["left"]]
    assert panel.grid.value != first


def test_download_links_carry_whole_files():
    hand = FakePredictor().predict(PHOTO, None, ["right"])[0]
    links = demo.download_links([hand], PHOTO)
    found = dict(re.findall(r'download="hand\.(\w+)".*?base64,([^"]+)"', links))
    assert set(found) == {"ply", "obj", "glb", "json", "png"}
    assert base64.b64decode(found["ply"]).startswith(b"ply")
    assert base64.b64decode(found["glb"]).startswith(b"glTF")


def test_a_dragged_box_is_the_last_one_clipped_to_the_picture():
    figure = demo.box_figure()
    demo.set_picture(figure, PHOTO, PHOTO.shape[:2])
    assert demo.last_box(figure) is None
    drag(figure, 20, 30, 60, 80)
    drag(figure, 150, 100, -20, 10)
    assert demo.last_box(figure) == (0, 10, 150, 100) and len(figure.layout.shapes) == 1
    moved = {"shapes[0].x0": 40.0, "shapes[0].y0": 20.0}
    moved |= {"shapes[0].x1": 90.0, "shapes[0].y1": 70.0}
    demo._drawn(figure, {"relayout_data": moved})
    assert demo.last_box(figure) == (40, 20, 90, 70)
    demo._drawn(figure, None)


def test_the_panel_predicts_at_start_and_after_every_choice(panel):
    assert panel.side.value == "any" and len(panel.hands) == len(panel.hand_figure.data) == 1
    panel.side.value = "left"
    assert panel.hands[0].side == "left"
    drag(panel.box_figure, 10, 20, 60, 80)
    panel.side.value = "right"
    assert panel.hands[0].side == "right" and "nobody knows the camera" in panel.message.value
    assert demo.last_box(panel.box_figure) is not None
    panel.unbox.click()
    assert demo.last_box(panel.box_figure) is None
    drag(panel.box_figure, 10, 20, 60, 80)
    panel.pick.value = "flipped"
    assert demo.last_box(panel.box_figure) is None and panel.side.value == "any"


def upload(panel, name, content):
    now = datetime.datetime.now(datetime.UTC)
    item = {"name": name, "type": "image/png", "size": len(content), "last_modified": now}
    panel.upload.value = ({**item, "content": memoryview(content)},)


def test_a_box_drawn_in_the_browser_predicts_at_once():
    predictor = FakePredictor()
    panel = demo.demo_panel(predictor, {"noise": PHOTO})
    shape = {"type": "rect", "x0": 10.0, "y0": 20.0, "x1": 60.0, "y1": 80.0}
    panel.box_figure._js2py_relayout = {"relayout_data": {"shapes": [shape]}, "source_view_id": "a"}
    assert predictor.asked[-1][1] == [(10.0, 20.0, 60.0, 80.0)]


def test_uploads_enter_the_list_and_the_same_one_may_come_again(panel, tmp_path):
    path = tmp_path / "big.png"
    Image.new("RGB", (2000, 1000), (10, 200, 90)).save(path)
    upload(panel, "big.png", path.read_bytes())
    assert panel.box_figure.layout.images[0].sizex == 2000
    assert panel.pick.options == ("noise", "flipped", "big.png") and panel.pick.value == "big.png"
    panel.pick.value = "noise"
    assert panel.box_figure.layout.images[0].sizex == 160
    upload(panel, "big.png", path.read_bytes())
    assert panel.box_figure.layout.images[0].sizex == 2000 and panel.upload.value == ()
    panel.box_figure._handle_custom_msg({"dropped": ["mine.png"]}, [memoryview(path.read_bytes())])
    assert panel.pick.value == "mine.png" and "big.png" in panel.pick.options
    upload(panel, "broken.png", b"no picture")
    assert "broken.png is not a picture" in panel.message.value
    assert "broken.png" not in panel.pick.options and panel.pick.value == "mine.png"


def test_while_it_works_the_panel_says_so_and_shows_no_other_picture_s_hand():
    predictor, seen = FakePredictor(), []
    panel = demo.demo_panel(predictor, {"noise": PHOTO, "flipped": PHOTO[:, ::-1]})
    predictor.meanwhile = lambda: seen.append(
        (panel.message.value, len(panel.hand_figure.data), panel.box_figure.layout.images[0].source)
    )
    panel.pick.value = "flipped"
    ((message, traces, source),) = seen
    assert "working" in message and traces == 0 and "working" not in panel.message.value
    assert source != panel.box_figure.layout.images[0].source and len(panel.hand_figure.data) == 1


def test_opacity_and_wipe_uncover_the_photograph_without_another_prediction():
    predictor = FakePredictor()
    panel = demo.demo_panel(predictor, {"noise": PHOTO})
    shown = [panel.box_figure.layout.images[0].source]
    for name, value in (("opacity", 0.5), ("wipe", 0.5), ("opacity", 0.0)):
        getattr(panel, name).value = value
        shown.append(panel.box_figure.layout.images[0].source)
    assert len(set(shown)) == 4 and len(predictor.asked) == 1


def test_a_box_that_cannot_be_used_is_answered_in_the_panel(panel):
    drag(panel.box_figure, 110, 20, 150, 80)
    panel.side.value = "left"
    assert "outside the picture" in panel.message.value
    with pytest.raises(ValueError, match="at least one picture"):
        demo.demo_panel(FakePredictor(), {})


def test_mesh_skeleton_or_both_are_shown_from_the_camera_and_from_the_side(panel):
    seen = {}
    for show in demo.SHOWS:
        panel.show.value = show
        seen[show] = (len(panel.hand_figure.data), panel.box_figure.layout.images[0].source)
    assert [count for count, _ in seen.values()] == [1, 5, 6]
    assert len({picture for _, picture in seen.values()}) == 3
    front = panel.hand_figure.layout.scene.camera.eye
    panel.look.value = "side"
    side = panel.hand_figure.layout.scene.camera.eye
    assert abs(front.z) > 1 > abs(front.x) and abs(side.x) > 1 > abs(side.z)


def test_a_picture_with_a_known_side_sets_the_button_and_predicts_once():
    predictor = FakePredictor()
    panel = demo.demo_panel(predictor, {"a": PHOTO, "b": PHOTO}, sides={"a": "left", "b": "right"})
    assert panel.side.value == "left"
    panel.pick.value = "b"
    assert panel.side.value == "right"
    assert [s for *_, s in predictor.asked if s] == [["left"], ["right"]]
