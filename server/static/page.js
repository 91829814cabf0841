// The page's behaviour: speak a text, play it while it arrives, show how fast it came.
// Audio is asked for as 24 kHz PCM, because that needs no decoder and can be played piece by piece.
"use strict";

const RATE = 24000;
const POLL_MS = 1000;
const PEAK = 240; // samples behind one value of the waveform: 10 ms
const $ = (id) => document.getElementById(id);

let context = null; // AudioContext, made on the first click as browsers demand
let current = null; // the speech under way

function headers(extra = {}) {
  const key = $("key").value.trim();
  return key ? { ...extra, Authorization: `Bearer ${key}` } : extra;
}

function showError(message) {
  $("error").textContent = message || "";
  $("error").hidden = !message;
}

async function messageOf(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `The server answered ${response.status}.`;
  }
}

// --- playing -----------------------------------------------------------------------------------

class Speech {
  constructor() {
    this.abort = new AbortController();
    this.started = performance.now();
    this.firstAt = null;
    this.lastAt = null;
    this.pieces = []; // Float32Array each
    this.samples = 0;
    this.peaks = []; // loudest sample of each 10 ms, so that drawing costs the same at any length
    this.inPeak = PEAK; // samples already in the last of them
    this.loudest = 0.2; // what fills the waveform's height; quieter speech stays small
    this.playhead = 0; // context time at which everything scheduled so far has been played
    this.underruns = 0;
    this.odd = null; // half a sample, when a network chunk ends in the middle of one
    this.sources = [];
    this.stopped = false;
    this.drawing = false;
  }

  take(bytes) {
    if (this.odd !== null) {
      const joined = new Uint8Array(bytes.length + 1);
      joined[0] = this.odd;
      joined.set(bytes, 1);
      bytes = joined;
      this.odd = null;
    }
    if (bytes.length % 2) {
      this.odd = bytes[bytes.length - 1];
      bytes = bytes.subarray(0, bytes.length - 1);
    }
    if (!bytes.length) return;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const samples = new Float32Array(bytes.length / 2);
    for (let i = 0; i < samples.length; i++) samples[i] = view.getInt16(2 * i, true) / 32768;
    this.lastAt = performance.now();
    if (this.firstAt === null) this.firstAt = this.lastAt;
    this.pieces.push(samples);
    this.samples += samples.length;
    this.measure(samples);
    this.play(samples);
  }

  measure(samples) {
    for (const sample of samples) {
      if (this.inPeak === PEAK) {
        this.peaks.push(0);
        this.inPeak = 0;
      }
      const last = this.peaks.length - 1;
      this.peaks[last] = Math.max(this.peaks[last], Math.abs(sample));
      this.loudest = Math.max(this.loudest, this.peaks[last]);
      this.inPeak++;
    }
  }

  // Seconds heard so far; what is scheduled beyond the present moment is still to come.
  heard() {
    const left = Math.max(0, this.playhead - context.currentTime);
    return Math.max(0, this.samples / RATE - left);
  }

  play(samples) {
    const buffer = context.createBuffer(1, samples.length, RATE);
    buffer.copyToChannel(samples, 0);
    const source = context.createBufferSource();
    source.buffer = buffer;
    source.connect(context.destination);
    const now = context.currentTime;
    if (this.playhead && this.playhead < now) this.underruns++;
    // At once at first; after a gap a little later, and later still after the next, so that they end.
    if (this.playhead < now) this.playhead = now + Math.min(0.5, 0.02 * 4 ** this.underruns);
    source.start(this.playhead);
    this.playhead += buffer.duration;
    this.sources.push(source);
  }

  stop() {
    this.stopped = true;
    this.abort.abort();
    for (const source of this.sources) source.stop();
  }

  wav() {
    const data = new DataView(new ArrayBuffer(44 + 2 * this.samples));
    const word = (at, text) => [...text].forEach((c, i) => data.setUint8(at + i, c.charCodeAt(0)));
    word(0, "RIFF"); data.setUint32(4, 36 + 2 * this.samples, true); word(8, "WAVEfmt ");
    data.setUint32(16, 16, true); data.setUint16(20, 1, true); data.setUint16(22, 1, true);
    data.setUint32(24, RATE, true); data.setUint32(28, 2 * RATE, true);
    data.setUint16(32, 2, true); data.setUint16(34, 16, true);
    word(36, "data"); data.setUint32(40, 2 * this.samples, true);
    let at = 44;
    for (const piece of this.pieces) {
      for (const sample of piece) {
        data.setInt16(at, Math.max(-32768, Math.min(32767, Math.round(sample * 32768))), true);
        at += 2;
      }
    }
    return new Blob([data], { type: "audio/wav" });
  }
}

async function speak(event) {
  event.preventDefault();
  if (current) current.stop();
  showError("");
  context = context || new AudioContext();
  context.resume();
  const speech = (current = new Speech());
  $("stop").disabled = false;
  $("download").hidden = true;
  const body = {
    input: $("text").value,
    voice: $("voice").value || null,
    speed: Number($("speed").value),
    seed: $("seed").value === "" ? null : Number($("seed").value),
    response_format: "pcm",
    sample_rate: RATE,
  };
  try {
    const response = await fetch("v1/audio/speech", {
      method: "POST",
      headers: headers({ "Content-Type": "application/json" }),
      body: JSON.stringify(body),
      signal: speech.abort.signal,
    });
    if (response.status === 401) $("key-field").hidden = false;
    if (!response.ok) throw new Error(await messageOf(response));
    const reader = response.body.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      speech.take(value);
      show(speech);
    }
    finish(speech);
  } catch (error) {
    if (error.name !== "AbortError") showError(error.message);
  } finally {
    const left = Math.max(0, speech.playhead - context.currentTime);
    setTimeout(() => { if (current === speech) $("stop").disabled = true; }, 1000 * left);
  }
}

// --- showing -----------------------------------------------------------------------------------

function show(speech) {
  const seconds = speech.samples / RATE;
  $("ttfa").textContent = `${Math.round(speech.firstAt - speech.started)} ms`;
  $("rtf").textContent = ((speech.lastAt - speech.started) / 1000 / seconds).toFixed(3);
  $("duration").textContent = `${seconds.toFixed(2)} s`;
  $("underruns").textContent = String(speech.underruns);
  if (!speech.drawing) animate(speech);
}

// Draws until the last sample has been heard, or another speech has begun.
function animate(speech) {
  speech.drawing = current === speech && !speech.stopped && context.currentTime < speech.playhead;
  draw(speech);
  if (speech.drawing) requestAnimationFrame(() => animate(speech));
}

function finish(speech) {
  if (!speech.samples) return;
  const link = $("download");
  if (link.href) URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(speech.wav());
  link.hidden = false;
}

function draw(speech) {
  const canvas = $("waveform");
  const paint = canvas.getContext("2d");
  const { width, height } = canvas;
  const columns = Math.min(width / 3, speech.peaks.length);
  const heard = speech.stopped ? 1 : speech.heard() / (speech.samples / RATE);
  paint.clearRect(0, 0, width, height);
  paint.fillStyle = getComputedStyle($("speak")).backgroundColor;
  for (let x = 0; x < columns; x++) {
    const from = Math.floor((x * speech.peaks.length) / columns);
    const to = Math.max(from + 1, Math.floor(((x + 1) * speech.peaks.length) / columns));
    const bar = Math.max(2, (Math.max(...speech.peaks.slice(from, to)) / speech.loudest) * height * 0.9);
    paint.globalAlpha = x / columns < heard ? 1 : 0.35;
    paint.fillRect((x * width) / columns, (height - bar) / 2, (width / columns) * 0.7, bar);
  }
}

// --- what the server offers, and how it fares ---------------------------------------------------

async function loadVoices() {
  const response = await fetch("v1/audio/voices", { headers: headers() });
  $("key-field").hidden = response.status !== 401 && !$("key").value;
  if (!response.ok) return;
  const { voices } = await response.json();
  const chosen = $("voice").value;
  $("voice").replaceChildren(...voices.map((voice) => {
    const option = new Option(voice.name, voice.id);
    option.title = voice.description;
    return option;
  }));
  if (chosen) $("voice").value = chosen;
  const models = await fetch("v1/models", { headers: headers() });
  if (models.ok) $("model").textContent = (await models.json()).data[0].id;
}

function readMetrics(text) {
  const values = {};
  for (const line of text.split("\n")) {
    const match = /^stretto:(\w+) ([-+.\deE]+)$/.exec(line);
    if (match) values[match[1]] = Number(match[2]);
  }
  return values;
}

let before = null;

async function poll() {
  try {
    const values = readMetrics(await (await fetch("metrics")).text());
    const now = performance.now() / 1000;
    $("state").textContent = values.ready ? "ready" : "not ready";
    $("state").dataset.ready = Boolean(values.ready);
    $("running").textContent = values.num_requests_running;
    $("waiting").textContent = values.num_requests_waiting;
    $("kv").textContent = `${Math.round(100 * values.kv_cache_usage_perc)} %`;
    const made = values.audio_generated_seconds_total;
    if (before) $("rate").textContent = `${((made - before.made) / (now - before.now)).toFixed(1)} s`;
    before = { made, now };
  } catch {
    $("state").textContent = "server unreachable";
    $("state").dataset.ready = false;
  }
  setTimeout(poll, document.hidden ? 5 * POLL_MS : POLL_MS);
}

$("form").addEventListener("submit", speak);
$("stop").addEventListener("click", () => {
  current.stop();
  $("stop").disabled = true;
});
$("speed").addEventListener("input", () => {
  $("speed-shown").textContent = Number($("speed").value).toFixed(2);
});
$("key").addEventListener("change", loadVoices);
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
});
loadVoices();
poll();
