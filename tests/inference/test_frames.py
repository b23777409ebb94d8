"""Frame i is frame i: in any order, in uneven time, turned, of files and folders of every kind."""

import shutil
import struct

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from hand_lib.inference.frames import Frames, write_video

COUNT = 48


def picture(n, height=96, width=160):
    """Red in the top left corner, blue in the bottom right one, and a number."""
    frame = np.full((height, width, 3), 40, np.uint8)
    frame[:20, :30], frame[-20:, -30:] = (255, 0, 0), (0, 0, 255)
    cv2.putText(frame, str(n), (60, 60), 0, 1, (255, 255, 255), 2)
    return frame


PICTURES = [picture(n) for n in range(COUNT)]
UNEVEN = np.cumsum([0.04] * 16 + [0.4] * 16 + [0.04] * 16) - 0.04


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "even.mp4", PICTURES, 25.0)


def nearest(frame):
    """The number of the picture that a frame shows."""
    return int(np.argmin([np.abs(frame.astype(int) - p).mean() for p in PICTURES]))


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
@pytest.mark.parametrize("times", [None, UNEVEN])
def test_frame_i_is_frame_i_in_any_order_and_at_its_own_time(tmp_path, name, times):
    frames = Frames(write_video(tmp_path / "new" / name, PICTURES, 25.0, times))
    assert len(frames) == COUNT and frames.size == (160, 96) and frames.name(3) == "a/3"
    expected = np.arange(COUNT) / 25 if times is None else times
    assert np.allclose(frames.times, expected, atol=2e-3)
    in_order = list(frames)
    for index in [*np.random.default_rng(0).permutation(COUNT), 47, 46, 0, 45]:
        assert np.array_equal(frames[index], in_order[index]), index
    assert [nearest(in_order[n]) for n in (0, 17, 47)] == [0, 17, 47]
    assert [p.name for p in (tmp_path / "new").iterdir()] == [name]


def test_a_written_video_is_what_browsers_play(clip):
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
    data = clip.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays before it has all arrived


@pytest.mark.parametrize("codec, name", [("MJPG", "a.avi"), ("mp4v", "a.mp4"), ("VP80", "a.webm")])
def test_videos_of_other_makers_are_read(tmp_path, codec, name):
    writer = cv2.VideoWriter(str(tmp_path / name), cv2.VideoWriter_fourcc(*codec), 25, (160, 96))
    for frame in PICTURES:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    frames = Frames(tmp_path / name)
    assert len(frames) == COUNT and abs(frames.fps - 25) < 0.1
    assert [nearest(frames[n]) for n in (40, 3, 47, 0)] == [40, 3, 47, 0]
    if name == "a.avi":  # a download that stopped: what is there is read
        data = (tmp_path / name).read_bytes()
        (tmp_path / "cut.avi").write_bytes(data[: int(0.6 * len(data))])
        cut = Frames(tmp_path / "cut.avi")
        assert 20 < len(cut) < 40 and len(list(cut)) == len(cut)
        assert nearest(cut[len(cut) - 1]) == len(cut) - 1


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotated_clips_stand_upright(clip, tmp_path, degrees):
    data, one = bytearray(clip.read_bytes()), 0x10000
    matrix = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}[degrees]
    a, b, c, d = matrix
    at = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    struct.pack_into(">9i", data, at, a, b, 0, c, d, 0, 0, 0, 0x40000000)
    (tmp_path / "turned.mp4").write_bytes(data)
    frames = Frames(tmp_path / "turned.mp4")
    expected = np.rot90(PICTURES[7], -degrees // 90)
    assert frames[7].shape == expected.shape
    assert np.abs(frames[7].astype(int) - expected).mean() < 8


def test_odd_sizes_lose_a_line_one_frame_is_enough_and_colours_stay(tmp_path):
    frame = np.zeros((101, 121, 3), np.uint8)
    frame[:] = (220, 60, 30)
    frames = Frames(write_video(tmp_path / "red.mp4", [frame]))
    assert len(frames) == 1 and frames[0].shape == (100, 120, 3) and frames.fps == 30
    assert np.abs(frames[0].mean((0, 1)) - [220, 60, 30]).max() < 12


@pytest.mark.parametrize("name", ["2024-05-01T12:30:05.mp4", "http:a.mp4", "50%d.mp4", "-o.mp4"])
def test_names_that_look_like_something_else_are_names(clip, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    shutil.copy(clip, tmp_path / name)
    assert len(Frames(name)) == len(Frames(tmp_path / name)) == COUNT


def test_frames_come_from_a_folder_in_natural_order_from_a_picture_and_from_a_list(tmp_path):
    for n in (10, 9, 0):
        Image.fromarray(PICTURES[n]).save(tmp_path / f"f{n}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    frames = Frames(tmp_path, fps=4)
    assert [frames.name(n) for n in range(3)] == ["f0.png", "f9.png", "f10.png"]
    assert np.array_equal(frames[2], PICTURES[10]) and frames.times.tolist() == [0, 0.25, 0.5]
    assert np.array_equal(Frames([PICTURES[2]])[0], PICTURES[2])
    assert len(Frames(tmp_path / "f0.png")) == 1


def test_what_is_no_film_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4"):
        Frames(tmp_path / "gone.mp4")
    for name, data in (("text.avi", b"no film"), ("empty.mp4", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=rf"{name} is not a video that can be read"):
            Frames(tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no pictures here"):
        Frames(tmp_path / "empty")
    with pytest.raises(IndexError, match="1 frames"):
        Frames([PICTURES[0]])[1]
    with pytest.raises(ValueError, match="fps"):
        Frames(PICTURES, fps=0)
    for name, pictures, message in (("x.gif", PICTURES, "one of .mp4"), ("x.mp4", [], "no frames")):
        with pytest.raises(ValueError, match=message):
            write_video(tmp_path / name, pictures)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith((".", "x."))]
