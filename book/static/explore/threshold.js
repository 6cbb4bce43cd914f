// A threshold on a probability and what its errors cost. The chapter counted true and false positives at every threshold offered;
// tests/explore/test_threshold.py holds what follows from the counts to groundup.classification.

/** What happens at threshold number i: the confusion matrix, its rates, and the cost per example. Precision is null without an alarm. */
export function judge({ tp, fp }, i, { positives, negatives }, costFalse, costMissed) {
  const [caught, useless] = [tp[i], fp[i]], missed = positives - caught;
  return {
    tp: caught, fp: useless, fn: missed, tn: negatives - useless,
    recall: caught / positives, fpr: useless / negatives, precision: caught + useless ? caught / (caught + useless) : null,
    cost: (costFalse * useless + costMissed * missed) / (positives + negatives),
  };
}

/** Number of the threshold of least cost; of several, the highest. */
export function cheapest(model, data, costFalse, costMissed) {
  const costs = data.thresholds.map((_, i) => judge(model, i, data, costFalse, costMissed).cost);
  return costs.lastIndexOf(Math.min(...costs));
}

/** Number of the threshold nearest to costFalse / (costFalse + costMissed), in log-odds. */
export function formula({ thresholds }, costFalse, costMissed) {
  const away = thresholds.map((p) => Math.abs(Math.log(p / (1 - p)) + Math.log(costMissed / costFalse)));
  return away.indexOf(Math.min(...away));
}

const percent = (p) => (p > 0.9 ? `${+(100 * p).toFixed(2)} %` : `${+(100 * p).toPrecision(2)} %`);
const odds = (p) => p / (1 - p);
const count = (n) => n.toLocaleString("en");
const price = (state, data) => data.prices[state.price];

export default {
  size: [37, 56],
  label: "Decision threshold by cost",
  controls: (data) => [
    { name: "model", label: "Probabilities", choice: data.models.map((m, i) => [i, m.name]), value: 0 },
    { name: "curve", label: "Curve", choice: [["roc", "ROC"], ["pr", "precision–recall"]], value: "roc" },
    { name: "price", label: "A miss costs", range: [0, data.prices.length - 1], step: 1, value: data.prices.indexOf(20), show: (i) => `${data.prices[i]} h` },
    { name: "t", label: "Page at", range: [0, data.thresholds.length - 1], step: 1, value: formula(data, 1, 1), show: (i) => percent(data.thresholds[i]) },
    { button: "Take the formula’s", press: (state, data) => { state.t = formula(data, 1, price(state, data)); } },
    { button: "Take the cheapest", press: (state, data) => { state.t = cheapest(data.models[state.model], data, 1, price(state, data)); } },
  ],
  point(state, { frame, at, pressed }, data) {
    if (frame === 0 && pressed) state.t = formula(data, at[0], 1);
  },
  draw(plot, state, data) {
    const { width, height, rem } = plot, strip = (plot.narrow ? 6.6 : 3.6) * rem, tall = height - strip;
    const boxes = plot.wide ? [[0, 0, width * 0.56, tall], [width * 0.56, 0, width * 0.44, tall]] : [[0, 0, width, tall * 0.52], [0, tall * 0.52, width, tall * 0.48]];
    const model = data.models[state.model], missed = price(state, data), best = cheapest(model, data, 1, missed);
    const x = data.thresholds.map(odds), at = (m, i) => judge(m, i, data, 1, missed), hours = (m, i) => data.weekly * at(m, i).cost;
    const cost = plot.axes({ x: { from: x[0], to: x.at(-1), log: true, label: "threshold, as odds p/(1 − p)" }, y: { from: 0.5, to: 2000, log: true, label: "cost (hours a week)" }, box: boxes[0] });
    for (const m of data.models) if (m !== model) cost.line(x.map((v, i) => [v, hours(m, i)]), { color: "grey", width: 1 });
    cost.line([[1 / missed, 0.5], [1 / missed, 2000]], { color: "muted", width: 1, dash: "4 3" });
    cost.text([1 / missed, 2000], `t* = 1/${1 + missed}`, { color: "muted", dx: 5, dy: 1.1 * rem });
    cost.line(x.map((v, i) => [v, hours(model, i)]), { color: "blue" });
    cost.dots([[x[best], hours(model, best)]], { color: "green", r: 5 });
    cost.dots([[x[state.t], hours(model, state.t)]], { color: "orange", r: 5 });
    const key = [["this threshold", "orange"], ["the cheapest", "green"], ["other probabilities", "grey"]];
    key.forEach(([words, color], i) => cost.text([x[0], 0.5], words, { color, bold: true, dx: 8, dy: (i - 2.5) * 1.1 * rem }));
    const roc = state.curve === "roc";
    const right = plot.axes({ x: { from: roc ? 1e-5 : 0, to: 1, log: roc, label: roc ? "false-positive rate" : "recall" }, y: { from: 0, to: 1, label: roc ? "recall" : "precision" }, box: boxes[1] });
    const place = (i) => { const j = at(model, i); return roc ? [Math.max(j.fpr, 1e-9), j.recall] : [j.recall, j.precision ?? 1]; };
    right.line(x.map((_, i) => place(i)), { color: "blue" });
    right.dots([place(best)], { color: "green", r: 5 });
    right.dots([place(state.t)], { color: "orange", r: 5 });
    const now = at(model, state.t), cells = [["incident, paged", now.tp, "green"], ["incident, missed", now.fn, "red"], ["quiet, paged", now.fp, "orange"], ["quiet, not paged", now.tn, "grey"]];
    const across = plot.narrow ? 2 : 4, down = 4 / across;
    const matrix = plot.axes({ x: { from: 0, to: across }, y: { from: down, to: 0 }, box: [0, tall, width, strip], bare: true });
    cells.forEach(([words, n, color], i) => {
      const [a, b] = [i % across, Math.floor(i / across)];
      matrix.rect([a + 0.02, b + 0.06], [a + 0.98, b + 0.94], { color, opacity: 0.14 });
      matrix.text([a + 0.5, b + 0.5], words, { anchor: "middle", dy: -0.3 * rem });
      matrix.text([a + 0.5, b + 0.5], count(n), { anchor: "middle", dy: 1 * rem, bold: true });
    });
  },
  describe(state, data, show) {
    const model = data.models[state.model], missed = price(state, data), best = cheapest(model, data, 1, missed);
    const now = judge(model, state.t, data, 1, missed), least = judge(model, best, data, 1, missed), week = data.weekly / (data.positives + data.negatives);
    const precise = now.precision === null ? "" : `, of ${show((now.tp + now.fp) * week)} pages a week ${percent(now.precision)} are right (precision)`;
    return `Paging at ${percent(data.thresholds[state.t])} catches ${count(now.tp)} of ${count(data.positives)} incidents (recall ${percent(now.recall)})${precise}. `
      + `That costs ${show(data.weekly * now.cost)} hours a week; the cheapest threshold here, ${percent(data.thresholds[best])}, costs ${show(data.weekly * least.cost)}, and the formula says ${percent(1 / (1 + missed))}.`;
  },
};
