// The live page: keeps the studies that the server sends, and draws changes when the browser is ready.
// Text of users is set as text, never as HTML.

import { Actions } from "./actions.js";
import { Charts } from "./charts.js";
import { createElement, getElement } from "./elements.js";
import { formatClock, formatDone, formatValue, LIVE_DIGITS } from "./formats.js";
import { Table } from "./table.js";

const MAX_EVENTS = 200;

const studies = new Map(); // summaries of all studies by name
const trials = new Map(); // trials of the chosen study by number
let params = null; // search space of the chosen study
let events = []; // events of the chosen study, newest first
let services = {};
let isLoggedIn = false; // whether the server takes actions from this browser
let chosen = new URLSearchParams(location.search).get("study");
let stream = null;
let lastId = "";
let summaryAt = 0; // time at which the summary of the chosen study came
let changedParts = new Set(); // parts of the page to draw anew

const store = {
  trials,
  get study() { return studies.get(chosen); },
  get params() { return params; },
  get metric() { return this.study?.metrics[0] ?? "objective"; },
  get mayAct() { return isLoggedIn && services.role === "service" && services.connected; },
};
const actions = new Actions(store);
const table = new Table(store, (number) => actions.openTrial(number));
const charts = new Charts(store);

// --- messages of the server ---

function connect() {
  stream?.close();
  const query = new URLSearchParams({ last: lastId });
  if (chosen !== null) query.set("study", chosen);
  stream = new EventSource(`/stream?${query}`);
  const handle = (type, apply) => stream.addEventListener(type, (message) => {
    if (message.lastEventId) lastId = message.lastEventId;
    apply(JSON.parse(message.data));
    draw();
  });
  handle("hello", (hello) => {
    isLoggedIn = hello.logged_in;
    getElement("login").hidden = isLoggedIn;
    changedParts.add("head").add("trials");
    showConnection("");
  });
  handle("services", (status) => {
    services = status;
    showConnection("");
    changedParts.add("services").add("head");
  });
  handle("reset", clearAll);
  handle("changes", applyChanges);
  stream.onerror = () => {
    showConnection("The monitor does not answer. This page goes on when the monitor is back.");
    // Chrome does not retry after a response that is no stream, such as a demand to log in.
    if (stream.readyState === EventSource.CLOSED) setTimeout(reconnect, 1000);
  };
}

async function reconnect() {
  try {
    const response = await fetch("/log");
    if (response.status === 401) location.assign("/login");
  } catch { /* the monitor is not back yet */ }
  connect();
}

function applyChanges(changes) {
  for (const summary of changes.studies) studies.set(summary.name, summary);
  changedParts.add("head");
  if (changes.study) applyStudy(changes.study);
  if (!studies.has(chosen) && studies.size) chooseStudy(findNewestStudy());
}

function applyStudy(study) {
  if (study.full) clearStudy();
  studies.set(chosen, study.summary);
  summaryAt = performance.now();
  if (study.params) params = study.params;
  for (const row of study.trials.reverse()) {
    const old = trials.get(row.number);
    const isNew = !old || (row.attempt !== undefined && row.attempt !== old.attempt);
    trials.set(row.number, isNew ? { curve: [], pointCount: 0, ...row } : Object.assign(old, row));
    table.markChanged(row.number);
  }
  for (const [number, attempt, step, value] of study.points) {
    const trial = trials.get(number);
    if (trial?.attempt !== attempt) continue;
    const last = trial.curve.at(-1);
    if (last && last[0] >= step) continue; // a repeated point
    trial.curve.push([step, value]);
    trial.pointCount += 1;
    table.markChanged(number);
  }
  events = [...study.events.reverse(), ...events].slice(0, MAX_EVENTS);
  changedParts.add("trials").add("events");
}

function clearStudy() {
  trials.clear();
  table.clear();
  charts.clear();
  events = [];
  params = null;
}

function clearAll() {
  studies.clear();
  clearStudy();
  changedParts.add("head").add("trials").add("events");
}

// Returns the name of the newest running study, or of the newest study.
const findNewestStudy = () => [...studies.values()].reduce(
  (best, study) => (study.state !== "finished" || best.state === "finished" ? study : best),
).name;

function chooseStudy(name) {
  chosen = name;
  lastId = "";
  clearStudy();
  history.replaceState(null, "", `?study=${encodeURIComponent(name)}`);
  changedParts.add("head").add("trials").add("events");
  connect();
}

function showConnection(problem) {
  const text = problem || services.error
    || (services.connected === false ? "The hub does not answer. Nothing is lost." : "live");
  const element = getElement("connection");
  if (element.textContent !== text) element.textContent = text;
  element.classList.toggle("bad", text !== "live");
}

// --- drawing ---

let isDrawScheduled = false;

function draw() {
  if (isDrawScheduled) return;
  isDrawScheduled = true;
  // A page in the background gets no frames and draws by a timer.
  const schedule = document.hidden ? (callback) => setTimeout(callback, 500) : requestAnimationFrame;
  schedule(() => {
    isDrawScheduled = false;
    const parts = changedParts;
    changedParts = new Set();
    if (parts.has("head")) drawHead();
    if (parts.has("head") || parts.has("services") || parts.has("trials")) drawWorkers();
    if (parts.has("trials")) {
      table.draw();
      charts.draw();
      actions.draw();
    }
    if (parts.has("events")) drawEvents();
  });
}

function drawHead() {
  drawStudyMenu();
  const study = store.study;
  getElement("empty").hidden = studies.size > 0;
  getElement("content").hidden = !study;
  getElement("actions").hidden = !(store.mayAct && study && study.state !== "finished");
  if (!study) return;
  document.title = `${formatDone(study.n_done, study.n_trials)} ${study.name} · trialbus`;
  const state = study.paused ? "paused" : study.state === "finished" ? study.reason : study.state;
  getElement("state").textContent = state;
  getElement("state").className = `badge ${study.paused ? "paused" : { failed: "failed" }[state] ?? "running"}`;
  getElement("pause").textContent = study.paused ? "Resume" : "Pause";
  getElement("progress").max = study.n_trials || 1;
  getElement("progress").value = study.n_done;
  getElement("h-value").textContent = store.metric;
  getElement("h-history").textContent = `Best ${store.metric} so far`;
  const outcome = study.error ? `${study.reason}: ${study.error}` : study.report && `Report: ${study.report}`;
  getElement("outcome").textContent = outcome || "";
  getElement("outcome").hidden = !outcome;
  getElement("outcome").className = study.reason === "failed" ? "error" : "";
  drawFigures(study);
}

function drawStudyMenu() {
  const select = getElement("study");
  const names = [...studies.keys()];
  if (names.join("\0") !== [...select.options].map((o) => o.value).join("\0")) {
    select.replaceChildren(...names.map((name) => createElement("option", { value: name, textContent: name })));
  }
  if (chosen !== null) select.value = chosen;
}

function drawFigures(study) {
  const secondsSince = study.state === "finished" ? 0 : (performance.now() - summaryAt) / 1000;
  const left = study.left_s === null ? "" : formatClock(Math.max(0, study.left_s - secondsSince));
  const figures = {
    trials: formatDone(study.n_done, study.n_trials),
    best: study.best ? `${formatValue(study.best[1], LIVE_DIGITS)} (${study.best[2] ? "running " : ""}trial ${study.best[0]})` : "none yet",
    running: study.running,
    ...(study.ended ? { ended: study.ended } : {}),
    complete: study.counts.complete ?? 0,
    pruned: study.counts.pruned ?? 0,
    failed: study.counts.failed ?? 0,
    ...(study.lost ? { lost: `${study.lost}, ${study.retried} retried` } : {}),
    time: formatClock(study.elapsed_s + secondsSince),
    ...(left ? { left: `about ${left}` } : {}),
  };
  getElement("figures").replaceChildren(...Object.entries(figures).map(([name, value]) => {
    const entry = createElement("div");
    entry.append(createElement("dt", { textContent: name }), createElement("dd", { textContent: value }));
    return entry;
  }));
}

function drawWorkers() {
  const trialBySlot = new Map(); // numbers of running trials by worker and slot
  for (const trial of trials.values()) {
    if (trial.state === "running") trialBySlot.set(`${trial.worker}\0${trial.slot}`, trial.number);
  }
  const items = [];
  for (const session of services.sessions ?? []) {
    const item = createElement("li");
    item.append(createElement("b", { textContent: session.name }), ` ${session.kind} `);
    if (session.kind === "worker") {
      for (let slot = 0; slot < Number(session.info.slots ?? 0); slot += 1) {
        const number = trialBySlot.get(`${session.name}\0${slot}`);
        const text = number === undefined ? "–" : `${number}`;
        const label = number === undefined ? `slot ${slot}: free` : `slot ${slot}: trial ${number}`;
        item.append(createElement("span", {
          className: number === undefined ? "slot" : "slot busy", textContent: text, title: label,
        }));
      }
    }
    const refused = Object.values(session.optimizer?.refused ?? {}).reduce((sum, n) => sum + n, 0);
    if (refused) {
      item.append(createElement("span", {
        className: "failed",
        textContent: `refused ${refused} events, the last one: ${session.optimizer.last_refused}`,
      }));
    }
    items.push(item);
  }
  if (!items.length) items.push(createElement("li", { textContent: "No worker or service is connected." }));
  getElement("workers").replaceChildren(...items);
}

function drawEvents() {
  const withEvaluations = getElement("evaluations").checked;
  const visible = events.filter((event) => withEvaluations || event.type !== "evaluation_complete");
  getElement("events").replaceChildren(...visible.map((event) => {
    const item = createElement("li");
    const at = event.at === null ? "" : new Date(event.at * 1000).toLocaleTimeString();
    const trial = event.trial === null ? "" : ` ${event.trial}`;
    item.append(createElement("span", { textContent: `${at} ` }), createElement("b", { textContent: event.type }));
    item.append(`${trial} ${event.text}`);
    return item;
  }));
}

getElement("study").addEventListener("change", (event) => chooseStudy(event.target.value));
getElement("evaluations").addEventListener("change", drawEvents);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.draw());
setInterval(() => store.study && drawFigures(store.study), 1000);
addEventListener("load", () => charts.draw());
connect();
