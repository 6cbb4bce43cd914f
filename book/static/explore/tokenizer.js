// Byte-pair encoding of the reader's text, join by join; bytes are the characters U+0000 to U+00FF of a string.
// tests/explore/test_tokenizer.py holds `encode` to groundup.tokenization.
const utf8 = (text) => Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte));
const bytesOf = (token) => Uint8Array.from(token, (c) => c.charCodeAt(0));
const hex = (token) => Array.from(bytesOf(token), (byte) => byte.toString(16).padStart(2, "0")).join(" ");

/** The pieces that no merge may leave; Python's \s is the White_Space of Unicode, JavaScript's is not quite. */
export const cut = (text, pattern) =>
  text.match(new RegExp(pattern.replaceAll("\\s", "\\p{White_Space}").replaceAll("\\S", "\\P{White_Space}"), "gu")) ?? [];

/** From bytes to tokens: {pieces, pair, places} per step; a step joins one pair wherever it is the lowest in rank. */
export function encode(text, ranks, limit, pattern) {
  let pieces = cut(text, pattern).map(utf8), before;
  const steps = [{ pieces, pair: null, places: 0 }];
  for (;;) {
    let least = limit, where;
    pieces.forEach((piece, p) => {
      for (let i = 0, rank; i + 1 < piece.length; i++) if ((rank = ranks.get(piece[i] + piece[i + 1])) < least) [least, where] = [rank, [p, i]];
    });
    if (!where) return steps;
    const [p, i] = where, pair = pieces[p].slice(i, i + 2);
    pieces = pieces.with(p, pieces[p].toSpliced(i, 2, pair.join("")));
    if (least === before) Object.assign(steps.at(-1), { pieces, places: steps.at(-1).places + 1 });
    else steps.push({ pieces, pair, places: 1 });
    before = least;
  }
}

/** A token as a reader can see it: its characters, or its bytes where they are none. */
export function label(token) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytesOf(token));
    if (/[\p{C}\p{Z}]/u.test(text.replaceAll(/[ \n\t]/g, ""))) return hex(token);
    return text.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥").replace(/^\p{M}/u, "◌$&");
  } catch { return hex(token); }
}

const known = ({ size }, { tokens }) => (size ? Math.min(2 ** size, tokens.length - 256) : 0);
let last = {}; // the steps of what is shown, kept: several ask for them
function run(state, data) {
  const limit = 256 + known(state, data);
  if (last.data !== data || last.text !== state.text || last.limit !== limit) {
    const ranks = last.data === data ? last.ranks : new Map(data.tokens.map((token, i) => [token, i]));
    last = { data, text: state.text, limit, ranks, steps: encode(state.text, ranks, limit, data.pattern) };
  }
  return last.steps;
}

export default {
  size: [31, 42],
  label: "Tokenizer stepper",
  controls: (data) => [
    { name: "sample", label: "Example", choice: [["", "your own text"], ...data.samples.map(([name]) => [name, name])], value: data.samples[0][0] },
    { name: "size", label: "Merges known", range: [0, Math.ceil(Math.log2(data.tokens.length - 256))], step: 1, value: 13, show: (_, state) => known(state, data).toLocaleString("en") },
    { name: "text", label: "Text", text: 80, value: data.samples[0][1] },
    { name: "t", label: "Merge", steps: (state, data) => run(state, data).length - 1, rate: 3, value: run({ text: data.samples[0][1], size: 13 }, data).length - 1 },
  ],
  changed(state, name, data) {
    if (name === "t") return;
    if (name === "text") state.sample = "";
    if (name === "sample") state.text = new Map(data.samples).get(state.sample) ?? state.text;
    state.t = run(state, data).length - 1; // what the model would get
  },
  draw(plot, state, data) {
    const { pieces, pair } = run(state, data)[state.t], { rem, width, height } = plot, tall = 2.9 * rem;
    const group = plot.add("g"), joined = pair?.join("");
    const boxes = pieces.flatMap((piece, p) => piece.map((token, i) => {
      const box = plot.add("g", {}, "", group), color = token === joined ? "orange" : p % 2 ? "purple" : "blue";
      const rect = plot.add("rect", { height: 2.5 * rem, rx: 4, fill: `var(--plot-${color})`, "fill-opacity": token === joined ? 0.4 : 0.14 }, "", box);
      plot.add("title", {}, `bytes ${hex(token)}`, box);
      const words = [plot.add("text", { y: 1.05 * rem, class: "label", "text-anchor": "middle" }, label(token), box),
        plot.add("text", { y: 2.05 * rem, "text-anchor": "middle" }, last.ranks.get(token), box)];
      return { box, rect, words, first: i === 0 };
    }));
    for (const each of boxes) each.wide = Math.max(...each.words.map((text) => text.getComputedTextLength())) + 0.6 * rem;
    const place = (scale) => { // in lines; how many lines there are
      let [x, line] = [0, 0];
      for (const each of boxes) {
        if (each.first && x) x += 0.35 * rem;
        if (x && x + each.wide > width / scale) [x, line] = [0, line + 1];
        [each.x, each.line, x] = [x, line, x + each.wide + 0.15 * rem];
      }
      return line + 1;
    };
    const bytes = run(state, data)[0].pieces.flat().length; // room for them at every step, so that nothing changes its size
    const lines = (scale) => Math.max(place(scale), Math.ceil((bytes * 2.05 * rem * scale) / width));
    const scale = [1.6, 1.3, 1, 0.9, 0.8, 0.7, 0.6].find((s) => lines(s) * tall * s <= height) ?? 0.6;
    group.setAttribute("transform", `scale(${scale})`);
    for (const { box, rect, words, wide, x, line } of boxes) {
      box.setAttribute("transform", `translate(${x} ${line * tall})`);
      rect.setAttribute("width", wide);
      words.forEach((text) => text.setAttribute("x", wide / 2));
    }
  },
  describe(state, data) {
    const steps = run(state, data), { pieces, pair, places } = steps[state.t], tokens = pieces.flat();
    const bytes = steps[0].pieces.flat().length, ids = tokens.map((token) => last.ranks.get(token));
    const quoted = (token) => `“${label(token)}”`;
    const merge = pair && (last.ranks.get(pair.join("")) - 255).toLocaleString("en");
    const what = pair ? `Merge ${merge} joins ${pair.map(quoted).join(" and ")}, in ${places} ${places > 1 ? "places" : "place"}` : "Nothing is joined yet";
    return `${what}: ${bytes} bytes are ${tokens.length} tokens. Ids ${ids.slice(0, 12).join(", ") || "none"}${ids.length > 12 ? ", …" : ""}`;
  },
};
