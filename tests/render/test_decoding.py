"""Damage inside pictures is found, whole pictures pass."""

import io

import cv2
import numpy as np
import pytest
from data_fixtures import smooth_image
from PIL import Image

from hand_lib.files import SampleError
from hand_lib.render.images import decode_picture, picture_size


def photo(size=(224, 224), seed=0):
    """A picture with detail: a JPEG of it holds thousands of codes."""
    rng = np.random.default_rng(seed)
    grain = rng.normal(0, 12, (224, 224, 3))
    return cv2.resize((smooth_image(rng) + grain).clip(0, 255).astype(np.uint8), size)


def as_jpeg(image, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.fromarray(image).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size, mode", [((64, 48), "L"), ((7, 9), "CMYK"), ((33, 17), "RGB")])
def test_whole_jpegs_of_every_kind_are_read_at_every_reduction(size, mode):
    image = photo(size)
    for options in ({}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 3}):
        data = as_jpeg(image, mode, quality=95, **options)
        assert picture_size(data) == size
        whole = decode_picture(data, "a")
        if mode == "RGB":
            other = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
            assert np.abs(whole.astype(int) - other).max() <= 3
        for reduce in (1, 2, 4, 8):
            expected = (-(-size[1] // reduce), -(-size[0] // reduce), 3)
            assert decode_picture(data, "a", reduce).shape == expected


@pytest.mark.parametrize("reduce", [1, 4])
def test_zeros_in_the_middle_of_a_jpeg_are_found_and_named(reduce):
    data = as_jpeg(photo(), quality=92, subsampling=0)
    found = 0
    for at in np.linspace(800, len(data) - 600, 40).astype(int):
        broken = data[:at] + bytes(512) + data[at + 512 :]
        try:
            decode_picture(broken, "FreiHAND/training[7]", reduce)
        except SampleError as error:
            assert "FreiHAND/training[7]: the picture is" in str(error)
            found += 1
    assert found >= 38


def test_a_jpeg_or_png_cut_anywhere_is_found():
    for data in (as_jpeg(photo(), quality=85), cv2.imencode(".png", photo())[1].tobytes()):
        for end in np.linspace(2, len(data) - 5, 40).astype(int):
            with pytest.raises(SampleError):
                decode_picture(data[:end], "a")


def test_a_webcams_spare_bytes_before_the_end_are_no_damage():
    data = as_jpeg(photo(), quality=85)
    assert decode_picture(data[:-2] + b"\x55\x66\x77" + data[-2:], "a").shape == (224, 224, 3)


def test_a_flipped_bit_in_a_png_is_found():
    data = cv2.imencode(".png", photo())[1].tobytes()
    for at in np.linspace(40, len(data) - 20, 30).astype(int):
        with pytest.raises(SampleError, match="damaged|cut off"):
            decode_picture(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :], "a")


def test_random_bytes_behind_a_header_are_refused_in_words():
    rng = np.random.default_rng(2)
    for _ in range(50):
        with pytest.raises(SampleError):
            decode_picture(b"\xff\xd8" + rng.bytes(300), "a")
    with pytest.raises(SampleError, match="empty"):
        decode_picture(b"", "a")
