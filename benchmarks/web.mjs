// Times of an emitted module and of onnxruntime-web, in turns, one thread each, in this process.
// node web.mjs FOLDER MODEL PACKAGES ROUNDS: FOLDER has net.wasm, Net.weights and ports.json.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { performance } from "node:perf_hooks";
import { pathToFileURL } from "node:url";
import { WASI } from "node:wasi";

const [folder, model, packages, rounds] = process.argv.slice(2);
const ports = JSON.parse(readFileSync(`${folder}/ports.json`));

const wasi = new WASI({ version: "preview1", preopens: { "/net": folder } });
const module = new WebAssembly.Module(readFileSync(`${folder}/net.wasm`));
const instance = new WebAssembly.Instance(module, wasi.getImportObject());
wasi.initialize(instance);
const net = instance.exports;
if (net.net_init() !== 0) throw new Error("Init failed");

const found = createRequire(`${packages}/`).resolve("onnxruntime-web");
const { default: ort } = await import(pathToFileURL(found));
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
const kinds = { float32: Float32Array, float16: Uint16Array, uint8: Uint8Array };
const feeds = {};
for (const { name, type, shape } of ports) {
  const size = shape.reduce((a, b) => a * b, 1);
  feeds[name] = new ort.Tensor(type, new kinds[type](size), shape);
}

const times = { mdlc: [], onnxruntime: [] };
for (let round = -3; round < Number(rounds); ++round) {
  const start = performance.now();
  if (net.net_infer() !== 0) throw new Error("infer failed");
  const middle = performance.now();
  await session.run(feeds);
  const end = performance.now();
  if (round < 0) continue;
  times.mdlc.push(middle - start);
  times.onnxruntime.push(end - middle);
}
console.log(JSON.stringify(times));
process.exit(0);
