// The live page: keeps what the server tells, and draws it when the browser is ready to.
// Whatever comes from users is set as text, never as HTML.

import { Acts } from "./acts.js";
import { Charts } from "./charts.js";
import { Table } from "./table.js";
import { by, duration, make, shown } from "./text.js";

const MOST_LINES = 200;

const studies = new Map(); // summaries by name
const trials = new Map(); // of the chosen study, by number
let params = null; // its search space
let lines = []; // its newest events, newest first
let services = {};
let chosen = new URLSearchParams(location.search).get("study");
let stream = null;
let lastId = "";
let summaryAt = 0; // when the chosen study's summary came
let dirty = new Set();

const store = {
  trials,
  get study() { return studies.get(chosen); },
  get params() { return params; },
  get metric() { return this.study?.metrics[0] ?? "objective"; },
  get mayAct() { return services.role === "service" && services.connected; },
};
const acts = new Acts(store);
const table = new Table(store, (number) => acts.openTrial(number));
const charts = new Charts(store);

// --- what comes ---

function connect() {
  stream?.close();
  const query = new URLSearchParams({ last: lastId });
  if (chosen !== null) query.set("study", chosen);
  stream = new EventSource(`/stream?${query}`);
  const on = (type, take) => stream.addEventListener(type, (message) => {
    if (message.lastEventId) lastId = message.lastEventId;
    take(JSON.parse(message.data));
    draw();
  });
  on("hello", (hello) => {
    acts.token = hello.token;
    connection("");
  });
  on("services", (found) => {
    services = found;
    connection("");
    dirty.add("services").add("head");
  });
  on("reset", forgetAll);
  on("delta", takeDelta);
  stream.onerror = () => {
    connection("The monitor does not answer. This page goes on when it does.");
    // Chrome gives up for good on an answer that is no stream: ask once more, and log in if need be.
    if (stream.readyState === EventSource.CLOSED) setTimeout(again, 1000);
  };
}

async function again() {
  try {
    const answer = await fetch("/log");
    if (answer.status === 401) location.assign("/login");
  } catch { /* it is not back yet */ }
  connect();
}

function takeDelta(delta) {
  for (const summary of delta.studies) studies.set(summary.name, summary);
  dirty.add("head");
  if (delta.study) takeStudy(delta.study);
  if (!studies.has(chosen) && studies.size) choose(newest());
}

function takeStudy(study) {
  if (study.full) forgetStudy();
  studies.set(chosen, study.summary);
  summaryAt = performance.now();
  if (study.params) params = study.params;
  for (const row of study.trials.reverse()) {
    const old = trials.get(row.n);
    const isNew = !old || (row.attempt !== undefined && row.attempt !== old.attempt);
    trials.set(row.n, isNew ? { curve: [], seen: 0, ...row } : Object.assign(old, row));
    table.touch(row.n);
  }
  for (const [number, attempt, step, value] of study.points) {
    const trial = trials.get(number);
    if (trial?.attempt !== attempt) continue;
    const last = trial.curve.at(-1);
    if (last && last[0] >= step) continue; // a point counts once
    trial.curve.push([step, value]);
    trial.seen += 1;
    table.touch(number);
  }
  lines = [...study.lines.reverse(), ...lines].slice(0, MOST_LINES);
  dirty.add("trials").add("events");
}

function forgetStudy() {
  trials.clear();
  table.clear();
  charts.clear();
  lines = [];
  params = null;
}

function forgetAll() {
  studies.clear();
  forgetStudy();
  dirty.add("head").add("trials").add("events");
}

const newest = () => [...studies.values()].reduce(
  (found, study) => (study.state !== "finished" || found.state === "finished" ? study : found),
).name;

function choose(name) {
  chosen = name;
  lastId = "";
  forgetStudy();
  history.replaceState(null, "", `?study=${encodeURIComponent(name)}`);
  dirty.add("head").add("trials").add("events");
  connect();
}

function connection(problem) {
  const text = problem || services.error
    || (services.connected === false ? "The hub does not answer. Nothing is lost." : "live");
  const place = by("connection");
  if (place.textContent !== text) place.textContent = text;
  place.classList.toggle("bad", text !== "live");
}

// --- what is drawn ---

let waiting = false;

function draw() {
  if (waiting) return;
  waiting = true;
  // A page in the background gets no frames: it keeps up all the same.
  const later = document.hidden ? (f) => setTimeout(f, 500) : requestAnimationFrame;
  later(() => {
    waiting = false;
    const parts = dirty;
    dirty = new Set();
    if (parts.has("head")) drawHead();
    if (parts.has("head") || parts.has("services") || parts.has("trials")) drawWorkers();
    if (parts.has("trials")) {
      table.draw();
      charts.draw();
      acts.draw();
    }
    if (parts.has("events")) drawEvents();
  });
}

function drawHead() {
  drawChoice();
  const study = store.study;
  by("empty").hidden = studies.size > 0;
  by("content").hidden = !study;
  by("acts").hidden = !(store.mayAct && study && study.state !== "finished");
  if (!study) return;
  document.title = `${study.n_done}/${study.n_trials ?? "?"} ${study.name} · trialbus`;
  const state = study.paused ? "paused" : study.state === "finished" ? study.reason : study.state;
  by("state").textContent = state;
  by("state").className = `badge ${study.paused ? "paused" : { failed: "failed" }[state] ?? "running"}`;
  by("pause").textContent = study.paused ? "Resume" : "Pause";
  by("progress").max = study.n_trials || 1;
  by("progress").value = study.n_done;
  by("h-value").textContent = store.metric;
  by("h-history").textContent = `Best ${store.metric} so far`;
  const outcome = study.error ? `${study.reason}: ${study.error}` : study.report && `Report: ${study.report}`;
  by("outcome").textContent = outcome || "";
  by("outcome").hidden = !outcome;
  by("outcome").className = study.reason === "failed" ? "error" : "";
  drawFigures(study);
}

function drawChoice() {
  const select = by("study");
  const names = [...studies.keys()];
  if (names.join("\0") !== [...select.options].map((o) => o.value).join("\0")) {
    select.replaceChildren(...names.map((name) => make("option", { value: name, textContent: name })));
  }
  if (chosen !== null) select.value = chosen;
}

function drawFigures(study) {
  const passed = study.state === "finished" ? 0 : (performance.now() - summaryAt) / 1000;
  const left = study.left_s === null ? "" : duration(Math.max(0, study.left_s - passed));
  const figures = {
    trials: `${study.n_done} of ${study.n_trials ?? "?"}`,
    best: study.best ? `${shown(study.best[1])} (trial ${study.best[0]})` : "none yet",
    running: study.running,
    complete: study.counts.complete ?? 0,
    pruned: study.counts.pruned ?? 0,
    failed: study.counts.failed ?? 0,
    ...(study.lost ? { lost: `${study.lost}, ${study.retried} retried` } : {}),
    time: duration(study.elapsed_s + passed),
    ...(left ? { left: `about ${left}` } : {}),
  };
  by("figures").replaceChildren(...Object.entries(figures).map(([name, value]) => {
    const entry = make("div");
    entry.append(make("dt", { textContent: name }), make("dd", { textContent: value }));
    return entry;
  }));
}

function drawWorkers() {
  const busy = new Map(); // trials by worker and slot
  for (const trial of trials.values()) {
    if (trial.state === "running") busy.set(`${trial.worker}\0${trial.slot}`, trial.n);
  }
  const items = [];
  for (const session of services.sessions ?? []) {
    const item = make("li");
    item.append(make("b", { textContent: session.name }), ` ${session.kind} `);
    if (session.kind === "worker") {
      for (let slot = 0; slot < Number(session.info.slots ?? 0); slot += 1) {
        const number = busy.get(`${session.name}\0${slot}`);
        const text = number === undefined ? "–" : `${number}`;
        const label = number === undefined ? `slot ${slot}: free` : `slot ${slot}: trial ${number}`;
        item.append(make("span", {
          className: number === undefined ? "slot" : "slot busy", textContent: text, title: label,
        }));
      }
    }
    const refused = Object.values(session.optimizer?.refused ?? {}).reduce((sum, n) => sum + n, 0);
    if (refused) {
      item.append(make("span", {
        className: "failed",
        textContent: `refused ${refused} events, the last one: ${session.optimizer.last_refused}`,
      }));
    }
    items.push(item);
  }
  if (!items.length) items.push(make("li", { textContent: "Nobody is connected." }));
  by("workers").replaceChildren(...items);
}

function drawEvents() {
  const all = by("evaluations").checked;
  const wanted = all ? lines : lines.filter((line) => line.type !== "evaluation_complete");
  by("events").replaceChildren(...wanted.map((line) => {
    const item = make("li");
    const at = line.at === null ? "" : new Date(line.at * 1000).toLocaleTimeString();
    const trial = line.trial === null ? "" : ` ${line.trial}`;
    item.append(make("span", { textContent: `${at} ` }), make("b", { textContent: line.type }));
    item.append(`${trial} ${line.text}`);
    return item;
  }));
}

by("study").addEventListener("change", (event) => choose(event.target.value));
by("evaluations").addEventListener("change", drawEvents);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.draw());
setInterval(() => store.study && drawFigures(store.study), 1000);
addEventListener("load", () => charts.draw());
connect();
