// What the reader has done: kept in this browser, sent to nobody. Loaded after book.js, whose `find` and `all` it uses.
// `book` is what path.js, on the front page, works with.
const book = (() => {
  const KEY = "progress", FORMAT = "ai-from-the-ground-up/progress", VERSION = 1;
  const NAME = /^[a-z0-9-]+\/[a-z0-9-]+$/;
  const home = new URL(".", find(".brand").href);
  const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
  const isText = (value, most) => typeof value === "string" && value.length <= most;
  const empty = () => ({ format: FORMAT, version: VERSION, read: {}, passed: {} });

  // The progress in `text`; throws an Error that says in words what is wrong with it.
  function parse(text) {
    let data;
    if (text.length > 1e6) throw Error("This is not a progress file: it is larger than 1 MB.");
    try { data = JSON.parse(text); } catch { throw Error("This is not a progress file: it is not JSON."); }
    if (!isObject(data) || data.format !== FORMAT) throw Error("This is not a progress file of this book.");
    if (!Number.isInteger(data.version) || data.version < 1) throw Error("This progress file does not say its version.");
    if (data.version > VERSION) throw Error(`This file was written by a newer edition of the book (version ${data.version} of the format; this one reads ${VERSION}). Update the book, then read it again.`);
    const { read = {}, passed = {}, at, route } = data;
    if (!isObject(read) || !Object.values(read).every((day) => isText(day, 40) && !isNaN(Date.parse(day)))) throw Error("This progress file is damaged: its chapters read are not names with dates.");
    if (!isObject(passed) || !Object.values(passed).every((names) => Array.isArray(names) && names.every((name) => isText(name, 200)))) throw Error("This progress file is damaged: its exercises passed are not lists of names.");
    if (at !== undefined && !(isObject(at) && isText(at.chapter, 200) && NAME.test(at.chapter) && isText(at.section, 200) && isText(at.title, 300) && isText(at.when, 40) && !isNaN(Date.parse(at.when)))) throw Error("This progress file is damaged: it does not say properly where you stopped.");
    if (route !== undefined && !isText(route, 200)) throw Error("This progress file is damaged: its route is not a name.");
    const named = (entries) => Object.fromEntries(Object.entries(entries).filter(([name]) => NAME.test(name)));
    const found = { ...empty(), read: named(read), passed: named(passed) };
    if (at) found.at = { chapter: at.chapter, section: at.section, title: at.title, when: at.when };
    if (route) found.route = route;
    return found;
  }

  let state = empty(), kept = true;
  const load = () => {
    try {
      const text = localStorage.getItem(KEY);
      if (text === null) state = empty();
      else try { state = parse(text); } catch { state = empty(); }
    } catch { kept = false; } // forbidden: it lasts for this page
  };
  const tell = () => document.dispatchEvent(new Event("progresschange"));
  const change = (edit) => {
    if (kept) load(); // another tab may have written
    edit(state);
    try { localStorage.setItem(KEY, JSON.stringify(state)); } catch { kept = false; }
    tell();
  };
  load();
  addEventListener("storage", ({ key }) => { if (key === KEY || key === null) { load(); tell(); } });

  return {
    home,
    get state() { return state; },
    get kept() { return kept; },
    change,
    chapterOf: (link) => {
      const { pathname } = new URL(link.href);
      const found = pathname.startsWith(home.pathname) && /^chapters\/(.+?)(\.html)?$/.exec(pathname.slice(home.pathname.length));
      return found ? found[1] : null;
    },
    isRead: (name) => Object.hasOwn(state.read, name),
    // How many of a chapter's exercises have all their checks passed.
    passed: (name, exercises) => {
      const done = new Set(state.passed[name]);
      return exercises.filter((checks) => checks.length && checks.every((check) => done.has(check))).length;
    },
    // Add what `text` holds; returns what was new. Throws an Error in words, and then changes nothing.
    add: (text, isKnown) => {
      const file = parse(text), news = { chapters: 0, checks: 0, unknown: 0 };
      change((mine) => {
        for (const name of new Set([...Object.keys(file.read), ...Object.keys(file.passed)])) {
          if (!isKnown(name)) { news.unknown += 1; continue; }
          if (file.read[name] && !mine.read[name]) { mine.read[name] = file.read[name]; news.chapters += 1; }
          const before = new Set(mine.passed[name]), both = new Set([...before, ...(file.passed[name] || [])]);
          if (both.size) mine.passed[name] = [...both].sort();
          news.checks += both.size - before.size;
        }
        if (file.at && isKnown(file.at.chapter) && !(mine.at && Date.parse(mine.at.when) >= Date.parse(file.at.when))) mine.at = file.at;
        if (file.route && !mine.route) mine.route = file.route;
      });
      return news;
    },
    asText: () => JSON.stringify(state, null, 1) + "\n",
    erase: () => {
      state = empty();
      try { localStorage.removeItem(KEY); } catch { kept = false; }
      tell();
    },
  };
})();

// The contents mark what is read; the current chapter's exercises say how many are passed.
{
  const links = all("#nav li a").map((link) => [link, book.chapterOf(link)]).filter(([, name]) => name);
  const here = document.body.dataset.chapter, exercises = here ? JSON.parse(document.body.dataset.checks) : [];
  const below = here && all("#nav li li a").find((link) => /\/exercises\//.test(new URL(link.href).pathname));
  const note = (link, text) => {
    let mark = find(".done", link);
    if (!text) { mark?.remove(); return; }
    if (!mark) { mark = Object.assign(document.createElement("span"), { className: "done" }); link.append(mark); }
    if (mark.textContent !== text) mark.textContent = text;
  };
  const show = () => {
    for (const [link, name] of links) {
      link.classList.toggle("read", book.isRead(name));
      note(link, book.isRead(name) ? " (read)" : "");
    }
    const passed = here ? book.passed(here, exercises) : 0;
    if (below) note(below, passed ? ` ${passed} of ${exercises.length} passed` : "");
  };
  document.addEventListener("progresschange", show);
  show();

  // At a chapter's end: the reader says that it is read, and can take that back.
  if (here && /\/chapters\//.test(location.pathname)) {
    const box = Object.assign(document.createElement("div"), { className: "finish" });
    const button = Object.assign(document.createElement("button"), { type: "button" });
    const said = document.createElement("span");
    said.setAttribute("role", "status");
    box.append(button, said);
    find("article").after(box);
    const label = () => {
      const read = book.isRead(here);
      box.classList.toggle("read", read);
      button.textContent = read ? "Not read after all" : "Mark this chapter as read";
      const count = links.filter(([, name]) => book.isRead(name)).length;
      said.textContent = read ? `Read. That makes ${count} of ${links.length} chapters.${book.kept ? "" : " This browser keeps nothing, so it is forgotten when you leave the page."}` : "";
    };
    button.addEventListener("click", () => book.change((mine) => {
      if (book.isRead(here)) delete mine.read[here];
      else mine.read[here] = new Date().toISOString();
    }));
    document.addEventListener("progresschange", label);
    label();

    // Where the reader is, once they have moved: to look something up is not to read.
    const sections = all("article section section[id]");
    let moved = false, waiting = 0;
    const note = () => {
      waiting = 0;
      const section = sections.filter((one) => one.getBoundingClientRect().top < innerHeight * 0.3).pop();
      if (!section || (book.state.at?.chapter === here && book.state.at.section === section.id)) return;
      const title = find("h2, h3, h4", section).cloneNode(true);
      find(".headerlink", title)?.remove();
      const text = title.textContent.trim().slice(0, 300);
      book.change((mine) => { mine.at = { chapter: here, section: section.id, title: text, when: new Date().toISOString() }; });
    };
    for (const kind of ["wheel", "touchmove", "keydown", "pointerdown"]) addEventListener(kind, () => { moved = true; }, { once: true, passive: true });
    addEventListener("scroll", () => { if (moved && !waiting) waiting = setTimeout(note, 400); }, { passive: true });
  }
}
