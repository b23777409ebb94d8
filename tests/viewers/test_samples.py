"""Any data set's samples can be looked at, and notebook 01 shows own and foreign ones alike."""

import json
import warnings

import numpy as np
import pytest
from data_fixtures import (
    foreign_hand,
    make_hand,
    write_freihand_in_the_wild,
    write_youtube_in_the_wild,
)
from mano_fixture import mano_bytes

from hand_lib import ROOT
from hand_lib.data.open import open_data
from hand_lib.data.sample import HandSample
from hand_lib.data.synthetic.hands import SyntheticHands
from hand_lib.data.youtube import WrongHandModel, YouTubeHands
from hand_lib.evaluation import describe
from hand_lib.hand.mano import builtin_path, read_mano
from hand_lib.hand.model import HandModel
from hand_lib.render.camera import project
from hand_lib.viewers import data as viewers_data
from hand_lib.viewers import flat


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Folders as people have them: FreiHAND and YouTube with MANO's order, and MANO's file."""
    folder = tmp_path_factory.mktemp("sets")
    arrays, order = foreign_hand(read_mano(builtin_path()))
    (folder / "MANO_RIGHT.pkl").write_bytes(mano_bytes(arrays))
    write_freihand_in_the_wild(folder / "freihand", order)
    write_youtube_in_the_wild(folder / "youtube", order)
    return folder


@pytest.fixture(scope="module")
def mano(sets):
    return HandModel.from_mano(sets / "MANO_RIGHT.pkl")


def data_half_of_notebook():
    """Sources of the import cell and of the cells that look at ``data``."""
    book = json.loads((ROOT / "notebooks" / "01_data_exploration.ipynb").read_text())
    code = ["".join(c["source"]) for c in book["cells"] if c["cell_type"] == "code"]
    first = next(n for n, source in enumerate(code) if "open_data(place" in source)
    return code[0], code[1], code[first:]


@pytest.mark.parametrize("name, with_mano", [
    ("synthetic", False), ("freihand", False), ("freihand", True), ("youtube", False),
    ("youtube", True),
])  # fmt: skip
def test_notebook_01_looks_at_any_data_set(name, with_mano, sets, tmp_path, capsys):
    parameters, imports, cells = data_half_of_notebook()
    names = {}
    exec(parameters, names)
    names |= {"data": str(sets / name), "samples": 0}
    if name == "synthetic":
        from hand_lib.data.synthetic.hands import write_synthetic_freihand

        names["data"] = str(write_synthetic_freihand(tmp_path / "set", 8, 64))
    if with_mano:
        names["mano"] = str(sets / "MANO_RIGHT.pkl")
    exec(imports, names)
    names["model"] = HandModel.from_mano(names["mano"]) if with_mano else HandModel.builtin()
    names["faces"] = names["model"].faces.numpy()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "YouTube3D/train: 1 of")
        for source in cells:
            if "viewers_data.browser" not in source or (name, with_mano) == ("youtube", False):
                exec(source, names)  # the browser has its own test; here on the barest labels
    said = capsys.readouterr().out
    joints = with_mano or name != "youtube"
    assert ("palm to camera, degrees     not known" in said) != joints
    assert ("drawn as points" in said) == (not with_mano and name != "synthetic")
    assert ("1 could not be read, 1 pictures are missing" in said) == (name == "freihand")
    assert ("FreiHAND/training[2]" in said) == (name == "freihand") and "labels off proj" in said
    assert ("labels off projection, px   0.0 (" in said) == (name != "youtube")
    tips = {"synthetic": "the hand model's own", "youtube": "smplx"}.get(name, "freihand")
    tips = "freihand" if with_mano else tips  # MANO's model is asked for that table
    assert f"fingertips of the joints    {tips}" in said
    assert np.isfinite(names["found"].pose).all() and np.isfinite(names["found"].pose_spread).all()


def test_a_mesh_in_another_order_is_noticed(sets):
    with pytest.raises(WrongHandModel, match="another vertex order"):
        YouTubeHands(sets / "youtube" / "youtube_train.json", sets / "youtube", HandModel.builtin())


def test_the_mesh_lies_on_the_picture_with_and_without_a_camera():
    hand = SyntheticHands(64, 0, 1, tilt_deg=0.0, turn_deg=0.0, any_direction=0.0)[0]
    exact = viewers_data.mesh_in_picture(hand)
    placed = hand.vertices.astype(float) + hand.root
    assert np.allclose(exact[:, :2], project(placed, hand.intrinsics), atol=1e-6)
    blind = HandSample(hand.image, vertices=hand.vertices, joints=hand.joints,
                        joints_2d=hand.joints_2d)  # fmt: skip
    near = viewers_data.mesh_in_picture(blind)
    assert np.abs(near[:, :2] - exact[:, :2]).max() < 6  # perspective is all that is lost
    flat = HandSample(hand.image, vertices=hand.vertices, joints=hand.joints,
                       joints_2d=hand.joints[:, :2] * 200 + [30, 45])  # fmt: skip
    found = viewers_data.mesh_in_picture(flat)
    assert np.allclose(found[:, :2], hand.vertices[:, :2] * 200 + [30, 45], atol=1e-3)
    faces = HandModel.builtin().faces.numpy()
    drawn = viewers_data.sample_pictures(flat, faces)[2]
    covered = np.argwhere((drawn != flat.image).any(axis=2))[:, ::-1]
    assert np.abs(covered.min(0) - found[:, :2].min(0)).max() < 2.5
    assert np.abs(covered.max(0) - found[:, :2].max(0)).max() < 2.5
    assert viewers_data.mesh_in_picture(HandSample(hand.image)) is None


def test_points_are_drawn_where_they_are_with_the_near_ones_light():
    paper = np.full((100, 100, 3), 255, np.uint8)
    drawn = flat.draw_points(paper, np.array([[20.0, 30, 5], [20, 30, 9], [70, 60, 9]]))
    assert (paper == 255).all() and (drawn[30, 20] != 255).any() and (drawn[60, 70] != 255).any()
    assert drawn[30, 20].sum() > drawn[60, 70].sum() and (drawn[90, 90] == 255).all()


def test_stills_show_as_much_as_the_labels_tell(sets, mano):
    faces = mano.faces.numpy()
    whole = open_data(sets / "freihand", on_error="skip")[0]
    bare = HandSample(whole.image)
    joints_only = HandSample(whole.image, joints=whole.joints)
    widths = [viewers_data.sample_still(s, faces, size=50).width
              for s in (whole, joints_only, bare)]  # fmt: skip
    assert widths == [4 * 54 - 4, 2 * 54 - 4, 50]
    with pytest.warns(UserWarning, match="1 of 10"):
        hands = open_data(sets / "youtube" / "youtube_train.json")
    figure = viewers_data.sample_figure(hands[0], None)
    assert [t.name for t in figure.data] == ["mesh"] and len(figure.data[0].x) == 778
    assert viewers_data.sample_still(hands[0], None, size=50).width == 4 * 54 - 4


def test_other_backgrounds_of_a_hand_are_no_neighbours(sets):
    hands = open_data(sets / "freihand", on_error="skip")
    found = describe.describe(hands, 0)
    rows = describe.nearest_in_pose(found, 0, 5)
    assert rows[0] == 0 and len(set(found.group[rows])) == 5
    assert len(describe.ordered(found, "index", once=True)) == 10
    assert len(describe.ordered(found, "index")) == len(found) == 18


def test_unknown_properties_are_said_and_stay_empty(sets):
    pictures = [HandSample(make_hand(n).image) for n in range(4)]
    found = describe.describe(pictures, 0)
    assert not np.isfinite(found.pose).any()
    text = describe.answer(found, pictures)
    assert text.count("not known") == 4 and "4 right, 0 left" in text
    figure, still = viewers_data.viewpoint_sphere(found)
    assert figure is None and still.size[0] > 100
    assert len(viewers_data.histograms(found).axes) == 3
    assert sorted(describe.ordered(found, "strangest pose first")) == [0, 1, 2, 3]
