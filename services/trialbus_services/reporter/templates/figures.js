"use strict";
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Figures carry no colours of text and grid, but get the colours of the light or dark page.
function applyTheme(layout) {
  const ink = css("--ink"), grid = css("--grid");
  const themedLayout = { ...layout, font: { ...layout.font, color: ink } };
  const axis = { gridcolor: grid, zerolinecolor: grid, linecolor: css("--line"), automargin: true };
  for (const key of [...Object.keys(themedLayout), "xaxis", "yaxis"])
    if (/^[xy]axis\d*$/.test(key)) themedLayout[key] = { ...themedLayout[key], ...axis };
  if (themedLayout.scene)
    for (const key of ["xaxis", "yaxis", "zaxis"])
      themedLayout.scene[key] = { ...themedLayout.scene[key], gridcolor: grid, zerolinecolor: grid, color: ink, showbackground: false };
  themedLayout.hoverlabel = { ...themedLayout.hoverlabel, bgcolor: css("--hover"), bordercolor: css("--line"), font: { ...themedLayout.hoverlabel?.font, color: ink } };
  if (innerWidth < 600 && !layout.width) themedLayout.margin = { ...themedLayout.margin, l: 40, r: 10 };
  return themedLayout;
}

const drawn = new Map();
function draw(div) {
  const { data, layout } = JSON.parse(document.getElementById("figure-" + div.dataset.figure).textContent);
  drawn.set(div, { data, layout });
  return Plotly.react(div, data, applyTheme(layout), { responsive: true, displaylogo: false })
    .then(() => { div.dataset.drawn = "yes"; });
}
// A figure is drawn when the reader scrolls near, so that a long page opens at once.
const near = new IntersectionObserver(entries => {
  for (const entry of entries) if (entry.isIntersecting) { near.unobserve(entry.target); draw(entry.target); }
}, { rootMargin: "600px" });
document.querySelectorAll("[data-figure]").forEach(div => near.observe(div));
addEventListener("beforeprint", () => document.querySelectorAll("[data-figure]").forEach(div => drawn.has(div) || draw(div)));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
  drawn.forEach(({ data, layout }, div) => Plotly.react(div, data, applyTheme(layout))));
