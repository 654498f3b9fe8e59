// Numbers and shapes as text. A <data> element holds a number exactly and shows it rounded.

const MINUS = "\u2212";

/**
 * @param {number} value
 * @param {number} [digits] after the point
 * @returns {string} with a true minus sign
 */
export function formatNumber(value, digits = 2) {
  if (Number.isNaN(value)) return "not a number";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : `${MINUS}∞`;
  const size = Math.abs(value);
  const text = size >= 1e6 || (size > 0 && size < 0.5 * 10 ** -digits)
    ? size.toExponential(1).replace("e+", "e")
    : size.toFixed(digits);
  return (value < 0 ? MINUS : "") + text.replace("e-", `e${MINUS}`);
}

/**
 * @param {number} share in 0..1
 * @returns {string} in per cent
 */
export function formatShare(share) {
  return `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
}

/**
 * @param {number[]} shape
 * @returns {string} for example "64 × 784"
 */
export function formatShape(shape) {
  return shape.join(" × ");
}

/**
 * Show a number in a <data> element: its value exactly, its text rounded.
 * @param {HTMLDataElement} element
 * @param {number} value
 * @param {(value: number) => string} [format]
 */
export function showNumber(element, value, format = formatNumber) {
  element.value = String(value);
  const text = format(value);
  if (element.textContent !== text) element.textContent = text;
}
