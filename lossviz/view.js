// One or two planes of the loss: from above, and as a surface that turns under the mouse.
// The kernel sends numbers; everything that is drawn or turned here needs no word from it.
const DPR = () => Math.min(window.devicePixelRatio || 1, 2);
const START = { a: -0.7, e: 0.55, zoom: 1 };
const SETTLED = 700; // ms without a new picture
const MARGIN = 62, TOP = 34;

function read(model) {
  const frame = model.get("frame");
  if (!frame || !frame.planes) return null;
  const planes = frame.planes.map((plane) => {
    const bytes = plane.z.buffer ? plane.z : new DataView(plane.z);
    const copy = new Uint8Array(bytes.byteLength);
    copy.set(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    return { ...plane, z: new Float32Array(copy.buffer) };
  });
  return { ...frame, planes };
}

function scale(frame) {
  const bend = frame.log ? (x) => Math.log10(Math.max(x, frame.low)) : (x) => x;
  const low = bend(frame.low), high = bend(frame.high), width = high - low || 1;
  const inside = (t) => Math.min(1, Math.max(0, t));
  return (x, free) => (Number.isFinite(x) ? (free ? (t) => t : inside)((bend(x) - low) / width) : NaN);
}

function colour(palette, t) {
  if (Number.isNaN(t)) return [230, 230, 230];
  const k = 3 * Math.min(255, Math.floor(t * 256));
  return [palette[k], palette[k + 1], palette[k + 2]];
}

function heat(g, box, plane, to, palette, levels) {
  const [n, m] = plane.shape, small = document.createElement("canvas");
  small.width = n; small.height = m;
  const image = small.getContext("2d").createImageData(n, m);
  for (let i = 0; i < n; i++) for (let j = 0; j < m; j++) {
    const at = 4 * ((m - 1 - j) * n + i), rgb = colour(palette, to(plane.z[i * m + j]));
    image.data.set([...rgb, 255], at);
  }
  small.getContext("2d").putImageData(image, 0, 0);
  g.imageSmoothingEnabled = true;
  // grid points are the centres of pixels: half a pixel at each side is cut away
  g.drawImage(small, 0.5, 0.5, n - 1, m - 1, box.x, box.y, box.w, box.h);
  g.lineWidth = 1; g.strokeStyle = "rgba(0,0,0,0.55)";
  for (const level of levels) contour(g, box, plane, to, to(level));
  frameOf(g, box, plane);
}

function contour(g, box, { z, shape: [n, m] }, to, level) {
  const x = (i) => box.x + (i / (n - 1)) * box.w, y = (j) => box.y + box.h - (j / (m - 1)) * box.h;
  g.beginPath();
  for (let i = 0; i + 1 < n; i++) for (let j = 0; j + 1 < m; j++) {
    const corner = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]];
    const value = corner.map(([a, b]) => to(z[a * m + b], true) - level);
    if (value.some(Number.isNaN)) continue;
    const cut = [];
    for (let k = 0; k < 4; k++) {
      const a = value[k], b = value[(k + 1) % 4];
      if (a < 0 === b < 0) continue;
      const t = a / (a - b), [p, q] = [corner[k], corner[(k + 1) % 4]];
      cut.push([x(p[0] + t * (q[0] - p[0])), y(p[1] + t * (q[1] - p[1]))]);
    }
    for (let k = 0; k + 1 < cut.length; k += 2) {
      g.moveTo(...cut[k]); g.lineTo(...cut[k + 1]);
    }
  }
  g.stroke();
}

function frameOf(g, box, { span, title, names }) {
  g.strokeStyle = "#000"; g.lineWidth = 1; g.strokeRect(box.x, box.y, box.w, box.h);
  g.fillStyle = "#000"; g.font = "15px sans-serif"; g.textAlign = "center";
  const label = (v) => String(Number(v.toPrecision(2))).replace("-", "−");
  for (const t of [0, 0.5, 1]) {
    const a = span[0] + t * (span[1] - span[0]), b = span[2] + t * (span[3] - span[2]);
    g.textAlign = "center"; g.fillText(label(a), box.x + t * box.w, box.y + box.h + 18);
    g.textAlign = "right"; g.fillText(label(b), box.x - 6, box.y + box.h - t * box.h + 5);
  }
  g.textAlign = "center";
  g.fillText(names[0], box.x + box.w / 2, box.y + box.h + 38);
  g.save(); g.translate(box.x - 44, box.y + box.h / 2); g.rotate(-Math.PI / 2);
  g.fillText(names[1], 0, 0); g.restore();
  g.font = "16px sans-serif"; g.fillText(title, box.x + box.w / 2, box.y - 12);
}

const INK = { SGD: "#0072B2", momentum: "#D55E00", Adam: "#E69F00" };
const DASH = { SGD: [], momentum: [8, 3, 2, 3], Adam: [8, 4] };

function marks(g, box, { span, paths, at }) {
  const x = (a) => box.x + ((a - span[0]) / (span[1] - span[0])) * box.w;
  const y = (b) => box.y + box.h - ((b - span[2]) / (span[3] - span[2])) * box.h;
  g.save(); g.beginPath(); g.rect(box.x, box.y, box.w, box.h); g.clip();
  for (const [style, width] of [["#fff", 6], ["#000", 2.5]]) {
    g.lineWidth = width;
    for (const [name, path] of Object.entries(paths)) {
      g.strokeStyle = style === "#000" ? INK[name] || style : style;
      g.setLineDash(style === "#000" ? DASH[name] || [] : []);
      g.beginPath(); path.forEach(([a, b]) => g.lineTo(x(a), y(b))); g.stroke();
    }
    g.setLineDash([]); g.strokeStyle = g.fillStyle = style;
    g.beginPath(); g.arc(x(0), y(0), width + 1, 0, 7); g.fill();
    if (at) { g.beginPath(); g.arc(x(at[0]), y(at[1]), 7, 0, 7); g.stroke(); }
  }
  g.restore();
}

function solid(g, box, plane, to, palette, turn) {
  const [n, m] = plane.shape, step = Math.max(1, Math.round((Math.max(n, m) - 1) / 32));
  const [ca, sa, ce, se] = [Math.cos(turn.a), Math.sin(turn.a), Math.cos(turn.e), Math.sin(turn.e)];
  const size = Math.min(box.w / 1.5, box.h / 1.35) * turn.zoom;
  const at = (i, j) => {
    const t = to(plane.z[i * m + j]);
    const x = i / (n - 1) - 0.5, y = j / (m - 1) - 0.5, z = (Number.isNaN(t) ? 1 : t) * 0.75 - 0.36;
    const [p, q] = [ca * x - sa * y, sa * x + ca * y];
    return [box.x + box.w / 2 + p * size, box.y + box.h / 2 - (q * se + z * ce) * size, q * ce - z * se, t];
  };
  const faces = [];
  for (let i = 0; i + step < n; i += step) for (let j = 0; j + step < m; j += step) {
    const p = [at(i, j), at(i + step, j), at(i + step, j + step), at(i, j + step)];
    faces.push({ p, depth: p[0][2] + p[1][2] + p[2][2] + p[3][2] });
  }
  faces.sort((a, b) => b.depth - a.depth);
  g.lineWidth = 0.6; g.strokeStyle = "rgba(0,0,0,0.35)";
  for (const { p } of faces) {
    const t = (p[0][3] + p[1][3] + p[2][3] + p[3][3]) / 4;
    g.fillStyle = `rgb(${colour(palette, t).join(",")})`;
    g.beginPath(); p.forEach(([x, y]) => g.lineTo(x, y)); g.closePath(); g.fill(); g.stroke();
  }
}

function bar(g, box, frame, to, palette) {
  for (let k = 0; k < box.h; k++) {
    g.fillStyle = `rgb(${colour(palette, 1 - k / box.h).join(",")})`;
    g.fillRect(box.x, box.y + k, box.w, 1.5);
  }
  g.strokeStyle = "#000"; g.lineWidth = 1; g.strokeRect(box.x, box.y, box.w, box.h);
  g.fillStyle = "#000"; g.font = "15px sans-serif"; g.textAlign = "left";
  for (const [value, text] of frame.ticks) {
    g.fillText(text, box.x + box.w + 6, box.y + box.h * (1 - to(value)) + 5);
  }
  g.textAlign = "center"; g.fillText(frame.quantity, box.x + box.w / 2, box.y - 12);
}

function legend(g, box, paths) {
  let x = box.x + 8;
  g.font = "15px sans-serif"; g.textAlign = "left";
  for (const name of Object.keys(paths)) {
    if (!INK[name]) continue;
    g.fillStyle = "rgba(255,255,255,0.85)"; g.fillRect(x - 4, box.y + 4, 84, 22);
    g.strokeStyle = INK[name]; g.lineWidth = 2.5; g.setLineDash(DASH[name]);
    g.beginPath(); g.moveTo(x, box.y + 15); g.lineTo(x + 22, box.y + 15); g.stroke();
    g.setLineDash([]); g.fillStyle = "#000"; g.fillText(name, x + 27, box.y + 20, 50);
    x += 90;
  }
}

// The height does not depend on how many planes there are, so that nothing below it jumps.
function layout(width, count) {
  const each = (width - 110) / count, boxes = [];
  const side = (n) => Math.min((width - 110) / (2 * n) - (MARGIN + 8) / 2, 360), full = side(1), s = side(count);
  for (let k = 0; k < count; k++) {
    const x = k * each + MARGIN;
    boxes.push({ flat: { x, y: TOP + (full - s) / 2, w: s, h: s },
                 solid: { x: x + s + 8, y: TOP - 20, w: each - MARGIN - s - 8, h: full + 40 } });
  }
  return { boxes, height: TOP + full + 52, bar: { x: width - 84, y: TOP, w: 16, h: full } };
}

function lossAt({ z, shape: [n, m] }, x, y) {
  const i = Math.min(Math.floor(x * (n - 1)), n - 2), j = Math.min(Math.floor(y * (m - 1)), m - 2);
  const s = x * (n - 1) - i, t = y * (m - 1) - j, at = (a, b) => z[a * m + b];
  return (1 - s) * ((1 - t) * at(i, j) + t * at(i, j + 1)) + s * ((1 - t) * at(i + 1, j) + t * at(i + 1, j + 1));
}

const place = ({ span: [a0, a1, b0, b1] }, x, y) => [a0 + x * (a1 - a0), b0 + y * (b1 - b0)];

function words(plane, cross) {
  const say = (v, digits = 3) => String(Number(v.toPrecision(digits))).replace("-", "−");
  const [alpha, beta] = place(plane, cross.x, cross.y), loss = lossAt(plane, cross.x, cross.y);
  return `α = ${say(alpha, 2)}, β = ${say(beta, 2)}: loss ${Number.isFinite(loss) ? say(loss) : "not finite"}`;
}

function crossOf(g, box, plane, cross) {
  const x = box.x + cross.x * box.w, y = box.y + (1 - cross.y) * box.h, said = words(plane, cross);
  for (const [style, width] of [["#fff", 5], ["#000", 2]]) {
    g.strokeStyle = style; g.lineWidth = width; g.beginPath();
    g.moveTo(x - 14, y); g.lineTo(x + 14, y); g.moveTo(x, y - 14); g.lineTo(x, y + 14); g.stroke();
  }
  g.font = "15px sans-serif"; g.textAlign = "left";
  const wide = Math.min(g.measureText(said).width, box.w - 12), top = y > box.y + box.h / 2 ? box.y + 30 : box.y + box.h - 26;
  g.fillStyle = "rgba(255,255,255,0.9)"; g.fillRect(box.x + 2, top, wide + 10, 24);
  g.fillStyle = "#000"; g.fillText(said, box.x + 7, top + 17, wide);
}

// Tooltips and names of the controls around the canvas, which ipywidgets leaves out.
function hint(model, el) {
  for (const [mark, label, tip] of model.get("hints") || []) {
    for (const row of document.getElementsByClassName(mark)) {
      row.title = tip;
      row.querySelectorAll("button").forEach((button, k) => {
        button.title = label.split("|")[k] || tip; button.setAttribute("aria-label", button.title);
      });
      for (const part of row.querySelectorAll("[role=slider], [contenteditable], select, input, label")) {
        part.title = tip;
        const typed = part.isContentEditable; // the number beside a slider
        if (typed) part.setAttribute("role", "textbox");
        if (part.tagName !== "LABEL") part.setAttribute("aria-label", label + (typed ? ", typed" : ""));
      }
    }
  }
  const said = el.closest(".lossviz")?.querySelector(".lossviz-words .widget-html-content");
  if (said) said.setAttribute("role", "status");
}

function made(el, kind, name) {
  const part = document.createElement(kind);
  if (name) part.className = name;
  el.appendChild(part);
  return part;
}

let views = 0;

function render({ model, el }) {
  el.classList.add("lossviz-view");
  const canvas = made(el, "canvas"), g = canvas.getContext("2d", { willReadFrequently: true });
  const keys = made(el, "div", "lossviz-keys"), heard = made(el, "div", "lossviz-heard");
  heard.setAttribute("role", "status");
  keys.id = `lossviz-keys-${++views}`;
  canvas.tabIndex = 0; canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-describedby", keys.id);
  canvas.dataset.lmSuppressShortcuts = "true"; // else arrow keys choose cells of the notebook, too
  const turn = { ...START }, cross = { plane: 0, x: 0.5, y: 0.5, on: false };
  let frame = read(model), palette = new Uint8Array(0), asked = 0, places = null, settled = 0;
  const load = () => {
    const raw = model.get("palette");
    palette = raw.buffer ? new Uint8Array(raw.buffer, raw.byteOffset, raw.byteLength) : new Uint8Array(raw);
  };
  const draw = () => {
    asked = 0;
    const width = Math.max(el.clientWidth - 6 || 960, 480), count = frame ? frame.planes.length : 1;
    places = layout(width, count);
    const ratio = DPR();
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(places.height * ratio)) {
      canvas.width = Math.round(width * ratio); canvas.height = Math.round(places.height * ratio);
      canvas.style.height = `${places.height}px`;
    }
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.fillStyle = "#fff"; g.fillRect(0, 0, width, places.height);
    hint(model, el);
    keys.textContent = `arrow keys turn, + − zoom, Home as at first; Shift + arrows move a cross${
      model.get("clickable") ? ", Enter clicks there" : ""}${count > 1 ? ", 1 2 choose the plane" : ""}`;
    if (!frame) return;
    const to = scale(frame);
    frame.planes.forEach((plane, k) => {
      heat(g, places.boxes[k].flat, plane, to, palette, frame.levels);
      marks(g, places.boxes[k].flat, plane);
      legend(g, places.boxes[k].flat, plane.paths);
      solid(g, places.boxes[k].solid, plane, to, palette, turn);
      if (cross.on && cross.plane === k) crossOf(g, places.boxes[k].flat, plane, cross);
    });
    bar(g, places.bar, frame, to, palette);
    canvas.setAttribute("aria-label", frame.text);
    canvas.dataset.serial = frame.serial;
    canvas.dataset.turn = `${turn.a.toFixed(2)} ${turn.e.toFixed(2)}`;
    canvas.dataset.cross = cross.on ? words(frame.planes[cross.plane], cross) : "";
    heard.textContent = canvas.dataset.cross;
    clearTimeout(settled);
    if (model.get("sends_picture")) settled = setTimeout(send, SETTLED);
  };
  const send = () => canvas.toBlob(async (picture) => {
    model.send({ kind: "picture" }, undefined, [await picture.arrayBuffer()]);
  });
  const ask = () => { asked = asked || requestAnimationFrame(draw); };
  const update = () => {
    frame = read(model);
    if (frame && cross.plane >= frame.planes.length) cross.plane = 0;
    ask();
  };
  const tell = () => { model.set("turn", { ...turn }); model.save_changes(); };
  const turned = () => { Object.assign(turn, START, model.get("turn")); ask(); };
  const rotate = (a, e) => {
    turn.a += a; turn.e = Math.min(1.5, Math.max(0.05, turn.e + e)); ask(); tell();
  };
  const zoom = (factor) => { turn.zoom = Math.min(3, Math.max(0.4, turn.zoom * factor)); ask(); tell(); };
  const click = (k, x, y) => {
    const [alpha, beta] = place(frame.planes[k], x, y);
    model.set("clicked", { plane: k, alpha, beta, serial: Date.now() }); model.save_changes();
  };
  const go = (x, y) => {
    const within = (v) => Math.min(1, Math.max(0, v));
    if (cross.on) Object.assign(cross, { x: within(cross.x + x / 32), y: within(cross.y + y / 32) });
    cross.on = true; ask();
  };
  let held = null;
  const where = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const inside = ([x, y], b) => x >= b.x && x <= b.x + b.w && y >= b.y && y <= b.y + b.h;
  const down = (event) => {
    const at = where(event);
    const k = places ? places.boxes.findIndex((b) => inside(at, b.flat)) : -1;
    if (k >= 0 && frame) {
      const b = places.boxes[k].flat;
      Object.assign(cross, { plane: k, x: (at[0] - b.x) / b.w, y: (b.y + b.h - at[1]) / b.h, on: false });
      click(k, cross.x, cross.y); ask();
    } else { held = at; canvas.setPointerCapture(event.pointerId); }
  };
  const move = (event) => {
    if (!held) return;
    const at = where(event);
    turn.a += (at[0] - held[0]) * 0.01;
    turn.e = Math.min(1.5, Math.max(0.05, turn.e + (at[1] - held[1]) * 0.01));
    held = at; ask();
  };
  const up = () => { if (held) tell(); held = null; };
  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  const key = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const way = ways[event.key], k = Number(event.key) - 1;
    if (way && event.shiftKey) go(...way);
    else if (way) rotate(0.1 * way[0], -0.1 * way[1]);
    else if (event.key === "Enter" && !event.shiftKey && cross.on && frame) click(cross.plane, cross.x, cross.y);
    else if (event.key === "Escape" && cross.on) { cross.on = false; ask(); }
    else if (event.key === "+" || event.key === "=") zoom(1.1);
    else if (event.key === "-") zoom(1 / 1.1);
    else if (event.key === "Home") { Object.assign(turn, START); ask(); tell(); }
    else if (frame && k >= 0 && k < frame.planes.length) { Object.assign(cross, { plane: k, on: true }); ask(); }
    else return;
    event.preventDefault(); event.stopPropagation();
  };
  const watch = new ResizeObserver(ask);
  watch.observe(el);
  canvas.addEventListener("pointerdown", down); canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerup", up); canvas.addEventListener("keydown", key);
  const heeded = [["frame", update], ["turn", turned], ["hints", ask], ["clickable", ask]];
  for (const [name, act] of heeded) model.on(`change:${name}`, act);
  load(); turned();
  return () => {
    watch.disconnect(); clearTimeout(settled);
    for (const [name, act] of heeded) model.off(`change:${name}`, act);
  };
}

export default { render };
