// Small things that every part needs.

export const by = (id) => document.getElementById(id);

export const make = (tag, properties = {}) => Object.assign(document.createElement(tag), properties);

// A number with five digits that count; anything else as it is.
export function shown(value) {
  if (value === null || value === undefined) return "";
  return typeof value === "number" ? String(Number(value.toPrecision(5))) : String(value);
}

export const listed = (values) => Object.entries(values ?? {})
  .map(([name, value]) => `${name} ${shown(value)}`).join("  ");

export function duration(seconds) {
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  const two = (n) => String(n).padStart(2, "0");
  const [h, m] = [Math.floor(s / 3600), Math.floor(s / 60) % 60];
  return h ? `${h}:${two(m)}:${two(s % 60)}` : `${m}:${two(s % 60)}`;
}

export const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// A steady colour for each trial, with enough contrast on the page's two backgrounds.
export function color(number) {
  const light = matchMedia("(prefers-color-scheme: dark)").matches ? 68 : 42;
  return `hsl(${(number * 137.5) % 360} 65% ${light}%)`;
}
