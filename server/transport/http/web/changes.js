// Changes of the network (interventions of Trace): their text, and the units that a text names.

const TEXTS = {
  zero: () => "=0",
  set: ({ values }) => `=${values.join()}`,
  add: (number) => (number < 0 ? `-=${-number}` : `+=${number}`),
  scale: (number) => `*=${number}`,
  clamp: ({ min = "", max = "" }) => `=${min}..${max}`,
  fromImage: (image) => `=@${image}`,
};
const WORDS = {
  zero: () => "switched off",
  set: ({ values }) => `set to ${values.join(", ")}`,
  add: (number) => `changed by ${number}`,
  scale: (number) => `multiplied by ${number}`,
  clamp: ({ min, max }) => `kept ${[min === undefined ? "" : `from ${min}`, max === undefined ? "" : `up to ${max}`].join(" ").trim()}`,
  fromImage: (image) => `taken from digit ${image + 1}`,
};

/** "3,17,40..49", as the Python client writes it */
function formatPositions(positions) {
  const parts = [];
  for (let start = 0, end; start < positions.length; start = end + 1) {
    end = start;
    while (positions[end + 1] === positions[end] + 1) end += 1;
    if (end < start + 2) end = start;
    parts.push(end > start ? `${positions[start]}..${positions[end]}` : positions[start]);
  }
  return parts.join();
}

function read(intervention, forms) {
  const kind = Object.keys(forms).find((each) => intervention[each] !== undefined);
  return forms[kind](intervention[kind]);
}

/** @returns {string} the change as `forward-client trace --set` takes it: "relu[3,17]=0" */
export function formatChange(intervention) {
  const { stage, units = [], images = [] } = intervention;
  return stage + (units.length ? `[${formatPositions(units)}]` : "") + (images.length ? `@${formatPositions(images)}` : "") + read(intervention, TEXTS);
}

/** @returns {string} the change in words */
export function describeChange(intervention) {
  const { stage, units = [], images = [] } = intervention;
  const which = units.length > 1 ? `${units.length} units` : units.length ? `unit ${units[0]}` : "all units";
  const where = images.length ? ` for digit ${images.map((image) => image + 1).join(", ")}` : "";
  return `${which} of ${stage} ${read(intervention, WORDS)}${where}`;
}

/** @returns {number[]} the positions below `size` that a text like "3, 17, 40..49" names; throws what is wrong with it */
export function parsePositions(text, size) {
  const found = new Set();
  for (const part of text.split(",").filter((each) => each.trim())) {
    const [, first, last = first] = /^\s*(\d+)(?:\s*(?:\.\.|-)\s*(\d+))?\s*$/.exec(part) ?? [];
    if (first === undefined || Number(first) > Number(last)) throw new Error(`Write units like 3, 17, 40..49. This is none: ${part.trim()}`);
    if (Number(last) >= size) throw new Error(`This stage has the units 0 to ${size - 1}; there is no ${last}.`);
    for (let position = Number(first); position <= Number(last); position += 1) found.add(position);
  }
  return [...found];
}
