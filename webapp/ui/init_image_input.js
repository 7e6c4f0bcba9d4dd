// The canvas to start from: the script of the component that shows it. The browser keeps the image;
// `window.startFrom` uploads it and returns what a drawing starts from. The server sends `props.value`:
// {taken}, the SHA-256 of the image that was uploaded last, or what another drawing started from.

const find = (selector) => element.querySelector(selector);
const given = JSON.parse(find("details").dataset.given), words = given.words;
const canvas = find("canvas"), sheet = canvas.getContext("2d", { willReadFrequently: true });
const range = find("input[type=range]");
const MAX_UNDONE = 10, MAX_SENT = 8;
let file = null, sketched = false; // the image as it came
let undone = []; // the canvas before each stroke, and before it was emptied: as `withSnapshot` adds it
let last = null, sent = new Map(); // uploaded images, by SHA-256
let fills = 0;
let isShown = false; // the sheet shows `file`
let clears = 0, taking = null; // an image that is still being read when the canvas is cleared is none

// For history.js, which stores it.
window.sentInitImage = (digest) => sent.get(digest);

function say(text, problem = false) {
  const said = find(".said");
  said.textContent = text;
  said.role = problem ? "alert" : "status";
  said.classList.toggle("problem", problem);
}

function show() {
  const state = sketched ? words.START_SKETCH : file ? words.START_PICTURE : "";
  find(".state").textContent = state && ` · ${state}`;
  find("output").textContent = Number(range.value).toFixed(2);
  find("[data-does=undo]").disabled = !undone.length;
  find("[data-does=remove]").disabled = !state;
}

function clear() {
  clears++;
  Object.assign(canvas, { width: given.side, height: given.side });
  sheet.fillStyle = "#fff";
  sheet.fillRect(0, 0, canvas.width, canvas.height);
  [file, sketched, undone, isShown] = [null, false, [], false];
  find("input[type=file]").value = "";
  say("");
  show();
}

function withSnapshot() {
  const image = sheet.getImageData(0, 0, canvas.width, canvas.height);
  return [...undone, { image, sketched, file }].slice(-MAX_UNDONE);
}

function undo() {
  const before = undone.pop();
  Object.assign(canvas, { width: before.image.width, height: before.image.height });
  sheet.putImageData(before.image, 0, 0);
  ({ sketched, file } = before);
}

// As `clear`, by the visitor.
function remove() {
  const before = withSnapshot();
  clear();
  undone = before;
}

// The file goes as it is; where it is too large, what the sheet shows of it goes.
function take(chosen) {
  clear();
  taking = read(chosen, clears);
  return taking;
}

async function read(chosen, began) {
  let image = null;
  try {
    image = await createImageBitmap(chosen);
  } catch {
    if (began === clears) say(words.START_UNSHOWN);
  }
  if (began !== clears) return;
  const small = chosen.size <= given.maxBytes && (image?.width ?? 0) * (image?.height ?? 0) <= given.maxPixels;
  if (!image && !small) return say(words.START_UNREADABLE, true);
  if (image) {
    const scale = Math.min(1, given.maxSide / Math.max(image.width, image.height));
    canvas.width = Math.max(1, Math.round(image.width * scale));
    canvas.height = Math.max(1, Math.round(image.height * scale));
    sheet.fillStyle = "#fff";
    sheet.fillRect(0, 0, canvas.width, canvas.height);
    sheet.imageSmoothingQuality = "high";
    sheet.drawImage(image, 0, 0, canvas.width, canvas.height);
  }
  const taken = small ? chosen : await onSheet();
  if (began !== clears) return;
  [file, isShown] = [taken, Boolean(image)];
  show();
}

// The picture or its strength has changed: it may be drawn at once.
function change() {
  if (window.live?.isOn()) window.live.again();
}

const onSheet = () => new Promise((done) => canvas.toBlob(done, "image/png"));

function place(event) {
  const box = canvas.getBoundingClientRect();
  return [
    (event.clientX - box.left) / box.width * canvas.width,
    (event.clientY - box.top) / box.height * canvas.height,
  ];
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  undone = withSnapshot();
  sheet.strokeStyle = find("input[type=color]").value;
  // As wide on every sheet.
  sheet.lineWidth = find("select").value * Math.max(canvas.width, canvas.height) / given.side;
  sheet.lineCap = sheet.lineJoin = "round";
  sheet.beginPath();
  sheet.moveTo(...place(event));
  sheet.lineTo(...place(event));
  sheet.stroke();
  canvas.setPointerCapture(event.pointerId);
  sketched = true;
  say("");
  show();
});
canvas.addEventListener("pointermove", (event) => {
  if (!canvas.hasPointerCapture(event.pointerId)) return;
  for (const each of event.getCoalescedEvents?.() ?? [event]) sheet.lineTo(...place(each));
  sheet.stroke();
  change();
});
canvas.addEventListener("pointerup", change);

element.addEventListener("click", (event) => {
  const does = event.target.closest("button")?.dataset.does;
  if (does === "remove") remove();
  if (does === "undo" && undone.length) undo();
  if (does) show();
  if (does) change();
});
range.addEventListener("input", () => {
  show();
  change();
});
find("input[type=file]").addEventListener("change", (event) => {
  const [chosen] = event.target.files;
  if (chosen) take(chosen).then(change);
});
element.addEventListener("drop", (event) => {
  const [chosen] = event.dataTransfer.files;
  if (!chosen) return;
  event.preventDefault();
  event.stopPropagation(); // elsewhere a picture gives its settings
  take(chosen).then(change);
});

async function upload(picture) {
  const form = new FormData();
  form.append("files", picture, picture.name ?? "sketch.png");
  const answer = await fetch("gradio_api/upload", { method: "POST", body: form });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error ?? words.START_UNSENT);
  return told[0];
}

window.startFrom = async () => {
  await taking;
  const start = { strength: Number(range.value) };
  const picture = sketched ? await onSheet() : file;
  if (!picture) return start;
  say(words.START_SENDING);
  try {
    start.upload = await upload(picture);
    last = picture;
    say("");
  } catch (error) {
    start.upload = "unsent"; // the server then refuses the drawing
    say(error instanceof TypeError ? words.START_UNSENT : error.message, true);
  }
  return start;
};

// For live.js: what a drawing starts from, as small as it is drawn; null where the sheet does not show
// it. The middle of it, as the server cuts it.
window.startLive = async (width, height) => {
  await taking;
  const start = { strength: Number(range.value) };
  if (!sketched && !file) return start;
  if (!sketched && !isShown) return null;
  const small = document.createElement("canvas"), { max } = Math;
  Object.assign(small, { width: width || canvas.width, height: height || canvas.height });
  const scale = max(small.width / canvas.width, small.height / canvas.height);
  const [wide, high] = [canvas.width * scale, canvas.height * scale], pen = small.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(canvas, (small.width - wide) / 2, (small.height - high) / 2, wide, high);
  return { ...start, init_image: small.toDataURL("image/jpeg", 0.9).split(",")[1] };
};

async function fill(value, number, began) {
  range.value = value.strength;
  const picture = value.needed
    && (sent.get(value.needed) ?? await window.storedInitImage?.(value.needed));
  if (number !== fills || began !== clears) return; // another one was restored or chosen meanwhile
  if (picture) await take(picture);
  else clear();
  if (value.needed && !picture) say(words.START_NEEDED.replace("{digest}", value.needed.slice(0, 8)), true);
  if (value.needed) find("details").open = true;
  show();
}

watch("value", () => {
  const value = props.value;
  if (typeof value !== "object" || !value) return;
  if (!value.taken) {
    taking = fill(value, ++fills, clears);
    return;
  }
  sent.set(value.taken, last);
  while (sent.size > MAX_SENT) sent.delete(sent.keys().next().value);
});
clear();
