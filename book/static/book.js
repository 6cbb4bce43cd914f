// The script of every page. Without it everything can be read; with it the theme can be switched,
// code copied, and the contents follow the reader.
const root = document.documentElement;
const find = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// Theme: the system's until the reader chooses; the choice is kept.
const system = matchMedia("(prefers-color-scheme: dark)");
const button = find("button.theme");
const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
const showTheme = () => button.setAttribute("aria-pressed", isDark());
button.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* private window: lasts for this page */ }
  showTheme();
  document.dispatchEvent(new CustomEvent("themechange", { detail: root.dataset.theme }));
});
system.addEventListener("change", showTheme);
showTheme();

// Contents on narrow screens: opens over the page, closes on Escape, a link, or a touch beside it.
const nav = find("#nav");
const opener = find(".open-nav");
const openNav = (open) => {
  root.classList.toggle("nav-open", open);
  opener.setAttribute("aria-expanded", open);
  (open ? find(".close-nav") : opener).focus({ preventScroll: true });
};
opener.setAttribute("role", "button");
opener.setAttribute("aria-expanded", false);
opener.addEventListener("click", (event) => { event.preventDefault(); openNav(!root.classList.contains("nav-open")); });
find(".close-nav").addEventListener("click", (event) => { event.preventDefault(); openNav(false); });
document.addEventListener("click", (event) => {
  if (root.classList.contains("nav-open") && !nav.contains(event.target) && !opener.contains(event.target)) openNav(false);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && root.classList.contains("nav-open")) openNav(false);
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) || event.target.isContentEditable;
  if ((event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) || (event.key === "k" && (event.ctrlKey || event.metaKey))) {
    const field = all("input[type=search]").find((input) => input.offsetParent);
    if (field) { event.preventDefault(); field.focus(); field.select(); }
  }
});
requestAnimationFrame(() => {
  const current = find("[aria-current]", nav);
  if (current && nav.scrollHeight > nav.clientHeight) nav.scrollTop = current.offsetTop - nav.clientHeight / 3;
});

// What scrolls sideways can be reached with the keyboard.
const reach = () => {
  const boxes = all(".formula, pre, .pst-scrollable-table-container, .output.text_html, .comment .text");
  const scrolls = boxes.map((box) => box.scrollWidth > box.clientWidth + 1 || (box.matches(".text") && box.scrollHeight > box.clientHeight + 1)); // all read before any is changed
  boxes.forEach((box, i) => (scrolls[i] ? box.setAttribute("tabindex", 0) : box.removeAttribute("tabindex")));
};
for (const event of ["resize", "contentchange"]) addEventListener(event, reach);
addEventListener("load", () => (window.requestIdleCallback || setTimeout)(reach));

// A copy button on the code under the pointer or in focus, not on output. Made when wanted: a chapter has forty cells.
const offerCopy = ({ target }) => {
  const code = target.closest?.(":is(article, .comments) .highlight");
  if (!code || code.closest(".cell_output") || find(".copy", code)) return;
  const copy = Object.assign(document.createElement("button"), { type: "button", className: "copy", textContent: "Copy" });
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(find("pre", code).innerText.trimEnd());
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy"; }, 1500);
  });
  code.append(copy);
};
if (navigator.clipboard) for (const event of ["pointerover", "focusin"]) document.addEventListener(event, offerCopy);

// "On this page" marks the section being read.
const links = new Map(all(".here a[href^='#']").map((link) => [link.hash.slice(1), link]));
if (links.size && "IntersectionObserver" in window) {
  const visible = new Set();
  const sections = all("article section[id]").filter((section) => links.has(section.id));
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) visible[isIntersecting ? "add" : "delete"](target);
    const reading = sections.filter((section) => visible.has(section)).pop();
    for (const link of links.values()) link.classList.remove("in-view");
    if (reading) links.get(reading.id).classList.add("in-view");
  }, { rootMargin: "-15% 0px -70% 0px" });
  sections.forEach((section) => watch.observe(section));
}

// Printing: open what is folded, and use the light figures.
addEventListener("beforeprint", () => {
  for (const image of all("img.in-light")) image.loading = "eager";
  for (const details of all("article details:not([open])")) { details.open = true; details.dataset.printed = ""; }
});
addEventListener("afterprint", () => {
  for (const details of all("details[data-printed]")) { details.open = false; delete details.dataset.printed; }
});
