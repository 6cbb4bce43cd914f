// Bias and variance of polynomials with a ridge penalty. A fit is linear in y, so its mean and variance over training sets are exact.
// tests/explore/test_bias.py holds every function here to groundup.regression and groundup.generalization.

/** Legendre polynomials P₀ … P_degree at each x, one row each. */
export const powers = (x, degree) => x.map((v) => {
  const row = [1, v];
  for (let k = 1; k < degree; k++) row.push(((2 * k + 1) * v * row[k] - k * row[k - 1]) / (k + 1));
  return row.slice(0, degree + 1);
});

const dot = (a, b) => a.reduce((sum, v, i) => sum + v * b[i], 0);

/** Rows h with (weight j) = h[j]·y for the ridge fit to X (n, d): its first column is free, the others are penalised. */
export function solver(X, alpha) {
  const d = X[0].length, n = X.length, R = X[0].map(() => []);
  const Q = X[0].map((_, j) => [...X.map((row) => row[j]), ...X[0].map((_, i) => (i === j && j ? Math.sqrt(alpha) : 0))]); // columns of [X; √α I]
  for (let j = 0; j < d; j++) {
    for (let i = 0; i < j; i++) R[i][j] = 0;
    for (let again = 0; again < 2; again++) for (let i = 0; i < j; i++) { // Gram–Schmidt, twice for the last digits
      const along = dot(Q[i], Q[j]);
      R[i][j] += along;
      Q[j] = Q[j].map((v, k) => v - along * Q[i][k]);
    }
    R[j][j] = Math.sqrt(dot(Q[j], Q[j]));
    Q[j] = Q[j].map((v) => v / R[j][j]);
  }
  const rows = Q.map((column) => column.slice(0, n));
  for (let j = d - 1; j >= 0; j--) { // back substitution
    for (let i = j + 1; i < d; i++) rows[j] = rows[j].map((v, k) => v - R[j][i] * rows[i][k]);
    rows[j] = rows[j].map((v) => v / R[j][j]);
  }
  return rows;
}

/** Rows s with (prediction at x_new[i]) = s[i]·y. */
export function smoother({ x_train, x_new }, degree, alpha) {
  const rows = solver(powers(x_train, degree), alpha);
  return powers(x_new, degree).map((at) => x_train.map((_, k) => at.reduce((sum, v, j) => sum + v * rows[j][k], 0)));
}

/** Squared bias and variance, averaged over x_new, of fits to f + σ·noise. */
export function split(data, S, sigma) {
  const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;
  return { bias: mean(S.map((s, i) => (dot(s, data.f_train) - data.f_new[i]) ** 2)), variance: sigma ** 2 * mean(S.map((s) => dot(s, s))) };
}

const known = {};
const fitted = (data, degree, alpha) => (known[`${degree} ${alpha}`] ??= smoother(data, degree, alpha)); // a slider comes by again

const strength = (alpha) => (alpha ? `${alpha}` : "none");

export default {
  size: [35, 51],
  label: "Bias, variance and a penalty",
  controls: (data) => [
    { name: "degree", label: "Degree", range: [0, 15], step: 1, value: 15 },
    { name: "penalty", label: "Penalty α", range: [0, data.penalties.length - 1], step: 1, value: 0, show: (i) => strength(data.penalties[i]) },
    { name: "sigma", label: "Noise σ", range: [0.05, 1], step: 0.05, value: data.sigma },
    { name: "sets", label: "Training sets shown", range: [1, data.noise.length], step: 1, value: 5 },
    { name: "against", label: "Error against", choice: [["degree", "degree"], ["penalty", "penalty"]], value: "degree" },
  ],
  draw(plot, state, data) {
    const { width, height, rem } = plot, alpha = data.penalties[state.penalty], S = fitted(data, state.degree, alpha);
    const boxes = plot.wide ? [[0, 0, width / 2, height], [width / 2, 0, width / 2, height]] : [[0, 0, width, height / 2], [0, height / 2, width, height / 2]];
    const fits = plot.axes({ x: { from: -1, to: 1, label: "time of day x" }, y: { from: -2.5, to: 2.5, label: "load" }, box: boxes[0] });
    const through = (values, look) => fits.line(data.x_new.map((x, i) => [x, values[i]]), look);
    for (const noise of data.noise.slice(0, state.sets)) through(S.map((s) => dot(s, data.f_train.map((f, k) => f + state.sigma * noise[k]))), { color: "blue", width: 1, opacity: 0.6 });
    through(data.f_new, { color: "ink" });
    through(S.map((s) => dot(s, data.f_train)), { color: "orange", dash: "6 4" });
    [["truth", "ink"], ["fits", "blue"], ["their mean", "orange"]].forEach(([words, color], i) => fits.text([-1, -2.5], words, { color, bold: true, dx: 8 + [0, 3.2, 5.7][i] * rem, dy: -8 }));
    const by = state.against === "degree", places = by ? Array.from({ length: 16 }, (_, i) => i) : data.penalties.slice(1);
    const errors = plot.axes({ x: { from: places[0], to: places.at(-1), log: !by, label: by ? "degree" : "penalty α" }, y: { from: 1e-4, to: 10, log: true, label: "mean squared error (load²)" }, box: boxes[1] });
    const parts = places.map((v) => split(data, by ? fitted(data, v, alpha) : fitted(data, state.degree, v), state.sigma)), noise = state.sigma ** 2;
    const here = by ? state.degree : places.indexOf(alpha);
    const kinds = [["noise σ²", "muted", () => noise], ["bias²", "orange", (p) => p.bias], ["variance", "green", (p) => p.variance], ["sum", "blue", (p) => noise + p.bias + p.variance]];
    kinds.forEach(([words, color, value], i) => {
      errors.line(parts.map((p, k) => [places[k], Math.max(value(p), 1e-9)]), { color, dash: color === "muted" ? "2 4" : undefined });
      if (here >= 0 && i) errors.dots([[places[here], value(parts[here])]], { color, r: 4 });
      errors.text([places[0], 10], words, { color, bold: true, dx: 8 + [0, 4.2, 7.4, 11.6][i] * rem, dy: 1.1 * rem });
    });
  },
  describe(state, data, show) {
    const alpha = data.penalties[state.penalty], { bias, variance } = split(data, fitted(data, state.degree, alpha), state.sigma), sum = (p) => p.bias + p.variance;
    const all = Array.from({ length: 16 }, (_, d) => sum(split(data, fitted(data, d, alpha), state.sigma))), best = all.indexOf(Math.min(...all));
    const along = data.penalties.map((a) => sum(split(data, fitted(data, state.degree, a), state.sigma))), weight = along.indexOf(Math.min(...along));
    return `Degree ${state.degree}, ${alpha ? `penalty ${alpha}` : "no penalty"}: noise ${show(state.sigma ** 2)} + bias² ${show(bias)} + variance ${show(variance)} = ${show(state.sigma ** 2 + bias + variance)}, `
      + `the expected error on new data. Least at this penalty with degree ${best}; at this degree with ${weight ? `penalty ${data.penalties[weight]}` : "none"}.`;
  },
};
