// The forward pass, computed once more on this page: in float32, one multiplication and one
// addition at a time, in the order of the inputs.

const OPERATIONS = {
  Input: (inputs) => inputs,
  Flatten: (inputs) => inputs,
  Linear: linear,
  ReLU: (inputs) => inputs.map((value) => (value > 0 ? value : 0)),
  Output: (inputs) => inputs,
};

function linear(inputs, { weight, bias }) {
  return bias.map((offset, output) => {
    let sum = 0;
    for (let input = 0, at = output * inputs.length; input < inputs.length; input += 1, at += 1) {
      sum = Math.fround(sum + Math.fround(weight[at] * inputs[input]));
    }
    return Math.fround(sum + offset);
  });
}

/** @returns {Map<string, Float32Array>} the output of each stage, of parameters {[stage]: {weight [outputs, inputs], bias}} and pixels 0..1 */
export function forward(stages, parameters, pixels) {
  const outputs = new Map();
  let values = pixels;
  for (const { name, operation } of stages) {
    if (!OPERATIONS[operation]) throw new Error(`this page does not know the operation ${operation}`);
    values = OPERATIONS[operation](values, parameters[name]);
    outputs.set(name, values);
  }
  return outputs;
}

/** @returns {Float32Array} pixels 0..255 as 0..1, to the bit as the server divides them */
export const pixelsOf = (image) => Float32Array.from(image, (value) => value / 255);

/** @returns {Float64Array} each input times its weight to the unit: exact, for a double holds the product of two floats */
export function products(weight, unit, inputs) {
  return Float64Array.from(inputs, (input, i) => weight[unit * inputs.length + i] * input);
}

/** @returns {number} the largest distance of two values at the same place; NaN if there is a NaN */
export function largestDifference(one, other) {
  return one.reduce((most, value, i) => Math.max(most, Math.abs(value - other[i])), 0);
}

export const sumOf = (values) => values.reduce((sum, value) => sum + value, 0);
