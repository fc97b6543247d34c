// The list of jobs: search, live rows, and a selection of jobs to compare.

import { call } from "./api.js";
import { h, fill, icon, setText } from "./dom.js";
import { ago, count, hasEnded, idOf, metric, percent, stateOf, STATES, title } from "./format.js";
import { watchJobs } from "./live.js";
import { button, empty, failure, labels, pill } from "./parts.js";
import { parseSearch, searchProblem } from "./search.js";

const PAGE_SIZE = 50;
const MAX_WATCHED = 100;
const MAX_COMPARED = 6;
const SEARCH_MS = 200;

/** Shows the list until the signal is aborted. `parameters` are those of the address. */
export function jobsView(main, parameters, context, signal) {
  const rows = new Map();
  const selected = new Set();
  let search = { text: parameters.get("q") ?? "", state: parameters.get("state") ?? "" };
  let parsed = parseSearch(search.text, search.state);
  let nextPage = "";
  let watching = new AbortController();
  let loads = 0;

  const input = h("input", {
    type: "search",
    placeholder: "Name, label=value, or loss < 0.1",
    "aria-describedby": "search-note",
    value: search.text,
    "aria-label": "Search jobs",
    oninput: () => (clearTimeout(timer), (timer = setTimeout(changeSearch, SEARCH_MS))),
  });
  let timer = 0;
  const states = h(
    "div.segments",
    { role: "group", "aria-label": "State" },
    ["", ...STATES].map((state) =>
      h("button", { type: "button", "aria-pressed": String(state === search.state), "data-state": state, onclick: () => changeSearch(state) }, state ? title(state) : "All"),
    ),
  );
  const compare = h("a.button.primary", { hidden: true });
  const body = h("ul.rows", { "aria-label": "Jobs" });
  const head = h(
    "div.row.row-head",
    { "aria-hidden": "true" },
    ["", "Job", "State", "Progress", "Loss", "Accuracy", "Created"].map((name) => h("span", {}, name)),
  );
  const more = button("Load more", null, () => load(nextPage));
  const note = h("div.list-note", { "aria-live": "polite" });
  const searchNote = h("p.search-note", { id: "search-note", role: "status", hidden: true });
  fill(
    main,
    h("div.page-head", {}, h("h1", {}, "Jobs"), compare),
    h("div.toolbar", {}, h("label.search", {}, icon("search"), input), states),
    searchNote,
    h("div.card.list", {}, head, body, note),
  );
  changeCompare();
  noteSearch(parsed.note);

  function noteSearch(text, isProblem = false) {
    searchNote.hidden = !text;
    searchNote.classList.toggle("error", isProblem);
    setText(searchNote, text);
  }

  function changeSearch(state = search.state) {
    search = { text: input.value.trim(), state };
    parsed = parseSearch(search.text, search.state);
    noteSearch(parsed.note);
    for (const each of states.children) each.setAttribute("aria-pressed", String(each.dataset.state === state));
    const query = new URLSearchParams(Object.entries({ q: search.text, state }).filter(([, value]) => value));
    history.replaceState(null, "", `#/jobs${query.size ? `?${query}` : ""}`);
    load("");
  }

  async function load(pageToken) {
    const number = ++loads;
    try {
      const page = await call("ListJobs", { pageSize: PAGE_SIZE, pageToken, filter: parsed.filter }, { signal });
      if (number !== loads) return; // The search has changed in the meantime.
      if (!pageToken) {
        rows.clear();
        body.replaceChildren();
      }
      for (const job of page.jobs ?? []) if (!rows.has(job.name)) body.append(add(job));
      nextPage = page.nextPageToken ?? "";
      showNote();
      watch();
    } catch (error) {
      if (signal.aborted || number !== loads) return;
      if (context.onerror(error)) return;
      const problem = searchProblem(error);
      noteSearch(problem || parsed.note, Boolean(problem));
      if (problem) clear();
      else fill(note, failure(error, () => load(pageToken)));
    }
  }

  /** Shows no jobs, because the search is not valid. */
  function clear() {
    watching.abort();
    rows.clear();
    body.replaceChildren();
    head.hidden = true;
    fill(note, empty("No job matches", "Correct the search."));
  }

  function showNote() {
    if (nextPage) fill(note, more);
    else if (rows.size) fill(note, h("p.muted", {}, `${count(rows.size)} ${rows.size === 1 ? "job" : "jobs"}`));
    else if (parsed.filter) fill(note, empty("No job matches", "Change the search, or choose another state."));
    else fill(note, empty("No jobs yet", "Start one from Python, and it appears here:", h("pre", {}, `gw.fit(model, (X, y), loss=gw.CrossEntropy(), optimizer=gw.SGD(model), at="${context.grpcAddress}")`)));
    head.hidden = !rows.size;
  }

  /** Watches the rows that can change, and new jobs. */
  function watch() {
    watching.abort();
    watching = new AbortController();
    const both = AbortSignal.any([signal, watching.signal]);
    const names = [...rows.values()].filter((row) => !hasEnded(row.job)).map((row) => row.job.name);
    const onreconnect = () => load("");
    watchJobs({ names: names.slice(0, MAX_WATCHED), includeNew: true }, { onchange, onstate: context.onstate, onreconnect }, both);
  }

  function onchange({ jobs, deletedJobs }) {
    for (const name of deletedJobs) remove(name);
    for (const job of jobs) {
      const row = rows.get(job.name);
      if (row && parsed.matches(job)) row.update(job);
      else if (row) remove(job.name);
      else if (parsed.matches(job) && Number(job.lastSequence) >= 1 && isNewest(job)) body.prepend(add(job));
    }
    if (jobs.length || deletedJobs.length) showNote();
  }

  function isNewest(job) {
    const newest = rows.values().next().value?.job;
    return !newest || [...rows.values()].every((row) => row.job.createTime <= job.createTime);
  }

  function remove(name) {
    rows.get(name)?.element.remove();
    rows.delete(name);
    selected.delete(name);
    changeCompare();
  }

  function add(job) {
    const row = jobRow(job, selected, changeCompare);
    rows.set(job.name, row);
    return row.element;
  }

  function changeCompare() {
    compare.hidden = selected.size < 2;
    compare.href = `#/jobs/${[...selected].map(idOf).join(",")}`;
    fill(compare, `Compare ${selected.size} jobs`);
    for (const row of rows.values()) row.setSelectable(selected.size < MAX_COMPARED);
  }

  const clock = setInterval(() => rows.forEach((row) => row.tick()), 10_000);
  signal.addEventListener("abort", () => (clearInterval(clock), watching.abort()));
  load("");
}

function jobRow(first, selected, onselect) {
  const { name } = first;
  const id = idOf(name);
  const box = h("input", {
    type: "checkbox",
    "aria-label": `Compare ${id}`,
    onchange: () => (box.checked ? selected.add(name) : selected.delete(name), onselect()),
  });
  const state = h("span.cell-state");
  const bar = h("i");
  const epochs = h("span");
  const loss = h("span.number", { "data-label": "Loss" });
  const accuracy = h("span.number", { "data-label": "Accuracy" });
  const created = h("time.muted", { dateTime: first.createTime, title: new Date(first.createTime).toLocaleString() });
  const element = h(
    "li.row",
    {},
    h("span.cell-box", {}, box),
    h("span.cell-name", {}, h("a", { href: `#/jobs/${id}` }, id), h("small.tags", {}, first.architecture, labels(first))),
    state,
    h("span.cell-progress", {}, h("span.bar", {}, bar), epochs),
    loss,
    accuracy,
    created,
  );
  const row = {
    element,
    job: first,
    update(job) {
      if (row.job !== job && Number(job.lastSequence) < Number(row.job.lastSequence)) return;
      row.job = job;
      if (state.dataset.state !== job.state) {
        state.dataset.state = job.state;
        fill(state, pill(job));
      }
      const done = job.lastEpoch?.epoch ?? job.initialEpoch ?? 0;
      bar.style.width = `${(100 * done) / Math.max(1, job.epochs)}%`;
      bar.dataset.state = stateOf(job);
      setText(epochs, `${count(done)} / ${count(job.epochs ?? 0)}`);
      const metrics = job.lastEpoch?.test ?? job.lastEpoch?.train;
      setText(loss, metric(job.lastEpoch && (metrics ? (metrics.loss ?? 0) : (job.lastEpoch.runningLoss ?? 0))));
      setText(accuracy, percent(metrics?.accuracy));
    },
    tick: () => setText(created, ago(first.createTime)),
    setSelectable: (isFree) => (box.disabled = !box.checked && !isFree),
  };
  row.update(first);
  row.tick();
  return row;
}
