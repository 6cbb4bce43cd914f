// Samples on their way from noise, as the chapter drew them: the reader chooses which; nothing is computed here.
/** The rows of a picture written as hexadecimal digits, `side` a row: 0 is paper, 1 is ink. */
export const rows = (text, side) =>
  Array.from({ length: side }, (_, i) => [...text.slice(i * side, (i + 1) * side)].map((c) => parseInt(c, 16) / 15));

export default {
  size: [32, 38],
  label: "Denoising, step by step",
  controls: (data) => [
    { name: "digit", label: "Digit asked for", choice: data.digits.map((d, i) => [i, `${d}`]), value: 1 },
    { name: "scale", label: "Guidance scale w", range: [0, data.scales.length - 1], step: 1, value: data.scales.indexOf(1), show: (i) => `${data.scales[i]}` },
    { name: "t", label: "Step", steps: () => data.steps.length - 1, rate: 2, value: 3 },
  ],
  draw(plot, state, data) {
    const { width, height, rem, add } = plot;
    const states = data.states[state.scale][state.digit], expected = data.expected[state.scale][state.digit];
    const picture = (text, left, top, side, marked) => {
      const unit = { from: 0, to: 1 }, frame = plot.axes({ x: unit, y: unit, box: [left, top, side, side], bare: true });
      frame.picture([0, 0], [1, 1], rows(text, data.side));
      if (marked) add("rect", { x: left - 1, y: top - 1, width: side + 2, height: side + 2, fill: "none", style: "stroke: var(--plot-orange)", "stroke-width": 3 });
    };
    const words = (text, left, top, anchor = "start") => add("text", { x: left, y: top, class: "label", "text-anchor": anchor }, text);
    const small = Math.min(width / data.steps.length - 3, 3.6 * rem), under = small + 2.4 * rem;
    const side = Math.min(height - 2 * under - 1.6 * rem, width / 2 - rem), gap = Math.max((width - 2 * side) / 3, 0.5 * rem);
    [["the state", states], ["the image it expects", expected]].forEach(([name, pictures], i) => {
      const left = i ? width - gap - side : gap;
      words(name, left, 0.9 * rem);
      picture(pictures[state.t], left, 1.4 * rem, side);
    });
    const strip = (name, pictures, chosen, top) => {
      words(name, 0, top + 0.7 * rem);
      const each = Math.min(width / pictures.length, small + 0.8 * rem);
      pictures.forEach((text, i) => picture(text, i * each + 2, top + 1.1 * rem, small, i === chosen));
    };
    const below = height - 2 * under;
    strip(`the image expected at w = ${data.scales[state.scale]}, from noise to the end`, expected, state.t, below + 0.2 * rem);
    strip(`the end at each scale: w = ${data.scales.join(", ")}`, data.states.map((of) => of[state.digit].at(-1)), state.scale, below + under);
  },
  describe(state, data, show) {
    const digit = data.digits[state.digit], w = data.scales[state.scale], judged = data.judged[state.scale][state.digit];
    const now = data.steps[state.t], last = data.steps.at(-1);
    const where = now === 0 ? "Pure noise" : now === last ? "The finished sample" : `After ${now} of ${last} steps`;
    const asked = w ? `told to draw a ${digit} at w = ${w}` : "told nothing (w = 0)";
    return `${where}, ${asked}: the judge gives the expected image a probability of ${show(judged[state.t])} to be a ${digit}; in the end ${show(judged.at(-1))}.`;
  },
};
