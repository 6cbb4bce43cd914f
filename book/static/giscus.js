// Comments kept on GitHub: giscus's own script, asked for when the reader comes near, in the page's theme.
const box = document.getElementById("comments");
const ORIGIN = "https://giscus.app";
const system = matchMedia("(prefers-color-scheme: dark)");
const theme = () => document.documentElement.dataset.theme || (system.matches ? "dark" : "light");

const load = () => {
  const { page, repo, repoId, category, categoryId } = box.dataset;
  const script = document.createElement("script");
  Object.assign(script, { src: `${ORIGIN}/client.js`, async: true, crossOrigin: "anonymous" });
  Object.assign(script.dataset, {
    repo, repoId, category, categoryId, mapping: "specific", term: page, strict: "1", theme: theme(),
    reactionsEnabled: "1", emitMetadata: "0", inputPosition: "top", lang: "en",
  });
  script.addEventListener("error", () => {
    const words = document.createElement("p");
    words.className = "note";
    words.setAttribute("role", "status");
    words.textContent = "The comments are kept on GitHub, and giscus.app, which shows them here, cannot be reached.";
    box.append(words);
  });
  box.append(script);
};

const follow = () => box.querySelector("iframe.giscus-frame")
  ?.contentWindow.postMessage({ giscus: { setConfig: { theme: theme() } } }, ORIGIN);
document.addEventListener("themechange", follow);
system.addEventListener("change", follow);

new IntersectionObserver((entries, watch) => {
  if (!entries.some((entry) => entry.isIntersecting)) return;
  watch.disconnect();
  load();
}, { rootMargin: "800px 0px" }).observe(box);
