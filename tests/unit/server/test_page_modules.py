"""The modules of the web page that need no browser, in Node.js."""

import base64
import json
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

STATIC = Path(__file__).parents[3] / "server" / "gradwire_server" / "http" / "static"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="Node.js is not installed: apt-get install nodejs")

# A server whose answers are taken from `answers`, and what the page keeps in the browser.
BROWSER = """
globalThis.sessionStorage = { getItem: () => null };
globalThis.answers = [];
globalThis.fetch = async () => answers.shift()();
const sse = (...events) => () => new Response(events.join(""));
const message = (job) => `data: ${JSON.stringify({ jobs: [{ name: job }] })}\\n\\n`;
"""


@pytest.fixture
def run(tmp_path):
    """Run a script next to the modules, and return the values that it prints as lines of JSON."""
    folder = shutil.copytree(STATIC, tmp_path / "page")
    (folder / "package.json").write_text('{"type": "module"}')

    def run(script):
        (folder / "script.js").write_text(script)
        done = subprocess.run([NODE, "script.js"], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def test_epochs_that_were_not_sent_are_read_from_the_store(run):
    script = """
        import { History } from "./history.js";
        const history = new History("jobs/a");
        const found = [];
        for (const epoch of [1, 2, 2, 5]) {
          history.add({ epoch });
          found.push(history.isStale(true));
        }
        console.log(JSON.stringify([history.last, found]));
    """
    assert run(script) == [[5, [False, False, False, True]]]


def test_a_watch_that_broke_reads_everything_again_and_then_goes_on(run):
    script = """
        import { watchJobs } from "./live.js";
        %s
        globalThis.setTimeout = (continued) => queueMicrotask(continued);
        const stopped = new AbortController();
        answers.push(sse(message("jobs/a")), () => { throw new TypeError("refused"); }, sse(message("jobs/b")));
        const seen = [];
        await watchJobs({ names: ["jobs/a"] }, {
          onstate: (isConnected) => seen.push(isConnected),
          onreconnect: () => seen.push("again"),
          onchange: ({ jobs }) => {
            seen.push(jobs[0].name);
            if (jobs[0].name === "jobs/b") stopped.abort();
          },
        }, stopped.signal);
        console.log(JSON.stringify(seen));
    """
    assert run(script % BROWSER) == [[True, "jobs/a", False, False, "again", True, "jobs/b"]]


@pytest.mark.parametrize(("dtype", "code"), [("FLOAT32", "f"), ("FLOAT64", "d")])
def test_predictions_are_read_in_their_own_type(run, dtype, code):
    data = base64.b64encode(struct.pack(f"<4{code}", 0.5, -2.0, 3.25, 1e3)).decode()
    outputs = {"dtype": f"DATA_TYPE_{dtype}", "shape": ["2", "2"], "data": data}
    script = """
        import { predict } from "./predict.js";
        %s
        answers.push(() => Response.json({ outputs: %s }));
        const layers = [{ linear: { inFeatures: 1, outFeatures: 2 } }];
        console.log(JSON.stringify(await predict({ name: "models/a", spec: { layers } }, [[1], [2]])));
    """
    assert run(script % (BROWSER, json.dumps(outputs))) == [[[0.5, -2.0], [3.25, 1000.0]]]
