// Text for people: numbers, times, states.

export const STATES = ["QUEUED", "STARTING", "RUNNING", "PAUSED", "SUCCEEDED", "FAILED", "CANCELLED"];
const ENDED = new Set(["SUCCEEDED", "FAILED", "CANCELLED"]);

/** "jobs/digits" -> "digits". */
export const idOf = (name) => name.slice(name.indexOf("/") + 1);

/** The state of a job, for example "RUNNING". States of newer servers are shown as they are. */
export const stateOf = (job) => (job.state ?? "JOB_STATE_UNSPECIFIED").replace("JOB_STATE_", "");

export const hasEnded = (job) => ENDED.has(stateOf(job));

/** "RUNNING" -> "Running". */
export const title = (state) => state.charAt(0) + state.slice(1).toLowerCase().replaceAll("_", " ");

/** A metric with four significant digits. Protobuf writes NaN and Infinity as strings. */
export function metric(value) {
  if (value === undefined || value === null) return "–";
  const number = Number(value);
  if (Number.isNaN(number)) return "NaN";
  if (!Number.isFinite(number)) return number > 0 ? "∞" : "−∞";
  if (number !== 0 && (Math.abs(number) < 1e-3 || Math.abs(number) >= 1e5)) return number.toExponential(2);
  return number.toPrecision(4).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
}

export const percent = (value) => (value === undefined ? "–" : `${(100 * value).toFixed(1)} %`);

export const count = (number) => Number(number).toLocaleString("en");

export function bytes(number) {
  const units = ["B", "kB", "MB", "GB"];
  let value = Number(number ?? 0);
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${unit ? value.toPrecision(3) : value} ${units[unit]}`;
}

/** A time in seconds: "850 ms", "12.3 s", "4 min 05 s", "2 h 10 min". */
export function duration(seconds) {
  if (seconds < 1) return `${Math.max(0, Math.round(1000 * seconds))} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  const pad = (number) => String(Math.floor(number)).padStart(2, "0");
  if (minutes < 60) return `${minutes} min ${pad(seconds % 60)} s`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${pad(minutes % 60)} min`;
  return `${Math.floor(minutes / 1440)} days`;
}

/** How long ago a time was: "just now", "5 min ago", or a date. */
export function ago(time, now = Date.now()) {
  const seconds = (now - new Date(time).getTime()) / 1000;
  if (seconds < 10) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(time).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });
}

/** A time of day with seconds, with its date if that is not today. */
export function clock(time) {
  const date = new Date(time);
  const today = date.toDateString() === new Date().toDateString();
  const day = today ? "" : `${date.toLocaleDateString(undefined, { day: "numeric", month: "short" })}, `;
  return day + date.toLocaleTimeString();
}
