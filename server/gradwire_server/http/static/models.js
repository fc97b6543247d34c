// The models, and one model: its metrics, its files and its predictions.

import { call } from "./api.js";
import { fill, h, icon } from "./dom.js";
import { ago, count, idOf, metric, percent } from "./format.js";
import { button, empty, failure, figure, labels, remove, save, stack, attempt } from "./parts.js";
import { drawingPanel, sideOf } from "./drawing.js";
import { rowsPanel } from "./rows.js";
import { cardPanel } from "./card.js";
import { parseSearch, searchProblem } from "./search.js";

const PAGE_SIZE = 50;
const SEARCH_MS = 200;

export function modelsView(main, parameters, context, signal) {
  let timer = 0;
  let loads = 0;
  let nextPage = "";
  let number = 0;
  const input = h("input", {
    type: "search",
    placeholder: "Search by name, or label=value",
    value: parameters.get("q") ?? "",
    "aria-label": "Search models",
    oninput: () => (clearTimeout(timer), (timer = setTimeout(() => load(""), SEARCH_MS))),
  });
  const body = h("ul.rows", { "aria-label": "Models" });
  const head = h("div.row.row-head.model-row", { "aria-hidden": "true" }, ["Model", "Loss", "Accuracy", "Epoch", "Created"].map((name) => h("span", {}, name)));
  const note = h("div.list-note", { "aria-live": "polite" });
  fill(
    main,
    h("div.page-head", {}, h("h1", {}, "Models")),
    h("div.toolbar", {}, h("label.search", {}, icon("search"), input)),
    h("div.card.list", {}, head, body, note),
  );

  async function load(pageToken) {
    const current = ++loads;
    const { filter } = parseSearch(input.value.trim(), "");
    try {
      const page = await call("ListModels", { pageSize: PAGE_SIZE, pageToken, filter }, { signal });
      if (current !== loads) return;
      if (!pageToken) {
        body.replaceChildren();
        number = 0;
      }
      for (const model of page.models ?? []) body.append(modelRow(model));
      number += page.models?.length ?? 0;
      nextPage = page.nextPageToken ?? "";
      head.hidden = !number;
      if (nextPage) fill(note, button("Load more", null, () => load(nextPage)));
      else if (number) fill(note, h("p.muted", {}, `${count(number)} ${number === 1 ? "model" : "models"}`));
      else fill(note, filter ? empty("No model matches", "Change the search.") : empty("No models yet", "A job that succeeds leaves its model here."));
    } catch (error) {
      if (signal.aborted || current !== loads || context.onerror(error)) return;
      const problem = searchProblem(error);
      fill(note, problem ? h("p.error", { role: "alert" }, problem) : failure(error, () => load(pageToken)));
    }
  }
  load("");
}

function modelRow(model) {
  const metrics = model.epoch?.test ?? model.epoch?.train;
  const id = idOf(model.name);
  return h(
    "li.row.model-row",
    {},
    h("span.cell-name", {}, h("a", { href: `#/models/${id}` }, id), h("small.tags", {}, model.architecture, labels(model))),
    h("span.number", { "data-label": "Loss" }, metric(metrics && (metrics.loss ?? 0))),
    h("span.number", { "data-label": "Accuracy" }, percent(metrics?.accuracy)),
    h("span.number", { "data-label": "Epoch" }, count(model.epoch?.epoch ?? 0)),
    h("time.muted", { dateTime: model.createTime }, ago(model.createTime)),
  );
}

export async function modelView(main, id, context, signal) {
  const name = `models/${id}`;
  const back = h("a.back", { href: "#/models" }, icon("back"), "Models");
  let model;
  try {
    model = await call("GetModel", { name }, { signal });
  } catch (error) {
    if (!signal.aborted && !context.onerror(error)) fill(main, back, failure(error, () => context.reload()));
    return;
  }
  const job = model.job && (await call("GetJob", { name: model.job }, { signal }).catch(() => null));
  if (signal.aborted) return;
  const { train, test } = model.epoch ?? {};
  const metrics = test ?? train;
  const which = test ? "test" : "train";
  const file = (text, format) => button(text, "download", () => attempt(() => save(name, format)));
  fill(
    main,
    back,
    h(
      "div.page-head",
      {},
      h("div.title", {}, h("h1", {}, id)),
      h(
        "div.actions",
        {},
        job && h("a.button", { href: `#/${model.job}` }, "Open job"),
        file("safetensors", "SAFETENSORS"),
        file("ONNX", "ONNX"),
        button("Delete", "delete", async () => {
          if (await remove(model, "Model", "Its job and the epochs are kept.")) location.hash = "#/models";
        }),
      ),
    ),
    h("p.muted.tags", {}, model.architecture, labels(model)),
    h(
      "dl.figures",
      {},
      figure("Loss", metric(metrics && (metrics.loss ?? 0)), metrics && which),
      metrics?.accuracy !== undefined && figure("Accuracy", percent(metrics.accuracy), which),
      metrics?.f1 !== undefined && figure("F1", metric(metrics.f1), which),
      metrics?.r2 !== undefined && figure("R²", metric(metrics.r2), which),
      figure("Epoch", count(model.epoch?.epoch ?? 0)),
      figure("Created", ago(model.createTime)),
    ),
    h(
      "div.columns.wide-first",
      {},
      sideOf(model) ? drawingPanel(model, job, signal) : rowsPanel(model, job),
      h("section.card", {}, h("div.card-head", {}, h("h2", {}, "Model")), stack(model.spec, job?.spec?.loss)),
    ),
    cardPanel(name, signal),
  );
}
