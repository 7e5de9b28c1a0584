"use strict";
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Figures carry no colours for text and grid: they take the page's, light or dark.
function themed(layout) {
  const ink = css("--ink"), grid = css("--grid");
  const look = { ...layout, font: { ...layout.font, color: ink } };
  const axis = { gridcolor: grid, zerolinecolor: grid, linecolor: css("--line"), automargin: true };
  for (const key of [...Object.keys(look), "xaxis", "yaxis"])
    if (/^[xy]axis\d*$/.test(key)) look[key] = { ...look[key], ...axis };
  if (look.scene)
    for (const key of ["xaxis", "yaxis", "zaxis"])
      look.scene[key] = { ...look.scene[key], gridcolor: grid, zerolinecolor: grid, color: ink, showbackground: false };
  look.hoverlabel = { ...look.hoverlabel, bgcolor: css("--hover"), bordercolor: css("--line"), font: { ...look.hoverlabel?.font, color: ink } };
  if (innerWidth < 600 && !layout.width) look.margin = { ...look.margin, l: 40, r: 10 };
  return look;
}

const drawn = new Map();
function draw(div) {
  const { data, layout } = JSON.parse(document.getElementById("figure-" + div.dataset.figure).textContent);
  drawn.set(div, { data, layout });
  return Plotly.react(div, data, themed(layout), { responsive: true, displaylogo: false })
    .then(() => { div.dataset.drawn = "yes"; });
}
// A figure is drawn when it comes near, so that a long page opens at once.
const near = new IntersectionObserver(entries => {
  for (const entry of entries) if (entry.isIntersecting) { near.unobserve(entry.target); draw(entry.target); }
}, { rootMargin: "600px" });
document.querySelectorAll("[data-figure]").forEach(div => near.observe(div));
addEventListener("beforeprint", () => document.querySelectorAll("[data-figure]").forEach(div => drawn.has(div) || draw(div)));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
  drawn.forEach(({ data, layout }, div) => Plotly.react(div, data, themed(layout))));
