// A term shows its definition, a citation its source, on hover and on focus; Escape, or going away, puts it back.
// Definitions are read from the glossary's own page when the first is wanted; a citation's source is its link's title.
{
  const WORDS = 'article a:not(.headerlink)[href*="#term-"], article a[href*="bibliography.html#"]';
  const card = document.createElement("div");
  card.className = "definition";
  card.id = "definition";
  card.setAttribute("role", "tooltip");
  card.hidden = true;
  document.body.append(card);

  const pages = new Map(); // address: the parsed page, or why not
  const page = (address) => {
    if (!pages.has(address)) {
      const here = address === location.origin + location.pathname;
      pages.set(address, here ? Promise.resolve(document) : fetch(address).then(async (answer) => {
        if (!answer.ok) throw Error(answer.status);
        return new DOMParser().parseFromString(await answer.text(), "text/html");
      }));
      pages.get(address).catch(() => pages.delete(address)); // gone or offline: the link still leads there
    }
    return pages.get(address);
  };

  // What to show for `link`, as nodes without links or ids.
  const content = async (link) => {
    if (link.title) { link.dataset.source = link.title; link.removeAttribute("title"); } // or the browser shows it too
    if (link.dataset.source) return [Object.assign(document.createElement("p"), { textContent: link.dataset.source.replace(/ URL: (https?:\S+)\.$/, "") })];
    const address = new URL(link.href);
    const term = (await page(address.origin + address.pathname)).getElementById(decodeURIComponent(address.hash.slice(1)));
    let body = term;
    while (body && body.tagName !== "DD") body = body.nextElementSibling; // several names may share a definition
    if (!body) return null;
    const name = Object.assign(document.createElement("b"), { textContent: term.firstChild.textContent.trim() });
    const copy = document.importNode(body, true);
    for (const one of all("a", copy)) one.replaceWith(...one.childNodes);
    for (const one of all("[id]", copy)) one.removeAttribute("id");
    return [name, ...copy.childNodes];
  };

  let shown = null, wanted = null, dismissed = null, timer = 0;
  const hide = () => {
    clearTimeout(timer);
    wanted = null;
    if (!shown) return;
    shown.removeAttribute("aria-describedby");
    shown = null;
    card.hidden = true;
  };
  const place = (link) => {
    const word = link.getClientRects()[0], wide = document.documentElement.clientWidth;
    card.style.left = "0";
    const { width, height } = card.getBoundingClientRect();
    const left = Math.max(12, Math.min(word.left, wide - width - 12));
    const above = word.bottom + height + 12 > innerHeight && word.top > height + 12;
    card.style.left = `${left + scrollX}px`;
    card.style.top = `${(above ? word.top - height - 6 : word.bottom + 6) + scrollY}px`;
  };
  const show = async (link, touched = false) => {
    clearTimeout(timer);
    if (shown === link) return;
    wanted = link;
    const nodes = await content(link).catch(() => null);
    if (wanted !== link) return; // the reader went on meanwhile
    if (shown) hide();
    if (!nodes) return;
    shown = wanted = link;
    card.replaceChildren(...nodes);
    if (touched) card.append(Object.assign(document.createElement("p"), { className: "again", textContent: "Touch the word again to go there." }));
    card.hidden = false;
    place(link);
    link.setAttribute("aria-describedby", card.id);
  };
  const soon = (action, after) => { clearTimeout(timer); timer = setTimeout(action, after); };
  const word = (event) => event.target.closest?.(WORDS);

  document.addEventListener("pointerover", (event) => {
    if (event.pointerType === "touch") return;
    const link = word(event);
    if (link !== dismissed) dismissed = null; // what Escape put away stays away until the pointer has left the word
    if (link) { if (link !== dismissed) soon(() => show(link), shown ? 60 : 180); }
    else if (card.contains(event.target)) clearTimeout(timer);
    else if (shown && document.activeElement !== shown) soon(hide, 250);
    else if (!shown) { clearTimeout(timer); wanted = document.activeElement?.matches?.(WORDS) ? wanted : null; }
  });
  document.addEventListener("focusin", (event) => { const link = word(event); if (link && link.matches(":focus-visible")) show(link); });
  document.addEventListener("focusout", (event) => { if (word(event)) hide(); });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && (shown || wanted)) { dismissed = shown || wanted; hide(); } });
  addEventListener("resize", hide);

  // On touch the first tap shows, the second follows; a tap elsewhere puts it away.
  let touch = false;
  document.addEventListener("pointerdown", (event) => {
    touch = event.pointerType === "touch";
    if (touch && shown && !card.contains(event.target) && word(event) !== shown) hide();
  });
  document.addEventListener("click", (event) => {
    const link = word(event);
    if (!link || !touch || shown === link || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    show(link, true);
  });
}
