// A canvas for models whose inputs are small square images: draw a digit, and see the answer while drawing.

import { h } from "./dom.js";
import { button } from "./parts.js";
import { Answer, predict, widths } from "./predict.js";

const SIZE = 280;
const MIN_SIDE = 4;
const MAX_SIDE = 64;
// In MNIST (28 x 28), digits fill 20 pixels and are centered by their mass. In smaller images, such as the UCI digits
// (8 x 8), they fill the height.
const LARGE_SIDE = 20;
const LARGE_FILL = 20 / 28;

/** The side of the images that a model takes, or 0 if its inputs are not square images. */
export function sideOf(model) {
  const side = Math.sqrt(widths(model).inputs);
  return Number.isInteger(side) && side >= MIN_SIDE && side <= MAX_SIDE ? side : 0;
}

export function drawingPanel(model, job, signal) {
  const side = sideOf(model);
  const canvas = h("canvas.board", { width: SIZE, height: SIZE, role: "img", "aria-label": "Draw a digit here. Keyboard: arrow keys move the pen, and Shift draws.", tabIndex: 0 });
  const seen = h("canvas.seen", { width: side, height: side, role: "img", "aria-label": "What the model sees" });
  const ink = h(
    "select",
    { "aria-label": "The value of ink in the data of this model", onchange: ask },
    [1, 16, 255].map((value) => h("option", { value, selected: value === inkOf(model, side) }, `0 to ${value}`)),
  );
  const answer = new Answer(model, job);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  let at = null;
  let keys = { x: SIZE / 2, y: SIZE / 4 };
  let isEmpty = true;
  let asking = false;
  let again = false;

  function clear() {
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, SIZE, SIZE);
    isEmpty = true;
    seen.getContext("2d").clearRect(0, 0, side, side);
    answer.clear();
  }

  function line(from, to) {
    pen.strokeStyle = "#fff";
    pen.lineWidth = SIZE / (side >= LARGE_SIDE ? 13 : 9);
    pen.lineCap = pen.lineJoin = "round";
    pen.beginPath();
    pen.moveTo(from.x, from.y);
    pen.lineTo(to.x + 0.01, to.y);
    pen.stroke();
    isEmpty = false;
    ask();
  }

  const position = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.left) * SIZE) / box.width, y: ((event.clientY - box.top) * SIZE) / box.height };
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    at = position(event);
    line(at, at);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!at) return;
    for (const each of event.getCoalescedEvents?.() ?? [event]) {
      const next = position(each);
      line(at, next);
      at = next;
    }
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (at = null));
  const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const move = MOVES[event.key];
    if (!move) return;
    event.preventDefault();
    const clamp = (value) => Math.min(SIZE - 20, Math.max(20, value));
    const next = { x: clamp(keys.x + 10 * move[0]), y: clamp(keys.y + 10 * move[1]) };
    if (event.shiftKey) line(keys, next);
    keys = next;
  });

  /** Asks the model about the drawing. While an answer is on its way, only the newest drawing waits. */
  async function ask() {
    if (isEmpty || signal.aborted) return;
    again = asking;
    if (asking) return;
    asking = true;
    const pixels = shrink(pen.getImageData(0, 0, SIZE, SIZE), side);
    show(seen, pixels, side);
    try {
      const [outputs] = await predict(model, [pixels.map((each) => each * Number(ink.value))], signal);
      if (!isEmpty) answer.update(outputs);
    } catch (error) {
      if (!signal.aborted) answer.fail(error);
    }
    asking = false;
    if (again) ask();
  }

  clear();
  return h(
    "section.card.predict",
    {},
    h("div.card-head", {}, h("h2", {}, "Draw and predict"), h("span.chart-actions", {}, button("Clear", null, clear, "small"))),
    h(
      "div.drawing",
      {},
      canvas,
      h("div.drawing-side", {}, answer.element, h("div.seen-row", {}, seen, h("label.field", {}, h("span", {}, "Pixel values"), ink))),
    ),
  );
}

/** The value of ink in the training data: whole numbers are usually 0 to 255 (or 16), and others are scaled. */
function inkOf(model, side) {
  const dtype = model.train?.inputs?.dtype ?? "";
  if (!dtype.includes("INT")) return 1;
  return side < LARGE_SIDE ? 16 : 255;
}

/** Returns a drawing as `side` x `side` numbers from 0 to 1: its box is scaled and centered as in the usual data sets. */
export function shrink(image, side) {
  const { data, width } = image;
  const ink = (x, y) => data[4 * (y * width + x)] / 255;
  let [left, right, top, bottom] = [width, -1, width, -1];
  for (let y = 0; y < width; y++) {
    for (let x = 0; x < width; x++) {
      if (ink(x, y) > 0.1) [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x), Math.min(top, y), Math.max(bottom, y)];
    }
  }
  if (right < 0) return Array(side * side).fill(0);
  const isLarge = side >= LARGE_SIDE;
  const box = Math.max(right - left, bottom - top) + 1;
  const scale = (side * (isLarge ? LARGE_FILL : 1)) / box;
  let [middleX, middleY] = [(left + right + 1) / 2, (top + bottom + 1) / 2];
  if (isLarge) {
    let [mass, sumX, sumY] = [0, 0, 0];
    for (let y = top; y <= bottom; y++) {
      for (let x = left; x <= right; x++) [mass, sumX, sumY] = [mass + ink(x, y), sumX + x * ink(x, y), sumY + y * ink(x, y)];
    }
    [middleX, middleY] = [sumX / mass, sumY / mass];
  }
  // Each pixel of the result is the mean of the area that it covers.
  const steps = 6;
  return Array.from({ length: side * side }, (_, place) => {
    let sum = 0;
    for (let i = 0; i < steps; i++) {
      for (let j = 0; j < steps; j++) {
        const x = Math.floor(((place % side) + (i + 0.5) / steps - side / 2) / scale + middleX);
        const y = Math.floor((Math.floor(place / side) + (j + 0.5) / steps - side / 2) / scale + middleY);
        if (x >= 0 && y >= 0 && x < width && y < width) sum += ink(x, y);
      }
    }
    return sum / (steps * steps);
  });
}

function show(canvas, pixels, side) {
  const image = new ImageData(side, side);
  pixels.forEach((value, place) => image.data.set([255 * value, 255 * value, 255 * value, 255], 4 * place));
  canvas.getContext("2d").putImageData(image, 0, 0);
}
