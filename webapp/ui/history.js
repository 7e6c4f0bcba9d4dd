// What this browser has drawn, kept in it alone: the script of the component that shows it.
// The server hands over each drawing as `props.value`: {link, words, picture, files, together}.
// The list is in localStorage, and the files, for when the server has them no more, in IndexedDB.

const KEY = "drawings", MOST = 24, MOST_BYTES = 64 * 2 ** 20;
const list = () => element.querySelector("ul");

function kept() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY));
    return Array.isArray(found) ? found.filter(sound).slice(0, MOST) : [];
  } catch {
    return []; // damaged, or a browser that keeps nothing
  }
}

function sound(drawing) {
  return ["link", "words", "picture"].every((name) => typeof drawing?.[name] === "string")
    && drawing.link.startsWith("?") && drawing.picture.startsWith("data:image/jpeg;base64,")
    && Array.isArray(drawing.files ?? []) && filesOf(drawing).every(soundFile);
}

const soundFile = (file) => typeof file?.name === "string" && typeof file.address === "string"
  && file.address.startsWith("gradio_api/file=");

// Drawings of former versions have none.
const picturesOf = (drawing) => drawing.files ?? [];
const filesOf = (drawing) => [...picturesOf(drawing), drawing.together].filter(Boolean);

function keep(drawings) {
  while (drawings.length) {
    try {
      return localStorage.setItem(KEY, JSON.stringify(drawings));
    } catch {
      drawings = drawings.slice(0, -1); // there is no room: the oldest goes
    }
  }
  try {
    localStorage.removeItem(KEY);
  } catch {
    return; // a browser that keeps nothing has nothing to forget
  }
}

// One transaction with the store of files, Blobs by address; what `use` asks for is the answer.
function stored(mode, use) {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open(KEY, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("files");
    opening.onerror = () => reject(opening.error);
    opening.onsuccess = () => {
      const database = opening.result, transaction = database.transaction("files", mode);
      const request = use(transaction.objectStore("files"));
      transaction.oncomplete = () => resolve(request?.result);
      transaction.onabort = () => reject(transaction.error);
      database.close(); // once the transaction is over
    };
  });
}

const whole = async (address, options) => {
  const answer = await fetch(address, options);
  if (!answer.ok) throw new Error(answer.status);
  return answer;
};

async function keepFiles(drawing) {
  try {
    for (const { address } of filesOf(drawing)) {
      const file = await (await whole(address)).blob();
      await stored("readwrite", (files) => files.put(file, address));
      await forgetOldFiles();
    }
  } catch {
    return; // there is no room, or a browser that keeps nothing: the server has them for a while
  }
}

// Those of drawings that are not in the list, and of the oldest beyond the bound.
async function forgetOldFiles() {
  const addresses = kept().flatMap(filesOf).map((file) => file.address);
  await stored("readwrite", (files) => {
    const sizes = new Map();
    files.openCursor().onsuccess = (event) => {
      const cursor = event.target.result;
      if (cursor) {
        sizes.set(cursor.key, cursor.value.size);
        return cursor.continue();
      }
      let room = MOST_BYTES;
      for (const address of addresses) {
        room -= sizes.get(address) ?? 0;
        if (room >= 0) sizes.delete(address);
      }
      for (const address of sizes.keys()) files.delete(address);
    };
  });
}

// Where the page finds a file: on the server, else in this browser; null where it is gone.
async function found(file) {
  // Without a path: gradio's server refuses to hear of a file that it has not.
  const told = { path: "", orig_name: file.name };
  try {
    await whole(file.address, { method: "HEAD" });
    return { ...told, url: new URL(file.address, document.baseURI).href };
  } catch {
    const blob = await stored("readonly", (files) => files.get(file.address)).catch(() => null);
    return blob ? { ...told, url: URL.createObjectURL(blob) } : null;
  }
}

let clicks = 0, blobs = [];

async function bringBack(drawing) {
  const click = ++clicks, wanted = picturesOf(drawing);
  const files = await Promise.all([drawing.together, ...wanted].map((file) => file && found(file)));
  const addresses = files.filter(Boolean).map((file) => file.url);
  const [old, [together, ...pictures]] = [click === clicks ? blobs : addresses, files];
  old.filter((address) => address.startsWith("blob:")).forEach(URL.revokeObjectURL);
  if (click !== clicks) return; // another was clicked meanwhile
  blobs = addresses;
  const shown = pictures.flatMap((image, place) => (image ? [[image, wanted[place]]] : []));
  window.picturesBack = [
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
  list().replaceChildren(...kept().map((drawing, place) => {
    const picture = Object.assign(document.createElement("img"), { src: drawing.picture, alt: "" });
    const button = document.createElement("button"), count = picturesOf(drawing).length;
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
  if (button?.dataset.place) bringBack(kept()[button.dataset.place]);
  else if (button) {
    keep([]);
    stored("readwrite", (files) => files.clear()).catch(() => null);
    show();
  }
});
watch("value", () => {
  if (sound(props.value)) {
    const others = kept().filter((drawing) => drawing.link !== props.value.link);
    keep([props.value, ...others].slice(0, MOST));
    keepFiles(props.value);
  }
  show();
});
window.addEventListener("storage", show); // another tab has drawn
show();
