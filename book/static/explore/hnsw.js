// A search through the layers of a small HNSW graph. tests/explore/test_hnsw.py holds it to groundup.vector_search.
const dot = (a, b) => a.reduce((sum, v, i) => sum + v * b[i], 0);
const better = (a, b) => b.score - a.score || a.row - b.row;

/** The query above (x, y) on the unit sphere, in single precision as the index keeps it. */
export const query = (x, y) => [x, y, Math.sqrt(Math.max(0, 1 - x * x - y * y))].map(Math.fround);

/** Every row expanded, in order: its layer, the rows it was the first to compare, the beam after it; `stop` where a layer ends. */
export function search({ points, layers, entry, k }, goal, width) {
  const at = (row) => ({ row, score: dot(points[row], goal) });
  const steps = [{ layer: layers.length - 1, row: entry, compared: [entry], beam: [entry], stop: false }];
  let found = [at(entry)];
  for (let layer = layers.length - 1; layer >= 0; layer--) {
    const ef = layer ? 1 : Math.max(width, k), { rows, links } = layers[layer];
    const seen = new Set(found.map((f) => f.row)), todo = [...found];
    while (todo.length) {
      const { row, score } = todo.sort(better).shift();
      const stop = found.length >= ef && score < found.at(-1).score;
      const compared = stop ? [] : links[rows.indexOf(row)].filter((other) => !seen.has(other));
      for (const next of compared.map(at)) {
        seen.add(next.row);
        if (found.length >= ef && next.score <= found.at(-1).score) continue;
        todo.push(next);
        found = [...found, next].sort(better).slice(0, ef);
      }
      steps.push({ layer, row, compared, beam: found.map((f) => f.row), stop });
      if (stop) break;
    }
  }
  return steps;
}

/** The k rows nearest to the goal, by comparing all. */
export const nearest = ({ points, k }, goal) =>
  points.map((p, row) => ({ row, score: dot(p, goal) })).sort(better).slice(0, k).map((f) => f.row);

const walk = ({ x, y, ef }, data) => search(data, query(x, y), ef);

export default {
  size: [34, 40],
  label: "A walk through an HNSW graph",
  controls: (data) => [
    { name: "ef", label: "Beam, ef", range: [1, 40], step: 1, value: data.ef },
    { name: "x", label: "Query, across", range: [-0.6, 0.6], step: 0.01, value: data.goal[0] },
    { name: "y", label: "Query, up", range: [-0.6, 0.6], step: 0.01, value: data.goal[1] },
    { button: "One that ef = 1 misses", press(state, { hard }) {
      [state.x, state.y] = hard[state.next++ % hard.length];
      [state.ef, state.t] = [1, 0];
    } },
    { name: "t", label: "Step", steps: (state, data) => walk(state, data).length - 1, rate: 2, value: 9 },
  ],
  state: () => ({ next: 0 }),
  changed(state, name, data) { state.t = Math.min(state.t, walk(state, data).length - 1); },
  point(state, { at, pressed }, data) {
    if (!at || !pressed) return;
    [state.x, state.y] = at.map((v) => Math.round(Math.min(Math.max(v, -0.6), 0.6) * 100) / 100);
    state.t = Math.min(state.t, walk(state, data).length - 1);
  },
  draw(plot, state, data) {
    const steps = walk(state, data), done = steps.slice(0, state.t + 1), now = done.at(-1), top = data.layers.length - 1;
    const start = plot.legend([["blue", "in the layer"], ["orange", "compared"], ["green", "in the beam"], ["purple", "expanded now"], ["red", "the query"]]);
    const place = (row) => data.points[row], scale = { from: -0.63, to: 0.63 };
    const panel = (layer, left, above, side, r) => {
      const { rows, links } = data.layers[layer], here = done.filter((step) => step.layer === layer);
      plot.add("text", { x: left + side / 2, y: above + 0.9 * plot.rem, "text-anchor": "middle", class: layer === now.layer ? "label" : "" }, `layer ${layer}: ${rows.length} points`);
      const map = plot.axes({ x: scale, y: scale, box: [left, above + 1.4 * plot.rem, side, side], bare: true });
      const once = (row, other) => row < other || !links[rows.indexOf(other)].includes(row);
      map.line(rows.flatMap((row, j) => links[j].filter((o) => once(row, o)).flatMap((o) => [place(row), place(o), null])), { color: "grey", width: 0.5, opacity: 0.5 });
      map.dots(rows.map(place), { color: "blue", r: 1.8 * r });
      map.dots([...new Set(here.flatMap((step) => step.compared))].map(place), { color: "orange", r: 3 * r });
      if (here.length) map.dots(here.at(-1).beam.map(place), { color: "green", r: 3.5 * r });
      if (now.layer === layer) map.dots([place(now.row)], { color: "purple", r: 7 * r, ring: true });
      map.cross([state.x, state.y], { r: 5 * r });
    };
    const room = plot.height - start - 1.6 * plot.rem, large = Math.min(room, plot.width * (plot.wide ? 0.55 : 1));
    panel(now.layer, plot.wide ? 0 : (plot.width - large) / 2, start, large, 1.2); // on a phone, only the layer the walk is in
    if (!plot.wide) return;
    const lines = Math.ceil((top + 1) / 2), each = (room + 1.6 * plot.rem) / lines, wide = (plot.width - large) / 2;
    const side = Math.min(each - 1.9 * plot.rem, wide - 0.8 * plot.rem);
    data.layers.forEach((_, i) => panel(top - i, large + (i % 2) * wide + (wide - side) / 2, start + Math.floor(i / 2) * each, side, 0.7));
  },
  describe(state, data) {
    const steps = walk(state, data), done = steps.slice(0, state.t + 1), now = done.at(-1), last = state.t === steps.length - 1;
    const compared = new Set(done.flatMap((step) => step.compared)).size, all = data.points.length;
    const what = state.t === 0 ? `The walk enters at point ${now.row}.`
      : now.stop ? `Point ${now.row} is worse than all ${now.beam.length} in the beam: this layer is done.`
        : `Expands point ${now.row}, compares ${now.compared.length} new points, and keeps the best ${now.beam.length}.`;
    const [truth] = nearest(data, query(state.x, state.y)), hit = now.beam[0] === truth;
    return `Layer ${now.layer}. ${what} ${compared} of ${all} compared so far.${last ? (hit ? " The answer is the nearest of all." : ` The answer is wrong: a dead end; the nearest is point ${truth}.`) : ""}`;
  },
};
