"""Flat pictures: joints and points drawn over them, sheets, charts, and their bytes in a notebook.

Everything takes and gives arrays (H, W, 3) uint8 or PIL images.
"""

import io
import json
from itertools import pairwise

import cv2
import ipywidgets as widgets
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from hand_lib.hand.joints import FINGER_COLOURS, FINGERS
from hand_lib.render.render import TRUTH

INK = (40, 44, 52)
PAPER = (255, 255, 255)


def png_bytes(picture, colours: int = 48) -> bytes:
    """A small PNG: reduced to a palette where that loses next to nothing.   -> bytes."""
    palette = _rgb(picture).quantize(colours, kmeans=1, dither=Image.Dither.NONE)
    palette.save(buffer := io.BytesIO(), "PNG", optimize=True)
    return buffer.getvalue()


def jpeg_bytes(picture, quality: int = 72) -> bytes:
    """A JPEG, for photographs, which would be large as PNG.   -> bytes."""
    _rgb(picture).save(buffer := io.BytesIO(), "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def _rgb(picture) -> Image.Image:
    return Image.fromarray(np.asarray(picture)).convert("RGB")


def still_bundle(picture) -> dict[str, bytes]:
    """MIME type and bytes of a still: a PNG, or a JPEG where that is much smaller (photographs)."""
    drawn, photo = png_bytes(picture), jpeg_bytes(picture)
    return {"image/jpeg": photo} if len(photo) < 0.7 * len(drawn) else {"image/png": drawn}


def draw_walk(image, pixels, colour, width: int, dots: float = 0, seen=None) -> None:
    """A line through pixels (n, 2), and dots with white borders at them, onto ``image`` in place.

    colour: (3,) or (n, 3).   width, dots: of the line and radius, pixels; 0: none.
    seen: (n - 1,) bool, the parts that are drawn; None: all.
    """
    ends = np.round(16 * np.clip(pixels, -30_000, 30_000)).astype(int)
    colours = np.broadcast_to(colour, (len(ends), 3)).tolist()
    for n in range(len(ends) - 1 if width else 0):
        if seen is None or seen[n]:
            cv2.line(image, ends[n], ends[n + 1], colours[n], width, cv2.LINE_AA, 4)
    for end, one in zip(ends, colours, strict=True) if dots else ():
        for radius, paint in ((dots + max(0.6, dots / 4), PAPER), (dots, one)):
            cv2.circle(image, end, round(16 * radius), paint, cv2.FILLED, cv2.LINE_AA, 4)


def draw_joints(image, joints_2d, valid=None) -> np.ndarray:
    """Skeleton over a picture, one colour per finger.

    image: (H, W, 3) uint8.   joints_2d: (21, 2) pixels.   valid: (21,) bool, others are left out.
    returns (H, W, 3) uint8.
    """
    joints_2d = np.asarray(joints_2d, float)
    if joints_2d.shape != (21, 2):
        raise ValueError(f"expected joints_2d (21, 2), found {joints_2d.shape}")
    valid = np.ones(21, bool) if valid is None else np.asarray(valid, bool)
    image = np.array(image, order="C")  # a batch that is turned round has another layout
    width = max(1, round(min(image.shape[:2]) / 110))
    for finger, chain in (*FINGERS.items(), ("wrist", (0,))):
        colour = ImageColor.getrgb(FINGER_COLOURS[finger])
        for bone in pairwise((0, *chain)):
            if valid[list(bone)].all():
                draw_walk(image, joints_2d[list(bone)], colour, width)
        shown = [joint for joint in chain if valid[joint]]
        draw_walk(image, joints_2d[shown], colour, 0, 1.3 * width)
    return image


def mixed(under, over, share: float = 1.0, wipe: float = 0.0) -> np.ndarray:
    """Two pictures as one: ``share`` of the upper one, right of ``wipe`` of the width.

    under, over: (H, W, 3) uint8.   returns (H, W, 3) uint8, with a white line where the wipe is.
    """
    out, left = cv2.addWeighted(over, share, under, 1 - share, 0), round(wipe * under.shape[1])
    out[:, :left] = under[:, :left]
    out[:, max(left - 2, 0) : left] = PAPER
    return out


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


def image_grid(pictures, titles=None, columns: int = 8, gap: int = 4, labels=()):
    """Pictures of one size in rows, each with an optional line of text above it.  -> PIL image.

    labels: words at the left of every row, from its top to its bottom.
    """
    pictures = [np.asarray(p) for p in pictures]
    if not pictures:
        raise ValueError("image_grid needs at least one picture")
    titles = [""] * len(pictures) if titles is None else [str(t) for t in titles]
    if len(titles) != len(pictures):
        raise ValueError(f"{len(pictures)} pictures and {len(titles)} titles")
    height, width = pictures[0].shape[:2]
    font = ImageFont.load_default(size=13)
    head = 17 * max(t.count("\n") + 1 for t in titles) + 3 if any(titles) else 0
    left = max((int(font.getlength(label)) + 8 for label in labels), default=0)
    rows, columns = -(-len(pictures) // columns), min(columns, len(pictures))
    size = left + columns * (width + gap) - gap, rows * (height + head + gap) - gap
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    for n, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        x, y = left + n % columns * (width + gap), n // columns * (height + head + gap)
        if title:
            middle = (x + width / 2, y + head / 2)
            pen.multiline_text(middle, title, INK, font, anchor="mm", align="center")
        sheet.paste(Image.fromarray(picture).resize((width, height)), (x, y + head))
        for k, label in enumerate(labels if x == left else ()):
            place = (left - 8, y + head + height * (k + 0.5) / len(labels))
            pen.text(place, label, INK, font, anchor="rm")
    return sheet


def write(image, texts) -> np.ndarray:
    """A picture with words in it.   texts: pairs of a pixel (x, y) and the word beside it."""
    sheet = Image.fromarray(image)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for (x, y), text in texts:
        pen.text((x + 4, y - 4), text, INK, font, anchor="ls")
    return np.asarray(sheet)


def fit_square(picture, size: int) -> np.ndarray:
    """A picture resized to fit a white square of ``size`` pixels.   returns (size, size, 3)."""
    picture = Image.fromarray(np.asarray(picture))
    scale = size / max(picture.size)
    small = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.LANCZOS)
    square = Image.new("RGB", (size, size), PAPER)
    square.paste(small, ((size - small.width) // 2, (size - small.height) // 2))
    return np.asarray(square)


def chart(rows: int = 1, columns: int = 1, size=(7, 3.2), grid: bool = True, **options):
    """A Matplotlib figure and its axes (rows, columns) in the one style of all charts.

    size: inches.   options: for ``subplots``. It is closed already: a notebook shows it as the
    value of a cell.
    """
    import matplotlib.pyplot as plt

    style = {"axes.spines.top": False, "axes.spines.right": False, "grid.alpha": 0.25,
             "axes.grid": grid}  # fmt: skip
    with plt.rc_context(style):
        figure, axes = plt.subplots(
            rows, columns, figsize=size, layout="constrained", squeeze=False, **options
        )
    plt.close(figure)
    return figure, axes


def as_picture(figure, dpi: int = 80) -> Image.Image:
    """A Matplotlib figure as a small PIL image, so that a notebook stays light."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi)
    return Image.open(buffer).convert("RGB")


def show(figure, picture, text: str = "figure", private: bool = False) -> None:
    """Display one output: the live figure where somebody can turn it, its still anywhere else.

    figure: a Plotly figure or None.   picture: a PIL image or (H, W, 3) uint8.
    A cell run in JupyterLab gets the live figure alone, because Lab prefers a PNG to Plotly's JSON;
    a cell run headless (papermill, nbval) gets both, so that GitHub shows the PNG.
    private: somebody's own picture. JupyterLab shows it by a widget, whose bytes no notebook keeps,
    and ``workbook`` leaves it out of notebooks that it refreshes for git.
    """
    from IPython.display import display

    if private and in_live_frontend():
        display(widgets.Image(value=jpeg_bytes(picture, 88), layout={"max_width": "100%"}))
        return
    bundle = {"text/plain": text}
    if figure is None:
        bundle |= still_bundle(picture)
    else:
        live = json.loads(figure.to_json()) | {"config": {"displaylogo": False}}
        bundle["application/vnd.plotly.v1+json"] = live
        if not in_live_frontend():
            bundle["image/png"] = png_bytes(picture)
    display(bundle, raw=True, metadata={"private": True} if private else None)


def in_live_frontend() -> bool:
    """True when the running cell was sent by JupyterLab (whose requests name the cell)."""
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    request = kernel.get_parent() if kernel is not None else {}
    return "cellId" in (request or {}).get("metadata", {})
