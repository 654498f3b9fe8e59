// Calls of forward.v1.ForwardService by the Connect protocol, in JSON.

import { decodeTensor } from "./tensors.js";

const SERVICE = "forward.v1.ForwardService";
const TOKEN_KEY = "forward-token";
const HTTP_CODES = {
  401: "unauthenticated", 403: "permission_denied", 404: "unimplemented", 413: "resource_exhausted",
  429: "unavailable", 502: "unavailable", 503: "unavailable", 504: "unavailable",
};

/** An error of a call: a Connect code, or "unreachable" where no answer came. */
export class ApiError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {{details?: object[], status?: number, retrySeconds?: number|null}} [more]
   */
  constructor(code, message, { details = [], status = 0, retrySeconds = null } = {}) {
    super(message);
    this.name = "ApiError";
    Object.assign(this, { code, details, status, retrySeconds });
  }
}

/**
 * @param {string} [base] address that the service lies under
 * @returns {object} one function for each method; every one rejects with ApiError, or with
 *   AbortError when a later call with the same `key`, or its `signal`, ended it
 */
export function createApi(base = document.baseURI) {
  const running = new Map();
  let token = readToken();

  async function call(method, request = {}, { key = null, signal = null } = {}) {
    const controller = new AbortController();
    if (key) {
      running.get(key)?.abort();
      running.set(key, controller);
    }
    try {
      const signals = signal ? AbortSignal.any([signal, controller.signal]) : controller.signal;
      return await send(new URL(`${SERVICE}/${method}`, base), request, token, signals);
    } finally {
      if (running.get(key) === controller) running.delete(key);
    }
  }

  return {
    call,
    setToken(text) {
      token = text;
      try {
        sessionStorage.setItem(TOKEN_KEY, text);
      } catch { /* a browser without storage asks again after a reload */ }
    },
    getModel: async (options) => decodeModel(await call("GetModel", {}, options)),
    trace: async (request, options) => decodeTrace(await call("Trace", request, options)),
    attribute: async (request, options) => decodeAttribution(await call("Attribute", request, options)),
    compare: (request, options) => call("Compare", request, options),
    getTrainingHistory: (options) => call("GetTrainingHistory", {}, options),
    getParameters: async (request, options) => decodeParameters(await call("GetParameters", request, options)),
  };
}

function readToken() {
  try {
    return sessionStorage.getItem(TOKEN_KEY) ?? "";
  } catch {
    return "";
  }
}

async function send(url, request, token, signal) {
  const headers = { "Content-Type": "application/json", "Connect-Protocol-Version": "1" };
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  let body;
  try {
    response = await fetch(url, { method: "POST", headers, body: JSON.stringify(request), signal, cache: "no-store" });
    body = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("unreachable", "The server does not answer.");
  }
  const message = parse(body);
  if (response.ok && message) return message;
  throw errorOf(response, message);
}

function parse(body) {
  try {
    return JSON.parse(body);
  } catch {
    return null;
  }
}

function errorOf(response, message) {
  const details = message?.details ?? [];
  return new ApiError(
    message?.code ?? HTTP_CODES[response.status] ?? "unknown",
    message?.message ?? `The server answered with status ${response.status}.`,
    { details, status: response.status, retrySeconds: retrySeconds(response.headers.get("Retry-After"), details) },
  );
}

function retrySeconds(header, details) {
  const info = details.find((detail) => detail.type === "google.rpc.RetryInfo")?.debug;
  const seconds = Number.parseFloat(header ?? info?.retryDelay ?? "");
  return Number.isFinite(seconds) ? seconds : null;
}

function decodeModel(message) {
  return {
    ...message,
    model: decodeIdentity(message.model),
    input: { ...message.input, shape: message.input.shape.map(Number) },
    stages: message.stages.map((stage) => ({
      ...stage,
      shape: stage.shape.map(Number),
      flopsPerImage: Number(stage.flopsPerImage ?? 0),
      parameterCount: Number(stage.parameterCount ?? 0),
    })),
    labels: message.labels ?? [],
    parameterCount: Number(message.parameterCount ?? 0),
    limits: {
      maxBatchImages: Number(message.limits.maxBatchImages),
      maxResponseBytes: Number(message.limits.maxResponseBytes),
    },
    metrics: (message.metrics ?? []).map((metric) => ({ value: 0, ...metric })),
    manifestSha256: message.manifestSha256 ?? "",
  };
}

function decodeIdentity(message) {
  return { name: message.name, version: Number(message.version), runtime: message.runtime };
}

/** A trace: shapes as numbers, tensors decoded, absent numbers as 0, floats as float32. */
function decodeTrace(message) {
  return {
    model: decodeIdentity(message.model),
    logits: decodeTensor(message.logits),
    unchangedLogits: decodeTensor(message.unchangedLogits),
    stages: message.stages.map((stage) => ({
      name: stage.name,
      operation: stage.operation,
      shape: stage.shape.map(Number),
      flopsPerImage: Number(stage.flopsPerImage ?? 0),
      statistics: decodeStatistics(stage.statistics),
      values: decodeTensor(stage.values)?.values ?? null,
      changed: stage.changed ?? false,
      bound: stage.bound === undefined ? null : Number(stage.bound),
    })),
    certificates: (message.certificates ?? []).map((certificate) => ({
      predictedClass: certificate.predictedClass ?? 0,
      nearestClass: certificate.nearestClass ?? 0,
      gap: Number(certificate.gap ?? 0),
      bound: Number(certificate.bound ?? 0),
      certified: certificate.certified ?? false,
    })),
    queueSeconds: Number(message.queueSeconds ?? 0),
    runSeconds: Number(message.runSeconds ?? 0),
  };
}

function decodeStatistics(message) {
  const float = (value) => Math.fround(Number(value ?? 0));
  return {
    min: float(message.min),
    max: float(message.max),
    mean: float(message.mean),
    standardDeviation: float(message.standardDeviation),
    l2Norm: float(message.l2Norm),
    zeroShare: float(message.zeroShare),
    nanCount: Number(message.nanCount ?? 0),
    infinityCount: Number(message.infinityCount ?? 0),
  };
}

function decodeAttribution(message) {
  return {
    ...message,
    contributions: decodeTensor(message.contributions),
    stageContributions: decodeTensor(message.stageContributions),
  };
}

function decodeParameters(message) {
  return Object.fromEntries((message.stages ?? []).map((stage) => {
    const weight = decodeTensor(stage.weight);
    return [stage.stage, { weight: weight.values, bias: decodeTensor(stage.bias).values, shape: weight.shape }];
  }));
}
