// The two figures of the page, drawn by Plotly at a rate that leaves the browser time.

import { chooseTrialColor, getElement, readStyle } from "./elements.js";
import { formatValue, LIVE_DIGITS } from "./formats.js";

const PAUSE_FACTOR = 4; // a pause of four times the drawing: drawing takes a fifth of the time at most
const MIN_PAUSE_MS = 100;
const MAX_RUNNING = 40; // curves of running trials
const MAX_ENDED = 24; // curves of ended trials, drawn faintly

export class Charts {
  constructor(store) {
    this.store = store;
    this.isScheduled = false;
    this.nextDrawAt = 0;
    this.historyKey = ""; // identifies the content of the drawn history
  }

  clear() {
    this.historyKey = "";
    for (const id of ["curves", "history"]) if (window.Plotly && getElement(id).data) Plotly.purge(getElement(id));
  }

  draw() {
    if (this.isScheduled || !window.Plotly) return;
    this.isScheduled = true;
    setTimeout(() => {
      this.isScheduled = false;
      if (getElement("content").hidden) return;
      const start = performance.now();
      this.#drawCurves();
      this.#drawHistory();
      const drawingMs = performance.now() - start;
      this.nextDrawAt = performance.now() + Math.max(MIN_PAUSE_MS, PAUSE_FACTOR * drawingMs);
    }, Math.max(0, this.nextDrawAt - performance.now()));
  }

  #drawCurves() {
    const reported = [...this.store.trials.values()].filter((trial) => trial.curve.length);
    const sign = this.store.study?.direction === "minimize" ? 1 : -1;
    const getBest = (trial) => trial.best ?? 0;
    const running = reported.filter((trial) => trial.state === "running")
      .sort((a, b) => sign * (getBest(a) - getBest(b)));
    const drawn = running.slice(0, MAX_RUNNING);
    getElement("curves-note").textContent = running.length > MAX_RUNNING ? `the best ${MAX_RUNNING} of ${running.length} running trials` : "";
    const ended = reported.filter((trial) => trial.state !== "running")
      .sort((a, b) => a.ended_at - b.ended_at).slice(-MAX_ENDED);
    // One trace with gaps is drawn faster than a trace for each trial.
    const endedTrace = {
      x: ended.flatMap(({ curve }) => [...curve.map(([step]) => step), null]),
      y: ended.flatMap(({ curve }) => [...curve.map(([, value]) => value), null]),
      mode: "lines",
      line: { color: readStyle("--soft"), width: 1 },
      opacity: 0.4,
      hoverinfo: "skip",
    };
    const traces = drawn.map((trial) => ({
      x: trial.curve.map(([step]) => step),
      y: trial.curve.map(([, value]) => value),
      name: `trial ${trial.number}`,
      mode: trial.curve.length > 1 ? "lines" : "markers",
      line: { color: chooseTrialColor(trial.number), width: 2 },
      marker: { color: chooseTrialColor(trial.number), size: 5 },
      hovertemplate: "step %{x}: %{y}",
    }));
    this.#plot("curves", [endedTrace, ...traces], "step", this.store.metric);
  }

  #drawHistory() {
    const complete = [...this.store.trials.values()]
      .filter((trial) => trial.state === "complete" && typeof trial.value === "number")
      .sort((a, b) => a.ended_at - b.ended_at);
    const historyKey = `${this.store.study?.name} ${complete.length} ${readStyle("--good")}`;
    if (historyKey === this.historyKey) return;
    this.historyKey = historyKey;
    const chooseBetter = this.store.study?.direction === "minimize" ? Math.min : Math.max;
    const x = complete.map((_, i) => i + 1);
    let best = null;
    const bestSoFar = complete.map(({ value }) => {
      best = best === null ? value : chooseBetter(best, value);
      return best;
    });
    const points = {
      x,
      y: complete.map(({ value }) => value),
      text: complete.map(({ number, value }) => `trial ${number}: ${formatValue(value, LIVE_DIGITS)}`),
      mode: "markers",
      marker: { color: readStyle("--soft"), size: 5 },
      hovertemplate: "%{text}<extra></extra>",
    };
    const line = {
      x, y: bestSoFar, mode: "lines", line: { color: readStyle("--good"), width: 2, shape: "hv" }, hoverinfo: "skip",
    };
    this.#plot("history", [points, line], "complete trials", "");
  }

  #plot(id, traces, x, y) {
    const createAxis = (title) => ({
      title: { text: escapeMarkup(title), standoff: 8 },
      gridcolor: readStyle("--grid"),
      linecolor: readStyle("--line"),
      zeroline: false,
      automargin: true,
    });
    Plotly.react(getElement(id), traces, {
      margin: { l: 8, r: 8, t: 6, b: 8 },
      paper_bgcolor: "transparent",
      plot_bgcolor: "transparent",
      font: { color: readStyle("--soft"), family: "system-ui, sans-serif", size: 12 },
      showlegend: false,
      hovermode: "closest",
      xaxis: createAxis(x),
      yaxis: createAxis(y),
      uirevision: this.store.study?.name,
    }, { displayModeBar: false, responsive: true });
  }
}

// Plotly reads titles as a subset of HTML.
const escapeMarkup = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
