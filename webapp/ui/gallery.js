// A picture is deleted by a second click: the script of the component that shows the gallery.

let sure = null; // the button that waits for it, and what it was before

function forget() {
  if (!sure) return;
  Object.assign(sure.button, sure.before);
  sure = null;
}

element.tabIndex = -1;
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-name]");
  if (!button) return;
  if (sure?.button === button) {
    sure = null;
    element.focus(); // what had it is about to go
    return trigger("click", { delete: button.dataset.name });
  }
  forget();
  sure = { button, before: { textContent: button.textContent, ariaLabel: button.ariaLabel } };
  button.textContent = button.dataset.sure;
  button.ariaLabel = button.dataset.sureOf;
});
element.addEventListener("focusout", (event) => {
  if (event.target === sure?.button) forget();
});
document.addEventListener("click", (event) => {
  if (!sure?.button.contains(event.target)) forget();
});
