// A class that mdlc compiled to WebAssembly, through its functions for C. Runs in browsers and in Node.

const UINT8 = 2;
const MAT_BYTES = 24;
const ALIGNMENT = 64;

// The class makes no system calls; what the runtime library would like to make fails.
const refuse = new Proxy({}, { get: () => () => 52 });

export class Network {
  // wasm, weights: bytes. config: what config.json says of the class.
  static async load(wasm, weights, config) {
    const module = await WebAssembly.compile(wasm);
    const imports = {};
    for (const each of WebAssembly.Module.imports(module)) imports[each.module] = refuse;
    const { exports } = await WebAssembly.instantiate(module, imports);
    if (exports._initialize) exports._initialize();
    return new Network(exports, weights, config);
  }

  constructor(exports, weights, config) {
    this.exports = exports;
    this.config = config;
    this.call = (name, ...rest) => exports[`${config.name}_${name}`](...rest);
    this.handle = this.call("create");
    // The class computes on the weights where they lie.
    const at = this.room(weights.length + ALIGNMENT);
    this.weights = Math.ceil(at / ALIGNMENT) * ALIGNMENT;
    new Uint8Array(exports.memory.buffer).set(weights, this.weights);
    this.check(this.call("init_memory", this.handle, this.weights, weights.length, 0));
    const { width, height, channels, answer } = config;
    this.pixels = this.room(width * height * channels);
    this.mat = this.room(MAT_BYTES);
    this.answer = this.room(answer.bytes);
    if (answer.kind === "mask") this.labels = this.room(width * height);
  }

  room(bytes) {
    const at = this.exports.malloc(bytes);
    if (!at) throw new Error("out of memory");
    new Uint8Array(this.exports.memory.buffer, at, bytes).fill(0);
    return at;
  }

  check(code) {
    if (code < 0) {
      const bytes = new Uint8Array(this.exports.memory.buffer, this.call("error_text", code));
      throw new Error(new TextDecoder().decode(bytes.slice(0, bytes.indexOf(0))));
    }
  }

  // rgba: pixels of the network's width and height, four bytes each. Returns the answer.
  run(rgba) {
    const { width, height, channels, format, answer } = this.config;
    let bytes = new Uint8Array(this.exports.memory.buffer);
    if (format === "rgba8") bytes.set(rgba, this.pixels);
    else {
      const order = { rgb8: [0, 1, 2], bgr8: [2, 1, 0] }[format];
      for (let i = 0, at = this.pixels; i < width * height; i++) {
        const [r, g, b] = [rgba[4 * i], rgba[4 * i + 1], rgba[4 * i + 2]];
        if (order) for (const channel of order) bytes[at++] = rgba[4 * i + channel];
        else bytes[at++] = Math.round(0.299 * r + 0.587 * g + 0.114 * b);
      }
    }
    let view = new DataView(this.exports.memory.buffer);
    [this.pixels, height, width, channels, UINT8, 0].forEach((value, i) => view.setInt32(this.mat + 4 * i, value, true));
    if (answer.kind === "mask") [this.labels, width, height, 0].forEach((value, i) => view.setInt32(this.answer + 4 * i, value, true));
    this.check(this.call("answer", this.handle, this.mat, this.answer));
    if (answer.kind === "mask") return new Uint8Array(this.exports.memory.buffer, this.labels, width * height).slice();
    view = new DataView(this.exports.memory.buffer);
    return read(view, this.answer, answer.layout);
  }
}

// A value at a place in memory: a number, an array, or an object of fields.
function read(view, at, layout) {
  if (layout.count !== undefined) {
    return Array.from({ length: layout.count }, (_, i) => read(view, at + i * layout.step, layout.of));
  }
  if (layout.fields) {
    return Object.fromEntries(Object.entries(layout.fields).map(([name, [offset, of]]) => [name, read(view, at + offset, of)]));
  }
  return { i4: () => view.getInt32(at, true), f4: () => view.getFloat32(at, true), u1: () => view.getUint8(at) }[layout.type]();
}
