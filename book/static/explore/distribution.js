// Two distributions of the same symbols: what occurs, p, and what the code was made for, q.
// tests/explore/test_distribution.py holds the functions to groundup.information and to the chapter's Huffman.
const log2 = (share) => -Math.log2(share);
const total = (p, cost) => p.reduce((sum, share, i) => sum + (share ? share * cost(i) : 0), 0);
export const entropy = (p) => total(p, (i) => log2(p[i]));
export const crossEntropy = (p, q) => total(p, (i) => log2(q[i]));
export const divergence = (p, q) => total(p, (i) => Math.log2(p[i] / q[i]));

/** Word lengths of an optimal prefix code: the two rarest become one, again and again; of equals, the earlier. */
export function huffman(p) {
  const lengths = p.map(() => 0), heap = p.map((weight, i) => ({ weight, i, inside: [i] }));
  while (heap.length > 1) {
    heap.sort((a, b) => a.weight - b.weight || a.i - b.i);
    const [a, b] = heap.splice(0, 2), inside = [...a.inside, ...b.inside];
    for (const i of inside) lengths[i]++;
    heap.push({ weight: a.weight + b.weight, i: a.i, inside });
  }
  return lengths;
}

/** Shares that sum to 1, one set to `share`: the others keep their proportions, or share alike if they have none. */
export function put(p, which, share) {
  const rest = p.reduce((sum, each, i) => sum + (i === which ? 0 : each), 0);
  return p.map((each, i) => (i === which ? share : rest ? (each * (1 - share)) / rest : (1 - share) / (p.length - 1)));
}

/** Words of these lengths, none the beginning of another: 0, 10, 110, … */
export function words(lengths) {
  let next = 0n, before = 0;
  const found = [];
  for (const i of [...lengths.keys()].sort((a, b) => lengths[a] - lengths[b] || a - b)) {
    next <<= BigInt(lengths[i] - before);
    before = lengths[i];
    found[i] = before ? next.toString(2).padStart(before, "0") : "";
    next++;
  }
  return found;
}

const set = (state, share) => {
  state[state.which] = put(state[state.which], state.symbol, share);
  state[state.which === "p" ? "startP" : "startQ"] = "";
};
export default {
  size: [33, 49],
  label: "Two distributions to edit",
  controls: ({ presets, symbols }) => [
    { name: "startP", label: "What occurs, p", choice: [["", "as edited"], ...presets.map(([name]) => [name, name])], value: presets[0][0] },
    { name: "startQ", label: "Coded for, q", choice: [["", "as edited"], ...presets.map(([name]) => [name, name])], value: presets[1][0] },
    { name: "which", label: "Edit", choice: [["p", "p, occurs"], ["q", "q, coded for"]], value: "p" },
    { name: "symbol", label: "Symbol", choice: symbols.map((name, i) => [i, name]), value: 1 },
    { name: "share", label: "Its share", range: [0, 1], step: 0.001, value: presets[0][1][1], show: (share) => share.toFixed(3) },
  ],
  state: ({ presets }) => ({ p: presets[0][1], q: presets[1][1] }),
  changed(state, name, { presets }) {
    if (name === "startP") state.p = new Map(presets).get(state.startP) ?? state.p;
    if (name === "startQ") state.q = new Map(presets).get(state.startQ) ?? state.q;
    if (name === "share") set(state, state.share);
    state.share = state[state.which][state.symbol];
  },
  point(state, { frame, at, pressed, begins }) {
    if (frame !== 0 || !pressed) return;
    const row = Math.floor(at[1] * 2); // each symbol has two bars
    if (begins) [state.symbol, state.which] = [row >> 1, row % 2 ? "q" : "p"];
    set(state, Math.round(at[0] * 200) / 200);
    state.share = state[state.which][state.symbol];
  },
  draw(plot, state, { symbols }) {
    const { p, q } = state, n = p.length, code = words(huffman(q)), { rem, width, height } = plot;
    const wide = plot.wide ? width * 0.6 : width, tall = plot.wide ? height : height * 0.62, label = 3.6 * rem, columns = 7.6 * rem;
    const bars = plot.axes({ x: { from: 0, to: 1 }, y: { from: n, to: 0 }, box: [label, 1.3 * rem, wide - label - columns, tall - 2.4 * rem], bare: true });
    const at = [0, 1, 2].map((i) => bars.right + [2.2, 4.6, 5.2][i] * rem), anchors = ["end", "end", "start"];
    ["bits p", "bits q", "word"].forEach((name, i) => plot.add("text", { x: at[i], y: 0.9 * rem, "text-anchor": anchors[i], style: `fill: var(--plot-${["blue", "orange", "muted"][i]})` }, name));
    for (const v of [0, 0.25, 0.5, 0.75, 1]) {
      bars.line([[v, 0], [v, n]], { color: "grid", width: 0.8 });
      if (!plot.narrow || v % 0.5 === 0) plot.add("text", { x: bars.x(v), y: bars.bottom + rem, "text-anchor": "middle" }, v);
    }
    symbols.forEach((name, i) => {
      const y = bars.y(i + 0.5) + 0.27 * rem, cost = (share) => (share ? (-Math.log2(share)).toFixed(2).replace("-", "") : "∞");
      plot.add("text", { x: label - 0.5 * rem, y, "text-anchor": "end", class: "label" }, name);
      [["p", p[i], "blue"], ["q", q[i], "orange"]].forEach(([which, share, color], k) => {
        const chosen = state.symbol === i && state.which === which;
        bars.rect([0, i + 0.1 + 0.4 * k], [share, i + 0.5 + 0.4 * k], { color, opacity: chosen ? 1 : 0.75, tip: `${which}(${name}) = ${share}` });
        if (chosen) bars.line([[share, i + 0.06 + 0.4 * k], [share, i + 0.54 + 0.4 * k]], { color: "ink", width: 3 });
        plot.add("text", { x: at[k], y, "text-anchor": "end" }, cost(share));
      });
      plot.add("text", { x: at[2], y, class: "label" }, code[i]);
    });
    const floor = entropy(p), paid = crossEntropy(p, q), whole = total(p, (i) => code[i].length);
    const most = Math.max(3, ...[floor, paid, whole].filter(Number.isFinite)) * 1.12;
    const sums = plot.axes({ x: { from: 0, to: most, label: "bits per symbol" }, y: { from: 3, to: 0 }, box: plot.wide ? [wide, 0, width - wide, height] : [0, tall, width, height - tall], bare: true });
    [["entropy H(p)", floor], ["cross-entropy H(p, q) = H(p) + KL", paid], ["Huffman’s words for q", whole]].forEach(([name, bits], i) => {
      const [a, b] = [i + 0.42, i + 0.85], edge = 0.6 * rem * most / (sums.right - sums.left);
      sums.text([edge, i + 0.34], `${name}: ${Number.isFinite(bits) ? bits.toFixed(3) : "∞"} bits`, { color: "ink" });
      sums.rect([edge, a], [edge + (i === 2 ? bits : floor), b], { color: i === 2 ? "green" : "blue", opacity: 0.75 });
      if (i === 1) sums.rect([edge + floor, a], [edge + Math.min(paid, 10 * most), b], { color: "orange", opacity: 0.75, tip: "KL(p‖q), the surcharge" });
    });
  },
  describe({ p, q, symbol, which }, { symbols }, show) {
    const word = words(huffman(q))[symbol], more = divergence(p, q);
    const price = Number.isFinite(more) ? `coded for q, a symbol costs ${show(crossEntropy(p, q))}, ${show(more)} of it as KL(p‖q)` : "coded for q it has no price: a symbol occurs to which q gives nothing";
    return `${which}(${symbols[symbol]}) is set: p = ${show(p[symbol])}, q = ${show(q[symbol])}, Huffman’s word for q ${word}. H(p) is ${show(entropy(p))} bits; ${price}.`;
  },
};
