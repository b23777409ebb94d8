"""Flat pictures: joints and points drawn over them, sheets, charts, and their bytes in a notebook.

Everything takes and gives arrays (H, W, 3) uint8 or PIL images.
"""

import io

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hand_lib.hand.joints import BONES, FINGER_COLOURS, FINGERS
from hand_lib.render.render import TRUTH

INK = (40, 44, 52)
PAPER = (255, 255, 255)
JPEG_BELOW = 0.7
"""A still is stored as JPEG when that takes less than this share of the PNG's bytes."""


def png_bytes(picture, colours: int = 64) -> bytes:
    """A small PNG: reduced to a palette where that loses next to nothing.   -> bytes."""
    picture, buffer = Image.fromarray(np.asarray(picture)).convert("RGB"), io.BytesIO()
    palette = picture.quantize(colours, kmeans=1, dither=Image.Dither.NONE)
    palette.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def jpeg_bytes(picture, quality: int = 72) -> bytes:
    """A JPEG, for photographs, which would be large as PNG.   -> bytes."""
    buffer = io.BytesIO()
    picture = Image.fromarray(np.asarray(picture)).convert("RGB")
    picture.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def still_bundle(picture) -> dict[str, bytes]:
    """MIME type and bytes of a still: a PNG, or a JPEG where that is much smaller (photographs)."""
    drawn, photo = png_bytes(picture), jpeg_bytes(picture)
    small = len(photo) < JPEG_BELOW * len(drawn)
    return {"image/jpeg": photo} if small else {"image/png": drawn}


def draw_joints(image, joints_2d, valid=None) -> np.ndarray:
    """Skeleton over a picture, one colour per finger.

    image: (H, W, 3) uint8.   joints_2d: (21, 2) pixels.   valid: (21,) bool, others are left out.
    returns (H, W, 3) uint8.
    """
    joints_2d = np.asarray(joints_2d, float)
    if joints_2d.shape != (21, 2):
        raise ValueError(f"expected joints_2d (21, 2), found {joints_2d.shape}")
    valid = np.ones(21, bool) if valid is None else np.asarray(valid, bool)
    width = max(1.0, min(image.shape[:2]) / 110)
    fine = 3  # draw large, shrink: smooth lines
    height, length = image.shape[:2]
    canvas = Image.fromarray(image).resize((length * fine, height * fine), Image.BICUBIC)
    pen = ImageDraw.Draw(canvas)
    at = [tuple((p + 0.5) * fine) for p in joints_2d]
    for finger, chain in FINGERS.items():
        for parent, child in BONES:
            if child in chain and valid[parent] and valid[child]:
                pen.line([at[parent], at[child]], FINGER_COLOURS[finger], round(width * fine))
        for joint in chain:
            if valid[joint]:
                _dot(pen, at[joint], width * fine * 1.1, FINGER_COLOURS[finger])
    if valid[0]:
        _dot(pen, at[0], width * fine * 1.3, FINGER_COLOURS["wrist"])
    return np.asarray(canvas.resize((length, height), Image.LANCZOS))


def _dot(pen, centre, radius, colour):
    x, y = centre
    pen.ellipse([x - radius, y - radius, x + radius, y + radius], colour, "white")


def draw_points(image, pixels, colour=TRUTH) -> np.ndarray:
    """Points over a picture, the near ones light and in front.

    image: (H, W, 3) uint8.   pixels: (V, 3) x, y and depth.   colour: (3,) or (V, 3).
    returns (H, W, 3) uint8.
    """
    image = np.ascontiguousarray(image).copy()
    depth = pixels[:, 2] - pixels[:, 2].min()
    light = 1.25 - 0.85 * depth / max(depth.max(), 1e-9)
    shades = np.minimum(np.broadcast_to(colour, pixels.shape) * light[:, None], 255)
    radius = max(1, round(np.ptp(pixels[:, :2], axis=0).max() / 60))
    for row in np.argsort(-pixels[:, 2]):
        at = [round(16 * float(v)) for v in pixels[row, :2]]
        cv2.circle(image, at, radius * 16, shades[row].tolist(), cv2.FILLED, cv2.LINE_AA, 4)
    return image


def image_grid(pictures, titles=None, columns: int = 8, gap: int = 4):
    """Pictures of one size in rows, each with an optional line of text above it.  -> PIL image."""
    pictures = [np.asarray(p) for p in pictures]
    if not pictures:
        raise ValueError("image_grid needs at least one picture")
    titles = [""] * len(pictures) if titles is None else [str(t) for t in titles]
    if len(titles) != len(pictures):
        raise ValueError(f"{len(pictures)} pictures and {len(titles)} titles")
    height, width = pictures[0].shape[:2]
    font = ImageFont.load_default(size=13)
    lines = max(t.count("\n") + 1 for t in titles)
    head = 17 * lines + 3 if any(titles) else 0
    rows = -(-len(pictures) // columns)
    columns = min(columns, len(pictures))
    sheet = Image.new(
        "RGB", (columns * (width + gap) - gap, rows * (height + head + gap) - gap), PAPER
    )
    pen = ImageDraw.Draw(sheet)
    for n, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        x, y = n % columns * (width + gap), n // columns * (height + head + gap)
        if title:
            middle = (x + width / 2, y + head / 2)
            pen.multiline_text(middle, title, INK, font, anchor="mm", align="center")
        sheet.paste(Image.fromarray(picture).resize((width, height)), (x, y + head))
    return sheet


def fit_square(picture, size: int) -> np.ndarray:
    """A picture resized to fit a white square of ``size`` pixels.   returns (size, size, 3)."""
    picture = Image.fromarray(np.asarray(picture))
    scale = size / max(picture.size)
    small = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.LANCZOS)
    square = Image.new("RGB", (size, size), PAPER)
    square.paste(small, ((size - small.width) // 2, (size - small.height) // 2))
    return np.asarray(square)


def curves(series: dict, x_label: str, y_label: str, log_y: bool = False, title: str = ""):
    """Line chart as a Matplotlib figure.   series: name -> (x, y) arrays."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for name, (x, y) in series.items():
        axis.plot(x, y, label=name, linewidth=1.8)
    axis.set(xlabel=x_label, ylabel=y_label, title=title, yscale="log" if log_y else "linear")
    if len(series) > 1:
        axis.legend(frameon=False)
    return finished(figure)


def finished(figure, grid: bool = True):
    """A Matplotlib figure with two spines less and perhaps a grid, closed and returned.

    A notebook shows it as the value of a cell.
    """
    import matplotlib.pyplot as plt

    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
        if grid:
            axis.grid(alpha=0.25)
    plt.close(figure)
    return figure


def as_picture(figure, dpi: int = 80) -> Image.Image:
    """A Matplotlib figure as a small PIL image, so that a notebook stays light."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi)
    return Image.open(buffer).convert("RGB")
