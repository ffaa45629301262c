"use strict";
// Parts that only scripts can use are hidden in the HTML, and shown here. Parts for readers without scripts are removed.

const byId = (id) => document.getElementById(id);

/** Return a new element with properties, and children that are elements or texts. Texts are never parsed as HTML. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Return the parsed JSON of a data element; null if the page has none. */
function readData(id) {
  const element = byId(id);
  return element ? JSON.parse(element.textContent) : null;
}

for (const element of document.querySelectorAll(".scripted")) element.hidden = false;
for (const element of document.querySelectorAll(".static-only")) element.remove();

// The switch between light and dark. Browsers may refuse to remember anything for a local file.

const theme = {
  button: byId("theme"),
  get isDark() {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  },
  show() {
    this.button.textContent = this.isDark ? "Light theme" : "Dark theme";
  },
  choose(name) {
    document.documentElement.dataset.theme = name;
    this.show();
    document.dispatchEvent(new Event("themechange"));
  },
};
try {
  const remembered = localStorage.getItem("emofuse-theme");
  if (remembered === "dark" || remembered === "light") document.documentElement.dataset.theme = remembered;
} catch {}
theme.show();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  theme.show();
  document.dispatchEvent(new Event("themechange"));
});
theme.button.addEventListener("click", () => {
  const name = theme.isDark ? "light" : "dark";
  theme.choose(name);
  try {
    localStorage.setItem("emofuse-theme", name);
  } catch {}
});

// Print shows what is folded, and folds it again afterwards.

let openedForPrint = [];
addEventListener("beforeprint", () => {
  openedForPrint = [...document.querySelectorAll("details.print-open:not([open])")];
  for (const element of openedForPrint) element.open = true;
});
addEventListener("afterprint", () => {
  for (const element of openedForPrint) element.open = false;
});

// The button that copies the commands.

byId("copy")?.addEventListener("click", async () => {
  const commands = byId("commands");
  try {
    await navigator.clipboard.writeText(commands.textContent);
    byId("copied").textContent = "Copied.";
    byId("copy").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(commands); // a local file may not be allowed to write: the reader copies the selection
    byId("copied").textContent = "The commands are selected.";
    byId("copy").textContent = "Selected";
  }
});
