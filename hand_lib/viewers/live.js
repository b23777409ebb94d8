// The browser's side of explorer.LiveFigure: keeps what it is told until Plotly is there.
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
