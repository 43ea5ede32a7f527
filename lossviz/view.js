// One or two planes of the loss: from above, and as a surface that turns under the mouse.
// The kernel sends numbers; everything that is drawn or turned here needs no word from it.
// The functions that draw are in drawing.js, which is put before this.
const DPR = () => Math.min(window.devicePixelRatio || 1, 2);
const SETTLED = 700; // ms without a new picture
const START = { a: -0.7, e: 0.55, zoom: 1 };

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
