// What the figures that can be moved share. Each is a module in explore/: its controls, how a state is drawn,
// and one sentence that says what there is to see. Loaded only by pages that have one; the data when it comes near.
const root = document.documentElement;
const still = matchMedia("(prefers-reduced-motion: reduce)");
const SVG = "http://www.w3.org/2000/svg";
const set = (element, attributes) => {
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) element.setAttribute(name, value);
  return element;
};
const html = (tag, attributes = {}, ...children) => {
  const element = set(document.createElement(tag), attributes);
  element.append(...children);
  return element;
};
const colour = (name) => (/^[a-z]+$/.test(name) && name !== "none" ? `var(--plot-${name})` : name);
const clamp = (value, [least, most]) => Math.min(Math.max(value, least), most);

/** A number to three digits, as the text of the book writes it. */
export function show(value) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "not a number" : value < 0 ? "−∞" : "∞";
  const size = Math.abs(value);
  let [digits, power] = value.toExponential(2).split("e");
  if (value === 0 || (size >= 0.001 && size < 1e5)) [digits, power] = [size < 1000 ? +value.toPrecision(3) : Math.round(value), ""];
  return `${+digits}`.replace("-", "−") + (power && ` × ${raised(+power)}`);
}

const raised = (power) => (power ? `10${[...`${power}`].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c])).join("")}` : "1");

/** Round values between `from` and `to`, about `count` of them; powers of ten when `log`. */
export function ticks(from, to, count = 5, log = false) {
  if (log) {
    const [low, high] = [Math.ceil(Math.log10(from) - 1e-9), Math.floor(Math.log10(to) + 1e-9)];
    const every = Math.max(1, Math.ceil((high - low) / count));
    return Array.from({ length: Math.max(0, Math.floor((high - low) / every) + 1) }, (_, i) => 10 ** (low + i * every));
  }
  const rough = (to - from) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((k) => k * power >= rough * 0.999) * power;
  const first = Math.ceil(from / step - 1e-9);
  return Array.from({ length: Math.floor(to / step - first + 1e-9) + 1 }, (_, i) => +((first + i) * step).toPrecision(12));
}

// A drawing: SVG whose unit is one CSS pixel, so that lines and letters keep their size at every width.
function drawing(svg, width, height, id) {
  const rem = parseFloat(getComputedStyle(root).fontSize);
  const add = (tag, attributes = {}, text = "", within = svg) => {
    const element = set(document.createElementNS(SVG, tag), attributes);
    element.textContent = text;
    return within.appendChild(element);
  };
  const frames = [];
  /** Axes over `box` [left, top, width, height]; a scale is {from, to, label, log}; `bare`: only the coordinates. */
  function axes({ x, y, box = [0, 0, width, height], bare = false }) {
    const room = bare ? [0, 0, 0, 0] : [2.6 * rem, 1.6 * rem, 0.8 * rem, 2.6 * rem]; // left, top, right, bottom
    const [left, top] = [box[0] + room[0], box[1] + room[1]];
    const [right, bottom] = [box[0] + box[2] - room[2], box[1] + box[3] - room[3]];
    const scale = ({ from, to, log }, start, end) => {
      const at = log ? Math.log10 : (v) => v;
      const share = (end - start) / (at(to) - at(from));
      const there = (v) => start + (at(v) - at(from)) * share;
      const back = (p) => { const v = at(from) + (p - start) / share; return log ? 10 ** v : v; };
      return [(v) => clamp(there(v), [-1e5, 1e5]), back]; // SVG takes no infinity
    };
    const [atX, fromX] = scale(x, left, right), [atY, fromY] = scale(y, bottom, top);
    const mark = `${id}-frame-${frames.length}`; // the controls have the plain numbers
    add("rect", { x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) }, "", add("clipPath", { id: mark }));
    if (!bare) {
      const name = (axis, v) => (axis.log ? raised(Math.round(Math.log10(v))) : show(v));
      for (const v of ticks(x.from, x.to, Math.max(2, (right - left) / (5 * rem)), x.log)) {
        add("line", { x1: atX(v), x2: atX(v), y1: top, y2: bottom, class: "grid" });
        add("text", { x: atX(v), y: bottom + rem, "text-anchor": "middle" }, name(x, v));
      }
      for (const v of ticks(y.from, y.to, Math.max(2, (bottom - top) / (3 * rem)), y.log)) {
        add("line", { x1: left, x2: right, y1: atY(v), y2: atY(v), class: "grid" });
        add("text", { x: left - 0.4 * rem, y: atY(v) + 0.27 * rem, "text-anchor": "end" }, name(y, v));
      }
      add("text", { x: (left + right) / 2, y: bottom + 2.2 * rem, "text-anchor": "middle", class: "label" }, x.label ?? "");
      add("text", { x: box[0] + 0.2 * rem, y: box[1] + 0.9 * rem, class: "label" }, y.label ?? "");
    }
    const inside = add("g", { "clip-path": `url(#${mark})` });
    const put = (tag, attributes, tip) => {
      const element = add(tag, attributes, "", inside);
      if (tip) add("title", {}, tip, element);
      return element;
    };
    const path = (points) => points.map((p, i) => (p ? `${points[i - 1] ? "L" : "M"}${atX(p[0]).toFixed(1)} ${atY(p[1]).toFixed(1)}` : "")).join("");
    const frame = {
      x: atX, y: atY, left, top, right, bottom,
      /** The values under a pixel, or null outside the axes. */
      under: (px, py) => (px < left || px > right || py < top || py > bottom ? null : [fromX(px), fromY(py)]),
      /** A line through points; null among them is a gap. */
      line: (points, { color = "blue", width = 1.8, dash, opacity, fill = "none" } = {}) =>
        put("path", { d: path(points), fill: colour(fill), stroke: colour(color), "stroke-width": width, "stroke-dasharray": dash, opacity }),
      dots: (points, { color = "blue", r = 3, ring, tip } = {}) => points.forEach(([a, b], i) =>
        put("circle", { cx: atX(a), cy: atY(b), r, fill: ring ? "none" : colour(color), stroke: ring ? colour(color) : "none", "stroke-width": 2 }, tip?.(i))),
      cross: ([a, b], { color = "red", r = 5 } = {}) =>
        put("path", { d: `M${atX(a) - r} ${atY(b) - r}l${2 * r} ${2 * r}m0 ${-2 * r}l${-2 * r} ${2 * r}`, stroke: colour(color), "stroke-width": 2 }),
      /** A rectangle between two corners in values: bars, cells of a map. */
      rect: ([a, b], [c, d], { color = "blue", opacity, stroke = "none", tip } = {}) => put("rect", {
        x: Math.min(atX(a), atX(c)), y: Math.min(atY(b), atY(d)), width: Math.abs(atX(c) - atX(a)), height: Math.abs(atY(d) - atY(b)),
        fill: colour(color), "fill-opacity": opacity, stroke: colour(stroke) }, tip),
      text: ([a, b], words, { color = "ink", anchor = "start", dx = 0, dy = 0, bold } = {}) =>
        put("text", { x: atX(a) + dx, y: atY(b) + dy, "text-anchor": anchor, style: `fill: ${colour(color)}`, "font-weight": bold ? 600 : undefined }).append(words),
      /** Grey values in [0, 1] (rows of columns, 1 is ink) as one picture between two corners. */
      picture: ([a, b], [c, d], rows, tip) => put("image", {
        x: Math.min(atX(a), atX(c)), y: Math.min(atY(b), atY(d)), width: Math.abs(atX(c) - atX(a)), height: Math.abs(atY(d) - atY(b)),
        href: grey(svg, rows), preserveAspectRatio: "none", style: "image-rendering: pixelated" }, tip),
    };
    frames.push(frame);
    return frame;
  }
  /** What the colours mean: [colour, words] in a row from `left`, its lines from `top` on. */
  function legend(items, left = 0, top = 0) {
    let [x, y] = [left, top + 0.8 * rem];
    for (const [color, words] of items) {
      const dot = add("circle", { r: 4, fill: colour(color) }), text = add("text", {}, words);
      const wide = text.getComputedTextLength() + 1.9 * rem;
      if (x > left && x + wide - 0.9 * rem > width) [x, y] = [left, y + 1.2 * rem];
      set(dot, { cx: x + 4, cy: y - 4 });
      set(text, { x: x + 0.8 * rem, y });
      x += wide;
    }
    return y + 0.5 * rem; // where the next thing can stand
  }
  return { width, height, rem, legend, wide: width > 34 * rem, narrow: width < 26 * rem, axes, frames, add };
}

function grey(svg, rows) {
  const [width, height] = [rows[0].length, rows.length];
  const canvas = html("canvas", { width, height }), context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const [ink, paper] = ["color", "backgroundColor"].map((name) => getComputedStyle(svg)[name].match(/[\d.]+/g).map(Number));
  rows.flat().forEach((v, i) => {
    for (let k = 0; k < 3; k++) pixels.data[4 * i + k] = paper[k] + clamp(v, [0, 1]) * (ink[k] - paper[k]);
    pixels.data[4 * i + 3] = 255;
  });
  context.putImageData(pixels, 0, 0);
  return canvas.toDataURL();
}

// The controls of a figure: what the reader sets goes into the state, what changes the state shows in them.
function control(spec, state, data, change, id) {
  const label = html("label", { for: id }, spec.label ?? "");
  const value = html("output", { for: id });
  const listen = (input, read, event = "input") => input.addEventListener(event, () => change(spec.name, read()));
  const steps = spec.log ? 100 : spec.range && Math.round((spec.range[1] - spec.range[0]) / spec.step);
  const toPlace = (v) => (spec.log ? (steps * Math.log(v / spec.range[0])) / Math.log(spec.range[1] / spec.range[0]) : (v - spec.range[0]) / spec.step);
  const toValue = (place) => (spec.log ? +(spec.range[0] * (spec.range[1] / spec.range[0]) ** (place / steps)).toPrecision(2) : +(spec.range[0] + place * spec.step).toPrecision(12));
  const said = (value = state[spec.name]) => `${spec.show ? spec.show(value, state, data) : show(value)}${spec.unit ? ` ${spec.unit}` : ""}`;
  const fill = (input, text) => { if (input.value !== `${text}` && document.activeElement !== input) input.value = text; };
  let box, sync;
  if (spec.choice) {
    const input = html("select", { id }, ...spec.choice.map(([v, words]) => html("option", { value: v }, words)));
    listen(input, () => spec.choice[input.selectedIndex][0]);
    [box, sync] = [html("div", {}, label, input), () => { input.selectedIndex = spec.choice.findIndex(([v]) => v === state[spec.name]); }];
  } else if (spec.range) {
    const input = html("input", { id, type: "range", min: 0, max: steps, step: 1 });
    listen(input, () => toValue(+input.value));
    [box, sync] = [html("div", {}, label, input, value), () => {
      input.value = Math.round(toPlace(state[spec.name]));
      value.textContent = said();
      input.setAttribute("aria-valuetext", said());
    }];
  } else if (spec.number) {
    const [min, max, step] = spec.number, input = html("input", { id, type: "number", min, max, step });
    listen(input, () => +(input.value = clamp(+input.value || 0, spec.number)), "change");
    [box, sync] = [html("div", { class: "short" }, label, input), () => fill(input, state[spec.name])];
  } else if (spec.text !== undefined) {
    const input = html("input", { id, type: "text", maxlength: spec.text, autocomplete: "off", spellcheck: false });
    listen(input, () => input.value);
    [box, sync] = [html("div", { class: "wide" }, label, input), () => fill(input, state[spec.name])];
  } else if (spec.check) {
    const input = html("input", { id, type: "checkbox" });
    listen(input, () => input.checked, "change");
    [box, sync] = [html("div", { class: "check-box" }, input, label), () => { input.checked = state[spec.name]; }];
  } else if (spec.button) {
    box = html("button", { type: "button", id }, spec.button);
    box.addEventListener("click", () => { spec.press(state, data); change(); });
    sync = () => { if (spec.disabled) box.disabled = spec.disabled(state, data); };
  } else if (spec.steps) {
    return player(spec, state, data, change, id, label, said);
  } else throw new Error(`the control “${spec.name ?? spec.label}” is of no known type`);
  return { box, sync: () => { box.hidden = spec.shown ? !spec.shown(state, data) : false; sync(); }, stop() {} };
}

// A place in a sequence: a slider, one step back and on, and play, which the reader starts.
function player(spec, state, data, change, id, label, said) {
  const button = (face, press, words) => {
    const made = html("button", { type: "button", "aria-label": words, title: words }, face);
    made.addEventListener("click", press);
    return made;
  };
  let timer = 0;
  const last = () => spec.steps(state, data);
  const go = (to) => change(spec.name, clamp(to, [0, last()]));
  const stop = () => { clearInterval(timer); timer = 0; play.textContent = "Play"; };
  const slider = html("input", { id, type: "range", min: 0, step: 1 });
  const value = html("output", { for: id });
  const back = button("◀", () => { stop(); go(state[spec.name] - 1); }, "One step back");
  const play = button("Play", () => {
    if (timer) return stop();
    if (state[spec.name] >= last()) go(0);
    timer = setInterval(() => { state[spec.name] >= last() || !play.isConnected ? stop() : go(state[spec.name] + 1); }, 1000 / (spec.rate ?? 8));
    play.textContent = "Pause";
  });
  const on = button("▶", () => { stop(); go(state[spec.name] + 1); }, "One step on");
  slider.addEventListener("input", () => { stop(); go(+slider.value); });
  const sync = () => {
    play.hidden = still.matches; // whoever wants no motion steps by hand
    slider.max = last();
    slider.value = state[spec.name];
    const place = `${said()} of ${said(last())}`;
    value.textContent = `${spec.label} ${place}`;
    slider.setAttribute("aria-valuetext", place);
    back.setAttribute("aria-disabled", state[spec.name] <= 0); // disabled would lose the focus
    on.setAttribute("aria-disabled", state[spec.name] >= last());
  };
  return { box: html("div", { class: "player" }, back, play, on, label, slider, value), sync, stop };
}

async function start(box, number) {
  const address = (name) => new URL(box.dataset[name], document.baseURI).href;
  const [data, { default: figure }] = await Promise.all([
    fetch(address("src")).then((answer) => { if (!answer.ok) throw new Error(`${answer.status} for ${answer.url}`); return answer.json(); }),
    import(address("module")),
  ]);
  const specs = figure.controls(data), state = {}, id = `explore-${number}`;
  const begin = () => Object.assign(state, structuredClone({ ...figure.state?.(data), ...Object.fromEntries(specs.filter((s) => s.name).map((s) => [s.name, s.value])) }));
  begin();
  const svg = set(document.createElementNS(SVG, "svg"), { role: "img" });
  const stage = html("div", { class: "stage" }, svg), says = html("p", { class: "says", "aria-hidden": "true" }), heard = html("p", { class: "heard", role: "status" });
  let due = 0, telling = 0, spoken = "", plot;
  const draw = () => {
    due = 0;
    const { width, height } = stage.getBoundingClientRect();
    if (!width || !height) return; // taken away, or folded
    try {
      svg.replaceChildren();
      set(svg, { viewBox: `0 0 ${width} ${height}`, width, height });
      plot = drawing(svg, width, height, `${id}-clip`);
      figure.draw(plot, state, data);
      says.textContent = figure.describe(state, data, show);
    } catch (error) { fail(box, error); }
    clearTimeout(telling); // a screen reader hears where the reader has stopped, not every step on the way
    telling = setTimeout(() => {
      if (says.textContent === spoken) return;
      svg.setAttribute("aria-label", spoken = says.textContent);
      if (box.contains(document.activeElement)) heard.textContent = spoken;
    }, 600);
  };
  const refresh = () => { controls.forEach((c) => c.sync()); due ||= requestAnimationFrame(draw); };
  const change = (name, value) => {
    if (name) { state[name] = value; figure.changed?.(state, name, data); }
    refresh();
  };
  const controls = specs.map((spec, i) => control(spec, state, data, change, `${id}-${i}`));
  const reset = html("button", { type: "button" }, "Reset");
  reset.addEventListener("click", () => { controls.forEach((c) => c.stop()); begin(); refresh(); });
  const players = controls.filter((c) => c.box.className === "player").map((c) => c.box);
  const others = controls.map((c) => c.box).filter((c) => !players.includes(c));
  const ui = html("div", { class: "live", role: "group", "aria-label": figure.label }, html("div", { class: "controls" }, ...others, reset), stage, ...players, says, heard);
  if (figure.point) {
    svg.classList.add("pointed");
    let begins = false; // so that what was grabbed can be held
    svg.addEventListener("pointerdown", () => { begins = true; });
    const point = (event, pressed) => {
      const place = svg.getBoundingClientRect(), [px, py] = [event.clientX - place.left, event.clientY - place.top];
      const frame = plot.frames.findIndex((f) => f.under(px, py));
      figure.point(state, { frame, at: plot.frames[frame]?.under(px, py), pressed, begins: pressed && begins, px, py }, data);
      if (pressed) begins = false;
      refresh();
    };
    svg.addEventListener("click", (event) => point(event, true));
    svg.addEventListener("pointermove", (event) => { // a finger that moves scrolls the page
      const drags = event.buttons === 1 && event.pointerType !== "touch";
      if (drags || figure.hovers) point(event, drags);
    });
    if (figure.hovers) svg.addEventListener("pointerleave", (event) => point(event, false));
  }
  box.append(ui);
  box.classList.add("moved");
  refresh();
  new ResizeObserver(refresh).observe(stage);
  for (const source of [document, matchMedia("(prefers-color-scheme: dark)"), still]) source.addEventListener(source === document ? "themechange" : "change", refresh);
  new IntersectionObserver(([entry]) => { if (!entry.isIntersecting) controls.forEach((c) => c.stop()); }).observe(box);
}

function fail(box, error) { // the still figure is there all the same
  box.querySelector(".live")?.remove();
  box.classList.remove("moved");
  console.error(`the figure “${box.dataset.kind}” stays still:`, error);
}

const near = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) if (isIntersecting) {
    near.unobserve(target);
    start(target, boxes.indexOf(target)).catch((error) => fail(target, error));
  }
}, { rootMargin: "400px" });
const boxes = [...document.querySelectorAll(".explore")];
boxes.forEach((box) => near.observe(box));
