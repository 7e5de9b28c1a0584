// Text formats of values and durations, as formats.py has them; a browser test compares the two.

export const VALUE_DIGITS = 6; // significant digits of results
export const LIVE_DIGITS = 5; // significant digits of values that still change

const LARGEST_WHOLE = 1e15;

export function formatValue(value, digits) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number" || !Number.isFinite(value)) return String(value);
  if (Number.isInteger(value) && Math.abs(value) < LARGEST_WHOLE) return String(value);
  const [mantissa, exponent] = value.toExponential(digits - 1).split("e").map(Number);
  if (exponent >= -4 && exponent < digits) return String(Number(value.toPrecision(digits)));
  return `${mantissa}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
}

export const formatNamedValues = (values, digits = LIVE_DIGITS) => Object.entries(values ?? {})
  .map(([name, value]) => `${name}=${formatValue(value, digits)}`).join("  ");

export function formatDone(nDone, nTrials) {
  return nDone > (nTrials ?? Infinity) ? String(nDone) : `${nDone}/${nTrials ?? "?"}`;
}

export function formatClock(seconds) {
  const whole = Math.round(seconds);
  const pad = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
}
