// Elements and colours of the page.

export const getElement = (id) => document.getElementById(id);

export const createElement = (tag, properties = {}) => Object.assign(document.createElement(tag), properties);

export const readStyle = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// A steady colour for each trial, with enough contrast on the light and the dark page.
export function chooseTrialColor(number) {
  const lightness = matchMedia("(prefers-color-scheme: dark)").matches ? 68 : 42;
  return `hsl(${(number * 137.5) % 360} 65% ${lightness}%)`;
}
