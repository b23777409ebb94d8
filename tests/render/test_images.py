"""Pictures of every kind are read; damage inside them is found."""

import io

import cv2
import numpy as np
import pytest
from data_fixtures import smooth_image
from PIL import Image, features

from hand_lib.files import SampleError
from hand_lib.render.images import decode_picture, exif_focal, picture_size, read_image

PHOTO = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def encoded(picture, kind="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def test_all_doors_give_the_same_pixels(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(PHOTO).save(path)
    sources = (path, str(path), path.read_bytes(), Image.fromarray(PHOTO), PHOTO, PHOTO / 255.0)
    for source in (*sources, PHOTO.astype(np.uint16) << 8):
        assert np.array_equal(read_image(source), PHOTO)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_phone_pictures_come_out_upright(kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate 90 degrees clockwise to show
    turned = read_image(encoded(Image.fromarray(PHOTO), kind, exif=exif))
    assert np.array_equal(turned, np.rot90(PHOTO, -1))


def test_exif_tells_the_focal_length_of_a_whole_photograph():
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = Image.fromarray(np.zeros((300, 400, 3), np.uint8))
    assert exif_focal(encoded(photo, "JPEG", exif=exif)) is None and exif_focal(PHOTO) is None
    exif.get_ifd(0x8769)[0xA405] = 26
    focal = exif_focal(encoded(photo, "JPEG", exif=exif))
    assert np.isclose(focal, 26 / 43.267 * 500)  # of the diagonal, whichever way it is turned
    exif.get_ifd(0x8769)[0xA002], exif.get_ifd(0x8769)[0xA003] = 4000, 3000
    assert np.isclose(exif_focal(encoded(photo, "JPEG", exif=exif)), focal)  # made smaller
    exif.get_ifd(0x8769)[0xA003] = 4000
    assert exif_focal(encoded(photo, "JPEG", exif=exif)) is None  # a piece of it
    exif.get_ifd(0x8769)[0xA003], exif.get_ifd(0x8769)[0xA405] = 3000, 1
    assert exif_focal(encoded(photo, "JPEG", exif=exif)) is None  # no lens


def test_grey_transparent_palette_cmyk_and_deep_pictures_become_rgb():
    grey = read_image(PHOTO[..., 0])
    assert np.array_equal(grey, np.repeat(PHOTO[..., :1], 3, axis=2))
    alpha = np.dstack([PHOTO, np.zeros((20, 30), np.uint8)])
    assert (read_image(alpha) == 255).all() and (read_image(Image.fromarray(alpha)) == 255).all()
    cmyk = encoded(Image.fromarray(PHOTO).convert("CMYK"), "TIFF")
    assert np.abs(read_image(cmyk).astype(int) - PHOTO).max() <= 2
    deep = Image.fromarray(PHOTO[..., 0].astype(np.uint16) << 8)
    assert np.array_equal(read_image(encoded(deep))[..., 0], PHOTO[..., 0])
    assert read_image(Image.fromarray(PHOTO).convert("P")).shape == PHOTO.shape


def test_what_is_not_a_picture_is_answered_clearly(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="nowhere.jpg does not exist"):
        read_image(tmp_path / "nowhere.jpg")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        read_image(tmp_path)
    text = tmp_path / "text.jpg"
    text.write_text("hello")
    with pytest.raises(ValueError, match="text.jpg is not a picture"):
        read_image(text)
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_image(encoded(Image.fromarray(PHOTO.repeat(20, 0)), "JPEG")[:900])
    with pytest.raises(ValueError, match="1 x 1 pixels"):
        read_image(PHOTO[:1, :1])
    with pytest.raises(ValueError, match=r"\(H, W, 3\)"):
        read_image(np.zeros((2, 20, 30, 3), np.uint8))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        read_image(PHOTO.astype(float))
    with pytest.raises(ValueError, match="int64"):
        read_image(PHOTO.astype(np.int64))
    with pytest.raises(TypeError, match="NoneType"):
        read_image(None)
    monkeypatch.setattr("hand_lib.render.images.MAX_MEGAPIXELS", 1e-4)
    with pytest.raises(ValueError, match="megapixels"):
        read_image(encoded(Image.fromarray(PHOTO)))


@pytest.mark.filterwarnings("error")
def test_a_large_picture_within_the_limit_is_read(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # where Pillow begins to warn
    assert read_image(encoded(Image.fromarray(PHOTO))).shape == (20, 30, 3)


def test_heic_is_read_upright_and_its_cousin_avif():
    import pillow_heif

    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    smooth = np.repeat(np.repeat(PHOTO[:8, :8] // 2, 8, 0), 6, 1)
    pillow_heif.from_pillow(Image.fromarray(smooth)).save(buffer, quality=95, exif=exif.tobytes())
    found = read_image(buffer.getvalue(), "IMG_1.HEIC")
    assert found.shape == (48, 64, 3)
    assert np.abs(found.astype(int) - np.rot90(smooth, -1)).mean() < 12
    with pytest.raises(ValueError, match="IMG_1.HEIC is truncated"):
        read_image(buffer.getvalue()[:-9], "IMG_1.HEIC")
    if features.check("avif"):
        assert read_image(encoded(Image.fromarray(smooth), "AVIF")).shape == smooth.shape


def test_no_odd_tag_stops_a_photograph(monkeypatch):
    def broken(_):
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(Image.Image, "getexif", broken)
    assert read_image(encoded(Image.fromarray(PHOTO), "JPEG")).shape == (20, 30, 3)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("colour", [False, True])
def test_deep_pictures_that_use_few_bits_become_visible(bits, colour):
    levels = (PHOTO if colour else PHOTO[..., 0]).astype(np.uint16) << (bits - 8)
    for kind in (".png", ".tiff"):
        stored = levels[..., ::-1] if colour else levels
        found = read_image(cv2.imencode(kind, stored)[1].tobytes())
        expected = PHOTO if colour else np.repeat(PHOTO[..., :1], 3, 2)
        assert np.array_equal(found, expected), kind
    with pytest.raises(ValueError, match="0 to 65535"):
        read_image(Image.fromarray(np.full((20, 30), 70_000, np.int32)), "deep.tif")


def photo(size=(224, 224), seed=0):
    """A picture with detail: a JPEG of it holds thousands of codes."""
    rng = np.random.default_rng(seed)
    grain = rng.normal(0, 12, (224, 224, 3))
    return cv2.resize((smooth_image(rng) + grain).clip(0, 255).astype(np.uint8), size)


def as_jpeg(image, mode="RGB", **options):
    return encoded(Image.fromarray(image).convert(mode), "JPEG", **options)


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
