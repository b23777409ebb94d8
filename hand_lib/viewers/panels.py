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
import plotly.graph_objects as go
from PIL import Image

from hand_lib.inference.export import save_hands, save_predictions
from hand_lib.render.images import read_image
from hand_lib.render.render import draw_meshes, for_screen
from hand_lib.viewers import figures, flat

SHOWN_SIDE = 900
"""Longest side in pixels of the picture sent to the browser; prediction uses the whole one."""

SHOWS = ("mesh", "skeleton", "both")
LOOKS = {"camera": "front", "side": "left", "behind": "back"}
"""Word on the button -> named view of ``figures``."""

_CHIP = "display: inline-block; padding: 3px 12px; margin: 2px 6px 2px 0; border-radius: 4px;"
_BOX_LINE = {"color": "#f2a93b", "width": 3}


def draw_hands(image, hands) -> dict[str, np.ndarray]:
    """The "picture" without and with "mesh", "skeleton" and "both" of all its hands drawn over it.

    image: (H, W, 3) uint8.   hands: HandPredictions, perhaps none.
    returns pictures (H', W', 3) uint8, at most ``render.LONGEST_SIDE`` pixels a side.
    """
    small, _, scale = for_screen(image)
    mesh = small
    for hand in hands:
        _, matrix, _ = for_screen(image, hand.intrinsics)
        mesh = draw_meshes(mesh, hand.camera_vertices, hand.faces, matrix)
    drawn = {"picture": small, "mesh": mesh, "skeleton": small, "both": mesh}
    for hand in hands:
        joints = (hand.joints_2d + 0.5) * scale - 0.5
        for name in ("skeleton", "both"):
            drawn[name] = flat.draw_joints(drawn[name], joints)
    return drawn


def summary(hands) -> str:
    """A word over a picture: sides and confidences, or that nothing was found."""
    if not hands:
        return "no hand found"
    words = []
    for hand in hands:
        sure = "" if hand.confidence is None else f" {hand.confidence:.2f}"
        words.append(f"{hand.side}{sure}{'?' if hand.doubtful else ''}")
    return ", ".join(words)


def remark(hand) -> str:
    """What one should know about a prediction, as HTML: doubt, and what was assumed."""
    parts = []
    if hand.doubtful:
        parts.append(
            f"<span style='{_CHIP} background: #fdeccd; color: #7a4b00'>is there a hand? "
            f"confidence {hand.confidence:.2f}: box it tightly, choose its side</span>"
        )
    elif hand.confidence is not None:
        parts.append(f"<span style='color: #555'>confidence {hand.confidence:.2f} &nbsp; </span>")
    if hand.assumed_intrinsics:
        parts.append(
            "<span style='color: #555'>distance and size assume a camera that sees 60 degrees "
            "along the long side</span>"
        )
    return "".join(parts)


def download_links(hand, overlay, name: str = "hand") -> str:
    """HTML with one link per format that saves the prediction from the browser.

    hand: a HandPrediction.   overlay: (H, W, 3) uint8, offered as PNG.
    """
    links = "<span style='color: #555; margin-right: 8px'>save</span>"
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("ply", "obj", "glb", "json", "png"):
            path = Path(folder) / f"{name}.{kind}"
            if kind == "json":
                save_predictions(path, [hand])
            elif kind == "png":
                Image.fromarray(overlay).save(path)
            else:
                save_hands(path, [hand], figures.PREDICTION)
            data = base64.b64encode(path.read_bytes()).decode()
            links += (
                f'<a download="{html.escape(path.name)}" style="{_CHIP} background: #e9edf2; '
                'color: #1d3557; text-decoration: none; font-weight: 600" '
                f'href="data:application/octet-stream;base64,{data}">{kind.upper()}</a>'
            )
    return links


def box_figure(image, height: int = 420, on_box=None):
    """A live figure of the picture in which one drags a box; its pixels are the picture's own.

    on_box: called without arguments after a box was drawn or moved.
    """
    figure = go.FigureWidget(layout=_frame(height))
    figure.update_layout(dragmode="drawrect", newshape={"line": _BOX_LINE})
    set_picture(figure, image)

    def heard(change):
        if _drawn(figure, change["new"]) and on_box is not None:
            on_box()

    figure.observe(heard, "_js2py_relayout")
    return figure


def _drawn(figure, message) -> bool:
    """Keep the box that was drawn or dragged last, as the one shape of the figure; was there one?

    The browser describes shapes with more than Plotly's Python side accepts, so the four numbers
    are taken from its message here.
    """
    changes = (message or {}).get("relayout_data") or {}
    shapes = changes.get("shapes")
    corners = {}
    if isinstance(shapes, (list, tuple)) and shapes:
        corners = shapes[-1]
    elif figure.layout.shapes:  # an existing box was moved: shapes[0].x0 and so on
        corners = {key.split(".")[-1]: v for key, v in changes.items() if key.startswith("shapes[")}
    if all(isinstance(corners.get(k), (int, float)) for k in ("x0", "y0", "x1", "y1")):
        place = {k: float(corners[k]) for k in ("x0", "y0", "x1", "y1")}
        figure.layout.shapes = ({"type": "rect", "editable": True, "line": _BOX_LINE, **place},)
        return True
    return False


def set_picture(figure, image) -> None:
    """Show another picture in a ``box_figure`` and forget the box."""
    small, _, _ = for_screen(image, longest=SHOWN_SIDE)
    source = "data:image/png;base64," + base64.b64encode(flat.png_bytes(small, 256)).decode()
    height, width = image.shape[:2]
    with figure.batch_update():
        figure.layout.shapes = ()
        figure.layout.images = (
            {"source": source, "x": -0.5, "y": -0.5, "sizex": width, "sizey": height,
             "xref": "x", "yref": "y", "yanchor": "top", "layer": "below", "sizing": "stretch"},
        )  # fmt: skip
        hidden = {"visible": False, "constrain": "domain"}
        figure.layout.xaxis = {**hidden, "range": [-0.5, width - 0.5]}
        figure.layout.yaxis = {**hidden, "range": [height - 0.5, -0.5], "scaleanchor": "x"}


def last_box(figure, image):
    """The box drawn last, (x0, y0, x1, y1) inside the picture, or None."""
    if not figure.layout.shapes:
        return None
    shape = figure.layout.shapes[-1]
    x0, x1 = sorted((shape.x0, shape.x1))
    y0, y1 = sorted((shape.y0, shape.y1))
    height, width = image.shape[:2]
    return (max(x0, 0), max(y0, 0), min(x1, width - 1), min(y1, height - 1))


def _frame(height: int) -> dict:
    """Layout of a figure that stands beside others of the same size."""
    margin = {"l": 0, "r": 0, "t": 0, "b": 0}
    return {"height": height, "width": round(0.85 * height), "margin": margin, "showlegend": False}


def _captioned(title: str, content, height: int):
    """A widget under a line of text, as wide as its neighbours."""
    text = f"<div style='text-align: center; font-size: 14px; color: #2a3f5f'>{title}</div>"
    layout = {"width": f"{round(0.85 * height) + 4}px", "align_items": "center"}
    layout |= {"overflow": "hidden", "flex": "0 0 auto"}  # never narrower than what it holds
    return widgets.VBox([widgets.HTML(text), content], layout=layout)


def _toggle(name, options):
    """Buttons of which one is down, beside their name."""
    wide = f"{88 * len(options) + 52}px"
    return widgets.ToggleButtons(
        options=list(options), description=name,
        layout={"width": wide, "min_width": wide, "overflow": "hidden"},
        style={"button_width": "80px", "description_width": "44px"},
    )  # fmt: skip


def demo_panel(predictor, pictures: dict, height: int = 400, sides: dict | None = None):
    """The whole demo as one widget.

    predictor: ``inference.Predictor``.   pictures: name -> path, array or PIL image to pick from.
    sides: name -> "right" or "left" where it is known; the button then starts there.
    returns a widget with ``.box_figure``, ``.hand_figure``, ``.upload``, ``.pick``, ``.side``,
    ``.show``, ``.look`` and ``.result`` (the last HandPrediction) for scripts.
    """
    pictures, sides = dict(pictures), dict(sides or {})
    if not pictures:
        raise ValueError("the demo needs at least one picture to start with")
    first = next(iter(pictures))
    state = {"image": read_image(pictures[first]), "busy": False}
    pick = widgets.Dropdown(options=list(pictures), description="picture")
    pick.layout, pick.style.description_width = widgets.Layout(width="210px"), "52px"
    upload = widgets.FileUpload(accept="image/*", multiple=False, description="upload")
    whole = widgets.Button(description="whole picture")
    upload.layout = whole.layout = widgets.Layout(width="120px")
    side, show = _toggle("hand", ["right", "left"]), _toggle("show", SHOWS)
    look = _toggle("from", LOOKS)
    side.value = sides.get(first, "right")
    message, links = widgets.HTML(), widgets.HTML()
    picture = box_figure(state["image"], height, lambda: predict())
    scene = go.FigureWidget(layout={**_frame(height), "scene": figures.scene_layout("front")})
    size = {"width": f"{round(0.85 * height)}px", "height": f"{height}px"}
    overlay = widgets.Image(
        format="png", layout=widgets.Layout(**size, max_width="100%", object_fit="contain")
    )
    panel = widgets.VBox()

    def predict(_=None):
        if state["busy"]:
            return
        box = last_box(picture, state["image"])
        try:
            boxes = None if box is None else [box]
            panel.result = predictor.predict(state["image"], boxes, [side.value])[0]
        except ValueError as error:
            complain(error)
            return
        state["pictures"] = draw_hands(state["image"], [panel.result])
        switch()
        links.value = download_links(panel.result, state["pictures"][show.value])
        message.value = remark(panel.result)

    def complain(error):
        text = html.escape(str(error))
        message.value = f"<span style='{_CHIP} background: #fbe3e4; color: #a00'>{text}</span>"

    def switch(_=None):
        if "pictures" not in state:
            return
        small, _, _ = for_screen(state["pictures"][show.value], longest=SHOWN_SIDE)
        overlay.value = flat.png_bytes(small, 256)
        hand, both = panel.result, show.value == "both"
        body = figures.DrawnHand(hand.vertices, hand.faces, opacity=0.55 if both else 1.0)
        traces = [] if show.value == "skeleton" else [figures.mesh_trace(body)]
        traces += [] if show.value == "mesh" else figures.skeleton_traces(hand.joints)
        with scene.batch_update():
            scene.data = []
            scene.add_traces(traces)

    def turn(_=None):
        scene.layout.scene.camera = figures.scene_layout(LOOKS[look.value])["camera"]

    def open_picture(source, name=None):
        try:
            state["image"] = read_image(source, name)
        except (ValueError, OSError) as error:
            complain(error)
            return
        set_picture(picture, state["image"])
        state["busy"] = True  # the side may change too: one prediction for both
        side.value = sides.get(name, side.value)
        state["busy"] = False
        predict()

    def uploaded(change):
        for item in change["new"]:
            open_picture(bytes(item["content"]), item["name"])

    def unbox(_=None):
        picture.layout.shapes = ()
        predict()

    pick.observe(lambda change: open_picture(pictures[change["new"]], change["new"]), "value")
    upload.observe(uploaded, "value")
    side.observe(predict, "value")
    show.observe(switch, "value")
    look.observe(turn, "value")
    whole.on_click(unbox)
    gap = widgets.Layout(grid_gap="6px 18px", flex_flow="row wrap", align_items="center")
    panel.children = [
        widgets.HBox([pick, upload, whole, side], layout=gap),
        widgets.HBox([show, look], layout=gap),
        message,
        widgets.HBox(
            [
                _captioned("drag a box around the hand", picture, height),
                _captioned("what the network sees", overlay, height),
                _captioned("turn it", scene, height),
            ],
            layout=widgets.Layout(grid_gap="8px", flex_flow="row wrap"),
        ),
        links,
    ]
    panel.box_figure, panel.hand_figure = picture, scene
    panel.upload, panel.pick, panel.side, panel.overlay = upload, pick, side, overlay
    panel.show, panel.look, panel.message, panel.links = show, look, message, links
    predict()
    return panel
