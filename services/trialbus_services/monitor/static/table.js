// The table of trials: the running trials on top, then the ended trials, the newest first. Only changed
// rows are filled anew, and only the first rows exist until the user asks for all.

import { chooseTrialColor, createElement, getElement } from "./elements.js";
import { formatNamedValues, formatValue, LIVE_DIGITS } from "./formats.js";

const FIRST_ROWS = 100;
const CELLS = ["number", "state", "step number", "value number", "curve", "slot-name", "params", "reason"];

export class Table {
  constructor(store, openTrial) {
    this.store = store;
    this.openTrial = openTrial;
    this.rows = new Map();
    this.changed = new Set();
    this.maxRows = FIRST_ROWS;
    getElement("more").addEventListener("click", () => {
      this.maxRows = Infinity;
      this.draw();
    });
  }

  markChanged(number) {
    this.changed.add(number);
  }

  clear() {
    this.rows.clear();
    this.changed.clear();
    this.maxRows = FIRST_ROWS;
    getElement("rows").replaceChildren();
  }

  draw() {
    const { trials } = this.store;
    const sorted = [...trials.values()].sort((a, b) => (
      (b.state === "running") - (a.state === "running")
      || (a.state === "running" ? a.number - b.number : (b.ended_at ?? 0) - (a.ended_at ?? 0) || b.number - a.number)
    ));
    const runningCount = sorted.findIndex((trial) => trial.state !== "running");
    const visible = sorted.slice(0, Math.max(this.maxRows, runningCount));
    const body = getElement("rows");
    let next = body.firstElementChild;
    for (const trial of visible) {
      let row = this.rows.get(trial.number);
      if (!row) {
        row = this.#createRow(trial.number);
        this.changed.add(trial.number);
      }
      if (row === next) next = next.nextElementSibling;
      else body.insertBefore(row, next);
      if (this.changed.has(trial.number)) this.#fillRow(row, trial);
    }
    while (next) {
      const surplus = next;
      next = surplus.nextElementSibling;
      this.rows.delete(Number(surplus.dataset.trial));
      surplus.remove();
    }
    this.changed.clear();
    getElement("more").hidden = visible.length === sorted.length;
    getElement("more").textContent = `Show all ${sorted.length} trials`;
  }

  #createRow(number) {
    const row = createElement("tr");
    row.dataset.trial = number;
    row.append(...CELLS.map((name) => createElement("td", { className: name })));
    const button = createElement("button", { type: "button", textContent: number });
    button.setAttribute("aria-label", `Trial ${number}: details and log`);
    button.addEventListener("click", () => this.openTrial(number));
    row.cells[0].append(button);
    const canvas = createElement("canvas", { width: 240, height: 44 });
    canvas.setAttribute("aria-hidden", "true");
    row.cells[4].append(canvas);
    this.rows.set(number, row);
    return row;
  }

  #fillRow(row, trial) {
    const [, state, step, value, , slot, params, reason] = row.cells;
    const attempt = trial.attempt ? `, attempt ${trial.attempt}` : "";
    setText(state, (trial.stopping ? "stopping" : trial.state ?? "") + attempt);
    state.className = `state ${trial.state}`;
    setText(step, trial.step === null ? "" : `${trial.step + 1}${trial.budget ? `/${trial.budget}` : ""}`);
    setText(value, formatValue(trial.value ?? trial.metrics?.[this.store.metric], LIVE_DIGITS));
    setText(slot, trial.worker ? `${trial.worker}/${trial.slot}` : "");
    setText(params, formatNamedValues(trial.params));
    setText(reason, trial.reason ?? "");
    row.dataset.points = trial.pointCount;
    drawSparkline(row.cells[4].firstChild, trial);
  }
}

function setText(cell, text) {
  if (cell.textContent !== text) cell.textContent = text;
}

function drawSparkline(canvas, trial) {
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  context.clearRect(0, 0, width, height);
  const { curve } = trial;
  if (!curve.length) return;
  let [low, high] = [Infinity, -Infinity];
  for (const [, value] of curve) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const first = curve[0][0];
  const span = Math.max(1, (trial.budget ? trial.budget - 1 : curve.at(-1)[0]) - first);
  const x = (step) => 4 + ((width - 8) * (step - first)) / span;
  const y = (value) => height - 5 - ((height - 10) * (value - low)) / (high - low || 1);
  context.strokeStyle = context.fillStyle = chooseTrialColor(trial.number);
  context.lineWidth = 2.5;
  context.beginPath();
  for (const [step, value] of curve) context.lineTo(x(step), y(value));
  context.stroke();
  const [step, value] = curve.at(-1);
  context.beginPath();
  context.arc(x(step), y(value), 4, 0, 7);
  context.fill();
}
