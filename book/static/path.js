// The front page: the map, the routes, and the reader's progress on both. Loaded after book.js and progress.js.
{
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const plural = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;
  const listed = (names) => names.map((name) => titles.get(name)).join(", ");

  const panel = find(".progress");
  const exercises = panel ? JSON.parse(find("#book-checks").textContent) : {};
  const nodes = new Map(all(".map a").map((node) => [node.dataset.chapter, node]));
  const items = all(".book-path li").map((item) => [item, book.chapterOf(find("a", item))]);
  const titles = new Map(items.map(([item, name]) => [name, find("a", item).textContent]));
  const links = new Map(items.map(([item, name]) => [name, find("a", item).href]));
  const chapters = [...titles.keys()];

  // What a chapter needs, and what needs it, directly and through others.
  const edges = all(".map .edge");
  const follow = (name, from, to) => {
    const found = new Set(), todo = [name];
    while (todo.length) {
      const one = todo.pop();
      for (const edge of edges) if (edge.dataset[from] === one && !found.has(edge.dataset[to])) { found.add(edge.dataset[to]); todo.push(edge.dataset[to]); }
    }
    return found;
  };
  const map = find(".map"), says = find(".map-says");
  const hint = "A line leads down from a chapter to one that builds on it. Point at a chapter to see all it needs and all that needs it.";
  const point = (name) => {
    const needed = name ? follow(name, "to", "from") : new Set(), needing = name ? follow(name, "from", "to") : new Set();
    map.classList.toggle("pointing", Boolean(name));
    for (const [other, node] of nodes) {
      node.classList.toggle("pointed", other === name);
      node.classList.toggle("needed", needed.has(other));
      node.classList.toggle("needing", needing.has(other));
    }
    for (const edge of edges) {
      const { from, to } = edge.dataset;
      edge.classList.toggle("needed", needed.has(from) && (needed.has(to) || to === name));
      edge.classList.toggle("needing", needing.has(to) && (needing.has(from) || from === name));
    }
    if (!name) { says.replaceChildren(make("p", { textContent: hint })); return; }
    const direct = edges.filter(({ dataset }) => dataset.to === name).map(({ dataset }) => dataset.from);
    const next = edges.filter(({ dataset }) => dataset.from === name).map(({ dataset }) => dataset.to);
    says.replaceChildren(
      make("p", {}, make("b", { textContent: titles.get(name) })),
      make("p", { textContent: nodes.get(name).dataset.says }),
      make("p", { className: "needed" }, direct.length ? `Needs ${listed(direct)}` : "Needs nothing", needed.size > direct.length ? `, and through them ${needed.size - direct.length} more` : ""),
      ...(next.length ? [make("p", { className: "needing", textContent: `Needed by ${listed(next)}${needing.size > next.length ? `, and through them ${needing.size - next.length} more` : ""}` })] : []),
    );
  };
  if (map) {
    const named = (event) => event.target.closest?.("a")?.dataset.chapter;
    const focused = () => map.contains(document.activeElement) ? document.activeElement.dataset?.chapter : undefined;
    map.addEventListener("pointerover", (event) => point(named(event) || focused()));
    map.addEventListener("pointerleave", () => point(focused()));
    map.addEventListener("focusin", (event) => point(named(event)));
    map.addEventListener("focusout", () => point());
    map.addEventListener("keydown", (event) => { if (event.key === "Escape") point(); });
    point();
  }

  // Routes.
  const routes = all(".choose").map((box) => {
    const card = box.closest(".route"), name = find(".route-name", card).textContent;
    const button = make("button", { type: "button", textContent: "Take this route" });
    button.setAttribute("aria-label", `Take this route: ${name}`);
    box.append(button);
    const route = { id: box.dataset.route, name, button, card, chapters: box.dataset.chapters.split(" ") };
    button.addEventListener("click", () => book.change((mine) => {
      if (mine.route === route.id) delete mine.route;
      else mine.route = route.id;
    }));
    return route;
  });

  const SVG = "http://www.w3.org/2000/svg";
  const draw = (node, tag, attributes) => {
    const shape = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) shape.setAttribute(name, value);
    node.append(shape);
  };
  const labels = new Map([...nodes].map(([name, node]) => [name, node.getAttribute("aria-label")]));
  const onMap = (name, passed, total) => {
    const node = nodes.get(name), { x, y, width, height } = find("rect", node), at = (length) => length.baseVal.value;
    all(".badge", node).forEach((badge) => badge.remove());
    if (passed) {
      const length = (at(width) - 14) * passed / total;
      draw(node, "path", { class: "badge share", d: `M${at(x) + 7} ${at(y) + at(height) - 4}h${length}` });
    }
    if (book.isRead(name)) {
      const cx = at(x) + at(width) - 2, cy = at(y) + 2;
      draw(node, "circle", { class: "badge disc", cx, cy, r: 8 });
      draw(node, "path", { class: "badge tick", d: `M${cx - 3.6} ${cy + 0.2}l2.6 2.7 4.6-5.4` });
    }
    node.classList.toggle("read", book.isRead(name));
    node.setAttribute("aria-label", labels.get(name) + (book.isRead(name) ? ", read" : "") + (passed ? `, ${passed} of ${total} exercises passed` : ""));
  };

  const show = () => {
    const route = routes.find(({ id }) => id === book.state.route);
    const way = route ? route.chapters : chapters;
    for (const one of routes) {
      one.button.setAttribute("aria-pressed", one === route);
      one.card.classList.toggle("chosen", one === route);
    }
    const off = (name) => Boolean(route) && !way.includes(name);
    map?.classList.toggle("routed", Boolean(route));
    for (const edge of edges) edge.classList.toggle("off", off(edge.dataset.from) || off(edge.dataset.to));
    let allPassed = 0, allExercises = 0;
    for (const [item, name] of items) {
      const of = exercises[name] || [], passed = book.passed(name, of);
      allPassed += passed; allExercises += of.length;
      if (nodes.has(name)) { nodes.get(name).classList.toggle("off", off(name)); onMap(name, passed, of.length); }
      item.classList.toggle("off", off(name));
      item.classList.toggle("read", book.isRead(name));
      const words = [book.isRead(name) ? "Read" : "", passed ? `${passed} of ${plural(of.length, "exercise")} passed` : ""].filter(Boolean).join(", ");
      find(".mine", item)?.remove();
      if (words) item.append(make("p", { className: "mine", textContent: words }));
    }
    if (!panel) return;
    const read = chapters.filter(book.isRead).length, done = way.filter(book.isRead).length;
    find(".tally", panel).replaceChildren(
      make("b", { textContent: `${read} of ${chapters.length} chapters read` }),
      route ? `, ${done} of ${way.length} on your route (${route.name})` : "",
      allPassed ? `, ${allPassed} of ${allExercises} exercises passed` : "",
      ".", book.kept ? "" : " This browser lets the book keep nothing, so what you mark is forgotten when you leave the page.",
    );
    panel.style.setProperty("--done", `${100 * done / Math.max(1, way.length)}%`);
    const { at } = book.state, next = way.find((name) => !book.isRead(name));
    const target = find(".go-on", panel);
    if (at && titles.has(at.chapter) && !book.isRead(at.chapter)) {
      target.replaceChildren("Go on where you were: ", make("a", { href: `${links.get(at.chapter)}#${encodeURIComponent(at.section)}`, textContent: `${titles.get(at.chapter)}, ${at.title}` }), ".");
    } else if (next) {
      target.replaceChildren(read ? "Go on with " : "Begin with ", make("a", { href: links.get(next), textContent: titles.get(next) }), ".");
    } else target.replaceChildren(route && read < chapters.length ? "You have read all of your route." : "You have read all of it.");
  };
  document.addEventListener("progresschange", show);
  show();

  // Keep, move, erase.
  if (panel) {
    panel.hidden = false;
    const said = find(".said", panel), input = find("input", panel), erase = find(".erase", panel), actions = find(".actions", panel);
    const say = (text, bad = false) => { said.textContent = text; said.classList.toggle("bad", bad); };
    const take = async (file) => {
      if (!file) return;
      try {
        if (file.size > 1e6) throw Error("This is not a progress file: it is larger than 1 MB.");
        const news = book.add(await file.text(), (name) => titles.has(name));
        const left = news.unknown ? ` ${plural(news.unknown, "chapter")} in it ${news.unknown === 1 ? "is" : "are"} not in this book and ${news.unknown === 1 ? "was" : "were"} left out.` : "";
        say(`${file.name} was read: ${plural(news.chapters, "chapter")} and ${plural(news.checks, "passed check")} were new.${left}`);
      } catch (error) {
        say(`${error.message || "This file cannot be read."} Nothing was changed.`, true);
      }
    };
    input.addEventListener("change", async () => { await take(input.files[0]); input.value = ""; });
    panel.addEventListener("dragover", (event) => { event.preventDefault(); panel.classList.add("over"); });
    panel.addEventListener("dragleave", (event) => { if (!panel.contains(event.relatedTarget)) panel.classList.remove("over"); });
    panel.addEventListener("drop", (event) => { event.preventDefault(); panel.classList.remove("over"); take(event.dataTransfer.files[0]); });
    find(".export", panel).addEventListener("click", () => {
      const address = URL.createObjectURL(new Blob([book.asText()], { type: "application/json" }));
      make("a", { href: address, download: "progress.json" }).click();
      setTimeout(() => URL.revokeObjectURL(address), 10000);
      say("progress.json was handed to your browser’s downloads.");
    });
    erase.addEventListener("click", () => {
      const keep = make("button", { type: "button", textContent: "Keep it" });
      const sure = make("button", { type: "button", className: "sure", textContent: "Erase it" });
      const question = make("span", { className: "question", textContent: "Erase all of it from this browser? " });
      const close = () => { question.remove(); actions.hidden = false; erase.focus(); };
      question.append(sure, " ", keep);
      keep.addEventListener("click", close);
      question.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
      sure.addEventListener("click", () => { book.erase(); close(); say("Your progress was erased."); });
      actions.hidden = true;
      actions.after(question);
      keep.focus();
    });
  }
}
