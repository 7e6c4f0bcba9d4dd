// Runs once: `element` is the tab's. A fragment says by its attributes what a click in it does:
//   data-get="path?query"    a view takes the place of the tab's content, or of `data-into`
//   data-post="path?query"   the same after an action; the values of the form around it go along
//   data-sure="words"        the first click changes the button's words, the second one does it
//   form[data-get="path"]    the same as data-get, the values of the form as its query
//   data-poll="seconds"      the fragment asks for its own data-get again while it can be seen; of
//                            what is right in it, only what has changed is replaced, but no tag
//   data-said="words"        is told to a screen reader when it has become another
//   data-copy="selector"     a click copies the text there, and shows the words in data-copied
//   data-link                a click copies the address of a link, as data-copy does
//   data-open="draw"         opens another tab with the newest model of the run in data-run: "draw",
//                            "compare" or "vote"; the component's click event tells the server.
//                            The focus goes to the field `data-focus` there
//   data-keep                what was typed or ticked stays when the fragment is replaced
//   data-drop="path?query"   files dropped on it, or chosen in its input, are sent there one by one,
//                            in slices of `data-slice` bytes; then its data-get is shown. Before
//                            that `data-first` is asked for a view, whose own data-drop takes them
//   data-renew="path?query"  asked for again after an action that replaced another part of the tab
const root = element.querySelector(".teach"), told = element.querySelector(".teach-told");
const spoken = element.querySelector(".teach-spoken");
const place = root.dataset.place; // the address of the routes

const tell = (html) => { told.innerHTML = html; };

const ask = async (path, form) => {
  const body = form && new URLSearchParams(form);
  try {
    const answer = await fetch(place + path, body ? { method: "POST", body } : undefined);
    const text = await answer.text();
    if (answer.ok) return text;
    tell(answer.headers.get("content-type")?.startsWith("text/html") ? text : root.dataset.lost);
  } catch {
    tell(root.dataset.lost);
  }
  return null;
};

const say = () => {
  const words = root.querySelector("[data-said]")?.dataset.said ?? "";
  if (spoken.textContent !== words) spoken.textContent = words;
};

// What the server last said of the parts of a fragment, before the visitor opened any of them.
const shown = new WeakMap();
const partsOf = (each) => (each.children.length ? [...each.children].map((part) => part.outerHTML) : [each.innerHTML]);

// Replaces what is in `target`, and keeps what the visitor has in hand: the focus, what they have
// typed since, which details are open, and how far lists are scrolled.
const put = (target, text) => {
  const key = (each) => each.id || each.name || each.dataset.post || each.dataset.get;
  const ticked = [...target.querySelectorAll("[data-keep][type=checkbox]")].filter((each) => each.checked);
  const open = new Map([...target.querySelectorAll("details")].map((each) => [key(each), each.open]));
  const scrolled = [...target.querySelectorAll("[id]")].filter((each) => each.scrollTop);
  const focused = target.contains(document.activeElement) && document.activeElement;
  const typed = focused && "value" in focused && focused.dataset.keep !== undefined
    ? [focused.value, focused.selectionStart] : null;
  target.innerHTML = text;
  for (const each of [target, ...target.querySelectorAll("[data-poll]")]) shown.set(each, partsOf(each));
  say();
  for (const each of target.querySelectorAll("details")) {
    if (key(each) && open.has(key(each))) each.open = open.get(key(each));
  }
  for (const { id } of ticked) {
    const now = document.getElementById(id);
    if (now) now.checked = true;
  }
  for (const each of scrolled) {
    const now = document.getElementById(each.id);
    if (now) now.scrollTop = each.scrollTop;
  }
  if (!focused) return;
  const same = (each) => key(focused) && key(each) === key(focused);
  const now = [...target.querySelectorAll("[id], [name], [data-post], [data-get]")].find(same);
  now?.focus({ preventScroll: true });
  // Of what is gone, the keyboard goes on from the heading, not from the top of the page.
  if (!root.contains(document.activeElement)) root.querySelector("h2")?.focus({ preventScroll: true });
  if (now && typed) {
    now.value = typed[0];
    if (typed[1] !== null) now.setSelectionRange?.(typed[1], typed[1]);
  }
};

// Replaces what has changed in a fragment that renews itself. One that was scrolled to its end, as
// a log is, stays there.
const renew = (each, next) => {
  const before = shown.get(each) ?? [], now = partsOf(next), parts = [...each.children];
  const changed = now.filter((text, i) => text !== before[i]);
  if (!changed.length && now.length === before.length) return;
  const atEnd = each.scrollHeight - each.scrollTop - each.clientHeight < 4;
  if (parts.length !== now.length || before.length !== now.length) put(each, next.innerHTML);
  else now.forEach((text, i) => { if (text !== before[i]) put(parts[i], next.children[i].innerHTML); });
  shown.set(each, now);
  if (atEnd) each.scrollTop = each.scrollHeight;
};

const targetOf = (each) => {
  const into = each.closest("[data-into]")?.dataset.into;
  return into ? root.querySelector(into) : root;
};

const show = async (each, path, form) => {
  const target = targetOf(each);
  each.setAttribute("aria-busy", "true");
  const text = await ask(path, form);
  each.removeAttribute("aria-busy");
  if (text === null || !target) return;
  tell("");
  put(target, text);
  if (target !== root) {
    if (form) await renewOthers();
  } else {
    remember();
    if (!root.contains(document.activeElement)) root.querySelector("h2")?.focus();
  }
};

const renewOthers = async () => {
  for (const each of root.querySelectorAll("[data-renew]")) {
    const text = await ask(each.dataset.renew);
    if (text !== null && each.isConnected) put(each, text);
  }
};

// The view that a reload of the page shows again.
const remember = () => {
  const view = root.querySelector("[data-view]")?.dataset.view;
  if (view) sessionStorage.setItem("teach", view);
};

const formOf = (each) => {
  const form = each.closest("form");
  const values = form ? new FormData(form) : new FormData();
  if (each.name) values.set(each.name, each.value);
  return [...values].filter(([, value]) => typeof value === "string");
};

element.addEventListener("click", (event) => {
  const each = event.target.closest("[data-get], [data-post]");
  if (!each || each.matches("form, [data-poll], [data-drop]") || each.getAttribute("aria-busy")) return;
  event.preventDefault();
  if (each.dataset.sure && each.textContent !== each.dataset.sure) {
    const before = each.textContent;
    each.textContent = each.dataset.sure;
    each.addEventListener("blur", () => { each.textContent = before; }, { once: true });
    return;
  }
  if (each.dataset.post !== undefined) show(each, each.dataset.post, formOf(each));
  else show(each, each.dataset.get);
});

const focusOnceShown = (selector, tries = 100) => {
  const field = [...document.querySelectorAll(selector)].find((each) => each.offsetParent);
  if (field) field.focus();
  else if (tries) setTimeout(() => focusOnceShown(selector, tries - 1), 100);
};

element.addEventListener("click", (event) => {
  const each = event.target.closest("[data-open]"), link = event.target.closest("[data-link]");
  if (each) {
    tell("");
    trigger("click", { open: each.dataset.open, run: each.dataset.run });
    focusOnceShown(each.dataset.focus);
  }
  if (!link || !navigator.clipboard || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  navigator.clipboard.writeText(link.href).then(
    () => { link.textContent = link.dataset.copied; }, () => window.open(link.href));
});

element.addEventListener("submit", (event) => {
  event.preventDefault(); // nothing here leaves the page
  const form = event.target.closest("form[data-post], form[data-get]");
  if (!form) return;
  const values = formOf(event.submitter ?? form.querySelector("input, button"));
  if (form.dataset.post) show(form, form.dataset.post, values);
  else show(form, form.dataset.get + "?" + new URLSearchParams(values));
});

element.addEventListener("click", async (event) => {
  const each = event.target.closest("[data-copy]"), from = each && root.querySelector(each.dataset.copy);
  if (!from) return;
  try {
    await navigator.clipboard.writeText(from.textContent);
  } catch { // not allowed: then it is marked, to be copied by hand
    return getSelection().selectAllChildren(from);
  }
  const before = each.textContent;
  if (before === each.dataset.copied) return;
  each.textContent = each.dataset.copied;
  each.addEventListener("blur", () => { each.textContent = before; }, { once: true });
});

// A control that acts as soon as it is changed, such as a caption beside its picture.
element.addEventListener("change", (event) => {
  const each = event.target.closest("[data-change]");
  if (each) show(each, each.dataset.change, formOf(each));
});

// Files are sent one after the other, so that a folder of thousands opens one connection, and in
// slices, so that each arrives in time on a slow line. A slice that gets lost is sent again.
const TRIES = 5, MAX_TOLD = 5, AGAIN = [0, 408, 502, 503, 504];
const sendSlice = async (address, slice) => {
  for (let tried = 1; ; tried += 1) {
    const answer = await fetch(address, { method: "POST", body: slice }).catch(() => null);
    if (answer?.ok) return null;
    if (!AGAIN.includes(answer?.status ?? 0) || tried === TRIES) {
      const isText = answer?.headers.get("content-type")?.startsWith("text/html");
      return isText ? await answer.text() : root.dataset.lost;
    }
    await new Promise((resolve) => { setTimeout(resolve, 1000 * tried); });
  }
};

const send = async (zone, files) => {
  if (zone.dataset.first) {
    const text = await ask(zone.dataset.first, formOf(zone));
    if (text === null) return;
    tell("");
    put(root, text);
    remember();
    zone = root.querySelector("[data-drop]");
  }
  const { drop, get } = zone.dataset, size = Number(zone.dataset.slice);
  const total = files.reduce((sum, file) => sum + file.size, 0) || 1, refused = [];
  let sent = 0;
  zone.dataset.busy = "";
  for (const [number, file] of files.entries()) {
    const name = encodeURIComponent(file.webkitRelativePath || file.name);
    const id = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 12)}-${number}`;
    let start = 0, fault = null;
    do {
      const end = Math.min(start + size, file.size);
      const values = `name=${name}&id=${id}&offset=${start}&size=${file.size}`;
      fault = await sendSlice(`${place}${drop}&${values}`, file.slice(start, end));
      start = end;
      for (const bar of root.querySelectorAll("progress[data-sent]")) bar.value = (sent + end) / total;
      for (const count of root.querySelectorAll("output[data-sent]")) count.textContent = `${number + 1} / ${files.length}`;
    } while (start < file.size && fault === null);
    sent += file.size;
    if (fault !== null) refused.push(fault);
  }
  delete zone.dataset.busy;
  await show(zone, get);
  if (refused.length) tell(refused.slice(0, MAX_TOLD).join(""));
};

// What lies in a dropped folder, too.
const filesOf = async (transfer) => {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  const found = [];
  const walk = async (entry) => {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      Object.defineProperty(file, "webkitRelativePath", { value: entry.fullPath.slice(1) });
      found.push(file);
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const several = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!several.length) return;
      for (const each of several) await walk(each);
    }
  };
  for (const each of entries) await walk(each);
  return found;
};

element.addEventListener("drop", async (event) => {
  event.preventDefault();
  event.stopPropagation(); // else the page takes it for a picture with settings
  const zone = event.target.closest("[data-drop]") ?? root.querySelector("[data-drop]");
  if (zone && event.dataTransfer.files.length) send(zone, await filesOf(event.dataTransfer));
});

element.addEventListener("change", (event) => {
  const input = event.target.closest("[data-drop] input[type=file]");
  if (input?.files.length) send(input.closest("[data-drop]"), [...input.files]);
});

// One clock for all fragments that renew themselves.
const due = new WeakMap();
setInterval(async () => {
  if (!root.offsetParent || document.hidden) return;
  for (const each of root.querySelectorAll("[data-poll]")) {
    const now = Date.now();
    if (!each.checkVisibility()) continue; // as in details that are closed
    if ((due.get(each) ?? 0) > now) continue;
    due.set(each, now + 1000 * each.dataset.poll);
    const text = await ask(each.dataset.get);
    if (text === null || !each.isConnected) continue;
    const fresh = document.createElement("template");
    fresh.innerHTML = text;
    const next = fresh.content.querySelector(`[data-poll][data-get="${each.dataset.get}"]`);
    if (!next) { // another state by now, which is a view of its own
      put(targetOf(each), text);
      continue;
    }
    renew(each, next);
  }
}, 500);

const begin = async () => {
  const text = await ask(sessionStorage.getItem("teach") ?? "") ?? await ask("");
  if (text !== null) put(root, text);
};
// The first time that the tab is opened.
new IntersectionObserver((seen, observer) => {
  if (!seen.some((each) => each.isIntersecting)) return;
  observer.disconnect();
  begin();
}).observe(element);
