// Pictures while one types: the script of the switch "as you type". Each change of what is asked for
// comes here; a pause asks the server for a picture of it, which stands in the place of the last
// drawing until something is drawn in full. Of a long stretch without a pause there are pictures too.

const PAUSE = 150, LONGEST = 600, LEARN = 1000, MAX_LEARN = 60_000; // milliseconds
const KEY = "live";
const client = String(Math.random()).slice(2); // among those who share an address
const box = element.querySelector("input");
const place = () => document.querySelector("#live_picture").querySelector("figure");
const now = () => performance.now();
let choice = storedChoice(); // the visitor's own: "on", "off", or null
let missed = false; // something was typed before it was known what is usual
let last = "", anew = false; // the settings that came last; whether to draw them though they are the same
let known = null; // the settings as gradio told them last
let wanted = null; // settings that no picture was asked for yet
let since = null; // when the visitor began to wait for a picture
let number = 0, asking = null; // the request that is under way
let timer, drawing = false, watches = false; // whether something is drawn in full; watches the gallery

function storedChoice() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // a browser that stores nothing
  }
}

box.addEventListener("change", () => {
  choice = box.checked ? "on" : "off";
  try {
    localStorage.setItem(KEY, choice);
  } catch {
    // It holds until the page is left.
  }
  box.checked ? again() : stop();
});
// gradio tells of keys, but not of what is pasted, dictated or undone.
document.addEventListener("input", (event) => {
  if (!event.target.closest("#prompt, #negative_prompt")) return;
  again();
  // Where gradio has lost its connection it tells nothing any more: the other settings are as before.
  if (known && box.checked) want(known);
});

// What stands there, by names in a request. gradio knows of the last keys a moment later, and an event
// that comes too soon would lose them.
function words() {
  const fields = ["prompt", "negative_prompt"].map(
    (name) => [name, document.querySelector(`#${name} textarea`)?.value]);
  return Object.fromEntries(fields.filter(([, value]) => value !== undefined));
}

// Has the settings come though they are as before.
function again() {
  anew = true;
  trigger("input");
}

// Whether it is on where the visitor has not chosen: the server measures it once the model is open.
async function learn() {
  for (let wait = LEARN; choice === null && wait < MAX_LEARN; wait *= 1.5) {
    const told = await fetch("live").then((answer) => answer.json()).catch(() => null);
    if (choice !== null) return;
    if (typeof told?.usual === "boolean") {
      box.checked = told.usual;
      if (told.usual && missed) again();
      return;
    }
    await new Promise((done) => setTimeout(done, wait));
  }
}

function changed(names, values) {
  const settings = named(names, values), text = JSON.stringify(values);
  if (text === last && !anew) return;
  [last, anew, known] = [text, false, settings];
  clearTimeout(timer);
  if (!box.checked) missed = true;
  else if (!settings.prompt?.trim() && !words().prompt.trim()) stop();
  else want(settings);
}

const named = (names, values) => Object.fromEntries(names.map((name, place) => [name, values[place]]));

function want(settings) {
  clearTimeout(timer);
  wanted = settings;
  since ??= now();
  // Late: nothing was seen for so long that what is being drawn may come to its end, unless there is
  // a pause in which the newest can be drawn instead.
  const late = now() - since > LONGEST;
  timer = setTimeout(ask, late ? (asking ? 2 * PAUSE : 0) : PAUSE);
}

async function ask() {
  clearTimeout(timer);
  if (!wanted || drawing) return;
  const settings = { ...wanted, ...words() }, mine = ++number;
  if (!settings.prompt.trim()) return stop();
  wanted = null;
  asking = new AbortController();
  element.dataset.busy = "";
  try {
    const picture = await drawn(settings, mine);
    if (mine === number && picture) await show(picture, settings.prompt, mine);
  } catch (error) {
    if (mine === number) say(error instanceof TypeError ? "" : error.message);
  }
  if (mine !== number) return; // the server has called it off for a later one
  asking = null;
  since = wanted && now();
  delete element.dataset.busy;
}

// A Blob; null where nothing came of it.
async function drawn({ start, variation, new_seed, ...settings }, mine) {
  const { signal } = asking, begun = await window.startLive?.(settings.width, settings.height);
  if (begun === null || mine !== number) return null;
  const body = {
    ...settings, ...begun, ...(new_seed ? {} : variation), seed: settings.seed ?? 0, number: mine,
  };
  const answer = await fetch("live", {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Client-Id": client },
    body: JSON.stringify(body),
    signal,
  });
  if (answer.status === 204) return null;
  if (!answer.ok) throw new Error((await answer.json()).error);
  return answer.blob();
}

async function show(picture, words, mine) {
  const image = Object.assign(new Image(), { src: URL.createObjectURL(picture), alt: words });
  await image.decode();
  if (mine !== number) return URL.revokeObjectURL(image.src);
  clear();
  place().prepend(image);
  say("");
  document.querySelector("#sheet").dataset.asked = "";
  watchGallery();
}

// Below the picture. No screen reader is interrupted by it while its user types.
function say(text) {
  const said = place().querySelector("figcaption");
  said.textContent = text || (shown() ? said.dataset.hint : "");
}

const shown = () => place().querySelector("img");

function clear() {
  const image = shown();
  if (!image) return;
  URL.revokeObjectURL(image.src);
  image.remove();
  say("");
}

function stop() {
  clearTimeout(timer);
  asking?.abort();
  number++;
  asking = wanted = since = null;
  delete element.dataset.busy;
}

// What is drawn in full, or shown again, takes the place of the live picture.
function watchGallery() {
  if (watches) return;
  watches = true;
  const isImage = (node) => node.matches?.("img") || node.querySelector?.("img");
  new MutationObserver((changes) => {
    if (changes.some((one) => one.type === "attributes" || [...one.addedNodes].some(isImage))) clear();
  }).observe(document.querySelector("#gallery"), {
    childList: true, subtree: true, attributeFilter: ["src"],
  });
}

document.addEventListener("click", (event) => {
  if (!event.target.closest("#history [data-place], #examples [data-number]")) return;
  stop();
  clear();
});

window.live = {
  changed,
  again,
  isOn: () => box.checked,
  // To be called as a drawing begins, and as it ends. What is drawn of words of which there is a live
  // picture has its seed: a new one is for the next.
  begin(names, values) {
    const { seed, new_seed } = named(names, values), live = wanted || asking || shown();
    stop();
    drawing = true;
    const kept = live && new_seed === true && Number.isInteger(seed);
    last = JSON.stringify(values.slice(0, names.length));
    known = named(names, values);
    return names.map((name, at) => (name === "new_seed" && kept ? seed : values[at]))
      .concat(values.slice(names.length));
  },
  end() {
    drawing = false;
    if (wanted) ask();
  },
};
box.checked = choice === "on";
learn();
