"""Plotly's live figure for slow machines and busy ones.

A ``FigureWidget`` brings five megabytes of JavaScript. anywidget gives up on a widget whose script
is not ready within two seconds, which a busy core does not manage: the figure then never appears,
and what Python sent it meanwhile is lost. ``LiveFigure`` is ready at once, keeps what is sent, and
loads the script when it is shown, once for all figures of a page.
"""

import functools

import plotly.graph_objects as go
import traitlets

_SCRIPT = """
const NAMES = ["addTraces", "deleteTraces", "moveTraces", "restyle", "relayout", "update",
  "animate", "removeLayoutProps", "removeTraceProps"].map((name) => "_py2js_" + name);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function load(model) {
  await pause(400);  // lets the other widgets of the cell get ready: reading the script blocks
  if (!window.handPlotly) {
    const code = new Blob([model.get("_bundle")], { type: "text/javascript" });
    window.handPlotly = import(URL.createObjectURL(code)).then((module) => module.default);
  }
  const made = await window.handPlotly;
  return typeof made === "function" ? await made() : made;
}

export default () => {
  let waiting = [], ready = null;
  return {
    initialize({ model }) {
      for (const name of NAMES) {
        model.on("change:" + name, () => {
          const value = model.get(name);
          if (waiting && value) waiting.push([name, value]);
        });
      }
      model.on("change:_widget_data", () => {
        if (waiting) waiting = [];  // Python sent the whole figure
      });
    },
    async render(context) {
      const { model } = context;
      ready ??= load(model).then(async (widget) => {
        if (widget.initialize) await widget.initialize(context);
        const kept = waiting;
        waiting = null;  // from now on the widget listens itself
        for (const [name, value] of kept) {  // in order, as if they came now
          model.set(name, null);
          model.set(name, value);
        }
        return widget;
      });
      return (await ready).render(context);
    },
  };
};
"""


@functools.lru_cache(maxsize=1)
def _plotly_script() -> str:
    """The script of Plotly's own widget, as installed."""
    return str(go.FigureWidget._esm)


class LiveFigure(go.FigureWidget):
    """A ``FigureWidget`` that appears however busy the machine is.

    >>> figure = LiveFigure()
    >>> figure.add_traces(traces)       # also before anyone has seen it
    """

    _esm = _SCRIPT
    _bundle = traitlets.Unicode().tag(sync=True)

    @traitlets.default("_bundle")
    def _script(self):
        return _plotly_script()
