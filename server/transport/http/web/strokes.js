// Strokes of a pen, and the gray picture that they make.

/** Side of the pad in its own units. */
export const PAD_SIDE = 280;
/** Side of the picture in pixels: seven for one of the 20 that it is scaled to; more would only cost time. */
export const RASTER_SIDE = 140;
const PEN_WIDTH = 22;

/**
 * Draw the part of a stroke that begins at a point. Each piece is drawn by itself, so that the
 * pixels do not depend on how many points come at a time.
 * @param {CanvasRenderingContext2D} context in units of the pad
 * @param {number[]} stroke x0, y0, x1, y1, ...
 * @param {number} [from] index of the first point that was not drawn yet
 */
export function drawStroke(context, stroke, from = 0) {
  context.lineWidth = PEN_WIDTH;
  context.lineCap = "round";
  for (let point = from; point < stroke.length / 2; point += 1) {
    const before = Math.max(0, point - 1);
    context.beginPath();
    context.moveTo(stroke[2 * before], stroke[2 * before + 1]);
    context.lineTo(stroke[2 * point], stroke[2 * point + 1]);
    context.stroke();
  }
}

/**
 * @returns {(strokes: number[][]) => Uint8Array} what makes strokes a picture, light ink on dark,
 *   [RASTER_SIDE, RASTER_SIDE]; strokes that follow on those of the last call are only added
 */
export function createRaster() {
  const canvas = document.createElement("canvas");
  canvas.width = RASTER_SIDE;
  canvas.height = RASTER_SIDE;
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  context.strokeStyle = "white";
  context.scale(RASTER_SIDE / PAD_SIDE, RASTER_SIDE / PAD_SIDE);
  let drawn = [];

  function follows(strokes) {
    return drawn.length <= strokes.length && drawn.every(({ stroke, points }, i) => (
      stroke === strokes[i] && (points === stroke.length / 2 || i === drawn.length - 1)
    ));
  }

  return (strokes) => {
    if (!follows(strokes)) {
      context.fillRect(0, 0, PAD_SIDE, PAD_SIDE);
      drawn = [];
    }
    strokes.forEach((stroke, i) => {
      drawStroke(context, stroke, drawn[i]?.points ?? 0);
    });
    drawn = strokes.map((stroke) => ({ stroke, points: stroke.length / 2 }));
    const { data } = context.getImageData(0, 0, RASTER_SIDE, RASTER_SIDE);
    const gray = new Uint8Array(RASTER_SIDE * RASTER_SIDE);
    for (let i = 0; i < gray.length; i += 1) gray[i] = data[4 * i];
    return gray;
  };
}
