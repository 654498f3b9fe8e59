// Reading a trace for one image.

/** @returns {{trace, image: number, parameters}|null} what the panels show; null while it is still to come */
export function shownOf({ trace, selected, parameters }) {
  return trace && parameters && selected < trace.logits.shape[0] ? { trace, image: selected, parameters } : null;
}

/** @returns {Float32Array} a row of a tensor {shape, values} */
export function rowOf({ shape, values }, row) {
  const size = values.length / shape[0];
  return values.subarray(row * size, (row + 1) * size);
}

/** @returns {Float32Array} the output of a stage for an image, flattened */
export function valuesOf(trace, name, image) {
  return rowOf(trace.stages.find((stage) => stage.name === name), image);
}

/** @returns {boolean} whether one of the interventions changes that value of the stage itself */
export function isChanged(interventions, stage, unit, image) {
  const has = (positions, position) => !positions?.length || positions.includes(position);
  return interventions.some((one) => one.stage === stage && has(one.units, unit) && has(one.images, image));
}

/** @returns {object[]} the interventions with the unit switched off, or without that if it was */
export function toggleUnit(interventions, stage, unit) {
  const others = interventions.filter((one) => !(one.stage === stage && one.zero && String(one.units) === String(unit)));
  return others.length < interventions.length ? others : [...interventions, { stage, units: [unit], zero: true }];
}

/** @returns {{hidden: {inputs, linear, relu}|null, score: {inputs, linear, output}}} the stages that the arithmetic of a unit, and of a score, is about */
export function partsOf(stages) {
  const at = (stage, step) => stages[stages.indexOf(stage) + step];
  const linears = stages.filter(({ operation }) => operation === "Linear");
  const [first, last] = [linears[0], linears.at(-1)];
  return {
    hidden: first === last ? null : { inputs: at(first, -1), linear: first, relu: at(first, 1) },
    score: { inputs: at(last, -1), linear: last, output: stages.at(-1) },
  };
}
