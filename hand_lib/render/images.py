"""Pictures from anywhere as (H, W, 3) uint8 RGB, or one clear error.

``read_image`` takes what people bring, upright and visible; ``decode_picture`` takes the JPEG and
PNG files of a data set as they are stored, quickly and with care: a damaged one is an error.
"""

import contextlib
import io
import re
import struct
import warnings
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from hand_lib.files import SampleError

MAX_MEGAPIXELS = 200
MIN_SIDE = 8
FILM_DIAGONAL_MM = 43.267
REDUCTIONS = (8, 4, 2)
"""Factors by which a JPEG can be shrunk while it is decoded."""

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_ORIENTATION, _EXIF, _FOCAL_35MM, _SIDES = 0x0112, 0x8769, 0xA405, (0xA002, 0xA003)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""What undoes each EXIF orientation."""


def read_image(source, name: str | None = None) -> np.ndarray:
    """Open a picture the way its maker meant it: upright (EXIF), in colour, opaque.

    source: path, bytes, PIL image, or array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8,
    uint16 or float in [0, 1]. Grey becomes RGB, transparency is laid on white, CMYK, HEIC and 16
    bit are converted; 16-bit numbers that use 8 to 14 bits only are taken for such a camera's.
    name: what errors call it.   returns (H, W, 3) uint8 RGB.
    raises FileNotFoundError, or ValueError for what is not a whole picture of 8 x 8 pixels to 200
    megapixels.

    >>> read_image(np.zeros((20, 30), np.uint8)).shape
    (20, 30, 3)
    """
    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise FileNotFoundError(f"picture {path} {what}; give the path of an image file")
        return _decode(path.read_bytes(), name or str(path))
    name = name or "picture"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(bytes(source), name)
    if isinstance(source, Image.Image):
        return _convert(source, name)
    if hasattr(source, "__array__") or isinstance(source, (list, tuple)):
        return _from_array(np.asarray(source), name)
    raise TypeError(
        f"expected a picture as path, bytes, PIL image or array, found {type(source).__name__}"
    )


def exif_focal(source) -> float | None:
    """Focal length in pixels of a whole photograph, by its EXIF; None where nothing tells it.

    source: as ``read_image`` takes it. The 35-mm equivalent is one of diagonals, 43.27 mm of film,
    so turning the picture changes nothing. None as well where the sides that EXIF names are of
    another shape than the picture's: it was cut.

    >>> exif_focal(np.zeros((20, 30), np.uint8)) is None
    True
    """
    try:
        if isinstance(source, (str, Path)):
            source = Path(source).read_bytes()
        if not isinstance(source, (bytes, bytearray, memoryview, Image.Image)):
            return None
        picture = source if isinstance(source, Image.Image) else _open(bytes(source))
        width, height = sorted(picture.size)
        tags = picture.getexif().get_ifd(_EXIF)
        equivalent = float(tags.get(_FOCAL_35MM, 0))
        low, high = sorted(float(tags.get(tag, 0)) for tag in _SIDES)
    except Exception:  # whatever a damaged block of tags makes Pillow raise
        return None
    whole = not low or abs(low * height / (high * width) - 1) < 0.02
    sane = whole and 5 <= equivalent <= 5000  # a fisheye's to a telescope's, mm
    return equivalent * np.hypot(width, height) / FILM_DIAGONAL_MM if sane else None


def _decode(data, name):
    try:
        with _open(data) as picture:
            width, height = picture.size
            if width * height > MAX_MEGAPIXELS * 1e6:
                raise Image.DecompressionBombError(f"{width} x {height} pixels")
            if ";16" not in str(getattr(picture, "tile", "")):
                return _convert(picture, name)
            # Pillow would keep the high bytes of such colours alone
            array = cv2.imdecode(
                np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
            )
            if array is None:
                raise OSError("its 16-bit pixels cannot be read")
            if array.ndim == 3:
                array = array[..., [2, 1, 0, 3][: array.shape[2]]]
            pixels = Image.fromarray(_to_bytes(array, name))
            return _convert(_upright(pixels, _orientation(picture)), name)
    except UnidentifiedImageError:
        raise ValueError(
            f"{name} is not a picture that can be read (JPEG, PNG, HEIC, WebP, TIFF, BMP, GIF, ...)"
        ) from None
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{name} is too large ({error}), {MAX_MEGAPIXELS} megapixels are the limit; shrink it"
        ) from None
    except (OSError, SyntaxError, EOFError, struct.error) as error:  # Pillow's, for broken files
        raise ValueError(f"{name} is truncated or damaged: {error}") from None


def _open(data):
    """The picture, not decoded yet, by Pillow or, where it is HEIC, by libheif."""
    if data[4:8] == b"ftyp" and data[8:12] not in (b"avif", b"avis"):  # these are Pillow's
        import pillow_heif

        if pillow_heif.is_supported(data):
            try:
                return pillow_heif.open_heif(data).to_pillow()  # turned by libheif already
            except (ValueError, RuntimeError) as error:
                raise OSError(error) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd tags, and bombs: our limit stands above
        return Image.open(io.BytesIO(data))


def _orientation(picture) -> int:
    """1 to 8 of EXIF; 1 where it is missing or odd. No other tag is looked at."""
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # whatever a damaged block of tags makes Pillow raise
        return 1


def _upright(picture, orientation):
    return picture.transpose(_TURNS[orientation]) if orientation in _TURNS else picture


def _convert(picture, name):
    picture.load()  # Pillow turns a TIFF itself, and takes the tag away
    picture = _upright(picture, _orientation(picture))
    if picture.mode.startswith(("I", "F")):
        return _from_array(np.asarray(picture), name)
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return _checked(np.array(picture.convert("RGB")), name)


def _from_array(array, name):
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise ValueError(
            f"{name} should be (H, W), (H, W, 3) or (H, W, 4), found an array {array.shape}"
        )
    array = _to_bytes(array, name)
    if array.shape[2] == 4:
        return _convert(Image.fromarray(array, "RGBA"), name)
    return _checked(np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array, name)


def _to_bytes(array, name):
    """Any array of levels as uint8."""
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ValueError(f"{name}: a float picture should lie in [0, 1] and be finite")
        return np.round(array * 255).astype(np.uint8)
    if array.dtype == np.uint8:
        return array
    if array.dtype not in (np.uint16, np.int32, np.dtype(">u2")):
        raise ValueError(f"{name} should be uint8, uint16 or float in [0, 1], found {array.dtype}")
    low, top = int(array.min()), int(array[..., :3].max())
    if low < 0 or top > 65535:
        raise ValueError(f"{name}: 16-bit levels go from 0 to 65535, found {low} to {top}")
    bits = next(bits for bits in (8, 10, 12, 14, 16) if top < 1 << bits)
    return np.minimum(array >> (bits - 8), 255).astype(np.uint8)


def _checked(array, name):
    if min(array.shape[:2]) < MIN_SIDE:
        raise ValueError(
            f"{name} has {array.shape[1]} x {array.shape[0]} pixels, at least "
            f"{MIN_SIDE} x {MIN_SIDE} are needed to see a hand"
        )
    return np.ascontiguousarray(array)


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from the header of a JPEG or PNG, without decoding; None when unknown.

    >>> picture_size(cv2.imencode(".png", np.zeros((4, 7, 3), np.uint8))[1].tobytes())
    (7, 4)
    """
    if data[:8] == _PNG and len(data) >= 24:
        return struct.unpack(">II", data[16:24])
    if data[:2] != _JPEG:
        return None
    try:
        return simplejpeg.decode_jpeg_header(data)[1::-1]
    except (ValueError, KeyError):  # KeyError: a kind of JPEG that it does not know
        return None


def decode_picture(data: bytes, name: str, reduce: int = 1) -> np.ndarray:
    """Decode a JPEG or PNG as stored, without turning it by its EXIF tag.

    data: the file's bytes.   name: what an error calls it.   reduce: 1, 2, 4 or 8, the factor by
    which a JPEG is shrunk inside the decoder, which costs a fraction of decoding it whole.
    returns (ceil(H / reduce), ceil(W / reduce), 3) uint8 RGB, or less than that of a PNG.
    raises SampleError for whatever is not whole: a decoder would paint over the damage and go on.
    """
    if len(data) == 0:
        raise SampleError(f"{name}: the picture is empty (0 bytes); copy or unpack it again")
    if data[:2] == _JPEG:
        return _decode_jpeg(data, name, reduce)
    if data[:8] == _PNG:
        try:
            Image.open(io.BytesIO(data)).verify()  # all checksums, which no decoder looks at
        except Exception as error:  # whatever a damaged chunk makes Pillow raise
            raise SampleError(
                f"{name}: the picture is damaged or cut off ({error}); copy or unpack it again"
            ) from None
    image = None
    with contextlib.suppress(cv2.error):
        image = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        )
    if image is None:
        raise SampleError(f"{name}: not a readable picture ({len(data)} bytes); unpack it again")
    if reduce > 1:
        small = tuple(-(-side // reduce) for side in image.shape[1::-1])
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return image


def _decode_jpeg(data, name, reduce):
    """By libjpeg-turbo, every warning of which is an error but a webcam's spare bytes."""
    sides, strict = {}, True
    for _ in range(2):
        try:
            if reduce > 1:
                height, width = simplejpeg.decode_jpeg_header(data)[:2]
                sides = {"min_height": -(-height // reduce), "min_width": -(-width // reduce)}
            return simplejpeg.decode_jpeg(data, "RGB", strict=strict, **sides)
        except (ValueError, KeyError) as error:
            spare = re.search(r"(\d+) extraneous bytes before marker 0xd9", str(error))
            if not strict or not spare or int(spare[1]) > 4:
                problem = str(error)
                break
            strict = False
    whole = "Premature end" not in problem and b"\xff\xd9" in data[-64:]
    what = "damaged" if whole else "cut off"
    raise SampleError(f"{name}: the picture is {what} ({problem}); copy or unpack it again")
