// Tables of numbers with bars, and sums that add up to the last digit shown.

import { element } from "./elements.js";
import { order } from "./prediction.js";

const MINUS = "\u2212";
const DIGITS = 6;
const SCALE = 10 ** DIGITS;

/** @returns {string} the number with its sign, "+0.25"; without one where it shows as 0 */
export function formatSigned(value, digits = 2) {
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return text;
  return (value < 0 ? MINUS : "+") + text;
}

/** @returns {string} the number with two significant digits: "0.0017", "−0.0000018", "3.1e−9" */
export function formatSmall(value) {
  const size = Math.abs(value);
  if (size === 0 || !Number.isFinite(size)) return String(value);
  const isPlain = size >= 1e-7 && size < 1e4;
  const text = isPlain ? value.toFixed(Math.max(0, 1 - Math.floor(Math.log10(size)))) : value.toExponential(1);
  return text.replace("e+", "e").replaceAll("-", MINUS);
}

/** @returns {HTMLDataElement} a number exactly, and its text */
export const numberOf = (value, text) => element("data", { value: String(value) }, text);

/** @returns {HTMLElement} a bar from one value to another, for the eye alone; `low` <= 0 <= `high` are the ends of its track */
export function bar(from, to, low, high) {
  const place = (value) => (100 * (Math.min(high, Math.max(low, value)) - low)) / (high - low || 1);
  const fill = element(to < from ? "i.below" : "i.above");
  const zero = element("b");
  fill.style.left = `${place(Math.min(from, to))}%`;
  fill.style.width = `${Math.abs(place(to) - place(from))}%`;
  zero.style.left = `${place(0)}%`;
  return element("span.amount", { aria: { hidden: "true" } }, fill, zero);
}

/** @returns {HTMLTableElement} of rows of texts and nodes; the first cell of each is its head */
export function dataTable(caption, heads, rows, className = "plain") {
  const isNumber = (column) => rows[0]?.[column]?.localName === "data";
  const head = heads.map((text, column) => (text ? element(isNumber(column) ? "th.of-number" : "th", { scope: "col" }, text) : element("td")));
  const body = rows.map(([first, ...cells]) => (
    element("tr", {}, element("th", { scope: "row" }, first), ...cells.map((cell) => element("td", {}, cell)))));
  return element(
    `table.data.${className}`, {}, element("caption", {}, caption), element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body),
  );
}

/** @returns {HTMLTableElement} a row for each label, that of the largest score in bold; `cells` makes the rest of the i-th */
export function scoreTable(caption, heads, labels, scores, cells) {
  const [winner] = order(scores);
  return dataTable(caption, ["Score of", ...heads], labels.map((label, i) => [i === winner ? element("strong", {}, label) : label, ...cells(i)]));
}

/**
 * A sum of terms [name, value], each with a bar that starts where the one before ends. All is
 * rounded to millionths first, so that what is shown adds up; the rest is what that and float32 rounded.
 * @returns {HTMLTableElement}
 */
export function sumTable(caption, terms, restName, name, total) {
  const whole = (value) => Math.round(value * SCALE);
  const values = terms.map(([, value]) => whole(value));
  values.push(values.reduce((rest, value) => rest - value, whole(total)));
  const ends = values.reduce((list, value) => [...list, list.at(-1) + value], [0]);
  const track = [Math.min(...ends), Math.max(...ends)];
  const rows = [...terms, [restName]].map(([term], i) => (
    [term, bar(ends[i], ends[i + 1], ...track), numberOf(values[i] / SCALE, formatSigned(values[i] / SCALE, DIGITS))]));
  const last = [element("code", {}, name), bar(0, ends.at(-1), ...track), numberOf(total, formatSigned(whole(total) / SCALE, DIGITS).replace("+", ""))];
  return dataTable(caption, ["Part", "", "Adds"], [...rows, last], "sum");
}
