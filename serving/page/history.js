// What this browser has drawn, kept in it alone: the script of the component that shows it.
// The server hands over each drawing as `props.value`: {link, words, picture}.

const KEY = "drawings", MOST = 24;
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
    && drawing.link.startsWith("?") && drawing.picture.startsWith("data:image/jpeg;base64,");
}

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

function show() {
  list().replaceChildren(...kept().map((drawing) => {
    const picture = Object.assign(document.createElement("img"), { src: drawing.picture, alt: "" });
    const button = document.createElement("button");
    button.type = "button";
    button.title = drawing.words;
    button.ariaLabel = list().dataset.named.replace("{prompt}", () => drawing.words);
    button.dataset.link = drawing.link;
    button.append(picture);
    const item = document.createElement("li");
    item.append(button);
    return item;
  }));
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.link) trigger("click", { link: button.dataset.link });
  else if (button) {
    keep([]);
    show();
  }
});
watch("value", () => {
  if (sound(props.value)) {
    const others = kept().filter((drawing) => drawing.link !== props.value.link);
    keep([props.value, ...others].slice(0, MOST));
  }
  show();
});
window.addEventListener("storage", show); // another tab has drawn
show();
