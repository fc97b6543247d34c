// The card of a model: the Markdown that the server writes, shown as headings and tables.

import { call } from "./api.js";
import { fill, h } from "./dom.js";
import { idOf } from "./format.js";
import { attempt, button, failure, saveFile } from "./parts.js";

/** Returns a section that loads and shows the card of a model. */
export function cardPanel(name, signal) {
  const body = h("div.model-card");
  const actions = h("div.actions", { hidden: true });
  let text = "";

  async function load() {
    try {
      text = (await call("GetModelCard", { name }, { signal })).markdown;
      fill(body, rendered(text));
      actions.hidden = false;
    } catch (error) {
      if (!signal.aborted) fill(body, failure(error, load));
    }
  }

  const download = () => saveFile(`${idOf(name)}.md`, new Blob([text], { type: "text/markdown" }));
  const copy = () => attempt(() => navigator.clipboard.writeText(text), "Copied.");
  fill(
    actions,
    // Browsers let only pages on HTTPS or on localhost write to the clipboard.
    navigator.clipboard && button("Copy as Markdown", "clone", copy, "small"),
    button("Download", "download", download, "small"),
  );
  load();
  return h("section.card.card-panel", {}, h("div.card-head", {}, h("h2", {}, "Model card"), actions), body);
}

/** Turns the part of Markdown that cards consist of into elements. The page already shows the title. */
function rendered(markdown) {
  const blocks = markdown.trim().split("\n\n");
  return blocks.filter((block) => !block.startsWith("# ")).map((block) => {
    const lines = block.split("\n");
    if (block.startsWith("## ")) return h("h3", {}, plain(block.slice(3)));
    if (block.startsWith("```")) return h("pre.scroll", {}, lines.slice(1, -1).join("\n"));
    if (block.startsWith("| ")) return table(lines.map(cells));
    return h("p.muted", {}, plain(block));
  });
}

function table([names, , ...rows]) {
  const body = rows.map(([first, ...others]) => h("tr", {}, h("th", { scope: "row" }, first), others.map((each) => h("td", {}, each))));
  return h("div.scroll", {}, h("table.settings", {}, h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, body)));
}

/** The cells of a row of a table. A bar within a cell follows a backslash. */
const cells = (line) => line.slice(2, -2).split(" | ").map(plain);

const plain = (text) => text.replace(/\\(.)/g, "$1");
