// Six optimizers on four surfaces, each surface a polynomial: terms [i, j, c] stand for c·xⁱ·yʲ.
// tests/explore/test_optimizer.py holds every function here to groundup.optimization.
export const value = (terms, [x, y]) => terms.reduce((sum, [i, j, c]) => sum + c * x ** i * y ** j, 0);

const derivative = (terms, k) =>
  terms.filter((term) => term[k]).map(([i, j, c]) => (k ? [i, j - 1, c * j] : [i - 1, j, c * i]));

export const gradient = (terms, p) => [0, 1].map((k) => value(derivative(terms, k), p));

export const hessian = (terms, p) => [0, 1].map((k) => gradient(derivative(terms, k), p));

/** One step from `run` {x, t, first, second}; first and second are what the method remembers, zero at the start. */
export function step(method, run, g, { lr, momentum: mu, alpha, beta2, eps }, H) {
  const t = run.t + 1, next = { x: [], t, first: [], second: [] };
  if (method === "Newton") {
    const det = H[0][0] * H[1][1] - H[0][1] * H[1][0];
    const move = [(H[1][1] * g[0] - H[0][1] * g[1]) / det, (H[0][0] * g[1] - H[1][0] * g[0]) / det];
    return { ...run, t, x: run.x.map((x, i) => x - move[i]) };
  }
  for (const i of [0, 1]) {
    let m = run.first[i], s = run.second[i], move = g[i];
    if (method === "momentum" || method === "Nesterov") {
      m = mu * m + g[i];
      move = method === "Nesterov" ? g[i] + mu * m : m;
    } else if (method === "RMSProp") {
      s = alpha * s + (1 - alpha) * g[i] * g[i];
      move = g[i] / (Math.sqrt(s) + eps);
    } else if (method === "Adam") {
      m = mu * m + (1 - mu) * g[i];
      s = beta2 * s + (1 - beta2) * g[i] * g[i];
      move = m / (1 - mu ** t) / (Math.sqrt(s / (1 - beta2 ** t)) + eps);
    } // gradient descent: as it is
    next.x[i] = run.x[i] - lr * move;
    [next.first[i], next.second[i]] = [m, s];
  }
  return next;
}

/** Positions from `start`, at most `steps` of them more; a run that leaves 10⁶ behind ends there. */
export function path(terms, method, start, settings, steps) {
  let run = { x: start, t: 0, first: [0, 0], second: [0, 0] };
  const points = [start];
  while (run.t < steps && run.x.every((x) => Math.abs(x) < 1e6)) {
    run = step(method, run, gradient(terms, run.x), settings, method === "Newton" && hessian(terms, run.x));
    points.push(run.x);
  }
  return points;
}

const adopt = (state, data) => { // the learning rate that suits this method here, and the surface's own start
  state.lr = data.surfaces[state.surface].lr[state.method] ?? state.lr;
};
const settings = (state, data) => ({ ...data.settings, lr: state.lr, momentum: state.momentum });
const run = (state, data) => path(data.surfaces[state.surface].terms, state.method, [state.x, state.y], settings(state, data), data.surfaces[state.surface].steps);
const hasMomentum = ({ method }) => ["momentum", "Nesterov", "Adam"].includes(method);
const above = (surface, p) => Math.max(value(surface.terms, p) - surface.lowest, 1e-12);

export default {
  size: [37, 50],
  label: "Optimizer playground",
  controls: (data) => [
    { name: "surface", label: "Surface", choice: data.surfaces.map((s, i) => [i, s.name]), value: 0 },
    { name: "method", label: "Optimizer", choice: data.methods.map((m) => [m, m]), value: "momentum" },
    { name: "lr", label: "Learning rate η", range: [1e-4, 1], log: true, value: data.surfaces[0].lr.momentum, shown: (s) => s.method !== "Newton" },
    { name: "momentum", label: "Momentum μ, β₁", range: [0, 0.99], step: 0.01, value: 0.9, shown: hasMomentum },
    { name: "x", label: "Start x", number: [-10, 10, 0.1], value: data.surfaces[0].start[0] },
    { name: "y", label: "Start y", number: [-10, 10, 0.1], value: data.surfaces[0].start[1] },
    { button: "Keep for comparison", press: (state, data) => { state.kept = { path: run(state, data), name: `${state.method}, η = ${state.lr}` }; } },
    { name: "t", label: "Step", steps: (state, data) => run(state, data).length - 1, rate: 12, value: 25 },
  ],
  state: () => ({ kept: null }),
  changed(state, name, data) {
    if (name === "surface") [[state.x, state.y], state.kept] = [data.surfaces[state.surface].start, null];
    if (name === "surface" || name === "method") adopt(state, data);
    state.t = Math.min(state.t, run(state, data).length - 1);
  },
  point(state, { frame, at, pressed }, data) {
    if (frame === 0 && pressed) [state.x, state.y] = at.map((v) => Math.round(v * 20) / 20);
    state.t = Math.min(state.t, run(state, data).length - 1);
  },
  draw(plot, state, data) {
    const surface = data.surfaces[state.surface], points = run(state, data), { width, height } = plot;
    const [map, curve] = plot.wide ? [[0, 0, width * 0.58, height], [width * 0.58, 0, width * 0.42, height]] : [[0, 0, width, height * 0.6], [0, height * 0.6, width, height * 0.4]];
    const [[x0, x1], [y0, y1]] = surface.window;
    const hill = plot.axes({ x: { from: x0, to: x1, label: "x" }, y: { from: y0, to: y1, label: "y" }, box: map });
    for (const line of surface.contours) hill.line(line, { color: "grey", width: 0.8, opacity: 0.55 });
    for (const p of surface.minima) hill.cross(p);
    const loss = plot.axes({ x: { from: 0, to: surface.steps, label: "step" }, y: { from: 1e-8, to: 1e4, log: true, label: "loss above the minimum" }, box: curve });
    const both = (track, upTo, look) => {
      hill.line(track.slice(0, upTo + 1), look);
      loss.line(track.map((p, t) => [t, above(surface, p)]).slice(0, upTo + 1), look);
    };
    if (state.kept) {
      both(state.kept.path, state.kept.path.length, { color: "orange", width: 1.2, dash: "4 3" });
      loss.text([surface.steps, 1e3], `kept: ${state.kept.name}`, { color: "orange", anchor: "end", dx: -4 });
    }
    both(points, state.t, { color: "blue", width: 1.4 });
    hill.dots(points.slice(0, state.t + 1), { color: "blue", r: 2 });
    hill.dots([points[0]], { color: "ink", r: 4 });
    hill.dots([points[state.t]], { color: "blue", r: 5 });
    loss.dots([[state.t, above(surface, points[state.t])]], { color: "blue", r: 4 });
  },
  describe(state, data, show) {
    const surface = data.surfaces[state.surface], points = run(state, data), here = points[state.t];
    const [first, now] = [value(surface.terms, points[0]) - surface.lowest, value(surface.terms, here) - surface.lowest];
    const set = state.method === "Newton" ? "" : ` with η = ${show(state.lr)}${hasMomentum(state) ? ` and ${state.method === "Adam" ? "β₁" : "μ"} = ${state.momentum}` : ""}`;
    const end = points.length - 1 < surface.steps ? ` It diverges: past a million after ${points.length - 1} steps.` : "";
    return `Step ${state.t} of ${state.method}${set} on ${surface.name}: at (${show(here[0])}, ${show(here[1])}), loss ${show(now)} above the minimum, from ${show(first)} at the start.${end}`;
  },
};
