// What people do: stop, pause, resume, prune and enqueue, each after a question; and a trial's log.

import { by, listed, make, shown } from "./text.js";

const LOG_EVERY_MS = 1000;
const TOAST_MS = 5000;
const MOST_LOG = 200000;

export class Acts {
  constructor(store) {
    this.store = store;
    this.token = "";
    this.opened = null; // number of the trial that is shown
    this.follow = 0;
    by("stop").addEventListener("click", () => this.#stop());
    by("pause").addEventListener("click", () => this.#pause());
    by("enqueue").addEventListener("click", () => this.#enqueue());
    by("enqueue-no").addEventListener("click", () => by("enqueue-dialog").close());
    by("enqueue-form").addEventListener("submit", (event) => this.#sendEnqueue(event));
    by("prune").addEventListener("click", () => this.#prune());
    by("trial").addEventListener("close", () => this.#closeTrial());
  }

  async #stop() {
    const { name, running } = this.store.study;
    const text = `Its ${running} running trials are pruned, and no further one is handed out.`;
    if (await asked(`Stop the study ${name}?`, text, "Stop the study")) this.#send({ act: "stop" });
  }

  async #pause() {
    if (this.store.study.paused) {
      this.#send({ act: "resume" });
      return;
    }
    const text = "Trials that run go on. No other is handed out until you resume.";
    if (await asked(`Pause the study ${this.store.study.name}?`, text, "Pause")) this.#send({ act: "pause" });
  }

  async #prune() {
    const trial = this.opened;
    const text = "Its training is told to stop at its next report. The trial counts as pruned.";
    if (await asked(`Prune trial ${trial}?`, text, "Prune")) this.#send({ act: "prune", trial });
  }

  #enqueue() {
    const { params } = this.store;
    if (!params) {
      toast("The study's search space is not known.");
      return;
    }
    by("enqueue-fields").replaceChildren(...Object.entries(params).map(([name, param]) => field(name, param)));
    by("enqueue-error").textContent = "";
    by("enqueue-dialog").showModal();
  }

  async #sendEnqueue(event) {
    event.preventDefault();
    const params = {};
    for (const input of by("enqueue-fields").querySelectorAll("input, select")) {
      if (input.value === "") continue;
      const { choices } = this.store.params[input.name];
      params[input.name] = choices ? choices[Number(input.value)] : input.value.trim();
    }
    const error = await this.#send({ act: "enqueue", params });
    by("enqueue-error").textContent = error ?? "";
    if (!error) by("enqueue-dialog").close();
  }

  // Returns what went wrong, if something did.
  async #send(act) {
    let error = null;
    try {
      const answer = await fetch("/act", {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-Trialbus-Token": this.token },
        body: JSON.stringify({ study: this.store.study.name, ...act }),
      });
      const found = await answer.json();
      error = found.error ?? null;
      toast(error ?? (found.sent ? `Sent: ${found.event}` : "The hub is away; it gets this when it is back."));
    } catch {
      error = "The monitor does not answer.";
      toast(error);
    }
    return error;
  }

  openTrial(number) {
    this.opened = number;
    by("trial-title").textContent = `Trial ${number}`;
    by("log").textContent = "";
    this.draw();
    by("trial").showModal();
    this.#tail(number, ++this.follow);
  }

  #closeTrial() {
    this.opened = null;
    this.follow += 1;
  }

  draw() {
    const trial = this.opened === null ? null : this.store.trials.get(this.opened);
    if (!trial) return;
    by("prune").hidden = !(this.store.mayAct && trial.state === "running");
    by("prune").disabled = trial.stopping;
    const facts = {
      state: trial.stopping ? "stopping" : trial.state,
      step: trial.step === null ? "" : `${trial.step + 1}${trial.budget ? ` of ${trial.budget}` : ""}`,
      value: shown(trial.value),
      best: shown(trial.best),
      worker: trial.worker && `${trial.worker}, slot ${trial.slot}`,
      params: listed(trial.params),
      metrics: listed(trial.metrics),
      reason: trial.error || trial.why,
    };
    const wide = new Set(["params", "metrics", "reason"]);
    by("trial-facts").replaceChildren(...Object.entries(facts).filter(([, text]) => text).map(([name, text]) => {
      const entry = make("div", { className: wide.has(name) ? "wide" : "" });
      entry.append(make("dt", { textContent: name }));
      entry.append(make("dd", { textContent: text, className: wide.has(name) ? "text" : "" }));
      return entry;
    }));
  }

  async #tail(number, turn) {
    let after = "";
    const log = by("log");
    while (turn === this.follow) {
      try {
        const query = new URLSearchParams({ study: this.store.study.name, trial: number, after });
        const answer = await fetch(`/log?${query}`);
        const found = await answer.json();
        if (turn !== this.follow) return;
        if (found.error || found.why) {
          log.textContent = found.error || found.why;
          return;
        }
        const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
        if (found.text) log.textContent = (log.textContent + found.text).slice(-MOST_LOG);
        if (atEnd) log.scrollTop = log.scrollHeight;
        after = found.end;
      } catch { /* it is told beside the title; go on when it is back */ }
      await new Promise((done) => { setTimeout(done, LOG_EVERY_MS); });
    }
  }
}

function field(name, param) {
  const label = make("label");
  label.append(make("span", { textContent: name }));
  if (param.choices) {
    const select = make("select", { name });
    select.append(make("option", { value: "", textContent: "the sampler's choice" }));
    param.choices.forEach((choice, i) => {
      select.append(make("option", { value: i, textContent: choice === null ? "null" : String(choice) }));
    });
    label.append(select);
  } else {
    label.append(make("input", { name, inputMode: "decimal", autocomplete: "off" }));
    const step = param.step && param.step !== 1 ? ` in steps of ${param.step}` : "";
    label.append(make("small", { textContent: `${param.low} to ${param.high}${step}` }));
  }
  return label;
}

function asked(title, text, yes) {
  by("confirm-title").textContent = title;
  by("confirm-text").textContent = text;
  by("confirm-yes").textContent = yes;
  const dialog = by("confirm");
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done) => {
    dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true });
  });
}

let hiding = 0;

function toast(text) {
  by("toast").textContent = text;
  clearTimeout(hiding);
  hiding = setTimeout(() => { by("toast").textContent = ""; }, TOAST_MS);
}
