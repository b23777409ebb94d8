"""The live figure without a browser; tests/test_browser.py sees it drawn."""

import plotly.graph_objects as go

from hand_lib.viewers.live import LiveFigure


def test_a_live_figure_is_plotlys_widget_with_a_script_that_is_ready_at_once():
    figure = LiveFigure()
    assert isinstance(figure, go.FigureWidget)
    state = figure.get_state()
    assert len(state["_esm"]) < 5_000 < 1_000_000 < len(state["_bundle"])
    assert "as default" in state["_bundle"][-200_000:]
    figure.add_scatter(x=[1, 2], y=[3, 4])
    figure.layout.title = "two points"
    assert len(figure.data) == 1 and figure.layout.title.text == "two points"


def test_every_message_that_plotly_sends_is_kept_until_the_script_is_there():
    sent = {name for name in LiveFigure().traits() if name.startswith("_py2js_")}
    kept = LiveFigure()._esm.split("const NAMES = [")[1].split("]")[0]
    named = {"_py2js_" + word.strip().strip('"') for word in kept.replace("\n", "").split(",")}
    assert sent == named
