// A packet of the server, and how its classes are laid over its picture.

const UNNAMED = [224, 224, 192]; // ids past the palette, such as "ignore"

/** The packets of an answer of /frames; the layout is in packets.py. */
export function* packets(buffer) {
  const view = new DataView(buffer);
  let at = 0;
  while (at < buffer.byteLength) {
    const length = view.getUint32(at, true);
    const text = new TextDecoder().decode(new Uint8Array(buffer, at + 4, length));
    const header = JSON.parse(text);
    const jpeg = new Uint8Array(buffer, at + 4 + length, header.jpeg);
    at += 4 + length + header.jpeg;
    const labels = new Uint8Array(buffer, at, header.labels);
    at += header.labels;
    yield { header, jpeg, labels };
  }
}

/** A packet's picture as ImageBitmap and its label map, one byte a pixel, row by row. */
export async function decode({ header, jpeg, labels }) {
  const inflated = new Blob([labels]).stream().pipeThrough(new DecompressionStream("deflate"));
  const [bitmap, map] = await Promise.all([
    createImageBitmap(new Blob([jpeg], { type: "image/jpeg" })),
    new Response(inflated).arrayBuffer(),
  ]);
  return { header, bitmap, labels: new Uint8Array(map) };
}

/** Draws a picture with its classes; what is drawn follows the look without a new picture. */
export class Composer {
  #canvas;
  #context;
  #layer = document.createElement("canvas");
  #picture = null;

  constructor(canvas) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d", { alpha: false });
  }

  get picture() {
    return this.#picture;
  }

  show(picture, look) {
    this.#picture?.bitmap.close();
    this.#picture = picture;
    this.draw(look);
  }

  /**
   * @param look opacity 0…1, outline, colours [[r, g, b], …], shown: [bool, …]
   */
  draw(look) {
    if (!this.#picture) return;
    const { bitmap, header } = this.#picture;
    const canvas = this.#canvas;
    if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
      this.#context.imageSmoothingEnabled = false; // labels are not to be mixed
    }
    this.#layer.width = header.columns;
    this.#layer.height = header.rows;
    this.#context.globalAlpha = 1;
    this.#context.drawImage(bitmap, 0, 0);
    this.#lay(look, look.opacity, false);
    if (look.outline) this.#lay(look, 1, true);
  }

  #lay(look, opacity, rims) {
    if (opacity <= 0) return;
    const { header, labels } = this.#picture;
    const context = this.#layer.getContext("2d");
    const image = context.createImageData(header.columns, header.rows);
    const pixels = new Uint32Array(image.data.buffer);
    const table = colourTable(look);
    if (rims) paintRims(pixels, labels, table, header.columns, header.rows);
    else for (let i = 0; i < pixels.length; i++) pixels[i] = table[labels[i]];
    context.putImageData(image, 0, 0);
    this.#context.globalAlpha = opacity;
    this.#context.drawImage(this.#layer, 0, 0, this.#canvas.width, this.#canvas.height);
    this.#context.globalAlpha = 1;
  }
}

function colourTable(look) {
  const table = new Uint32Array(256);
  for (let id = 0; id < 256; id++) {
    const [red, green, blue] = look.colours[id] ?? UNNAMED;
    const shown = look.shown[id] ?? true;
    table[id] = shown ? ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0 : 0;
  }
  return table;
}

/** Pixels of a region that touch another region, inside it. */
function paintRims(pixels, labels, table, columns, rows) {
  for (let y = 0, i = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++, i++) {
      const id = labels[i];
      const rim =
        (x > 0 && labels[i - 1] !== id) ||
        (x + 1 < columns && labels[i + 1] !== id) ||
        (y > 0 && labels[i - columns] !== id) ||
        (y + 1 < rows && labels[i + columns] !== id);
      if (rim) pixels[i] = table[id];
    }
  }
}
