"""The demo on one's own picture: drag a box, choose the side, turn the hand, save it.

The steps behind the buttons are plain functions (``draw_hands``, ``download_links``), tested
without a browser.
"""

import base64
import html
import tempfile
from pathlib import Path

import ipywidgets as widgets
import numpy as np
from PIL import Image

from hand_lib.inference.export import save_hands, save_predictions
from hand_lib.render.images import exif_focal, read_image
from hand_lib.render.render import draw_meshes, for_screen
from hand_lib.viewers import figures, flat
from hand_lib.viewers.explorer import LiveFigure

SIDES = ("any", "right", "left")
SHOWS = ("mesh", "skeleton", "both")
WAYS = {"network": {"refined": False}, "joint fit": {}, "key points": {"keypoints": "detect"}}
"""The network alone; its mesh held by the joints that it read; by MediaPipe's key points."""
LOOKS = {"camera": "front", "side": "left", "behind": "back"}
"""Word on the button -> named view of ``figures``."""

_WRONG, _DOUBT, _BUSY = ("#fbe3e4", "#a00000"), ("#fdeccd", "#7a4b00"), ("#fff3b0", "#5c4a00")
_BUTTONS = ["toimage", "zoom", "pan", "zoomin", "zoomout", "autoscale", "resetscale"]
_BOX_LINE = {"color": "#f2a93b", "width": 3}


def draw_hands(image, hands) -> dict[str, np.ndarray]:
    """The "picture" without and with "mesh", "skeleton" and "both" of all its hands drawn over it.

    image: (H, W, 3) uint8.   hands: HandPredictions, perhaps none.
    returns pictures (H', W', 3) uint8, at most ``render.LONGEST_SIDE`` pixels a side.
    """
    small, _, scale = for_screen(image)
    drawn = dict.fromkeys(("picture", *SHOWS), small)
    for hand in hands:
        _, matrix, _ = for_screen(image, hand.intrinsics)
        drawn["mesh"] = draw_meshes(drawn["mesh"], hand.camera_vertices, hand.faces, matrix)
    drawn["both"] = drawn["mesh"]
    for hand in hands:
        joints = (hand.joints_2d + 0.5) * scale - 0.5
        for name in ("skeleton", "both"):
            drawn[name] = flat.draw_joints(drawn[name], joints)
    return drawn


def summary(hands) -> str:
    """A word over a picture: sides and confidences, or that nothing was found."""
    words = []
    for hand in hands:
        sure = "" if hand.confidence is None else f" {hand.confidence:.2f}"
        words.append(f"{hand.side}{sure}{'?' if hand.doubtful else ''}")
    return ", ".join(words) or "no hand found"


def remark(hands, other: str | None = None) -> str:
    """What one should know about the hands of a picture, as HTML.

    other: the side that the network would have named for the first of them.
    """
    parts = [html.escape(summary(hands)), " &nbsp; " if hands else ": drag a box around one"]
    if other and other != hands[0].side:
        parts.append(_chip(f"looks like a {other} hand", *_DOUBT))
    if any(hand.doubtful or hand.absent for hand in hands):
        doubt = "is there a hand" if any(hand.absent for hand in hands) else "is it read well"
        parts.append(_chip(f"{doubt}? box it tightly, choose its side", *_DOUBT))
    if any(hand.assumed_intrinsics for hand in hands):
        parts.append("nobody knows the camera: distance and size are a guess")
    return "".join(parts)


def _chip(text: str, paper: str, ink: str, link: str = "") -> str:
    """A word on coloured paper, readable in light and dark themes.   link: attributes of one."""
    tag = "a" if link else "span"
    return (
        f"<{tag} {link} style='display: inline-block; padding: 3px 12px; margin: 2px 6px 2px 0; "
        f"border-radius: 4px; text-decoration: none; background: {paper}; color: {ink}'>{text}"
        f"</{tag}>"
    )


def download_links(hands, overlay) -> str:
    """HTML with one link per format that saves the hands of a picture from the browser.

    hands: HandPredictions.   overlay: (H, W, 3) uint8, offered as PNG.
    """
    links = "save &nbsp; "
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"hand.{kind}" for kind in ("ply", "obj", "glb", "json", "png")]
        for path in paths[:3]:
            save_hands(path, hands, figures.PREDICTION)
        save_predictions(paths[3], hands)
        Image.fromarray(overlay).save(paths[4])
        for path in paths:
            data = base64.b64encode(path.read_bytes()).decode()
            href = f'download="{path.name}" href="data:application/octet-stream;base64,{data}"'
            links += _chip(path.suffix[1:].upper(), "#e9edf2", "#1d3557", href)
    return links


def pages(count: int, size: int, turn):
    """A slider over pages of ``size`` things, hidden where one holds all; calls ``turn``."""
    last = max(1, -(-count // size))
    pager = widgets.IntSlider(1, 1, last, description=f"page of {last}")
    pager.layout.display = None if last > 1 else "none"
    pager.observe(turn, "value")
    return pager


def results_panel(predictor, pictures: dict, sides=None, page: int = 6):
    """Pages of many pictures with the hands found in them; a page is read when it is opened.

    pictures: name -> path, array or PIL image.   sides: name -> "right" or "left" where known.
    returns a widget with ``.pager`` and ``.grid``.
    """
    grid = widgets.Image(format="jpeg", layout={"max_width": "100%", "object_fit": "contain"})

    def turn(_=None):
        shown = {}
        for name in list(pictures)[page * (pager.value - 1) :][:page]:
            known = (sides or {}).get(name)
            try:
                image, focal = read_image(pictures[name], name), exif_focal(pictures[name])
                hands = predictor.predict(image, None, [known] if known else None, focal)
                shown[f"{name}\n{summary(hands)}"] = draw_hands(image, hands)["mesh"]
            except (ValueError, OSError):
                shown[f"{name}\ncannot be read"] = np.full((9, 9, 3), 230, np.uint8)
        squares = [flat.fit_square(picture, 190) for picture in shown.values()]
        sheet = flat.image_grid(squares, shown, 4)
        grid.value, grid.layout.width = flat.jpeg_bytes(sheet, 88), f"{sheet.width}px"

    pager = pages(len(pictures), page, turn)
    turn()
    panel = widgets.VBox([pager, grid])
    panel.pager, panel.grid = pager, grid
    return panel


def box_figure(height: int = 400, on_box=lambda: None):
    """A live figure for ``set_picture`` in which one drags a box.

    on_box: called without arguments after a box was drawn or moved.
    """
    figure = LiveFigure(layout={
        "height": height, "width": round(1.2 * height), "margin": dict.fromkeys("lrtb", 0),
        "showlegend": False, "dragmode": "drawrect", "newshape": {"line": _BOX_LINE},
        "modebar": {"remove": _BUTTONS},
    })  # fmt: skip
    figure.observe(lambda change: _drawn(figure, change["new"]) and on_box(), "_js2py_relayout")
    return figure


def _drawn(figure, message) -> bool:
    """Keep the box that was drawn or dragged last, as the one shape of the figure; was there one?

    The browser describes shapes with more than Plotly's Python side accepts, so the four numbers
    are taken from its message here, and brought into the picture.
    """
    changes = (message or {}).get("relayout_data") or {}
    moved = {key.split(".")[-1]: v for key, v in changes.items() if key.startswith("shapes[")}
    corners = (changes.get("shapes") or [moved])[-1]  # an existing box: shapes[0].x0 and so on
    place, (picture,) = {}, figure.layout.images
    for axis, size in (("x", picture.sizex), ("y", picture.sizey)):
        ends = [corners.get(f"{axis}{n}") for n in (0, 1)]
        if not all(isinstance(end, (int, float)) for end in ends):
            return False
        place[f"{axis}0"], place[f"{axis}1"] = np.clip(sorted(ends), 0, size - 1).tolist()
    figure.layout.shapes = ({"type": "rect", "editable": True, "line": _BOX_LINE, **place},)
    return True


def set_picture(figure, shown, size) -> None:
    """Show another picture in a ``box_figure``, whose pixels are those of ``size``: (H, W)."""
    source = "data:image/jpeg;base64," + base64.b64encode(flat.jpeg_bytes(shown, 88)).decode()
    height, width = size
    with figure.batch_update():
        figure.layout.images = (
            {"source": source, "x": -0.5, "y": -0.5, "sizex": width, "sizey": height,
             "xref": "x", "yref": "y", "yanchor": "top", "layer": "below", "sizing": "stretch"},
        )  # fmt: skip
        hidden = {"visible": False, "constrain": "domain"}
        figure.layout.xaxis = {**hidden, "range": [-0.5, width - 0.5]}
        figure.layout.yaxis = {**hidden, "range": [height - 0.5, -0.5], "scaleanchor": "x"}


def last_box(figure) -> tuple[float, ...] | None:
    """The box drawn last, (x0, y0, x1, y1) inside the picture, or None."""
    return next(((one.x0, one.y0, one.x1, one.y1) for one in figure.layout.shapes), None)


def _toggle(name, options, value=None):
    """Buttons of which one is down, beside their name."""
    wide = f"{90 * len(options) + 60}px"
    return widgets.ToggleButtons(
        options=list(options), description=name, value=value or next(iter(options)),
        layout={"width": wide, "min_width": wide, "overflow": "hidden"},
        style={"button_width": "92px", "description_width": "42px"},
    )  # fmt: skip


def _share(name: str, value: float):
    """A short slider from 0 to 1."""
    return widgets.FloatSlider(
        value, min=0, max=1, step=0.05, readout=False, description=name,
        layout={"width": "170px"}, style={"description_width": "56px"},
    )  # fmt: skip


def demo_panel(predictor, pictures: dict, height: int = 400, sides: dict | None = None):
    """The whole demo as one widget.

    predictor: ``inference.Predictor``.   pictures: name -> path, array or PIL image to pick from;
    uploaded ones join them.   sides: name -> "right" or "left" where it is known; the button then
    starts there, else at "any": the network says.   height: of picture and hand, pixels.
    returns a widget with ``.box_figure``, ``.hand_figure`` and all controls by their names, and
    ``.hands`` (the last HandPredictions), for scripts.
    """
    pictures, sides = dict(pictures), dict(sides or {})
    if not pictures:
        raise ValueError("the demo needs at least one picture to start with")
    panel, narrow = widgets.VBox(), {"width": "120px"}
    panel.quiet, panel.image, panel.drawn, panel.hands = False, None, {}, []
    panel.pick = widgets.Dropdown(
        options=list(pictures), description="picture", layout={"width": "210px"},
        style={"description_width": "52px"},
    )  # fmt: skip
    panel.upload = widgets.FileUpload(
        accept="image/*", multiple=True, description="upload", layout=narrow
    )
    panel.unbox = widgets.Button(description="without a box", layout=narrow)
    panel.side, panel.way = _toggle("side", SIDES), _toggle("by", WAYS, "joint fit")
    panel.show, panel.look = _toggle("show", SHOWS), _toggle("from", LOOKS)
    panel.opacity, panel.wipe = _share("opacity", 1.0), _share("wipe", 0.0)
    panel.message, panel.links = widgets.HTML(), widgets.HTML()
    panel.box_figure = box_figure(height, lambda: predict())
    empty = figures.hand_figure([()], height=height)
    panel.hand_figure = LiveFigure(empty.update_layout(width=round(0.9 * height), margin={"t": 0}))

    def say(text, colours):
        panel.message.value = _chip(html.escape(text), *colours)

    def predict(_=None):
        if panel.quiet or panel.image is None:
            return
        image, panel.links.value, panel.hands = panel.image, "", []
        say("working ...", _BUSY)
        panel.drawn = dict.fromkeys(("picture", *SHOWS), image)
        switch()
        try:
            box, side = last_box(panel.box_figure), panel.side.value
            asked = [box] if box else None, [side] if side != "any" else None, panel.focal
            hands = predictor.predict(image, *asked, **WAYS[panel.way.value])
        except (ValueError, OSError, ImportError) as error:
            say(str(error), _WRONG)
            return
        panel.hands, panel.drawn, other = hands, draw_hands(image, hands), None
        switch()
        if hands and hands[0].side_from == "given":  # is the network surer of the other side?
            free = predictor.predict(image, [hands[0].box], refined=False)[0]
            other = free.side if free.side_from == "found" else None
        panel.message.value = remark(hands, other)
        panel.links.value = download_links(hands, panel.drawn[panel.show.value]) if hands else ""

    def paint(_=None):
        if panel.drawn:
            layers = panel.drawn["picture"], panel.drawn[panel.show.value]
            layers = (for_screen(one, longest=900)[0] for one in layers)  # sent to the browser
            shown = flat.mixed(*layers, panel.opacity.value, panel.wipe.value)
            set_picture(panel.box_figure, shown, panel.image.shape[:2])

    def switch(_=None):
        paint()
        body, joints = (panel.show.value in (name, "both") for name in ("mesh", "skeleton"))
        traces = []
        for hand in panel.hands:
            drawn = figures.DrawnHand(
                hand.camera_vertices if body else None, hand.faces,
                hand.joints + hand.translation if joints else None, opacity=0.55 if joints else 1.0,
            )  # fmt: skip
            traces += figures.hand_traces(drawn)
        panel.hand_figure.draw(traces)

    def turn(_=None):
        camera = figures.scene_layout(LOOKS[panel.look.value])["camera"]
        panel.hand_figure.layout.scene.camera = camera

    def open_picture(_=None):
        if panel.quiet:
            return
        name = panel.pick.value
        try:
            image, panel.focal = read_image(pictures[name], name), exif_focal(pictures[name])
        except (ValueError, OSError) as error:
            say(str(error), _WRONG)
            return
        panel.image, panel.quiet = image, True  # the side may change too: one prediction for both
        panel.side.value = sides.get(name, "any")
        panel.quiet = False
        forget_box()

    def uploaded(change):
        panel.upload.value = ()  # the same file may come again
        take({item["name"]: bytes(item["content"]) for item in change["new"]})

    def take(found):
        bad, good = [], []
        for name, content in found.items():
            try:
                read_image(content, name)
                pictures[name] = content
                good.append(name)
            except (ValueError, OSError) as error:
                bad.append(str(error))
        if good:
            panel.quiet = True
            panel.pick.options, panel.pick.value = list(pictures), good[0]
            panel.quiet = False
            open_picture()
        if bad:
            say("; ".join(bad), _WRONG)

    def forget_box(_=None):
        panel.box_figure.layout.shapes = ()
        predict()

    panel.unbox.on_click(forget_box)
    panel.box_figure.on_drop(take)
    for control, act in (
        (panel.pick, open_picture), (panel.upload, uploaded), (panel.side, predict),
        (panel.way, predict), (panel.show, switch), (panel.opacity, paint), (panel.wipe, paint),
        (panel.look, turn),
    ):  # fmt: skip
        control.observe(act, "value")
    gap = {"grid_gap": "6px 14px", "flex_flow": "row wrap", "align_items": "center"}
    panel.children = [
        widgets.HBox([panel.pick, panel.upload, panel.unbox, panel.side], layout=gap),
        widgets.HBox([panel.show, panel.look], layout=gap),
        widgets.HBox([panel.way, panel.opacity, panel.wipe], layout=gap),
        panel.message,
        widgets.HBox([panel.box_figure, panel.hand_figure], layout=gap | {"align_items": None}),
        widgets.HTML("drop pictures of yours onto this; drag a box around a hand; turn the mesh"),
        panel.links,
    ]
    open_picture()
    return panel
