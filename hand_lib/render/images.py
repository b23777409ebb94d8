"""Pictures from anywhere as (H, W, 3) uint8 RGB, or one clear error."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_MEGAPIXELS = 200
MIN_SIDE = 8


def read_image(source, name: str | None = None) -> np.ndarray:
    """Open a picture the way its maker meant it: upright (EXIF), in colour, opaque.

    source: path, bytes, PIL image, or array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8,
    uint16 or float in [0, 1]. Grey becomes RGB, transparency is laid on white, CMYK and 16 bit are
    converted.   name: what errors call it.   returns (H, W, 3) uint8 RGB.
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
        return _decode(path, name or str(path))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(io.BytesIO(bytes(source)), name or "picture")
    if isinstance(source, Image.Image):
        return _convert(source, name or "picture")
    if hasattr(source, "__array__") or isinstance(source, (list, tuple)):
        return _from_array(np.asarray(source), name or "picture")
    raise TypeError(
        f"expected a picture as path, bytes, PIL image or array, found {type(source).__name__}"
    )


def _decode(file, name):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit is below
            opened = Image.open(file)
        with opened as picture:
            width, height = picture.size
            if width * height > MAX_MEGAPIXELS * 1e6:
                raise ValueError(
                    f"{name} has {width} x {height} pixels, {MAX_MEGAPIXELS} megapixels are the "
                    "limit; shrink it first"
                )
            return _convert(picture, name)
    except UnidentifiedImageError:
        raise ValueError(
            f"{name} is not a picture that Pillow can read (JPEG, PNG, WebP, TIFF, BMP, GIF, ...)"
        ) from None
    except Image.DecompressionBombError:
        raise ValueError(
            f"{name} announces far more than the {MAX_MEGAPIXELS} megapixels that are the limit; "
            "shrink it first"
        ) from None
    except (OSError, SyntaxError) as error:  # Pillow raises both for broken files
        raise ValueError(f"{name} is truncated or damaged: {error}") from None


def _convert(picture, name):
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I"):
        return _from_array(np.asarray(picture).astype(np.uint16), name)
    if picture.mode == "F":
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
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    elif array.dtype.kind == "f":
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ValueError(f"{name}: a float picture should lie in [0, 1] and be finite")
        array = np.round(array * 255).astype(np.uint8)
    elif array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        raise ValueError(f"{name} should be uint8, uint16 or float in [0, 1], found {array.dtype}")
    if array.shape[2] == 4:
        return _convert(Image.fromarray(array, "RGBA"), name)
    return _checked(np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array, name)


def _checked(array, name):
    if min(array.shape[:2]) < MIN_SIDE:
        raise ValueError(
            f"{name} has {array.shape[1]} x {array.shape[0]} pixels, at least "
            f"{MIN_SIDE} x {MIN_SIDE} are needed to see a hand"
        )
    return np.ascontiguousarray(array)
