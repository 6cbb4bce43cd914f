// Readers' comments, kept by the book's own server. HTML is set only from what the server rendered (its `html`),
// all else as text. What is typed lies in localStorage until the server has acknowledged it.
const box = document.getElementById("comments");
const { page } = box.dataset;
const API = "/-/comments/";
const SLOW = 3000, LIMIT = 20000; // milliseconds until we say that it takes long, and until we give up
const LONGEST = 8000;
const KINDS = { comment: "Comment", question: "Question", correction: "Correction", idea: "Idea" };
const find = (selector, within = box) => within.querySelector(selector);
const all = (selector, within = box) => [...within.querySelectorAll(selector)];
const make = (tag, properties = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) name in element ? element[name] = value : element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null));
  return element;
};
const button = (text, action, properties = {}) => {
  const made = make("button", { type: "button", textContent: text, ...properties });
  made.addEventListener("click", action);
  return made;
};
const parsed = (html) => { const template = document.createElement("template"); template.innerHTML = html; return template.content; };
const many = (n, one) => `${n} ${one}${n === 1 ? "" : "s"}`;
const uuid = () => crypto.randomUUID?.() // only over https and on this machine
  ?? "10000000-1000-4000-8000-100000000000".replace(/[018]/g, (c) => (+c ^ crypto.getRandomValues(new Uint8Array(1))[0] & 15 >> +c / 4).toString(16));

// --- asking the server

class Refusal extends Error {
  constructor(status, answer) {
    const seconds = Number(answer?.retry_after) || 0;
    const words = answer?.error || `The server answered with an error (${status}).`;
    super(seconds && !/\d/.test(words) ? `${words} Try again in ${many(seconds, "second")}.` : words);
    Object.assign(this, { status, field: answer?.field, seconds, ours: Boolean(answer?.error) });
  }
}

const ask = async (method, path, body, signal) => {
  const options = { method, signal, headers: { "Content-Type": "application/json" } };
  const answer = await fetch(API + path, body ? { ...options, body: JSON.stringify(body) } : { method, signal });
  let data = null;
  try { data = await answer.json(); } catch (error) { if (error.name === "AbortError") throw error; }
  if (answer.ok && data) return data;
  throw new Refusal(answer.status, data);
};

const inWords = (error) => {
  if (error instanceof Refusal) return error.message;
  if (error.name === "AbortError") return `The server has not answered for ${LIMIT / 1000} seconds.`;
  if (!(error instanceof TypeError)) console.error(error);
  return navigator.onLine ? "The server cannot be reached." : "You are offline.";
};

let ticket = null; // a promise: the server's leave to post, taken when a form is first used
const takeTicket = (signal) => {
  ticket ??= ask("POST", "ticket", {}, signal).then((answer) => answer.ticket);
  ticket.catch(() => { ticket = null; });
  return ticket;
};
const pause = (seconds, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, seconds * 1000);
  signal.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); });
});

// A ticket that is too young is waited for, one that is refused is replaced, and so is a key that another reader
// used (this one, before the cookie was lost); the reader need not know of any.
const post = async (body, signal) => {
  for (let tries = 0; ; tries++) {
    try {
      return await ask("POST", "comments", { ...body, ticket: await takeTicket(signal) }, signal);
    } catch (error) {
      if (tries === 3) throw error;
      if (error.field === "key" && error.status === 409) body.key = uuid();
      else if (error.field !== "ticket") throw error;
      else if (error.seconds) await pause(error.seconds, signal);
      else ticket = null;
    }
  }
};

// --- what is typed: a slot for each page, place and window, so that no window writes over another's

const store = { // there may be none: a private window, or cookies refused
  get(key) { try { return JSON.parse(localStorage.getItem(key)); } catch { return null; } },
  set(key, value) { try { localStorage.setItem(key, JSON.stringify(value)); return true; } catch { return false; } },
  remove(key) { try { localStorage.removeItem(key); } catch { /* nothing is there */ } },
  keys() { try { return Object.keys(localStorage); } catch { return []; } },
};
const here = uuid(); // this window, until it is closed or loaded again
const slot = (place, who = here) => `comment ${page} ${place} ${who}`;
let held = false, letGo = () => {}; // while a lock with its name is held, other windows leave this one's slots alone
const hold = () => {
  if (held) return;
  held = true;
  navigator.locks?.request(`comment ${here}`, () => new Promise((done) => { letGo = done; }));
};
const saveDraft = (place, draft) => {
  hold();
  return store.set(slot(place), { ...draft, when: Date.now() });
};

// The drafts on this page whose windows are gone, newest first.
const abandoned = async () => {
  const alive = new Set((await navigator.locks?.query())?.held.map((lock) => lock.name));
  return store.keys().filter((key) => key.startsWith(`comment ${page} `)).map((key) => {
    const [, , place, who] = key.split(" ");
    return { key, place, who, draft: store.get(key) };
  }).filter(({ who, draft }) => draft && who !== here && !alive.has(`comment ${who}`)).sort((a, b) => b.draft.when - a.draft.when);
};

// Keys that were acknowledged: a draft that another window took over must not replace what was posted.
const POSTED = "comments posted";
const wasPosted = (key) => (store.get(POSTED) || []).includes(key);
const markPosted = (key) => store.set(POSTED, [...(store.get(POSTED) || []), key].slice(-50));

// --- the page's sections

const article = document.querySelector("article");
const sections = new Map(); // id: {title, heading}
for (const section of all("section[id]", article)) {
  const heading = find(":scope > :is(h2, h3, h4)", section);
  if (!heading) continue;
  const words = heading.cloneNode(true);
  for (const extra of all(".headerlink, .katex-mathml", words)) extra.remove();
  sections.set(section.id, { title: words.textContent.trim(), heading });
}

// --- the thread

const list = make("div");
const empty = make("p", { className: "empty", hidden: true, textContent: "No comments yet." });
const said = make("p", { className: "said", role: "status" }); // what happened, also for who cannot see it
const count = make("span", { className: "count" });
const title = find("#comments-title");
const write = button("Write a comment", () => openForm("new"), { className: "write" });
write.setAttribute("aria-expanded", false);
const below = make("div", { className: "new" }, write);
const own = new Map(); // id: what the server says of this reader's recent comments
let moderated = false;

const thread = () => find("ol.thread", list) ?? list.appendChild(make("ol", { className: "thread" }));
const comment = (id) => document.getElementById(`comment-${id}`);
const topOf = (item) => item.parentElement.closest(".comment") ?? item;
const replies = (item) => find(":scope > .replies", item) ?? item.appendChild(make("ol", { className: "replies" }));
const remember = (mine) => own.set(mine.id, { ...mine, until: Date.now() + mine.editable_for * 1000 });
const say = (words) => { said.textContent = words; };

const needsMath = () => {
  if (find(".katex") && !document.getElementById("comments-katex"))
    document.head.append(make("link", { id: "comments-katex", rel: "stylesheet", href: box.dataset.katexHref }));
  dispatchEvent(new Event("contentchange")); // book.js: what scrolls sideways can be reached
};

const insert = (html, parent) => {
  const item = find(".comment", parsed(html));
  (parent && comment(parent) ? replies(comment(parent)) : thread()).append(item);
  return item;
};

// What one can do with a comment, below its text.
const equip = (item) => {
  find(":scope > .actions", item)?.remove();
  const id = Number(item.dataset.id), mine = own.get(id);
  if (!id || item.matches(".gone")) return;
  const name = find(":scope > .by .author", item)?.textContent ?? "";
  const about = (what) => ({ "aria-label": `${what} the comment by ${name}` });
  const actions = make("p", { className: "actions" });
  if (mine?.state !== "pending" && !topOf(item).matches(".pending"))
    actions.append(button("Reply", () => openForm(`reply-${topOf(item).dataset.id}`), { "aria-label": `Reply to ${name}` }));
  if (mine && mine.until > Date.now()) {
    actions.append(button("Edit", () => openForm(`edit-${id}`), about("Edit")));
    actions.append(button("Delete", (event) => askToDelete(item, event.target), about("Delete")));
  }
  if (navigator.clipboard) actions.append(button("Copy link", async ({ target }) => {
    await navigator.clipboard.writeText(new URL(`#comment-${id}`, location.href.split("#")[0]).href);
    target.textContent = "Copied";
    say("The link to the comment is copied.");
    setTimeout(() => { target.textContent = "Copy link"; }, 1500);
  }, about("Copy link to")));
  if (mine && mine.until > Date.now()) actions.append(make("span", { className: "left" }));
  if (mine?.state === "pending") {
    item.classList.add("pending");
    if (!find(":scope > .by .waits", item)) find(":scope > .by", item).append(make("span", { className: "waits", textContent: "Awaits approval; only you see it" }));
  }
  (find(":scope > .text", item) ?? item.lastElementChild).after(actions);
  tick();
};

// The minutes left to edit; after them the buttons go.
let clock = 0;
const tick = () => {
  clearTimeout(clock);
  let next = false;
  for (const [id, mine] of own) {
    const item = comment(id), left = mine.until - Date.now(), place = item && find(":scope > .actions .left", item);
    if (!place) continue;
    if (left <= 0) equip(item);
    else {
      const minutes = Math.ceil(left / 60000);
      place.textContent = `yours to change for ${minutes > 1 ? `${minutes} min` : "less than a minute"}`;
      next = true;
    }
  }
  if (next) clock = setTimeout(tick, 5000);
};

const counts = () => {
  const shown = all(".thread .comment:not(.gone, .pending)", list);
  count.textContent = shown.length || "";
  empty.hidden = find(".comment", list) !== null;
  toolsOf(null, find("h1", article), shown);
  for (const id of sections.keys()) toolsOf(id, sections.get(id).heading, shown.filter((item) => topOf(item).dataset.section === id));
};

// Over the title: how many comments. Over a section's heading: how many are about it, and a way to add one.
const toolsOf = (id, heading, about) => {
  if (!heading) return;
  const section = id && sections.get(id);
  let tools = find(":scope > .section-tools", heading.parentElement);
  if (!tools) {
    tools = make("p", { className: "section-tools" });
    if (section) tools.append(button("Comment", () => openForm("new", { section: id }), { "aria-label": `Comment on “${section.title}”` }));
    section ? heading.after(tools) : heading.before(tools); // the title is followed by the promise
  }
  find("a", tools)?.remove();
  if (!about.length) return;
  const link = make("a", { href: section ? `#${about[0].id}` : "#comments", textContent: many(about.length, "comment") });
  if (section) {
    link.setAttribute("aria-label", `${many(about.length, "comment")} on “${section.title}”`);
    link.addEventListener("click", () => { together = about; mark(about); });
  }
  tools.prepend(link);
};

let together = []; // the comments that the link last followed leads to
const mark = (items) => {
  for (const item of all(".marked")) item.classList.remove("marked");
  for (const item of items) item.classList.add("marked");
};

const reach = (item) => {
  item.tabIndex = -1;
  item.focus({ preventScroll: true });
  item.scrollIntoView({ block: item.offsetHeight > innerHeight / 2 ? "start" : "center" });
};

const follow = () => { // the comment that the address names
  const id = /^#comment-(\d+)$/.exec(location.hash)?.[1];
  if (!id) return;
  const item = comment(id);
  if (!item) { box.scrollIntoView(); say("The comment that the address names is not here: it was removed, or awaits approval."); return; }
  mark(together.includes(item) ? together : [item]);
  together = [];
  reach(item);
};

// --- deleting: asked once, in place

const askToDelete = (item, asked) => {
  const id = Number(item.dataset.id);
  const words = make("span", { role: "status" });
  const back = () => { equip(item); find(":scope > .actions button[aria-label^=Delete]", item)?.focus(); };
  const yes = button("Delete", async () => {
    if (yes.getAttribute("aria-disabled") === "true") return;
    yes.setAttribute("aria-disabled", true);
    words.textContent = "Deleting…";
    try {
      await patiently((signal) => ask("DELETE", `comments/${id}`, null, signal), () => { words.textContent = "Still deleting…"; });
      remove(item, id);
    } catch (error) {
      yes.setAttribute("aria-disabled", false);
      words.textContent = `${inWords(error)} The comment is still there.`;
      yes.focus();
    }
  });
  asked.closest(".actions").replaceChildren(make("span", { textContent: "Delete this comment for good?" }), yes, button("Keep", back), words);
  yes.focus();
};

const remove = (item, id) => {
  own.delete(id);
  for (const place of [`edit-${id}`, `reply-${id}`]) if (!forms.get(place)?.dirty()) closeForm(place);
  const around = topOf(item), next = item.nextElementSibling ?? item.previousElementSibling ?? around;
  if (find(":scope > .replies > .comment", item) || find(":scope > form", item)) {
    item.classList.add("gone");
    for (const part of [...item.children]) if (!part.matches(".replies, form")) part.remove();
    item.prepend(make("p", { textContent: "This comment was removed." }));
  } else {
    item.remove();
    if (around.matches(".gone") && !find(".comment", around)) around.remove();
  }
  counts();
  say("Your comment is deleted.");
  next?.isConnected && next.matches(".comment") ? reach(next) : title.focus();
};

// --- sending: after 3 seconds say that it takes long, after 20 give up

const patiently = async (send, slow) => {
  const control = new AbortController();
  const timers = [setTimeout(slow, SLOW), setTimeout(() => control.abort(), LIMIT)];
  try { return await send(control.signal); } finally { timers.forEach(clearTimeout); }
};

// --- the form, for a new comment, a reply or an edit

const forms = new Map(); // place: form

const choice = (label, options, chosen) => {
  const select = make("select", {}, ...options.map(([value, text]) => make("option", { value, textContent: text })));
  select.value = chosen;
  if (select.selectedIndex < 0) select.selectedIndex = 0;
  return [make("label", {}, make("span", { textContent: label }), select), select];
};

const openForm = (place, { section, draft, quiet = false } = {}) => {
  let form = forms.get(place);
  if (!form) { say(""); forms.set(place, form = makeForm(place, draft ?? {})); }
  if (section !== undefined) form.about(section);
  if (quiet) return form;
  form.text.focus({ preventScroll: true });
  form.element.scrollIntoView({ block: "center" });
  return form;
};

const closeForm = (place) => {
  const form = forms.get(place);
  if (!form) return;
  forms.delete(place);
  form.element.remove();
  if (place === "new") { write.hidden = false; write.setAttribute("aria-expanded", false); }
};

const makeForm = (place, draft) => {
  const [what, number] = place.split("-"), id = Number(number) || null; // new, reply-17, edit-17
  const target = id && comment(id), mine = what === "edit" ? own.get(id) : null;
  const name = target ? find(":scope > .by .author", target)?.textContent : "";
  const start = { text: "", kind: "comment", section: null, author: store.get("comments name") ?? "", ...mine, ...store.get(slot(place)), ...draft };
  let key = start.key ?? uuid(), sending = false;

  const field = (suffix) => `write-${place}-${suffix}`;
  const text = make("textarea", { id: field("text"), rows: 6, value: start.text, "aria-describedby": `${field("help")} ${field("said")}` });
  const [kindLabel, kind] = choice("Kind", Object.entries(KINDS), start.kind);
  const [aboutLabel, about] = choice("About", [["", "The whole page"], ...[...sections].map(([value, { title }]) => [value, title])], start.section ?? "");
  const author = make("input", { autocomplete: "nickname", maxLength: 80, value: start.author });
  const trap = make("input", { name: "website", tabIndex: -1, autocomplete: "off" }); // people do not see it
  const submit = make("button", { type: "submit", className: "send", textContent: what === "edit" ? "Save" : "Post" });
  const words = make("p", { id: field("said"), className: "said", role: "status" });
  const preview = make("div", { className: "preview", hidden: true });
  const previewed = make("p", { className: "previewed" });
  const previewText = make("div", { className: "text", tabIndex: 0, role: "region", "aria-label": "Preview" });
  preview.append(previewed, previewText);
  const heading = { new: "Write a comment", reply: `Reply to ${name}`, edit: "Change your comment" }[what];
  const element = make("form", { className: "write-form", noValidate: true, "aria-label": heading },
    what === "new" ? null : make("p", { className: "heading", textContent: heading }),
    target && topOf(target) !== target || what === "reply" ? null : make("div", { className: "row" }, kindLabel, aboutLabel),
    make("label", { htmlFor: field("text"), textContent: what === "reply" ? "Your reply" : "Your comment" }),
    text,
    make("p", { id: field("help"), className: "help" }, "Markdown: **bold**, `code`, [link](address), $x^2$; three backticks around code of several lines."),
    make("label", { className: "name" }, make("span", { textContent: "Name, if you like" }), author),
    make("div", { className: "trap", "aria-hidden": true }, trap),
    moderated && what !== "edit" ? make("p", { className: "help", textContent: "Comments appear once they are approved." }) : null,
    make("p", { className: "buttons" }, submit, button("Preview", showPreview), button("Close", close)),
    words, preview);

  const values = () => ({ text: text.value, kind: kind.value, section: about.value || null, author: author.value.trim() });
  const dirty = () => text.value.trim() !== "" && text.value !== mine?.text;
  const mend = (message, what) => { // say what is wrong, and go where it can be put right
    words.textContent = message;
    element.classList.add("refused");
    for (const input of [text, author, kind, about]) input.setAttribute("aria-invalid", input === what);
    what?.focus();
  };
  const keep = () => { // false if it could not be stored
    if (dirty()) return saveDraft(place, { ...values(), key });
    store.remove(slot(place));
    return true;
  };
  element.addEventListener("input", () => {
    keep();
    const over = text.value.length - LONGEST;
    words.textContent = over > 0 ? `${many(over, "character")} too many; ${LONGEST.toLocaleString("en")} are allowed.` : "";
    element.classList.toggle("refused", over > 0);
    for (const input of all("[aria-invalid]", element)) input.removeAttribute("aria-invalid");
    if (!preview.hidden) previewed.textContent = "Preview of what you had written; press Preview to see it anew.";
  });
  author.addEventListener("change", () => store.set("comments name", author.value.trim()));
  if (what !== "edit") element.addEventListener("focusin", () => takeTicket().catch(() => {}), { once: true });
  element.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); element.requestSubmit(); }
  });

  function close() {
    closeForm(place);
    const again = what === "new" ? write : find(`:scope > .actions button[aria-label^=${what === "edit" ? "Edit" : "Reply"}]`, target);
    (again ?? title).focus();
    if (dirty() && keep()) say("The form is closed; what you wrote is kept in this browser until you send it.");
  }

  async function showPreview() {
    if (!text.value.trim()) return mend("There is nothing to show yet.", text);
    words.textContent = "";
    try {
      const { html } = await patiently((signal) => ask("POST", "preview", { text: text.value }, signal), () => { words.textContent = "Still waiting for the preview…"; });
      previewText.replaceChildren(parsed(html));
      previewed.textContent = "Preview";
      preview.hidden = false;
      words.textContent = "";
      needsMath();
      previewText.focus();
    } catch (error) { mend(`No preview: ${inWords(error)}`, error.field === "text" ? text : null); }
  }

  element.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (sending) return;
    const body = values();
    if (!body.text.trim()) return mend("Write something first.", text);
    if (body.text.length > LONGEST) return mend(`${many(body.text.length - LONGEST, "character")} too many; ${LONGEST.toLocaleString("en")} are allowed.`, text);
    if (what !== "edit" && wasPosted(key)) key = uuid();
    keep();
    busy(true);
    words.textContent = "Sending…";
    try {
      const whole = { ...body, page, parent: what === "reply" ? id : null, key, website: trap.value };
      const answer = await patiently((signal) => what === "edit" ? ask("PATCH", `comments/${id}`, body, signal) : post(whole, signal),
        () => { words.textContent = "Still sending…"; });
      markPosted(key);
      for (const other of store.keys().filter((name) => name.startsWith(`comment ${page} ${place} `)))
        if (other === slot(place) || store.get(other)?.key === key && store.get(other).text === body.text) store.remove(other);
      closeForm(place);
      show(answer, { ...body, id: answer.id, parent: what === "reply" ? id : mine?.parent ?? null });
    } catch (error) {
      busy(false);
      const refused = error instanceof Refusal;
      if (error.field === "key") key = uuid(); // what was sent with the old one is deleted
      const mendable = refused && (error.field || [410, 413, 422].includes(error.status));
      submit.textContent = mendable ? submit.textContent : "Send again";
      mend(`${inWords(error)} ${refused && error.ours ? "" : "Send it again in a moment. "}What you wrote is kept.`,
        mendable ? { author, kind, section: about }[error.field] ?? text : submit);
    }
  });

  const busy = (on) => {
    sending = on;
    text.readOnly = author.readOnly = on;
    submit.setAttribute("aria-disabled", on);
    element.classList.toggle("sending", on);
    if (on) element.classList.remove("refused");
  };

  if (what === "new") { write.hidden = true; write.setAttribute("aria-expanded", true); below.append(element); } else target.append(element);
  if (start.text && !mine || mine && dirty()) words.textContent = "This is what you had written and not sent.";
  return { element, text, dirty, keep, say: (message) => { words.textContent = message; }, about: (id) => { about.value = id; keep(); } };
};

// What the server has taken: into the thread, in place of what was there before.
const show = (answer, mine) => {
  remember({ ...mine, state: answer.state, editable_for: answer.editable_for });
  const before = comment(answer.id), item = insert(answer.html, mine.parent);
  if (before) {
    item.append(...all(":scope > .replies, :scope > form", before));
    before.replaceWith(item);
  }
  equip(item);
  counts();
  needsMath();
  reach(item);
  say(answer.state === "pending" ? "Your comment is kept and awaits approval; until then only you see it." : "Your comment is posted.");
};

// Drafts of windows that were closed. A reply whose comment has gone becomes a new comment.
const restore = async () => {
  for (const { key, place, draft } of await abandoned()) {
    const [what, number] = place.split("-");
    const lost = what === "reply" && !comment(number) || what === "edit" && !own.has(Number(number));
    const to = lost ? "new" : place;
    if (forms.has(to)) continue; // its turn comes when the newer one is sent
    const form = openForm(to, { draft: lost ? { ...draft, key: uuid(), section: null } : draft, quiet: true });
    if (form.keep()) store.remove(key);
    if (lost) form.say(`You had written this as ${what === "reply" ? "a reply to a comment that is no longer here" : "a change to a comment that can no longer be changed"}.`);
  }
};

addEventListener("pagehide", () => { for (const form of forms.values()) form.keep(); letGo(); held = false; });
addEventListener("pageshow", (event) => { if (event.persisted) for (const form of forms.values()) form.keep(); });
addEventListener("beforeunload", (event) => { if ([...forms.values()].some((form) => form.dirty() && !form.keep())) event.preventDefault(); });
addEventListener("hashchange", follow);

const load = async () => {
  try {
    const data = await patiently((signal) => ask("GET", `thread?page=${encodeURIComponent(page)}`, null, signal), () => say("The comments take long to come…"));
    say("");
    list.replaceChildren(parsed(data.html));
    moderated = data.moderated;
    for (const mine of data.own) {
      remember(mine);
      if (mine.html && !comment(mine.id)) insert(mine.html, mine.parent);
    }
    all(".comment", list).forEach(equip);
    box.append(below);
    counts();
    needsMath();
    await restore();
    follow();
  } catch (error) {
    const elsewhere = error instanceof Refusal && !error.ours && error.status < 500; // a copy of the pages alone
    if (elsewhere) said.replaceChildren("Comments are kept by the book’s own server: ", make("code", { textContent: "make serve" }), ".");
    else said.replaceChildren(`The comments could not be fetched. ${inWords(error)} `, button("Try again", () => { say("Fetching the comments…"); load(); }));
  }
};

title.tabIndex = -1;
title.append(" ", count);
box.append(list, empty, said);
if (location.hash.startsWith("#comment-")) load();
else if (document.readyState === "complete") (window.requestIdleCallback ?? setTimeout)(load);
else addEventListener("load", () => (window.requestIdleCallback ?? setTimeout)(load));
