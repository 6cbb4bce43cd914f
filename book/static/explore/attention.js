// Where each token of a text looks: shares of attention that the notebook computed, by model, layer and head.
// A text is {tokens, maps: [layer][head][looking][looked at], next: [token, probability] after each, if known}.
const shown = (state, data) => data.models[state.model].texts[state.text];
const shares = (state, data) => shown(state, data).maps[state.layer - 1][state.head - 1];
const beginning = (tokens) => tokens.slice(0, 8).join(" ").replaceAll("␣", "");

export default {
  size: [32, 46],
  label: "Attention explorer",
  controls: (data) => {
    const { texts } = data.models[0], { maps } = texts[0], opens = data.opens ?? {};
    return [
      { name: "model", label: "Model", choice: data.models.map(({ name }, i) => [i, name]), value: 0, shown: () => data.models.length > 1 },
      { name: "text", label: "Text", choice: texts.map(({ tokens }, i) => [i, beginning(tokens)]), value: 0, shown: () => texts.length > 1 },
      { name: "layer", label: "Layer", range: [1, maps.length], step: 1, value: opens.layer ?? maps.length },
      { name: "head", label: "Head", range: [1, maps[0].length], step: 1, value: opens.head ?? 1, shown: () => maps[0].length > 1 },
      { name: "at", label: "Token that looks", steps: (state) => shown(state, data).tokens.length - 1, rate: 2, value: opens.at ?? texts[0].tokens.length >> 1 },
    ];
  },
  changed(state, name, data) { state.at = Math.min(state.at, shown(state, data).tokens.length - 1); },
  hovers: true,
  point(state, { frame, at }, data) {
    if (frame < 0) return;
    const token = frame ? Math.floor(at[1]) : Math.floor(at[1]) * state.columns + (state.columns > 1 ? Math.floor(at[0]) : 0);
    if (token < shown(state, data).tokens.length) state.at = token;
  },
  draw(plot, state, data) {
    const { tokens } = shown(state, data), map = shares(state, data), n = tokens.length, { rem, width, height } = plot;
    const longest = Math.max(...tokens.map((token) => token.length)), list = longest > 3; // words stand below each other
    const side = plot.wide ? Math.min(height, width * 0.45) : Math.min(width, list ? height - 1.15 * n * rem : height * 0.55);
    const room = plot.wide ? [width - side - rem, height] : [width, height - side - 0.5 * rem];
    const columns = state.columns = list ? 1 : Math.max(1, Math.min(n, Math.floor(room[0] / ((0.7 + 0.35 * longest) * rem)))), lines = Math.ceil(n / columns);
    const name = list ? 0.55 * rem * longest / room[0] : 0; // share of the width that names take
    const strip = plot.axes({ x: list ? { from: -name / (0.88 - name), to: 1 + 0.12 / (0.88 - name) } : { from: 0, to: columns }, y: { from: lines, to: 0 },
      box: [0, 0, list ? room[0] : Math.min(room[0], columns * 4 * rem), Math.min(room[1], lines * (list ? 1.5 : 22) * rem)], bare: true });
    const box = ([a, b], [c, d]) => strip.line([[a, b], [c, b], [c, d], [a, d], [a, b]], { color: "orange", width: 2 });
    const tall = strip.y(1) - strip.y(0), head = 1.4 * rem / tall, bars = 0.97 - head - 0.8 * rem / tall;
    tokens.forEach((token, i) => {
      const share = map[state.at][i], words = share >= 0.05 ? share.toFixed(2).replace("0.", ".") : "", tip = `“${token}”: ${share}`;
      if (list) {
        strip.rect([0, i + 0.15], [share, i + 0.85], { tip });
        if (words) strip.text([share, i + 0.5], words, { color: "muted", dx: 4, dy: 0.27 * rem });
        strip.text([0, i + 0.5], token, { anchor: "end", dx: -0.4 * rem, dy: 0.27 * rem, bold: i === state.at });
        if (i === state.at) box([-name / (0.88 - name) * 0.99, i + 0.03], [-0.15 * rem / room[0], i + 0.97]);
        return;
      }
      const [x, y] = [i % columns, Math.floor(i / columns)], top = y + 0.97 - bars * share;
      strip.line([[x + 0.1, y + 0.97], [x + 0.9, y + 0.97]], { color: "grid", width: 1 });
      strip.rect([x + 0.1, top], [x + 0.9, y + 0.97], { tip });
      if (words) strip.text([x + 0.5, top], words, { anchor: "middle", dy: -3, color: "muted" });
      if (i === state.at) box([x + 0.04, y + 0.02], [x + 0.96, y + head]);
      strip.text([x + 0.5, y + head], token, { anchor: "middle", dy: -0.4 * rem, bold: i === state.at });
    });
    const edge = !list && side / n > 0.8 * rem ? 1.2 * rem : 0; // names of rows and columns, where they fit
    const left = plot.wide ? width - side : 0, under = plot.wide ? 0 : height - side;
    const table = plot.axes({ x: { from: 0, to: n }, y: { from: n, to: 0 }, box: [left + edge, under + edge, side - edge, side - edge], bare: true });
    table.picture([0, 0], [n, n], map);
    table.line([[0, state.at], [n, state.at], [n, state.at + 1], [0, state.at + 1], [0, state.at]], { color: "orange", width: 2 });
    if (edge) tokens.forEach((token, i) => {
      plot.add("text", { x: table.x(i + 0.5), y: under + 0.8 * rem, "text-anchor": "middle" }, token);
      plot.add("text", { x: left + 0.4 * rem, y: table.y(i + 0.5) + 0.27 * rem, "text-anchor": "middle" }, token);
    });
  },
  describe(state, data, show) {
    const { tokens, next } = shown(state, data), row = shares(state, data)[state.at];
    const order = row.map((share, i) => [share, i]).sort((a, b) => b[0] - a[0]).filter(([share], i) => !i || share >= 0.05).slice(0, 3);
    const looked = order.map(([share, i]) => `“${tokens[i]}” at ${i}${i === state.at ? " (itself)" : ""}, share ${show(share)}`);
    const model = data.models.length > 1 ? ` of the model with ${data.models[state.model].name}` : "";
    const head = shown(state, data).maps[0].length > 1 ? `, head ${state.head}` : "";
    const guess = next ? ` In the end the model expects “${next[state.at][0]}” after it, with probability ${show(next[state.at][1])}.` : "";
    return `Layer ${state.layer}${head}${model}: “${tokens[state.at]}” at ${state.at} looks at ${looked.join(", then ")}.${guess}`;
  },
};
