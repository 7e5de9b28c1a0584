// The table of trials: those that run on top, then the newest that ended. Only rows that changed are
// touched, and no more rows are made than somebody wants to see.

import { by, color, listed, make, shown } from "./text.js";

const MOST = 100;
const CELLS = ["number", "state", "step number", "value number", "curve", "place", "params", "why"];

export class Table {
  constructor(store, open) {
    this.store = store;
    this.open = open;
    this.rows = new Map();
    this.touched = new Set();
    this.most = MOST;
    by("more").addEventListener("click", () => {
      this.most = Infinity;
      this.draw();
    });
  }

  touch(number) {
    this.touched.add(number);
  }

  clear() {
    this.rows.clear();
    this.touched.clear();
    this.most = MOST;
    by("rows").replaceChildren();
  }

  draw() {
    const { trials } = this.store;
    const order = [...trials.values()].sort((a, b) => (
      (b.state === "running") - (a.state === "running")
      || (a.state === "running" ? a.n - b.n : (b.ended_at ?? 0) - (a.ended_at ?? 0) || b.n - a.n)
    ));
    const running = order.findIndex((trial) => trial.state !== "running");
    const wanted = order.slice(0, Math.max(this.most, running));
    const body = by("rows");
    let place = body.firstElementChild;
    for (const trial of wanted) {
      let row = this.rows.get(trial.n);
      if (!row) {
        row = this.#make(trial.n);
        this.touched.add(trial.n);
      }
      if (row === place) place = place.nextElementSibling;
      else body.insertBefore(row, place);
      if (this.touched.has(trial.n)) this.#fill(row, trial);
    }
    while (place) {
      const next = place.nextElementSibling;
      this.rows.delete(Number(place.dataset.trial));
      place.remove();
      place = next;
    }
    this.touched.clear();
    by("more").hidden = wanted.length === order.length;
    by("more").textContent = `Show all ${order.length} trials`;
  }

  #make(number) {
    const row = make("tr");
    row.dataset.trial = number;
    row.append(...CELLS.map((name) => make("td", { className: name })));
    const button = make("button", { type: "button", textContent: number });
    button.setAttribute("aria-label", `Trial ${number}: details and log`);
    button.addEventListener("click", () => this.open(number));
    row.cells[0].append(button);
    const canvas = make("canvas", { width: 240, height: 44 });
    canvas.setAttribute("aria-hidden", "true");
    row.cells[4].append(canvas);
    this.rows.set(number, row);
    return row;
  }

  #fill(row, trial) {
    const [, state, step, value, , place, params, why] = row.cells;
    const again = trial.attempt ? `, try ${trial.attempt + 1}` : "";
    set(state, (trial.stopping ? "stopping" : trial.state ?? "") + again);
    state.className = `state ${trial.state}`;
    set(step, trial.step === null ? "" : `${trial.step + 1}${trial.budget ? `/${trial.budget}` : ""}`);
    set(value, shown(trial.value ?? trial.metrics?.[this.store.metric]));
    set(place, trial.worker ? `${trial.worker}/${trial.slot}` : "");
    set(params, listed(trial.params));
    set(why, trial.why ?? "");
    row.dataset.points = trial.seen;
    spark(row.cells[4].firstChild, trial);
  }
}

function set(cell, text) {
  if (cell.textContent !== text) cell.textContent = text;
}

function spark(canvas, trial) {
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
  context.strokeStyle = context.fillStyle = color(trial.n);
  context.lineWidth = 2.5;
  context.beginPath();
  for (const [step, value] of curve) context.lineTo(x(step), y(value));
  context.stroke();
  const [step, value] = curve.at(-1);
  context.beginPath();
  context.arc(x(step), y(value), 4, 0, 7);
  context.fill();
}
