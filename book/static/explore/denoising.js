// Samples on their way from noise, as the chapter drew them: the reader chooses which; nothing is computed here.
/** The rows of a picture written as hexadecimal digits, `side` a row: 0 is paper, 1 is ink. */
export const rows = (text, side) =>
  Array.from({ length: side }, (_, i) => [...text.slice(i * side, (i + 1) * side)].map((c) => parseInt(c, 16) / 15));

export default {
  size: [33, 36],
  label: "Denoising, step by step",
  controls: (data) => [
    { name: "digit", label: "Digit asked for", choice: data.digits.map((d, i) => [i, `${d}`]), value: 1 },
    { name: "scale", label: "Guidance w", range: [0, data.scales.length - 1], step: 1, value: data.scales.indexOf(1), show: (i) => `${data.scales[i]}` },
    { name: "t", label: "Step", steps: () => data.steps.length - 1, show: (t) => `${data.steps[t]}`, rate: 2, value: 3 },
  ],
  point(state, { frame, pressed }, data) { // the frames are the two large pictures, then the strips
    if (!pressed || frame < 2) return;
    if (frame - 2 < data.steps.length) state.t = frame - 2;
    else state.scale = frame - 2 - data.steps.length;
  },
  draw(plot, state, data) {
    const { width, height, rem, add } = plot;
    const states = data.states[state.scale][state.digit], expected = data.expected[state.scale][state.digit];
    const picture = (text, left, top, side, marked) => {
      const unit = { from: 0, to: 1 }, frame = plot.axes({ x: unit, y: unit, box: [left, top, side, side], bare: true });
      frame.picture([0, 0], [1, 1], rows(text, data.side));
      if (marked) add("rect", { x: left - 1, y: top - 1, width: side + 2, height: side + 2, fill: "none", style: "stroke: var(--plot-orange)", "stroke-width": 3 });
    };
    const words = (text, left, top, anchor = "start") => add("text", { x: left, y: top, class: "label", "text-anchor": anchor }, text);
    const small = Math.min(width / data.steps.length - 4, 3.2 * rem), strips = 2 * (small + 3.6 * rem);
    const side = Math.min(height - strips - 1.6 * rem, width / 2 - rem), gap = Math.max((width - 2 * side) / 3, 0.5 * rem);
    [["the state", states], ["the image it expects", expected]].forEach(([name, pictures], i) => {
      const left = i ? width - gap - side : gap;
      words(name, left, 0.9 * rem);
      picture(pictures[state.t], left, 1.4 * rem, side);
    });
    const strip = (name, pictures, under, chosen, top) => {
      const each = Math.min(width / pictures.length, small + 1.2 * rem);
      words(name, 0, top + 0.8 * rem);
      pictures.forEach((text, i) => {
        picture(text, i * each + 2, top + 1.3 * rem, small, i === chosen);
        add("text", { x: i * each + 2 + small / 2, y: top + small + 2.4 * rem, "text-anchor": "middle" }, under[i]);
      });
    };
    const below = 2 * rem + side;
    strip("the image expected after each step", expected, data.steps, state.t, below);
    strip("the end at each scale w", data.states.map((of) => of[state.digit].at(-1)), data.scales, state.scale, below + strips / 2);
  },
  describe(state, data) {
    const digit = data.digits[state.digit], w = data.scales[state.scale], judged = data.judged[state.scale][state.digit];
    const now = data.steps[state.t], last = data.steps.at(-1);
    const where = now === 0 ? "Pure noise" : now === last ? "The finished sample" : `After ${now} of ${last} steps`;
    const asked = w ? `told to draw a ${digit} at w = ${w}` : "told nothing (w = 0)";
    const sure = (p) => `${Math.round(100 * p)} %`;
    return `${where}, ${asked}: the judge takes the expected image for a ${digit} with ${sure(judged[state.t])}, and the sample in the end with ${sure(judged.at(-1))}.`;
  },
};
