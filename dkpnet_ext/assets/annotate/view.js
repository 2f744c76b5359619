// A picture on a canvas that can be zoomed and panned. One ImageBitmap and its halves: of 20 megapixels that is 107 MB, and
// only the part that shows is drawn, so no tiles are needed.
const LEAST_SIDE = 1200; // px; no smaller half is made

export class View {
  constructor(canvas) {
    this.canvas = canvas;
    this.levels = []; // the picture, its half, its quarter ...
    this.size = [1, 1]; // width and height in the picture's own pixels
    this.scale = 1; // screen pixels per picture pixel
    this.origin = [0, 0]; // of the picture on the screen
    this.turn = 0; // the latest picture that was opened, or closed: an earlier one that is decoded later is not shown
  }

  async open(blob, size) {
    this.close();
    const mine = this.turn;
    const levels = [await createImageBitmap(blob)];
    const [w, h] = [levels[0].width, levels[0].height];
    // A picture that the server made smaller has the same shape; one that was replaced meanwhile has not.
    if (Math.abs(w / h / (size[0] / size[1]) - 1) > 2 / Math.min(w, h)) {
      levels[0].close();
      throw new Error(`the picture has ${w} × ${h} px, not ${size.join(" × ")}: was it replaced?`);
    }
    while (mine === this.turn && Math.min(levels.at(-1).width, levels.at(-1).height) >= 2 * LEAST_SIDE) {
      const last = levels.at(-1);
      levels.push(await createImageBitmap(last, {
        resizeWidth: Math.round(last.width / 2), resizeHeight: Math.round(last.height / 2), resizeQuality: "high",
      }));
    }
    if (mine !== this.turn) {
      for (const level of levels) level.close();
      return;
    }
    this.levels = levels;
    this.size = size;
    this.fit();
  }

  close() {
    this.turn++;
    for (const level of this.levels) level.close();
    this.levels = [];
  }

  box() {
    return [this.canvas.clientWidth, this.canvas.clientHeight];
  }

  fitting() {
    const [w, h] = this.box();
    return Math.min(w / this.size[0], h / this.size[1]);
  }

  fit() {
    const [w, h] = this.box();
    this.scale = this.fitting();
    this.origin = [(w - this.size[0] * this.scale) / 2, (h - this.size[1] * this.scale) / 2];
  }

  toScreen([x, y]) {
    return [this.origin[0] + x * this.scale, this.origin[1] + y * this.scale];
  }

  toPicture([x, y]) {
    return [(x - this.origin[0]) / this.scale, (y - this.origin[1]) / this.scale];
  }

  zoom(factor, at) {
    const fixed = this.toPicture(at);
    const least = Math.min(this.fitting(), 1);
    this.scale = Math.min(Math.max(this.scale * factor, least), Math.max(16, this.fitting()));
    this.origin = [at[0] - fixed[0] * this.scale, at[1] - fixed[1] * this.scale];
    this.keep();
  }

  pan(dx, dy) {
    this.origin = [this.origin[0] + dx, this.origin[1] + dy];
    this.keep();
  }

  keep() { // the picture does not leave the screen; a small one stays in the middle
    this.origin = this.origin.map((at, axis) => {
      const room = this.box()[axis] - this.size[axis] * this.scale;
      return room >= 0 ? room / 2 : Math.min(0, Math.max(room, at));
    });
  }

  reveal(point) { // move until a point of the picture shows, well inside
    const [x, y] = this.toScreen(point);
    const [w, h] = this.box();
    const margin = Math.min(60, w / 4, h / 4);
    const shift = (at, length) => Math.max(0, margin - at) - Math.max(0, at - (length - margin));
    this.pan(shift(x, w), shift(y, h));
  }

  shows([x, y]) {
    const [u, v] = this.toScreen([x, y]);
    const [w, h] = this.box();
    return u >= 0 && v >= 0 && u <= w && v <= h;
  }

  draw(over) { // the picture, then what `over(context)` draws in screen pixels
    const ratio = devicePixelRatio || 1;
    const [w, h] = this.box();
    const [deviceW, deviceH] = [Math.round(w * ratio), Math.round(h * ratio)];
    if (this.canvas.width !== deviceW || this.canvas.height !== deviceH) {
      [this.canvas.width, this.canvas.height] = [deviceW, deviceH];
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, w, h);
    if (!this.levels.length) return;
    const needed = this.size[0] * this.scale * ratio;
    const level = this.levels.findLast((one) => one.width >= needed) ?? this.levels[0];
    const [left, top] = this.toPicture([0, 0]).map((v) => Math.max(0, v));
    const [right, bottom] = this.toPicture([w, h]).map((v, axis) => Math.min(this.size[axis], v));
    const step = [level.width / this.size[0], level.height / this.size[1]];
    const [u, v] = this.toScreen([left, top]);
    context.imageSmoothingEnabled = this.scale * ratio < 4;
    context.drawImage(level, left * step[0], top * step[1], (right - left) * step[0], (bottom - top) * step[1],
      u, v, (right - left) * this.scale, (bottom - top) * this.scale);
    over(context);
  }
}
