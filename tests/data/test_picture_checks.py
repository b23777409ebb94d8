"""Damage inside pictures is found, whole pictures pass, and random bytes never crash the search."""

import io

import cv2
import numpy as np
import pytest
from data_fixtures import smooth_image
from PIL import Image

from hand_lib.data.picture_checks import SPARE_BYTES, picture_problem
from hand_lib.data.writers import encode_jpeg
from hand_lib.files import SampleError, decode_picture


def photo(size=(224, 224), seed=0):
    """A picture with detail: a JPEG of it holds thousands of codes."""
    rng = np.random.default_rng(seed)
    grain = rng.normal(0, 12, (224, 224, 3))
    return cv2.resize((smooth_image(rng) + grain).clip(0, 255).astype(np.uint8), size)


def as_jpeg(image, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.fromarray(image).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(64, 48), (7, 9), (33, 17)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_whole_jpegs_of_every_kind_pass(size, mode):
    image = photo(size)
    for sampling in ("4:4:4", "4:2:2", "4:2:0"):
        for quality in (1, 75, 100):
            for more in (
                {},
                {"optimize": True},
                {"progressive": True},
                {"restart_marker_blocks": 3},
            ):
                data = as_jpeg(image, mode, subsampling=sampling, quality=quality, **more)
                assert picture_problem(data) is None, (sampling, quality, more)


def test_extreme_pictures_and_notes_in_the_header_pass():
    for value in (0, 128, 255):
        assert picture_problem(encode_jpeg(np.full((40, 40, 3), value, np.uint8), 100)) is None
    noise = np.random.default_rng(0).choice([0, 255], (64, 64, 3)).astype(np.uint8)
    assert picture_problem(encode_jpeg(noise, 100)) is None
    thumbnail = as_jpeg(photo((32, 32)))
    assert picture_problem(as_jpeg(photo(), exif=b"Exif\0\0" + thumbnail)) is None
    assert picture_problem(b"GIF89a") is None


def damaged(rng, data):
    """One of four kinds of damage inside the picture data."""
    start, count = data.find(b"\xff\xda") + 14, int(rng.integers(1, 600))
    at = int(rng.integers(start, len(data) - count - 2))
    middle = [bytes(count), rng.bytes(count), b"", data[at : at + count] * 2][rng.integers(4)]
    return data[:at] + middle + data[at + count :]


@pytest.mark.parametrize("more", [{}, {"restart_marker_blocks": 5}, {"subsampling": "4:2:0"}])
def test_whatever_libjpeg_warns_of_is_found(more, capfd):
    rng, data = np.random.default_rng(1), as_jpeg(photo(), quality=85, **{"subsampling": 0} | more)
    found, warned = 0, 0
    for _ in range(120):
        broken = damaged(rng, data)
        cv2.imdecode(np.frombuffer(broken, np.uint8), cv2.IMREAD_COLOR)
        warning = capfd.readouterr().err
        problem = picture_problem(broken)
        few = any(f"Corrupt JPEG data: {n} extraneous" in warning for n in range(SPARE_BYTES + 1))
        assert problem or few or "Corrupt" not in warning, warning
        found, warned = found + bool(problem), warned + ("Corrupt" in warning)
    assert warned > 60 and found > warned  # and more than libjpeg notices


@pytest.mark.parametrize("count", [512, 4096])
def test_zeros_in_the_middle_of_a_file_are_always_found(count):
    data = encode_jpeg(photo(), 85)
    for at in np.linspace(800, len(data) - count - 3, 40).astype(int):
        broken = data[:at] + bytes(count) + data[at + count :]
        assert picture_problem(broken).startswith("damaged"), at


def test_a_jpeg_cut_anywhere_is_found():
    data = encode_jpeg(photo(), 85)
    for end in np.linspace(2, len(data) - 5, 60).astype(int):
        assert "cut off" in picture_problem(data[:end]), end
        assert picture_problem(data[:end] + b"\xff\xd9"), end


def test_a_restart_marker_out_of_order_is_found():
    data = as_jpeg(photo(), restart_marker_blocks=10)
    assert picture_problem(data) is None
    first, second = data.find(b"\xff\xd0"), data.find(b"\xff\xd1")
    assert "restart" in picture_problem(data[:first] + b"\xff\xd3" + data[first + 2 :])
    assert "restart" in picture_problem(data[:first] + data[second:])


def test_a_png_with_a_flipped_bit_or_cut_short_is_found():
    data = cv2.imencode(".png", photo())[1].tobytes()
    assert picture_problem(data) is None
    for at in np.linspace(40, len(data) - 20, 30).astype(int):
        flipped = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
        assert picture_problem(flipped), at
        assert "cut off" in picture_problem(data[:at]), at


def test_random_bytes_behind_a_header_crash_nothing():
    rng, data = np.random.default_rng(2), as_jpeg(photo((64, 64)), progressive=False)
    for _ in range(400):
        broken = bytearray(data)
        for at in rng.integers(2, data.find(b"\xff\xda") + 14, rng.integers(1, 6)):
            broken[at] = rng.integers(256)
        picture_problem(bytes(broken))
    for _ in range(100):
        picture_problem(b"\xff\xd8" + rng.bytes(300))


def test_decoding_names_the_picture_that_is_damaged():
    data = encode_jpeg(photo(), 85)
    broken = data[:4000] + bytes(600) + data[4600:]
    with pytest.raises(
        SampleError, match=r"FreiHAND/training\[7\]: the picture is damaged: .*byte"
    ):
        decode_picture(broken, "FreiHAND/training[7]")
    assert decode_picture(broken, "known", check=False).shape == (224, 224, 3)
