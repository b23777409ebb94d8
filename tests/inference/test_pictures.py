"""Somebody's pictures: what is there, what is left out and why, and the command that reads them."""

import itertools
import json

import numpy as np
import pytest
import trimesh
from inference.test_predictor import DotFinder, photo_with_dot
from PIL import Image

from hand_lib.inference import __main__ as command
from hand_lib.inference.frames import find_pictures, read_pictures
from hand_lib.inference.predictor import Predictor


@pytest.fixture
def photos(tmp_path):
    """Ten photographs, one of them half; a film, a text and a hidden file beside them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for n in range(1, 11):
        Image.fromarray(photo_with_dot(100.0 + 5 * n, 90.0)).save(folder / f"{n}.jpg")
    data = (folder / "2.jpg").read_bytes()
    (folder / "2.jpg").write_bytes(data[: len(data) // 2])
    for name in ("film.MOV", "notes.txt", ".DS_Store"):
        (folder / name).write_bytes(b"x")
    return folder


def test_pictures_come_in_natural_order_and_the_rest_with_its_reason(photos):
    paths, left_out = find_pictures(photos)
    assert list(paths) == [f"{n}.jpg" for n in range(1, 11)]
    assert set(left_out) == {"film.MOV", "notes.txt"} and "a video" in left_out["film.MOV"]
    assert list(find_pictures(photos / "3.jpg")[0]) == ["3.jpg"]


def test_a_damaged_picture_is_left_out_and_only_what_is_shown_is_decoded(photos, monkeypatch):
    from hand_lib.inference import frames

    decoded = []
    inner = frames.read_image
    monkeypatch.setattr(frames, "read_image", lambda path: decoded.append(path) or inner(path))
    paths, left_out = find_pictures(photos)
    shown = dict(itertools.islice(read_pictures(paths, left_out), 3))
    assert list(shown) == ["1.jpg", "3.jpg", "4.jpg"] and len(decoded) == 4
    assert "damaged" in left_out["2.jpg"]


def test_a_place_without_pictures_says_what_was_looked_for(photos, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"my_photoz: there is no /.*my_photoz"):
        find_pictures("my_photoz")
    with pytest.raises(FileNotFoundError, match=r"no pictures here .notes\.txt is no picture"):
        find_pictures(photos / "notes.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="the folder is empty"):
        find_pictures(tmp_path / "empty")


def test_the_command_writes_overlays_meshes_and_numbers(photos, tmp_path, monkeypatch, capsys):
    predictor = Predictor(DotFinder(), 64, device="cpu")
    monkeypatch.setattr(command.Predictor, "load", classmethod(lambda cls, run: predictor))
    out = tmp_path / "out" / "demo"
    assert command.main([str(photos), "--run", "reference", "--out", str(out), "--quiet"]) == 0
    said = capsys.readouterr()
    assert "left out: 2.jpg" in said.err and str(out / "10_img.jpg") in said.out
    assert len(list(out.glob("*_img.jpg"))) == len(list(out.glob("*.ply"))) == 9
    (row,) = json.loads((out / "3.json").read_text())["hands"]
    mesh = trimesh.load(out / "3.ply", process=False)
    place = np.array(row["vertices_m"]) + row["translation_m"]
    assert np.allclose(mesh.vertices, place, atol=1e-5)
    assert len(json.loads((out / "index.json").read_text())["hands"]) == 9
    assert row["pose_rad"] is None  # no hand model has three vertices
    assert command.main(["my_photoz", "--out", str(out)]) == 2
    assert "my_photoz" in capsys.readouterr().err


def test_the_command_writes_a_hand_with_bones(photos, tmp_path):
    words = [str(photos / "3.jpg"), "--out", str(tmp_path / "out"), "--quiet", "--rigged"]
    assert command.main([*words, "--side", "left", "--whole"]) == 0
    assert b"inverseBindMatrices" in (tmp_path / "out" / "3_rigged.glb").read_bytes()
    (row,) = json.loads((tmp_path / "out" / "3.json").read_text())["hands"]
    assert row["side"] == "left" and np.shape(row["pose_rad"]) == (16, 3)
