"""Plotly's ``FigureWidget`` with its JavaScript sent once a kernel and loaded once a page.

Plotly gives every figure its own copy of five megabytes of code, and the browser's side of a widget
drops all that it is told when its code needs more than two seconds to load: on a busy or slow
machine figures stayed empty. Here each figure brings a few lines, which keep what comes until it
can be drawn.
"""

from pathlib import Path

import plotly
import plotly.graph_objects as go
import traitlets

_CODE = Path(plotly.__file__).parent / "package_data" / "widgetbundle.js"

_LOADER = """
const page = (globalThis.handFigures ??= {});
page.code ??= new Promise((resolve) => { page.found = resolve; });
const WORDS = ["addTraces", "deleteTraces", "moveTraces", "restyle", "relayout", "update",
  "animate", "removeLayoutProps", "removeTraceProps"].map((word) => "_py2js_" + word);

export default () => {
  let model, figure, held = [];
  return {
    initialize(given) {
      model = given.model;
      if (model.get("_code")) page.found(model.get("_code"));
      for (const word of WORDS) {
        model.on("change:" + word, () => {
          if (held && model.get(word) !== null) held.push([word, model.get(word)]);
        });
      }
    },
    async render({ el }) {
      page.plotly ??= page.code.then((code) =>
        import(URL.createObjectURL(new Blob([code], { type: "text/javascript" }))));
      const plotly = await page.plotly;
      if (model.get("_drops")) {
        el.addEventListener("dragover", (event) => event.preventDefault());
        el.addEventListener("drop", async (event) => {
          event.preventDefault();
          const files = [...event.dataTransfer.files];
          const bytes = await Promise.all(files.map((file) => file.arrayBuffer()));
          model.send({ dropped: files.map((file) => file.name) }, undefined, bytes);
        });
      }
      if (held) {
        const waiting = held;
        held = null;
        figure = plotly.default();
        figure.initialize({ model });
        for (const [word, value] of waiting) {
          model.set(word, value);
          model.set(word, null);
        }
      }
      return figure.render({ el });
    },
  };
};
"""


class LiveFigure(go.FigureWidget):
    """A ``FigureWidget`` for pages with several; JupyterLab's pages, where widgets share one."""

    _esm = _LOADER
    _code = traitlets.Unicode().tag(sync=True)
    _drops = traitlets.Bool(False).tag(sync=True)
    _sent = False

    @traitlets.default("_code")
    def _first_brings_it(self) -> str:
        first, LiveFigure._sent = not LiveFigure._sent, True
        return _CODE.read_text(encoding="utf-8") if first else ""

    def on_drop(self, take) -> None:
        """Call ``take`` with {name: bytes} of the files that somebody drops onto the figure."""

        def heard(_figure, message, buffers):
            if names := message.get("dropped"):
                take(dict(zip(names, map(bytes, buffers), strict=True)))

        self._drops = True
        self.on_msg(heard)

    def link_cameras(self):
        """Let every 3-D panel follow the one that is being turned.   returns the figure."""
        scenes = [name for name in self.layout if name.startswith("scene")]

        def follow(_scene, camera):
            with self.batch_update():
                for name in scenes:
                    if self.layout[name].camera != camera:
                        self.layout[name].camera = camera

        for name in scenes:
            self.layout[name].on_change(follow, "camera")
        return self

    def move(self, traces) -> None:
        """Put the traces where others are, without a flicker.

        traces: as many as the figure has, of the same kinds, already in ``batch_update()`` or not;
        places, faces and colours of vertices are taken over.
        """
        for old, new in zip(self.data, traces, strict=True):
            for name in ("x", "y", "z", "i", "j", "k", "vertexcolor"):
                if name in new and new[name] is not None and new[name] is not old[name]:
                    old[name] = new[name]
