// The workers and the queue: what runs where, and why jobs wait.

import { call } from "./api.js";
import { fill, h, setText } from "./dom.js";
import { ago, count, idOf } from "./format.js";
import { watchJobs } from "./live.js";
import { empty, failure, figure } from "./parts.js";

const MAX_WATCHED = 100;
// Changes of jobs lead to a new request, but not more often than this. Idle workers change without a change of a job.
const SOON_MS = 300;
const LATER_MS = 5000;

/** Shows the workers and the queue until the signal is aborted. */
export function workersView(main, context, signal) {
  const figures = h("dl.figures");
  const note = h("p.notice", { hidden: true, role: "status" }, "Another server schedules the jobs. Only that server knows the idle workers, and all reasons why jobs wait.");
  const workers = h("section.card", { "aria-label": "Workers" });
  const queue = h("section.card.queue", { "aria-label": "Queue" });
  const problem = h("div");
  fill(main, h("div.page-head", {}, h("h1", {}, "Workers")), figures, note, problem, h("div.columns", {}, workers, queue));
  const states = new Map();
  let shown = "";
  let watched = null;
  let watching = new AbortController();
  let timer = 0;
  let due = Infinity;

  function reloadIn(milliseconds) {
    const time = Date.now() + milliseconds;
    if (time >= due) return;
    due = time;
    clearTimeout(timer);
    timer = setTimeout(load, milliseconds);
  }

  async function load() {
    due = Infinity;
    try {
      const found = await call("ListWorkers", {}, { signal });
      if (signal.aborted) return;
      problem.replaceChildren();
      show(found);
      watch(found);
    } catch (error) {
      if (signal.aborted || context.onerror(error)) return;
      fill(problem, failure(error, load));
    }
    if (!signal.aborted) reloadIn(LATER_MS);
  }

  function show(found) {
    const text = JSON.stringify(found);
    for (const time of queue.querySelectorAll("time")) setText(time, ago(time.dateTime));
    if (text === shown) return;
    shown = text;
    const focused = main.contains(document.activeElement) && document.activeElement.hash;
    const { busyWorkers = 0, idleWorkers = 0, startableWorkers = 0, queueLength = 0, complete = false } = found;
    note.hidden = complete;
    const known = (number) => (complete ? count(number) : "–");
    fill(
      figures,
      figure("Busy", count(busyWorkers)),
      figure("Idle", known(idleWorkers)),
      figure("Can be started", known(startableWorkers)),
      figure("Queued jobs", count(queueLength)),
    );
    showWorkers(workers, found.workers ?? [], busyWorkers + idleWorkers, startableWorkers);
    showQueue(queue, found.queuedJobs ?? [], queueLength);
    if (focused) [...main.querySelectorAll("a")].find((link) => link.hash === focused)?.focus();
  }

  /** Watches the jobs that are shown, and new ones. */
  function watch(found) {
    const names = [...(found.workers ?? []).flatMap((each) => each.job ?? []), ...(found.queuedJobs ?? []).map((each) => each.name)].slice(0, MAX_WATCHED);
    if (names.join() === watched) return;
    watched = names.join();
    watching.abort();
    watching = new AbortController();
    const both = AbortSignal.any([signal, watching.signal]);
    const request = { names, includeNew: true };
    watchJobs(request, { onchange, onstate: context.onstate, onreconnect: () => reloadIn(0) }, both);
  }

  function onchange({ jobs, deletedJobs }) {
    let hasChanged = deletedJobs.length > 0;
    for (const { name, state, attempt } of jobs) {
      const now = `${state} ${attempt}`;
      hasChanged ||= states.get(name) !== now;
      states.set(name, now);
    }
    if (hasChanged) reloadIn(SOON_MS);
  }

  signal.addEventListener("abort", () => (clearTimeout(timer), watching.abort()));
  load();
}

function showWorkers(section, workers, number, startable) {
  const rows = workers.map((worker) =>
    h(
      "tr",
      {},
      h("td", {}, worker.host || "–"),
      h("td", {}, (worker.device ?? "").toUpperCase() || "–"),
      h("td", {}, worker.job ? [jobLink(worker.job), worker.attempt > 1 && h("small", {}, ` attempt ${worker.attempt}`)] : h("span.muted", {}, "Idle")),
    ),
  );
  const none = startable ? "The server starts one when a job needs it." : "The server has no room for a worker, or it does not know any.";
  fill(section, heading("Workers"), rows.length ? table(["Host", "Device", "Job"], rows) : empty("No workers", none), more(number - rows.length, "worker"));
}

function showQueue(section, jobs, number) {
  const rows = jobs.map(({ name, createTime, reason }) =>
    h(
      "tr",
      {},
      h("td", {}, jobLink(name), " ", h("small", {}, h("time", { dateTime: createTime }, ago(createTime)))),
      h("td", {}, reason ?? ""),
    ),
  );
  fill(section, heading("Queue"), rows.length ? table(["Job", "Why it waits"], rows) : empty("No job waits"), more(number - rows.length, "job"));
}

const heading = (text) => h("div.card-head", {}, h("h2", {}, text));

const jobLink = (name) => h("a.link", { href: `#/${name}` }, idOf(name));

const table = (names, rows) =>
  h("div.scroll", {}, h("table.settings", {}, h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, rows)));

const more = (number, noun) => number > 0 && h("p.muted", {}, `and ${count(number)} more ${number === 1 ? noun : `${noun}s`}`);
