// The two figures, drawn by Plotly no more often than it can.

import { by, color, shown, style } from "./text.js";

const SHARE = 4; // drawing takes a fifth of the time at most, the rest is for everything else
const LEAST_MS = 100;
const MOST = 40; // of those that run
const ENDED = 24; // curves of trials that ended, drawn faintly

export class Charts {
  constructor(store) {
    this.store = store;
    this.waiting = false;
    this.after = 0;
    this.drawn = ""; // what the history shows
  }

  clear() {
    this.drawn = "";
    for (const id of ["curves", "history"]) if (window.Plotly && by(id).data) Plotly.purge(by(id));
  }

  draw() {
    if (this.waiting || !window.Plotly) return;
    this.waiting = true;
    setTimeout(() => {
      this.waiting = false;
      if (by("content").hidden) return;
      const began = performance.now();
      this.#curves();
      this.#history();
      const took = performance.now() - began;
      this.after = performance.now() + Math.max(LEAST_MS, SHARE * took);
    }, Math.max(0, this.after - performance.now()));
  }

  #curves() {
    const all = [...this.store.trials.values()].filter((trial) => trial.curve.length);
    const better = this.store.study?.direction === "minimize" ? 1 : -1;
    const at = (trial) => trial.best ?? 0;
    const running = all.filter((trial) => trial.state === "running")
      .sort((a, b) => better * (at(a) - at(b)));
    const drawn = running.slice(0, MOST);
    by("curves-note").textContent = running.length > MOST ? `the best ${MOST} of ${running.length} that run` : "";
    const ended = all.filter((trial) => trial.state !== "running")
      .sort((a, b) => a.ended_at - b.ended_at).slice(-ENDED);
    // One trace with gaps costs less than one for each.
    const faint = {
      x: ended.flatMap(({ curve }) => [...curve.map(([step]) => step), null]),
      y: ended.flatMap(({ curve }) => [...curve.map(([, value]) => value), null]),
      mode: "lines",
      line: { color: style("--soft"), width: 1 },
      opacity: 0.4,
      hoverinfo: "skip",
    };
    const traces = drawn.map((trial) => ({
      x: trial.curve.map(([step]) => step),
      y: trial.curve.map(([, value]) => value),
      name: `trial ${trial.n}`,
      mode: trial.curve.length > 1 ? "lines" : "markers",
      line: { color: color(trial.n), width: 2 },
      marker: { color: color(trial.n), size: 5 },
      hovertemplate: "step %{x}: %{y}",
    }));
    this.#plot("curves", [faint, ...traces], "step", this.store.metric);
  }

  #history() {
    const complete = [...this.store.trials.values()]
      .filter((trial) => trial.state === "complete" && typeof trial.value === "number")
      .sort((a, b) => a.ended_at - b.ended_at);
    const drawn = `${this.store.study?.name} ${complete.length} ${style("--good")}`;
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    const better = this.store.study?.direction === "minimize" ? Math.min : Math.max;
    const x = complete.map((_, i) => i + 1);
    let best = null;
    const bests = complete.map(({ value }) => { best = best === null ? value : better(best, value); return best; });
    const points = {
      x,
      y: complete.map(({ value }) => value),
      text: complete.map(({ n, value }) => `trial ${n}: ${shown(value)}`),
      mode: "markers",
      marker: { color: style("--soft"), size: 5 },
      hovertemplate: "%{text}<extra></extra>",
    };
    const line = {
      x, y: bests, mode: "lines", line: { color: style("--good"), width: 2, shape: "hv" }, hoverinfo: "skip",
    };
    this.#plot("history", [points, line], "complete trials", "");
  }

  #plot(id, traces, x, y) {
    const axis = (title) => ({
      title: { text: escaped(title), standoff: 8 },
      gridcolor: style("--grid"),
      linecolor: style("--line"),
      zeroline: false,
      automargin: true,
    });
    Plotly.react(by(id), traces, {
      margin: { l: 8, r: 8, t: 6, b: 8 },
      paper_bgcolor: "transparent",
      plot_bgcolor: "transparent",
      font: { color: style("--soft"), family: "system-ui, sans-serif", size: 12 },
      showlegend: false,
      hovermode: "closest",
      xaxis: axis(x),
      yaxis: axis(y),
      uirevision: this.store.study?.name,
    }, { displayModeBar: false, responsive: true });
  }
}

// Plotly takes text for a little HTML of its own.
const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
