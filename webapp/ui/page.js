// Runs once, when the page has been loaded. `layout`: an id of the page's functions; `restarted`: what
// to say where the server has other ones by now, or another password.
(layout, restarted) => {
  const { fetch } = window;
  window.fetch = async (address, options) => {
    if (!String(address?.url ?? address).includes("/queue/join")) return fetch(address, options);
    const headers = new Headers(options?.headers);
    headers.set("X-Page-Layout", layout);
    const answer = await fetch(address, { ...options, headers });
    if ([401, 409].includes(answer.status)) reload();
    return answer;
  };
  // page.css hides gradio's message, which goes away by itself.
  const reload = () => {
    if (document.querySelector("#restarted")) return;
    const notice = document.createElement("p"), button = document.createElement("button");
    Object.assign(notice, { id: "restarted", role: "alert" });
    [notice.textContent, button.textContent] = restarted;
    button.addEventListener("click", () => location.reload());
    notice.append(" ", button);
    document.querySelector(".gradio-container").append(notice);
  };
  // Ctrl or Cmd with Enter draws, Esc cancels, and a picture may be dropped anywhere.
  document.addEventListener("keydown", (event) => {
    const press = (which) => {
      const buttons = [...document.querySelectorAll(`.buttons :${which}-child:not([disabled])`)];
      buttons.find((button) => button.offsetParent)?.click(); // its tab is open
    };
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) press("first");
    if (event.key === "Enter" && event.target.closest("#prompt")) asked();
    if (event.key === "Escape") press("last");
  });
  // Ctrl or Cmd with Z brings the visitor's own words back where an example, a link or an old drawing
  // has replaced them: a browser undoes only what was typed.
  let typed = "";
  document.addEventListener("input", (event) => {
    if (event.target.closest("#prompt")) typed = event.target.value;
  });
  document.addEventListener("keydown", (event) => {
    const { target } = event, undoes = (event.ctrlKey || event.metaKey) && !event.shiftKey;
    if (!undoes || event.key.toLowerCase() !== "z" || !target.closest("#prompt")) return;
    if (!typed || target.value === typed) return;
    event.preventDefault();
    target.value = typed;
    target.dispatchEvent(new Event("input", { bubbles: true }));
  });
  // On a phone the place of the picture opens with the click, not when the server has answered:
  // nobody then loses what they are about to touch.
  const asked = () => { document.querySelector("#sheet").dataset.asked = ""; };
  document.addEventListener("click", (event) => {
    if (event.target.closest("#generate, #examples")) asked();
  });
  // A button that is disabled or hidden while it draws loses the focus: it has it back afterwards,
  // unless the visitor has gone elsewhere.
  let focused = null;
  document.addEventListener("focusin", (event) => { focused = event.target; });
  document.addEventListener("pointerdown", () => { focused = null; }, true);
  new MutationObserver(() => {
    if (document.activeElement === document.body) focused?.focus({ preventScroll: true });
  }).observe(document.body, { subtree: true, attributeFilter: ["disabled"] });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    const input = document.querySelector("input[type=file]:not(#start *)");
    if (!input || !event.dataTransfer.files.length) return;
    event.preventDefault();
    input.files = event.dataTransfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });
  document.body.dataset.listens = "";
}
