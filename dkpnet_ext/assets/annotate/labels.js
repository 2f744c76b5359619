// One picture's labels: changes, undo and redo, and saving each change until the server has taken it.
export const client = Array.from(crypto.getRandomValues(new Uint32Array(3)), (n) => n.toString(36)).join("");
// Of the pictures: a server that was started again may show another one.
export const folder = globalThis.document?.documentElement.dataset.folder ?? "";
const AGAIN = 1000; // ms until the next attempt to save

export async function ask(address, body, signal) {
  let response;
  try {
    response = await fetch(address, body === undefined ? {signal} : {method: "POST", body: JSON.stringify(body)});
  } catch {
    throw new Error("the server does not answer; is `dkpnet annotate` still running?");
  }
  const answer = await response.json().catch(() => ({error: "the server failed; its terminal says why"}));
  return {status: response.status, ...(Array.isArray(answer) ? {rows: answer} : answer)};
}

export async function read(address, signal) { // or the error that the server says
  const answer = await ask(address, undefined, signal);
  if (answer.status !== 200) throw Object.assign(new Error(answer.error), {code: answer.status});
  return answer;
}

export function inside([x, y], ring) { // even-odd
  let odd = false;
  for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
    const [[x0, y0], [x1, y1]] = [ring[i], ring[j]];
    if ((y0 > y) !== (y1 > y) && x < x0 + (y - y0) * (x1 - x0) / (y1 - y0)) odd = !odd;
  }
  return odd;
}

const content = ({points, ignore, done}) => ({points, ignore, done});

export class Labels {
  // answer: the server's about the picture; told(kind, message): "saved", "saving", "waiting" or "conflict"; changed():
  // there is something else to draw.
  constructor(answer, told, changed) {
    this.name = answer.name;
    this.now = this.saved = content(answer);
    this.version = answer.version;
    this.told = told;
    this.changed = changed;
    this.before = [];
    this.after = [];
    this.sending = null; // what was sent and not yet answered
    this.busy = false;
    this.met = false; // somebody else's change took the place of ours, and nobody has looked at it since
  }

  take(answer) { // opened again: what the server holds, unless ours is on its way; undo brings ours back
    if (this.unsaved || answer.version === this.version) return;
    this.before.push(this.now);
    this.after = [];
    this.now = this.saved = content(answer);
    this.version = answer.version;
  }

  change(part) {
    this.before.push(this.now);
    this.after = [];
    this.now = {...this.now, ...part};
    this.touched();
  }

  undo() {
    if (!this.before.length) return;
    this.after.push(this.now);
    this.now = this.before.pop();
    this.touched();
  }

  redo() {
    if (!this.after.length) return;
    this.before.push(this.now);
    this.now = this.after.pop();
    this.touched();
  }

  touched() {
    this.met = false;
    this.changed();
    this.save();
  }

  get counted() { // heads outside of the ignored regions
    return this.now.points.filter((point) => !this.now.ignore.some((ring) => inside(point, ring)));
  }

  get unsaved() {
    return this.busy || this.now !== this.saved;
  }

  async save() { // one request at a time; what changes meanwhile goes with the next
    if (this.busy) return;
    this.busy = true;
    while (this.now !== this.saved) {
      const attempt = this.now;
      this.told("saving", "");
      try {
        const answer = await ask(`labels?name=${encodeURIComponent(this.name)}&folder=${folder}`, {base: this.version, ...attempt});
        if (answer.status === 200) {
          [this.version, this.saved, this.sending] = [answer.version, attempt, null];
        } else if (answer.status === 409) {
          this.meet(answer);
        } else {
          throw new Error(answer.error);
        }
      } catch (error) {
        [this.sending, this.saved] = [attempt, null]; // it may have been taken, and its answer lost
        this.told("waiting", error.message);
        await new Promise((resolve) => setTimeout(resolve, AGAIN));
      }
    }
    this.busy = false;
    this.told("saved", "");
  }

  meet(answer) { // the server holds other labels than we began with
    const theirs = content(answer);
    this.version = answer.version;
    if (this.sending && JSON.stringify(theirs) === JSON.stringify(this.sending)) {
      this.saved = this.sending; // our own, whose answer was lost
      return;
    }
    this.before.push(this.now);
    this.after = [];
    this.now = this.saved = theirs;
    this.met = true;
    this.told("conflict", `Somebody else changed ${this.name}. Their heads are shown, your last change is not saved; undo brings yours back.`);
    this.changed();
  }
}
