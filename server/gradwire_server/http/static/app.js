// The page: which view is shown, the connection, the theme and signing in.

import { call, token } from "./api.js";
import { fill, h, setText } from "./dom.js";
import { jobView } from "./job.js";
import { jobsView } from "./jobs.js";
import { modelsView, modelView } from "./models.js";
import { workersView } from "./workers.js";

const THEME = "gradwire-theme";
const main = document.getElementById("main");
const status = document.getElementById("connection");
const signOut = document.getElementById("sign-out");
let view = new AbortController();

const context = {
  onstate: showConnection,
  onerror,
  reload: show,
  grpcAddress: `${location.hostname}:${document.querySelector('meta[name="grpc-port"]').content}`,
};

/** Handles the errors that concern the whole page. Returns whether it did. */
function onerror(error) {
  if (error.code === "unauthenticated") signIn(token.get() ? error.message : "");
  else if (error.isTemporary) {
    showConnection(false, error);
    setTimeout(() => view.signal.aborted || show(), 1000);
  } else return false;
  return true;
}

function showConnection(isConnected, error) {
  if (error?.code === "unauthenticated") {
    signIn("");
    return;
  }
  status.hidden = isConnected;
  if (!isConnected) setText(status, error?.reason === "SHUTTING_DOWN" ? "The server is restarting. Reconnecting…" : "The server does not answer. Reconnecting…");
}

/** Shows what the address names. */
function show() {
  view.abort();
  view = new AbortController();
  const { signal } = view;
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [kind = "jobs", id = ""] = path.split("/").map(decodeURIComponent);
  const ids = id.split(",").filter(Boolean);
  const section = ["models", "workers"].includes(kind) ? kind : "jobs";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#/${section}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = id ? `${id} – gradwire` : "gradwire";
  signOut.hidden = !token.get();
  const parameters = new URLSearchParams(query);
  if (section === "models") id ? modelView(main, id, context, signal) : modelsView(main, parameters, context, signal);
  else if (section === "workers") workersView(main, context, signal);
  else if (ids.length) jobView(main, ids, context, signal);
  else jobsView(main, parameters, context, signal);
}

function signIn(problem) {
  view.abort();
  view = new AbortController();
  token.clear();
  signOut.hidden = true;
  const input = h("input", { type: "password", autocomplete: "current-password", required: true, id: "token" });
  const message = h("p.error", { role: "alert", hidden: !problem }, problem);
  const form = h(
    "form.card.sign-in",
    {
      onsubmit: async (event) => {
        event.preventDefault();
        token.set(input.value.trim());
        try {
          await call("ListJobs", { pageSize: 1 });
          show();
        } catch (error) {
          token.clear();
          message.hidden = false;
          setText(message, error.code === "unauthenticated" ? "This is not the token of this server." : error.message);
          input.select();
        }
      },
    },
    h("h1", {}, "Sign in"),
    h("p.muted", {}, "This server has a token. ", h("code", {}, "gradwire token show"), " prints it."),
    h("label.field", { htmlFor: "token" }, h("span", {}, "Token"), input),
    message,
    h("div.actions", {}, h("button.button.primary", {}, "Sign in")),
  );
  fill(main, form);
  input.focus();
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  dispatchEvent(new Event("gradwire-theme"));
}

const dark = matchMedia("(prefers-color-scheme: dark)");
const systemTheme = () => (dark.matches ? "dark" : "light");
setTheme(localStorage.getItem(THEME) ?? systemTheme());
dark.addEventListener("change", () => localStorage.getItem(THEME) || setTheme(systemTheme()));
document.getElementById("theme").addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem(THEME, theme);
  setTheme(theme);
});
signOut.addEventListener("click", () => signIn(""));
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
// "/" leads to the search.
addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, textarea, select, dialog");
  const search = document.querySelector('input[type="search"]');
  if (event.key !== "/" || isTyping || !search) return;
  event.preventDefault();
  search.focus();
});
addEventListener("hashchange", () => {
  show();
  scrollTo(0, 0);
});
show();
