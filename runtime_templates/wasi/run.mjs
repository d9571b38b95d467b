// Runs a WebAssembly program with WASI in node: node run.mjs PROGRAM [ARGUMENT...]
import { readFileSync } from "node:fs";
import { setFlagsFromString } from "node:v8";
import { WASI } from "node:wasi";

const [program, ...words] = process.argv.slice(2);
const wasi = new WASI({
  version: "preview1",
  args: [program, ...words],
  preopens: { "/": "/" },
  returnOnExit: true,
});
const bytes = readFileSync(program);
// Engines before V8 11.4 have relaxed instructions, but must be told.
if (!WebAssembly.validate(bytes)) setFlagsFromString("--experimental-wasm-relaxed-simd");
const module = new WebAssembly.Module(bytes);
process.exitCode = wasi.start(new WebAssembly.Instance(module, wasi.getImportObject()));
