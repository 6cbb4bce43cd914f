// Pages that wait for n backends, hedged or not. A backend's latency is a mixture of log-normals: causes are [name, share, median, spread],
// the last of them the stalls. tests/explore/test_tail.py holds every function here to groundup.datasets and SciPy.

/** 1 − Φ(z), to the last digits also far out: a series for small z, a continued fraction for large. */
export function above(z) {
  if (z < 0) return 1 - above(-z);
  const density = Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI);
  let sum = z;
  if (z > 3) {
    for (let k = 60; k; k--) sum = z + k / sum;
    return density / sum;
  }
  for (let k = 3, term = z; term > 1e-17 * sum; k += 2) sum += term *= (z * z) / k;
  return 0.5 - density * sum;
}

/** P(T > t) of one request. */
export const slower = (causes, t) => causes.reduce((sum, [, share, median, spread]) => sum + share * (t > 0 ? above(Math.log(t / median) / spread) : 1), 0);

/** The two kinds of moment, [probability, causes in it], when a share c of the stalls comes where every request stalls with probability a. */
export function moments(causes, a, c) {
  const stalls = causes.at(-1)[1], bad = (stalls * c) / a;
  const within = (p) => causes.map(([name, share, ...rest], i) => [name, i < causes.length - 1 ? (share * (1 - p)) / (1 - stalls) : p, ...rest]);
  return [[bad, within(a)], [1 - bad, within((stalls * (1 - c)) / (1 - bad))]];
}

/** P(page of n slower than t); a second copy leaves after `delay`, or never if that is null. */
export const page = (kinds, n, delay, t) => kinds.reduce((sum, [probability, causes]) => {
  if (!probability) return sum;
  const one = slower(causes, t) * (delay === null ? 1 : slower(causes, t - delay));
  return sum - probability * Math.expm1(n * Math.log1p(-Math.min(one, 1)));
}, 0);

/** The t that a page exceeds with probability `level`, by bisection. */
export function exceeded(kinds, n, delay, level) {
  let [low, high] = [Math.log(1e-3), Math.log(1e7)];
  for (let i = 0; i < 40; i++) { // to 2 × 10⁻¹¹
    const middle = (low + high) / 2;
    if (page(kinds, n, delay, Math.exp(middle)) > level) low = middle; else high = middle;
  }
  return Math.exp(high);
}

/** The service with the share and the median of its stalls as set, the other causes scaled to fill up. */
export const service = (causes, stalls, median) => causes.map(([name, share, m, spread], i) =>
  i < causes.length - 1 ? [name, (share * (1 - stalls)) / (1 - causes.at(-1)[1]), m, spread] : [name, stalls, median, spread]);

const percent = (v) => `${+(100 * v).toPrecision(2)} %`;
const read = (state, data) => {
  const causes = service(data.causes, state.stalls, state.median);
  return { causes, kinds: moments(causes, data.a, state.shared), n: data.fanouts[state.n], delay: data.delays[state.delay] };
};

export default {
  size: [34, 49],
  label: "Fan-out and tail latency",
  controls: (data) => [
    { name: "n", label: "Backends n", range: [0, data.fanouts.length - 1], step: 1, value: data.fanouts.indexOf(100), show: (i) => `${data.fanouts[i]}` },
    { name: "stalls", label: "Share of stalls", range: [0.0025, 0.1], step: 0.0025, value: data.causes.at(-1)[1], show: (v) => `${+(100 * v).toFixed(2)} %` },
    { name: "median", label: "Median stall", range: [50, 1000], step: 10, value: data.causes.at(-1)[2], unit: "ms" },
    { name: "delay", label: "Copy after", range: [0, data.delays.length - 1], step: 1, value: 0, show: (i) => (data.delays[i] === null ? "never" : `${data.delays[i]} ms`) },
    { name: "shared", label: "Shared cause c", range: [0, 1], step: 0.05, value: 0, show: percent },
  ],
  draw(plot, state, data) {
    const { causes, kinds, n, delay } = read(state, data), { width, height } = plot, alone = [[1, causes]];
    const boxes = plot.wide ? [[0, 0, width / 2, height], [width / 2, 0, width / 2, height]] : [[0, 0, width, height / 2], [0, height / 2, width, height / 2]];
    const share = plot.axes({ x: { from: 1, to: 1e4, log: true, label: "latency t (ms)" }, y: { from: 1e-4, to: 1, log: true, label: "P(slower than t)" }, box: boxes[0] });
    const growth = plot.axes({ x: { from: 1, to: data.fanouts.at(-1), log: true, label: "backends n" }, y: { from: 3, to: 2e4, log: true, label: "latency (ms)" }, box: boxes[1] });
    const times = Array.from({ length: 161 }, (_, i) => 10 ** (i / 40));
    const curve = (kinds, n, delay, look) => share.line(times.map((t) => [t, Math.max(page(kinds, n, delay, t), 1e-9)]), look);
    curve(alone, 1, null, { color: "grey" });
    const pages = [[null, { color: "blue" }], [delay, { color: "orange" }]].slice(0, delay === null ? 1 : 2);
    for (const [d, look] of pages) {
      curve(kinds, n, d, look);
      for (const level of [0.5, 0.01]) {
        const now = exceeded(kinds, n, d, level), width = level === 0.5 ? 1.2 : 2.2;
        growth.line(data.fanouts.map((m) => [m, exceeded(kinds, m, d, level)]), { ...look, width });
        share.dots([[now, level]], { ...look, r: 4 });
        growth.dots([[n, now]], { ...look, r: 4 });
      }
    }
    const key = [["one backend", "grey"], [`page of ${n}`, "blue"], ["hedged", "orange"]].slice(0, pages.length + 1);
    key.forEach(([words, color], i) => share.text([1, 1e-4], words, { color, dx: 8, dy: -8 - (key.length - 1 - i) * 1.1 * plot.rem, bold: true }));
    growth.text([1, 2e4], "p99 thick, median thin", { dx: 8, dy: 1.2 * plot.rem });
  },
  describe(state, data, show) {
    const { causes, kinds, n, delay } = read(state, data), alone = [[1, causes]], limit = exceeded(alone, 1, null, 0.01);
    const two = (kinds, n, d) => `median ${show(exceeded(kinds, n, d, 0.5))} ms, p99 ${show(exceeded(kinds, n, d, 0.01))} ms`;
    const late = `${percent(page(kinds, n, null, limit))} of pages are slower than a backend’s p99`;
    const hedge = delay === null ? "" : ` With a second copy after ${delay} ms: ${two(kinds, n, delay)}, for ${percent(slower(causes, delay))} more requests.`;
    return `One backend: ${two(alone, 1, null)}. A page of ${n}: ${two(kinds, n, null)}; ${late}.${hedge}`;
  },
};
