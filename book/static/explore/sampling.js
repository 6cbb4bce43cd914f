// From logits to a token: the filters of groundup.decoding.Sampler, in its order, and its draw.
// tests/explore/test_sampling.py holds both functions to Python's.
const softmax = (logits) => {
  const most = logits.reduce((a, b) => Math.max(a, b)), e = logits.map((z) => Math.exp(z - most)), sum = e.reduce((a, b) => a + b);
  return e.map((x) => x / sum);
};

/** The logits to draw from: -Infinity where a token is excluded. `k`, `p`, `least` (min-p) of null are off. */
export function filter(logits, { temperature, k, p, least }) {
  const most = logits.reduce((a, b) => Math.max(a, b));
  if (temperature === 0) return logits.map((_, i) => (i === logits.indexOf(most) ? 0 : -Infinity)); // greedy
  let z = logits.map((value) => (value - most) / temperature);
  if (k !== null) {
    const smallest = Float64Array.from(z).sort().at(-Math.min(k, z.length));
    z = z.map((value) => (value < smallest ? -Infinity : value));
  }
  if (p !== null && p < 1) {
    const share = softmax(z);
    let sum = 0;
    const late = [...z.keys()].sort((a, b) => z[b] - z[a] || a - b).filter((i, place) => {
      sum += share[i];
      return place && sum - share[i] >= p; // p was reached before this token
    });
    for (const i of late) z[i] = -Infinity;
  }
  return least === null ? z : z.map((value) => (value < Math.log(least) ? -Infinity : value));
}

/** The token at which the sum of probabilities passes the uniform number u. */
export function draw(logits, u) {
  let total = 0;
  const sums = softmax(logits).map((share) => (total += share));
  return sums.findIndex((sum) => sum > u * total);
}

const settings = ({ temperature, k, p, least }, { tokens }) => ({
  temperature, k: Math.round(k) < tokens.length ? Math.round(k) : null, p: p < 1 ? p : null, least: least || null });
function now(state, data) {
  const { logits } = data.places[state.place], z = filter(logits, settings(state, data));
  const warm = softmax(logits.map((value) => value / (state.temperature || 1))), kept = softmax(z);
  const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a] || a - b);
  return { z, warm, kept, order, count: z.filter((value) => value > -Infinity).length, token: draw(z, state.u) };
}
const off = (words) => (value, state, data) => words(value, data) ?? "off";

export default {
  size: [36, 54],
  label: "Sampling from a model's logits",
  controls: (data) => [
    { name: "place", label: "The text so far", choice: data.places.map(({ text }, i) => [i, `${text} …`]), value: 0 },
    { name: "temperature", label: "Temperature τ", range: [0, 2], step: 0.05, value: 1, show: (t) => (t ? t.toFixed(2) : "0, greedy") },
    { name: "k", label: "Top-k", range: [1, data.tokens.length], log: true, value: data.tokens.length, show: off((k, { tokens }) => (Math.round(k) < tokens.length ? Math.round(k) : null)) },
    { name: "p", label: "Top-p", range: [0.01, 1], step: 0.01, value: 0.9, show: off((p) => (p < 1 ? p : null)) },
    { name: "least", label: "Min-p", range: [0, 1], step: 0.01, value: 0, show: off((p) => p || null) },
    { name: "u", label: "Uniform number u", range: [0, 0.999], step: 0.001, value: 0.5, show: (u) => u.toFixed(3) },
    { button: "Draw u", press: (state) => { state.u = Math.floor(Math.random() * 1000) / 1000; } },
  ],
  draw(plot, state, data) {
    const { warm, kept, order, count, token } = now(state, data), { rem, width, height } = plot;
    const [bars, curve] = plot.wide ? [[0, 0, width * 0.55, height], [width * 0.55, 0, width * 0.45, height]] : [[0, 0, width, height * 0.58], [0, height * 0.58, width, height * 0.42]];
    const rows = Math.floor(bars[3] / (1.25 * rem)), listed = order.slice(0, rows);
    if (!listed.includes(token)) listed[rows - 1] = token;
    const label = 6 * rem, list = plot.axes({ x: { from: 0, to: Math.max(...kept, ...warm) * 1.05 }, y: { from: rows, to: 0 }, box: [bars[0] + label, bars[1], bars[2] - label - 3 * rem, bars[3]], bare: true });
    listed.forEach((i, row) => {
      list.rect([0, row + 0.12], [kept[i], row + 0.88], { color: i === token ? "orange" : "blue", opacity: 0.85, tip: `rank ${order.indexOf(i) + 1}` });
      list.rect([0, row + 0.12], [warm[i], row + 0.88], { color: "none", stroke: kept[i] ? "muted" : "grey" });
      const y = list.y(row + 0.5) + 0.27 * rem, named = plot.add("text", { x: list.left - 0.4 * rem, y, "text-anchor": "end", class: "label", opacity: kept[i] ? 1 : 0.55 });
      named.textContent = data.tokens[i].slice(0, 11);
      if (!kept[i]) named.setAttribute("text-decoration", "line-through");
      plot.add("text", { x: list.x(Math.max(kept[i], warm[i])) + 0.3 * rem, y }, kept[i] ? kept[i].toFixed(3) : "cut");
    });
    const tail = plot.axes({ x: { from: 1, to: order.length, log: true, label: "rank of the token" }, y: { from: 1e-8, to: 1, log: true, label: "probability" }, box: curve });
    const ranks = [...order.keys()].filter((r) => r < 60 || r % (r >> 5) === 0); // dense enough for a curve
    tail.line(ranks.map((r) => [r + 1, Math.max(warm[order[r]], 1e-12)]), { color: "muted", width: 1.2, dash: "4 3" });
    tail.line(ranks.filter((r) => kept[order[r]]).map((r) => [r + 1, kept[order[r]]]), { color: "blue", width: 2.2 });
    const end = Math.min(...kept.filter((share) => share));
    tail.line([[count, end / 6], [count, end * 6]], { color: "blue", width: 2.2 });
    [["at this temperature", "muted"], ["drawn from", "blue"], ["where u falls", "orange"]].forEach(([words, color], i) =>
      tail.text([order.length, 1], words, { color, anchor: "end", dx: -0.3 * rem, dy: (1.1 + 1.2 * i) * rem }));
    tail.dots([[order.indexOf(token) + 1, kept[token]]], { color: "orange", r: 4.5 });
  },
  describe(state, data, show) {
    const { warm, kept, order, count, token } = now(state, data), lost = warm.reduce((sum, share, i) => sum + (kept[i] ? 0 : share), 0);
    const { k, p, least } = settings(state, data), set = `τ ${state.temperature}, top-k ${k ?? "off"}, top-p ${p ?? "off"}, min-p ${least ?? "off"}`;
    const stay = `${count.toLocaleString("en")} of ${order.length.toLocaleString("en")} tokens stay; the others held ${show(lost)} of the probability`;
    return `After “${data.places[state.place].text}”, with ${set}, ${stay}. Most probable: ${order.slice(0, 3).map((i) => `${data.tokens[i]} ${show(kept[i])}`).join(", ")}. At u = ${state.u.toFixed(3)} falls ${data.tokens[token]}, ${show(kept[token])}.`;
  },
};
