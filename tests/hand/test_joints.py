import numpy as np
import pytest

from hand_lib.hand import joints as j

TAGGED = np.arange(21)[:, None] * np.array([1.0, 10, 100])


def test_orders_and_parents_describe_five_chains_from_the_wrist():
    assert len(j.JOINT_NAMES) == len(set(j.JOINT_NAMES)) == 21
    for name, chain in j.FINGERS.items():
        assert j.JOINT_PARENTS[list(chain)].tolist() == [0, *chain[:3]]
        assert all(j.JOINT_NAMES[i].startswith(name) for i in chain)
        assert j.JOINT_NAMES[chain[3]].endswith("tip") and chain[3] in j.TIPS_21
    assert j.BONES.tolist() == [[int(j.JOINT_PARENTS[i]), i] for i in range(1, 21)]
    assert set(j.FINGER_COLOURS) == {"wrist", *j.FINGERS}


def test_mano_parents_and_names_agree_with_the_21_order():
    for child, parent in enumerate(j.MANO_PARENTS):
        if parent >= 0:
            assert j.JOINT_PARENTS[j.MANO_TO_21[child]] == j.MANO_TO_21[parent]
    for name, chain in j.MANO_FINGERS.items():
        assert j.MANO_TO_21[list(chain)].tolist() == list(j.FINGERS[name][:3])
    assert j.MANO_TO_21.tolist() == [0, 5, 6, 7, 9, 10, 11, 17, 18, 19, 13, 14, 15, 1, 2, 3]
    assert j.MANO_JOINT_NAMES[7] == "little_mcp" and j.MANO_JOINT_NAMES[15] == "thumb_ip"


@pytest.mark.parametrize("source", j.JOINT_SOURCES)
def test_conversion_keeps_every_joint(source):
    assert np.array_equal(np.sort(j.convert_joints(TAGGED, source), axis=0), TAGGED)


def test_each_producer_s_joints_land_under_their_own_names():
    by_name = {name: i for i, name in enumerate(j.JOINT_NAMES)}
    fingers = ("thumb", "index", "middle", "ring", "little")
    mano = list(j.MANO_JOINT_NAMES)
    layouts = {
        "manopth_raw": mano + [f"{f}_tip" for f in fingers],
        "handmesh_raw": mano + [f"{f}_tip" for f in ("index", "middle", "little", "ring", "thumb")],
        "interhand": [j.JOINT_NAMES[i] for f in fingers for i in j.FINGERS[f][::-1]] + ["wrist"],
    }
    for source, names in layouts.items():
        raw = np.array([[by_name[name]] for name in names])
        assert j.convert_joints(raw, source)[:, 0].tolist() == list(range(21)), source


def test_bad_joint_input_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="interhand"):
        j.convert_joints(TAGGED, "openposee")
    with pytest.raises(ValueError, match="21"):
        j.convert_joints(TAGGED[:20], "openpose")


def test_every_data_set_says_which_fingertips_it_has(tmp_path):
    class Source:
        fingertips = "smplx"

    assert j.fingertips_of(Source()) == "smplx"
    assert j.fingertips_of(tmp_path) == "freihand" and "own" in j.fingertips_of(object())
    (tmp_path / "synthetic.json").touch()
    assert "own" in j.fingertips_of(tmp_path)


def test_fingertip_tables_are_named_and_differ():
    assert j.fingertip_vertices() == (744, 320, 443, 555, 672)
    assert j.fingertip_vertices("manopth", "left")[2] == 445
    with pytest.raises(ValueError, match="freihand"):
        j.fingertip_vertices("mano")
    with pytest.raises(ValueError, match="right"):
        j.fingertip_vertices("metro", "Left")
