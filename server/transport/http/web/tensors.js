// Tensors of forward.v1 in JSON: base64 of little-endian elements <-> typed arrays.

const LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
const DECODERS = {
  DATA_TYPE_FLOAT32: float32Values,
  DATA_TYPE_UINT8: (bytes) => bytes,
  DATA_TYPE_FLOAT16: float16Values,
};

/**
 * @param {Uint8Array} bytes
 * @returns {string} their base64
 */
export function toBase64(bytes) {
  if (bytes.toBase64) return bytes.toBase64();
  const parts = [];
  for (let start = 0; start < bytes.length; start += 0x8000) {
    parts.push(String.fromCharCode(...bytes.subarray(start, start + 0x8000)));
  }
  return btoa(parts.join(""));
}

/**
 * @param {string} text base64
 * @returns {Uint8Array} the bytes, in a buffer of their own
 */
export function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/**
 * @param {Uint8Array} bytes binary32, little-endian
 * @returns {Float32Array}
 */
export function float32Values(bytes) {
  if (LITTLE_ENDIAN && bytes.byteOffset % 4 === 0) {
    return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

/**
 * @param {Uint8Array} bytes binary16, little-endian
 * @returns {Float32Array} the same values, exactly
 */
export function float16Values(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Float32Array.from({ length: bytes.length / 2 }, (_, i) => float16(view.getUint16(2 * i, true)));
}

function float16(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/**
 * @param {object|undefined} message a Tensor of forward.v1 in JSON
 * @returns {{shape: number[], values: Float32Array|Uint8Array}|null}
 */
export function decodeTensor(message) {
  if (!message) return null;
  const decode = DECODERS[message.dtype];
  if (!decode) throw new TypeError(`a tensor of type ${message.dtype}`);
  return { shape: (message.shape ?? []).map(Number), values: decode(fromBase64(message.data ?? "")) };
}

/**
 * @param {Uint8Array[]} images pixels 0..255, row-major, all of one shape
 * @param {number[]} shape of one image, [H, W]
 * @returns {object} a UINT8 Tensor of shape [N, H, W] in JSON
 */
export function encodeImages(images, shape) {
  const size = shape.reduce((product, length) => product * length, 1);
  const bytes = new Uint8Array(images.length * size);
  images.forEach((image, index) => bytes.set(image, index * size));
  return { dtype: "DATA_TYPE_UINT8", shape: [images.length, ...shape].map(String), data: toBase64(bytes) };
}
