// The last drawings of this browser, stored in it alone: the script of the component that shows them.
// The server sends each drawing as `props.value`: {link, words, picture, init_image, files, together}.
// The list is in localStorage; the image files, which the server deletes after a while, and the images
// that drawings started from, are in IndexedDB.

const KEY = "drawings", MAX_DRAWINGS = 24, MAX_BYTES = 64 * 2 ** 20, MAX_MILLISECONDS = 10_000;
const list = () => element.querySelector("ul");

function storedDrawings() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY));
    return Array.isArray(found) ? found.filter(isDrawing).slice(0, MAX_DRAWINGS) : [];
  } catch {
    return []; // damaged, or a browser that stores nothing
  }
}

function isDrawing(drawing) {
  return ["link", "words", "picture"].every((name) => typeof drawing?.[name] === "string")
    && drawing.link.startsWith("?") && drawing.picture.startsWith("data:image/jpeg;base64,")
    && Array.isArray(drawing.files ?? []) && filesOf(drawing).every(isFile)
    && /^([0-9a-f]{64})?$/.test(drawing.init_image ?? "");
}

const isFile = (file) => typeof file?.name === "string" && typeof file.address === "string"
  && file.address.startsWith("gradio_api/file=");

// Drawings of earlier versions have none.
const imagesOf = (drawing) => drawing.files ?? [];
const filesOf = (drawing) => [...imagesOf(drawing), drawing.together].filter(Boolean);
// Keys in the store of files: an address, or the SHA-256 of an init image.
const keysOf = (drawing) => [drawing.init_image, ...filesOf(drawing).map((file) => file.address)]
  .filter(Boolean);

function storeDrawings(drawings) {
  while (drawings.length) {
    try {
      return localStorage.setItem(KEY, JSON.stringify(drawings));
    } catch {
      drawings = drawings.slice(0, -1); // no room: without the oldest
    }
  }
  try {
    localStorage.removeItem(KEY);
  } catch {
    return; // a browser that stores nothing has nothing to delete
  }
}

// One transaction with the store of files, Blobs by key; resolves to the result of the request that
// `use` makes. Some browsers that store nothing never answer.
function withFiles(mode, use) {
  return new Promise((resolve, reject) => {
    setTimeout(reject, MAX_MILLISECONDS);
    const opening = indexedDB.open(KEY, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("files");
    opening.onerror = () => reject(opening.error);
    opening.onsuccess = () => {
      const database = opening.result;
      try {
        const transaction = database.transaction("files", mode);
        transaction.onabort = () => reject(transaction.error);
        const request = use(transaction.objectStore("files"));
        transaction.oncomplete = () => resolve(request?.result);
      } catch (error) { // no room, or a store that is not ours
        reject(error);
      }
      database.close(); // once the transaction is over
    };
  });
}

const fetched = async (address, options) => {
  const answer = await fetch(address, options);
  if (!answer.ok) throw new Error(answer.status);
  return answer;
};

async function storeFiles(drawing) {
  try {
    for (const key of keysOf(drawing)) {
      const file = key === drawing.init_image
        ? window.sentInitImage?.(key) : await (await fetched(key)).blob();
      if (file) await withFiles("readwrite", (files) => files.put(file, key));
      await deleteOldFiles();
    }
  } catch {
    return; // no room, or a browser that stores nothing: the server has the images for a while
  }
}

// For init_image_input.js: an image that a drawing started from, by its SHA-256.
window.storedInitImage = (digest) =>
  withFiles("readonly", (files) => files.get(digest)).catch(() => null);

// What was cleared, held by this page alone until something is drawn: {drawings, files}.
let cleared = null;

function clear() {
  cleared = { drawings: storedDrawings(), files: takeFiles() };
  storeDrawings([]);
  show();
}

async function undoClear() {
  const { drawings, files } = cleared;
  cleared = null;
  storeDrawings([...storedDrawings(), ...drawings].slice(0, MAX_DRAWINGS));
  show();
  const taken = await files;
  withFiles("readwrite", (stored) => taken.map(([key, file]) => stored.put(file, key)).at(-1))
    .catch(() => null); // no room any more
}

// All files, which are deleted: [key, Blob] pairs.
async function takeFiles() {
  const taken = [];
  await withFiles("readwrite", (files) => {
    files.openCursor().onsuccess = (event) => {
      const cursor = event.target.result;
      if (!cursor) return;
      taken.push([cursor.key, cursor.value]);
      cursor.delete();
      cursor.continue();
    };
  }).catch(() => null); // a browser that stores nothing
  return taken;
}

// Files of drawings that are no longer in the list, and the oldest beyond MAX_BYTES.
async function deleteOldFiles() {
  const keys = storedDrawings().flatMap(keysOf);
  await withFiles("readwrite", (files) => {
    const sizes = new Map();
    files.openCursor().onsuccess = (event) => {
      const cursor = event.target.result;
      if (cursor) {
        sizes.set(cursor.key, cursor.value.size);
        return cursor.continue();
      }
      let room = MAX_BYTES;
      for (const key of new Set(keys)) {
        room -= sizes.get(key) ?? 0;
        if (room >= 0) sizes.delete(key);
      }
      for (const key of sizes.keys()) files.delete(key);
    };
  });
}

// The URL of a file on the server, else in this browser; null where neither has it.
async function located(file) {
  // Without a path: gradio's server refuses to hear of a file that it does not have.
  const data = { path: "", orig_name: file.name };
  try {
    await fetched(file.address, { method: "HEAD" });
    return { ...data, url: new URL(file.address, document.baseURI).href };
  } catch {
    const blob = await withFiles("readonly", (files) => files.get(file.address)).catch(() => null);
    return blob ? { ...data, url: URL.createObjectURL(blob) } : null;
  }
}

let clicks = 0, blobs = [];

async function restore(drawing) {
  const click = ++clicks, wanted = imagesOf(drawing);
  const files = await Promise.all(
    [drawing.together, ...wanted].map((file) => file && located(file)));
  const urls = files.filter(Boolean).map((file) => file.url);
  const [old, [together, ...images]] = [click === clicks ? blobs : urls, files];
  old.filter((url) => url.startsWith("blob:")).forEach(URL.revokeObjectURL);
  if (click !== clicks) return; // another was clicked meanwhile
  blobs = urls;
  const shown = images.flatMap((image, place) => (image ? [[image, wanted[place]]] : []));
  window.restoredImages = [
    shown.map(([image, { caption }]) => ({ image, caption: caption ?? null })),
    (shown.length > 1 ? together : shown[0]?.[0]) ?? null, // to download
  ];
  trigger("click", {
    link: drawing.link,
    places: shown.map(([, { place }]) => place),
    lost: wanted.length - shown.length,
  });
}

function show() {
  const button = element.querySelector("p button"), { clear, undo, of } = button.dataset;
  button.textContent = cleared ? undo : clear;
  button.ariaLabel = cleared ? undo : of;
  element.querySelector("p").hidden = !cleared && !storedDrawings().length;
  list().replaceChildren(...storedDrawings().map((drawing, place) => {
    const picture = Object.assign(document.createElement("img"), { src: drawing.picture, alt: "" });
    const button = document.createElement("button"), count = imagesOf(drawing).length;
    const { one, several } = list().dataset;
    button.type = "button";
    button.title = drawing.words;
    button.ariaLabel = (count > 1 ? several.replace("{count}", count) : one)
      .replace("{prompt}", () => drawing.words);
    button.dataset.place = place;
    if (count > 1) button.dataset.count = count;
    button.append(picture);
    const item = document.createElement("li");
    item.append(button);
    return item;
  }));
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.place) restore(storedDrawings()[button.dataset.place]);
  else if (button) cleared ? undoClear() : clear();
});
watch("value", () => {
  if (isDrawing(props.value)) {
    cleared = null;
    const others = storedDrawings().filter((drawing) => drawing.link !== props.value.link);
    storeDrawings([props.value, ...others].slice(0, MAX_DRAWINGS));
    storeFiles(props.value);
  }
  show();
});
window.addEventListener("storage", show); // another tab has drawn
show();
