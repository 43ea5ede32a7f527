// How planes of the loss are drawn: from above, as a surface, with paths, a cross and a colour bar.
const MARGIN = 62, TOP = 34;

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

function lines(g, paths, x, y) {
  for (const halo of [true, false]) for (const [name, path] of Object.entries(paths)) {
    g.lineWidth = halo ? 6 : 2.5; g.strokeStyle = halo ? "#fff" : INK[name] || "#000";
    g.setLineDash(halo ? [] : DASH[name] || []);
    g.beginPath(); path.forEach(([a, b]) => g.lineTo(x(a), y(b))); g.stroke();
  }
  g.setLineDash([]);
}

function marks(g, box, { span, paths, at }) {
  const x = (a) => box.x + ((a - span[0]) / (span[1] - span[0])) * box.w;
  const y = (b) => box.y + box.h - ((b - span[2]) / (span[3] - span[2])) * box.h;
  g.save(); g.beginPath(); g.rect(box.x, box.y, box.w, box.h); g.clip();
  lines(g, paths, x, y);
  for (const [style, width] of [["#fff", 6], ["#000", 2.5]]) {
    g.strokeStyle = g.fillStyle = style; g.lineWidth = width;
    g.beginPath(); g.arc(x(0), y(0), width + 1, 0, 7); g.fill();
    if (at) { g.beginPath(); g.arc(x(at[0]), y(at[1]), 7, 0, 7); g.stroke(); }
  }
  if (at) lens(g, box, paths, x, y, at);
  g.restore();
}

// Paths that end inside the ring around their start are shown larger in a corner.
function lens(g, box, paths, x, y, at) {
  const points = Object.values(paths).flat(), [px, py] = [x(at[0]), y(at[1])];
  const reach = Math.max(...points.map(([a, b]) => Math.hypot(x(a) - px, y(b) - py)));
  if (!(reach > 0 && reach < 16)) return;
  const size = Math.min(120, box.w * 0.4), times = Math.max(2, Math.floor((0.42 * size) / reach));
  const left = px > box.x + box.w / 2 ? box.x + 6 : box.x + box.w - size - 6, top = box.y + box.h - size - 6;
  g.fillStyle = "rgba(255,255,255,0.92)"; g.fillRect(left, top, size, size);
  const [cx, cy] = [left + size / 2, top + size / 2];
  lines(g, paths, (a) => cx + times * (x(a) - px), (b) => cy + times * (y(b) - py));
  g.fillStyle = "#000"; g.beginPath(); g.arc(cx, cy, 4, 0, 7); g.fill();
  g.strokeStyle = "#000"; g.lineWidth = 1.5; g.strokeRect(left, top, size, size);
  g.font = "15px sans-serif"; g.textAlign = "left"; g.fillText(`× ${times}`, left + 5, top + 17);
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
    const wide = g.measureText(name).width;
    g.fillStyle = "rgba(255,255,255,0.85)"; g.fillRect(x - 4, box.y + 4, wide + 36, 22);
    g.strokeStyle = INK[name]; g.lineWidth = 2.5; g.setLineDash(DASH[name]);
    g.beginPath(); g.moveTo(x, box.y + 15); g.lineTo(x + 22, box.y + 15); g.stroke();
    g.setLineDash([]); g.fillStyle = "#000"; g.fillText(name, x + 27, box.y + 20);
    x += wide + 44;
  }
}

// The height does not depend on how many planes there are, so that nothing below it jumps.
function layout(width, count) {
  const each = (width - 110) / count, boxes = [];
  const most = Math.min(360, Math.max(220, 0.42 * window.innerHeight)); // words stay in sight
  const side = (n) => Math.min((width - 110) / (2 * n) - (MARGIN + 8) / 2, most), full = side(1), s = side(count);
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
