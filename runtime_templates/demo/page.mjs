import { Network } from "./network.mjs";

const COLOURS = ["#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#000075"];
const find = (id) => document.getElementById(id);
const view = find("view").getContext("2d");
const bytes = async (path) => new Uint8Array(await (await fetch(path)).arrayBuffer());

const config = await (await fetch("config.json")).json();
const network = await Network.load(await bytes("network.wasm"), await bytes("network.weights"), config);
find("name").textContent = config.name;
find("about").textContent = `${config.model}, ${config.width} x ${config.height}, ${config.answer.kind}, compiled to WebAssembly by mdlc; nothing leaves this page`;

// What the network sees: the whole picture at its own size.
const seen = Object.assign(document.createElement("canvas"), { width: config.width, height: config.height });
const small = seen.getContext("2d", { willReadFrequently: true });
const label = (number) => config.labels[number] ?? `class ${number}`;
const colour = (number) => COLOURS[number % COLOURS.length];
const times = [];

function look(source, width, height) {
  small.drawImage(source, 0, 0, config.width, config.height);
  const pixels = small.getImageData(0, 0, config.width, config.height);
  const start = performance.now();
  const answer = network.run(pixels.data);
  times.push(performance.now() - start);
  if (times.length > 30) times.shift();
  const median = [...times].sort((a, b) => a - b)[times.length >> 1];
  find("time").textContent = `${median.toFixed(1)} ms an inference`;
  view.canvas.width = width;
  view.canvas.height = height;
  view.drawImage(source, 0, 0, width, height);
  show(answer, width / config.width, height / config.height);
}

function show(answer, x, y) {
  const lines = [];
  const kind = config.answer.kind;
  view.lineWidth = Math.max(2, view.canvas.width / 250);
  view.font = `${Math.max(12, view.canvas.width / 40)}px system-ui, sans-serif`;
  if (kind === "classes") {
    for (const each of answer.item.slice(0, answer.count)) lines.push([each.score.toFixed(3), label(each.label)]);
  } else if (kind === "boxes") {
    for (const box of answer.box.slice(0, answer.count)) {
      const text = `${label(box.label)} ${box.score.toFixed(2)}`;
      lines.push([box.score.toFixed(3), label(box.label)]);
      view.strokeStyle = view.fillStyle = colour(box.label);
      view.strokeRect(box.left * x, box.top * y, (box.right - box.left) * x, (box.bottom - box.top) * y);
      const size = view.measureText(text).width + 8, high = Math.max(12, view.canvas.width / 40) * 1.3;
      view.fillRect(box.left * x, box.top * y, size, high);
      for (const point of box.keypoints ?? []) dot(point, x, y);
      view.fillStyle = "#fff";
      view.fillText(text, box.left * x + 4, box.top * y + high * 0.77);
    }
    if (!answer.count) lines.push(["", "nothing found"]);
  } else if (kind === "keypoints") {
    view.fillStyle = COLOURS[0];
    for (const point of answer.point) dot(point, x, y);
    lines.push([String(answer.point.length), "points"]);
  } else if (kind === "mask") {
    overlay(answer);
    const counts = new Map();
    for (const each of answer) counts.set(each, (counts.get(each) ?? 0) + 1);
    for (const [number, count] of [...counts].sort((a, b) => b[1] - a[1])) lines.push([`${((100 * count) / answer.length).toFixed(1)} %`, label(number)]);
  } else if (kind === "text") {
    lines.push([answer.score.toFixed(3), new TextDecoder().decode(Uint8Array.from(answer.utf8.slice(0, answer.length)))]);
  } else {
    lines.push(["", JSON.stringify(answer).slice(0, 400)]);
  }
  find("results").replaceChildren(...lines.slice(0, 12).map(([left, right]) => {
    const line = document.createElement("li");
    for (const text of [left, right]) line.append(Object.assign(document.createElement("span"), { textContent: text }));
    return line;
  }));
}

function dot(point, x, y) {
  view.beginPath();
  view.arc(point.x * x, point.y * y, view.lineWidth * 1.5, 0, 7);
  view.fill();
}

// Every class but the first in a colour of its own, half through.
function overlay(labels) {
  const picture = small.createImageData(config.width, config.height);
  labels.forEach((number, i) => {
    if (!number) return;
    const shade = parseInt(colour(number - 1).slice(1), 16);
    picture.data.set([shade >> 16, (shade >> 8) & 255, shade & 255, 128], 4 * i);
  });
  const layer = new OffscreenCanvas(config.width, config.height);
  layer.getContext("2d").putImageData(picture, 0, 0);
  view.imageSmoothingEnabled = false;
  view.drawImage(layer, 0, 0, view.canvas.width, view.canvas.height);
}

let stream = null;

function stop() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  find("stop").hidden = true;
}

function tell(problem) {
  find("problem").textContent = problem ? String(problem.message ?? problem) : "";
}

find("camera").addEventListener("click", async () => {
  tell("");
  stop();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    const video = find("video");
    video.srcObject = stream;
    await video.play();
    find("stop").hidden = false;
    times.length = 0;
    const frame = () => {
      if (!stream) return;
      try {
        if (video.videoWidth) look(video, video.videoWidth, video.videoHeight);
      } catch (problem) {
        tell(problem);
        stop();
      }
      requestAnimationFrame(frame);
    };
    frame();
  } catch (problem) {
    tell(problem);
  }
});
find("stop").addEventListener("click", stop);

async function picture(blob) {
  tell("");
  stop();
  times.length = 0;
  try {
    const image = await createImageBitmap(blob);
    look(image, image.width, image.height);
  } catch (problem) {
    tell(problem);
  }
}
find("picture").addEventListener("change", (event) => { if (event.target.files[0]) picture(event.target.files[0]); });
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => { event.preventDefault(); if (event.dataTransfer.files[0]) picture(event.dataTransfer.files[0]); });
if (config.picture) await picture(await (await fetch("picture")).blob());
find("camera").disabled = find("picture").disabled = false;
document.documentElement.dataset.ready = "yes";
