// k-means and a Gaussian mixture in the plane, step by step. tests/explore/test_clusters.py holds every function here to groundup.clustering.
const squared = ([a, b], [c, d]) => (a - c) ** 2 + (b - d) ** 2;
const total = (values) => values.reduce((sum, v) => sum + v, 0);

/** Nearest centre of each row; the lower index wins a tie. */
export const assign = (X, centers) => X.map((x) => centers.reduce((best, c, j) => (squared(x, c) < squared(x, centers[best]) ? j : best), 0));

/** Mean of each cluster; one without rows moves to a row far from its centre. */
export function update(X, labels, centers) {
  const sums = centers.map(() => [0, 0, 0]), far = X.map((x, i) => [squared(x, centers[labels[i]]), x]).sort((p, q) => q[0] - p[0]);
  X.forEach(([x, y], i) => { const s = sums[labels[i]]; s[0] += x; s[1] += y; s[2]++; });
  return sums.map(([x, y, n]) => (n ? [x / n, y / n] : far.shift()[1]));
}

/** Lloyd's algorithm from `start`: what there is after each half step, assignment and update in turn, until a pass gains nothing. */
export function lloyd(X, start, passes = 60) {
  const state = (centers, labels) => ({ centers, labels, value: total(X.map((x, i) => squared(x, centers[labels[i]]))) }), run = [state(start, assign(X, start))];
  while (run.length < 2 * passes + 1) {
    const { centers, labels } = run.at(-1), moved = update(X, labels, centers), near = assign(X, moved);
    run.push(state(moved, labels), state(moved, near.map((j, i) => (squared(X[i], moved[j]) <= squared(X[i], moved[labels[i]]) ? j : labels[i]))));
    if (run.at(-1).value >= run.at(-3).value) break;
  }
  return run;
}

/** Weights, means and covariances [a, b, c] of [[a, b], [b, c]] that suit the responsibilities R best; no variance below `floor`. */
export function fit(X, R, floor) {
  return R[0].map((_, j) => {
    const n = total(R.map((r) => r[j])), safe = Math.max(n, 1e-300), mean = [0, 1].map((k) => total(X.map((x, i) => R[i][j] * x[k])) / safe);
    let [a, b, c] = [[0, 0], [0, 1], [1, 1]].map(([k, l]) => total(X.map((x, i) => R[i][j] * (x[k] - mean[k]) * (x[l] - mean[l]))) / safe);
    const middle = (a + c) / 2, reach = Math.hypot((a - c) / 2, b), long = Math.max(middle + reach, floor);
    if (middle - reach < floor) { // raise the variance along the short axis, or along both
      const turn = Math.atan2(2 * b, a - c) / 2, [u, v] = [Math.cos(turn), Math.sin(turn)];
      [a, b, c] = [long * u * u + floor * v * v, (long - floor) * u * v, long * v * v + floor * u * u];
    }
    return { weight: n / X.length, mean, covariance: [a, b, c] };
  });
}

const cholesky = ([a, b, c]) => { const p = Math.sqrt(a), q = b / p; return [p, q, Math.sqrt(c - q * q)]; };

/** Log density of each row and the responsibilities of the parts for it. */
export function expect(X, parts) {
  const made = parts.map((part) => [Math.log(part.weight) - Math.log(2 * Math.PI), part.mean, ...cholesky(part.covariance)]);
  const A = X.map(([x, y]) => made.map(([constant, mean, p, q, r]) => {
    const u = (x - mean[0]) / p, v = (y - mean[1] - q * u) / r;
    return constant - (u * u + v * v) / 2 - Math.log(p) - Math.log(r);
  }));
  const density = A.map((row) => { const most = Math.max(...row); return most + Math.log(total(row.map((v) => Math.exp(v - most)))); });
  return { density, R: A.map((row, i) => row.map((v) => Math.exp(v - density[i]))) };
}

/** EM from the nearest centres: what there is after each step, until one gains at most `tol` per row. */
export function em(X, start, floor, tol, steps = 200) {
  const nearest = assign(X, start), run = [{ centers: start, labels: nearest }];
  for (let R = nearest.map((j) => start.map((_, l) => +(l === j))); run.length <= steps;) {
    const parts = fit(X, R, floor), found = expect(X, parts), value = total(found.density) / X.length, before = run.at(-1).value;
    R = found.R; // E step
    run.push({ parts, centers: parts.map((part) => part.mean), labels: R.map((r) => r.indexOf(Math.max(...r))), value });
    if (value - before <= tol) break;
  }
  return run;
}

const COLOURS = ["blue", "orange", "green", "purple", "red", "grey"];
let known = {};
function path({ set, method, start }, data) { // computed once for each start
  const key = JSON.stringify([set, method, start]), { rows } = data.sets[set];
  if (known.key !== key) known = { key, run: method === "k-means" ? lloyd(rows, start) : em(rows, start, data.floor, data.tol) };
  return known.run;
}
const share = (v, [from, to]) => (v - from) / (to - from);
function settle(state, data) { // the step and the centre in hand within their bounds, and its place
  [state.t, state.centre] = [Math.min(state.t, path(state, data).length - 1), Math.min(state.centre, state.k - 1)];
  [state.x, state.y] = path(state, data)[state.t].centers[state.centre].map((v, i) => share(v, data.sets[state.set].window[i]));
}
function move(state, data, place) { // take up the centre in hand where it is now, and set it down
  state.start = path(state, data)[state.t].centers.map((c, j) => (j === state.centre ? place : c));
  state.t = 0;
  settle(state, data);
}
function begin(state, data) {
  const { starts } = data.sets[state.set];
  Object.assign(state, { start: starts[state.draw % starts.length].slice(0, state.k), t: 0 });
  settle(state, data);
}
const coordinate = (axis) => (v, state, data) => { const [from, to] = data.sets[state.set].window[axis]; return `${+(from + v * (to - from)).toFixed(1)}`.replace("-", "−"); };
const half = ({ t, method }) => (t === 0 ? "the first assignment" : method !== "k-means" ? `step ${t}` : `half step ${t}, ${t % 2 ? "an update" : "an assignment"}`);

export default {
  size: [40, 54],
  label: "k-means and mixtures, step by step",
  controls: (data) => [
    { name: "set", label: "Data", choice: data.sets.map((s, i) => [i, s.name]), value: 0 },
    { name: "method", label: "Algorithm", choice: [["k-means", "k-means"], ["mixture", "Gaussian mixture"]], value: "k-means" },
    { name: "k", label: "Centres k", range: [1, 6], step: 1, value: data.sets[0].k },
    { name: "centre", label: "Move centre", range: [0, 5], step: 1, value: 0, show: (j) => `${j + 1}` },
    { name: "x", label: "to feature 1", range: [0, 1], step: 0.02, value: share(data.sets[0].starts[0][0][0], data.sets[0].window[0]), show: coordinate(0) },
    { name: "y", label: "and feature 2", range: [0, 1], step: 0.02, value: share(data.sets[0].starts[0][0][1], data.sets[0].window[1]), show: coordinate(1) },
    { button: "Another start", press: (state, data) => { state.draw++; begin(state, data); } },
    { name: "t", label: "Step", steps: (state, data) => path(state, data).length - 1, rate: 3, value: 0 },
  ],
  state: (data) => ({ draw: 0, start: data.sets[0].starts[0].slice(0, data.sets[0].k) }),
  changed(state, name, data) {
    if (name === "set") [state.k, state.draw] = [data.sets[state.set].k, 0];
    if (name === "method") state.t = 0;
    if (name === "set" || name === "k") begin(state, data);
    else if (name === "x" || name === "y") {
      const axis = "xy".indexOf(name), [from, to] = data.sets[state.set].window[axis];
      const place = [...path(state, data)[state.t].centers[state.centre]];
      place[axis] = from + state[name] * (to - from);
      move(state, data, place);
    } else settle(state, data);
  },
  point(state, { frame, at, pressed, begins }, data) {
    const scaled = (p) => p.map((v, i) => share(v, data.sets[state.set].window[i]));
    if (frame !== 0 || !pressed) return;
    if (begins) [state.centre] = assign([scaled(at)], path(state, data)[state.t].centers.map(scaled)); // the nearest as it looks
    move(state, data, at);
  },
  draw(plot, state, data) {
    const set = data.sets[state.set], run = path(state, data), now = run[state.t], { width, height, rem } = plot;
    const boxes = plot.wide ? [[0, 0, width * 0.62, height], [width * 0.62, 0, width * 0.38, height]] : [[0, 0, width, height * 0.6], [0, height * 0.6, width, height * 0.4]];
    const [[x0, x1], [y0, y1]] = set.window, means = state.method === "k-means";
    const map = plot.axes({ x: { from: x0, to: x1, label: "feature 1" }, y: { from: y0, to: y1, label: "feature 2" }, box: boxes[0] });
    COLOURS.forEach((color, j) => map.dots(set.rows.filter((_, i) => now.labels[i] === j), { color, r: 1.8 }));
    now.centers.forEach((center, j) => {
      map.line(run.slice(0, state.t + 1).map((s) => s.centers[j]), { color: "ink", width: 1.2 });
      if (now.parts) {
        const [p, q, r] = cholesky(now.parts[j].covariance), turn = Array.from({ length: 61 }, (_, i) => [2 * Math.cos((i * Math.PI) / 30), 2 * Math.sin((i * Math.PI) / 30)]);
        map.line(turn.map(([u, v]) => [center[0] + p * u, center[1] + q * u + r * v]), { color: COLOURS[j], width: 2 }); // two standard deviations
      }
      for (const [color, r] of [["paper", 9], [COLOURS[j], 7.5]]) map.dots([center], { color, r });
      map.text(center, `${j + 1}`, { color: "paper", anchor: "middle", dy: 0.27 * rem, bold: true });
    });
    const curve = run.map((s, t) => [t, s.value]).filter(([, v]) => v !== undefined), best = set.k === state.k ? set.best[state.method] : undefined;
    const values = [...curve.map(([, v]) => v), best ?? curve.at(-1)[1]], [low, high] = [means ? 0 : Math.min(...values), Math.max(...values)];
    const goal = plot.axes({ x: { from: 0, to: Math.max(run.length - 1, 2), label: means ? "half step" : "step" }, y: { from: low - 0.05 * (high - low), to: high + 0.08 * (high - low) + 1e-9, label: means ? "inertia J" : "log-likelihood (nats per row)" }, box: boxes[1] });
    if (best !== undefined) goal.line([[0, best], [run.length, best]], { color: "green", dash: "4 3", width: 1.2 });
    for (const draw of [goal.line, goal.dots]) draw(curve, { color: "blue", width: 1.4, r: 2.2 });
    if (now.value !== undefined) goal.dots([[state.t, now.value]], { color: "orange", r: 5 });
  },
  describe(state, data, show) {
    const set = data.sets[state.set], run = path(state, data), now = run[state.t], means = state.method === "k-means";
    const sizes = now.centers.map((_, j) => now.labels.filter((l) => l === j).length), place = now.centers[state.centre].map(show).join(", ");
    const value = now.value === undefined ? "" : means ? `, J = ${show(now.value)}` : `, ${show(now.value)} nats per row`;
    const best = set.k === state.k ? ` (best of ten restarts: ${show(set.best[state.method])}, dashed)` : "", end = state.t === run.length - 1 ? " It has stopped." : "";
    return `After ${half(state)}${value}${best}; centre ${state.centre + 1} at (${place}); rows per centre: ${sizes.join(", ")}.${end}`;
  },
};
