// Runs once, when the page has been loaded.
() => {
  // Ctrl or Cmd with Enter draws, Esc cancels, and a picture may be dropped anywhere.
  document.addEventListener("keydown", (event) => {
    const press = (id) => {
      const button = document.querySelector(`#${id}:not([disabled])`);
      if (button?.offsetParent) button.click(); // its tab is open
    };
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) press("generate");
    if (event.key === "Escape") press("cancel");
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    const input = document.querySelector("input[type=file]");
    if (!input || !event.dataTransfer.files.length) return;
    event.preventDefault();
    input.files = event.dataTransfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });
  document.body.dataset.listens = "";
}
