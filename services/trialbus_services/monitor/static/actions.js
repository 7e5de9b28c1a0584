// Actions of users: stop, pause, resume, prune and enqueue, each after a question; and the log of a trial.

import { createElement, getElement } from "./elements.js";
import { formatNamedValues, formatValue, LIVE_DIGITS } from "./formats.js";

const LOG_INTERVAL_MS = 1000;
const TOAST_MS = 5000;
const MAX_LOG = 200000; // characters kept

export class Actions {
  constructor(store) {
    this.store = store;
    this.openTrialNumber = null;
    this.logTurn = 0; // ends the loop that follows the log of another trial
    getElement("stop").addEventListener("click", () => this.#stop());
    getElement("pause").addEventListener("click", () => this.#pauseOrResume());
    getElement("enqueue").addEventListener("click", () => this.#openEnqueueDialog());
    getElement("enqueue-no").addEventListener("click", () => getElement("enqueue-dialog").close());
    getElement("enqueue-form").addEventListener("submit", (event) => this.#enqueue(event));
    getElement("prune").addEventListener("click", () => this.#prune());
    getElement("trial").addEventListener("close", () => this.#closeTrial());
  }

  async #stop() {
    const { name, running } = this.store.study;
    const text = `The ${running} running trials are pruned, and no further trial is handed out.`;
    if (await askUser(`Stop the study ${name}?`, text, "Stop the study")) this.#send({ action: "stop" });
  }

  async #pauseOrResume() {
    const { name, paused } = this.store.study;
    if (paused) {
      this.#send({ action: "resume" });
      return;
    }
    const text = "Running trials go on. No further trial is handed out until you resume the study.";
    if (await askUser(`Pause the study ${name}?`, text, "Pause")) this.#send({ action: "pause" });
  }

  async #prune() {
    const trial = this.openTrialNumber;
    const text = "The training is told to stop at its next report. The trial counts as pruned.";
    if (await askUser(`Prune trial ${trial}?`, text, "Prune")) this.#send({ action: "prune", trial });
  }

  #openEnqueueDialog() {
    const { params } = this.store;
    if (!params) {
      showToast("The study's search space is not known.");
      return;
    }
    const fields = Object.entries(params).map(([name, param]) => createField(name, param));
    getElement("enqueue-fields").replaceChildren(...fields);
    getElement("enqueue-error").textContent = "";
    getElement("enqueue-dialog").showModal();
  }

  async #enqueue(event) {
    event.preventDefault();
    const params = {};
    for (const input of getElement("enqueue-fields").querySelectorAll("input, select")) {
      if (input.value === "") continue;
      const { choices } = this.store.params[input.name];
      params[input.name] = choices ? choices[Number(input.value)] : input.value.trim();
    }
    const error = await this.#send({ action: "enqueue", params });
    getElement("enqueue-error").textContent = error ?? "";
    if (!error) getElement("enqueue-dialog").close();
  }

  // Sends an action of the study; returns the error, or null.
  async #send(action) {
    let error = null;
    try {
      const response = await fetch("/action", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ study: this.store.study.name, ...action }),
      });
      const answer = await response.json();
      error = answer.error ?? null;
      const success = answer.sent ? `Sent: ${answer.event}` : "The hub is away; the event is sent when it is back.";
      showToast(error ?? success);
    } catch {
      error = "The monitor does not answer.";
      showToast(error);
    }
    return error;
  }

  openTrial(number) {
    this.openTrialNumber = number;
    getElement("trial-title").textContent = `Trial ${number}`;
    getElement("log").textContent = "";
    this.draw();
    getElement("trial").showModal();
    this.#followLog(number, ++this.logTurn);
  }

  #closeTrial() {
    this.openTrialNumber = null;
    this.logTurn += 1;
  }

  draw() {
    const trial = this.openTrialNumber === null ? null : this.store.trials.get(this.openTrialNumber);
    if (!trial) return;
    getElement("prune").hidden = !(this.store.mayAct && trial.state === "running");
    getElement("prune").disabled = trial.stopping;
    const details = {
      state: trial.stopping ? "stopping" : trial.state,
      step: trial.step === null ? "" : `${trial.step + 1}${trial.budget ? ` of ${trial.budget}` : ""}`,
      value: formatValue(trial.value, LIVE_DIGITS),
      best: formatValue(trial.best, LIVE_DIGITS),
      worker: trial.worker && `${trial.worker}, slot ${trial.slot}`,
      params: formatNamedValues(trial.params),
      metrics: formatNamedValues(trial.metrics),
      reason: trial.error || trial.reason,
    };
    const wide = new Set(["params", "metrics", "reason"]);
    getElement("trial-details").replaceChildren(
      ...Object.entries(details).filter(([, text]) => text).map(([name, text]) => {
        const entry = createElement("div", { className: wide.has(name) ? "wide" : "" });
        entry.append(createElement("dt", { textContent: name }));
        entry.append(createElement("dd", { textContent: text, className: wide.has(name) ? "text" : "" }));
        return entry;
      }),
    );
  }

  async #followLog(number, turn) {
    let after = "";
    const log = getElement("log");
    while (turn === this.logTurn) {
      try {
        const query = new URLSearchParams({ study: this.store.study.name, trial: number, after });
        const response = await fetch(`/log?${query}`);
        const answer = await response.json();
        if (turn !== this.logTurn) return;
        if (answer.error || answer.reason) {
          log.textContent = answer.error || answer.reason;
          return;
        }
        const isAtEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
        if (answer.text) log.textContent = (log.textContent + answer.text).slice(-MAX_LOG);
        if (isAtEnd) log.scrollTop = log.scrollHeight;
        after = answer.end;
      } catch { /* the connection's text says so; the next turn tries again */ }
      await new Promise((resolve) => { setTimeout(resolve, LOG_INTERVAL_MS); });
    }
  }
}

function createField(name, param) {
  const label = createElement("label");
  label.append(createElement("span", { textContent: name }));
  if (param.choices) {
    const select = createElement("select", { name });
    select.append(createElement("option", { value: "", textContent: "the sampler's choice" }));
    param.choices.forEach((choice, i) => {
      const text = choice === null ? "null" : String(choice);
      select.append(createElement("option", { value: i, textContent: text }));
    });
    label.append(select);
  } else {
    label.append(createElement("input", { name, inputMode: "decimal", autocomplete: "off" }));
    const step = param.step && param.step !== 1 ? ` in steps of ${param.step}` : "";
    label.append(createElement("small", { textContent: `${param.low} to ${param.high}${step}` }));
  }
  return label;
}

function askUser(title, text, yes) {
  getElement("confirm-title").textContent = title;
  getElement("confirm-text").textContent = text;
  getElement("confirm-yes").textContent = yes;
  const dialog = getElement("confirm");
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

let toastTimer = 0;

function showToast(text) {
  getElement("toast").textContent = text;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { getElement("toast").textContent = ""; }, TOAST_MS);
}
