// The forward pass as the PyTorch class that computes it, written from the model's stages.

import { element } from "./elements.js";
import { formatShape } from "./numbers.js";

const LINES = {
  Input: () => "def forward(self, x):",
  Flatten: () => "x = x.flatten(1)",
  Linear: (stage) => `x = self.${stage.name}(x)`,
  ReLU: () => "x = torch.relu(x)",
  Output: () => "return x",
};

/**
 * @param {object} stage of GetModel
 * @returns {string} the line of the forward method that makes it
 */
export function lineOf(stage) {
  return (LINES[stage.operation] ?? LINES.Linear)(stage);
}

/**
 * @param {object[]} stages of GetModel
 * @returns {{element: HTMLElement, lines: Map<string, HTMLElement>, showCount: (count: number) => void}}
 *   the class, the line of each stage, and what sets the batch's N in the comments
 */
export function programOf(stages) {
  const code = element("code");
  const lines = new Map();
  const comments = new Map();

  function add(text, stage = null) {
    const line = element("span.line", {}, text);
    if (stage) {
      comments.set(stage, element("span.comment"));
      line.append(comments.get(stage));
      lines.set(stage.name, line);
    }
    code.append(line);
  }

  add("class Network(nn.Module):");
  add("    def __init__(self):");
  add("        super().__init__()");
  stages.forEach((stage, i) => {
    if (stage.operation === "Linear") add(`        self.${stage.name} = nn.Linear(${stages[i - 1].shape.at(-1)}, ${stage.shape.at(-1)})`);
  });
  add(" ");
  for (const stage of stages) add(`${stage.operation === "Input" ? "    " : "        "}${lineOf(stage)}`, stage);

  function showCount(count) {
    for (const [stage, comment] of comments) comment.textContent = `  # ${formatShape([count, ...stage.shape])}`;
  }
  return { element: element("pre.program", { tabIndex: 0, role: "region", "aria-label": "The network in PyTorch" }, code), lines, showCount };
}
