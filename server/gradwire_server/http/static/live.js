// The one event stream of the page. Whatever the page shows, it says which jobs it needs, and gets each change of them.

import { stream } from "./api.js";

const RETRY_MS = [300, 600, 1000, 2000];

/**
 * Watches jobs until the signal is aborted, and reconnects when the stream breaks.
 * @param {{names: string[], includeNew?: boolean}} request
 * @param {{onchange: function({jobs: Object[], deletedJobs: string[]}), onstate: function(boolean, Error?),
 *   onreconnect?: function()}} handlers
 * @param {AbortSignal} signal
 */
export async function watchJobs(request, { onchange, onstate, onreconnect }, signal) {
  let failures = 0;
  while (!signal.aborted) {
    try {
      const responses = stream("WatchJobs", request, { signal });
      for await (const { jobs = [], deletedJobs = [] } of responses) {
        if (failures) onreconnect?.();
        failures = 0;
        onstate(true);
        onchange({ jobs, deletedJobs });
      }
    } catch (error) {
      if (signal.aborted) return;
      onstate(false, error);
      if (error.code === "unauthenticated") return;
      await sleep(RETRY_MS[Math.min(failures, RETRY_MS.length - 1)], signal);
      failures += 1;
    }
  }
}

function sleep(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
