// What the tests of the page do and look at inside the browser. The tests put these functions in front of their scripts.

// The table of runs.
const figure = document.querySelector("figure.all-runs");
const heads = [...figure.querySelectorAll("thead th")];
const head = (name) => heads.find((each) => each.textContent.trim().startsWith(name));
const place = (name) => heads.indexOf(head(name));
const sortBy = (name) => head(name).querySelector("button").click();
const column = (name) =>
  [...figure.querySelectorAll("tbody tr")].map((row) => row.cells[place(name)].textContent);
const status = () => figure.querySelector("[role=status]").textContent;
const control = (label) =>
  [...figure.querySelectorAll("label")].find((each) => each.textContent.startsWith(label)).lastElementChild;

function find(words) {
  const search = control("Find");
  search.value = words;
  search.dispatchEvent(new Event("input", { bubbles: true }));
}

function choose(label, text) {
  const menu = control(label);
  menu.value = [...menu.options].find((each) => each.text === text).value;
  menu.dispatchEvent(new Event("change", { bubbles: true }));
}

/** Open everything that is folded, and the samples of a cell. */
function openAll() {
  for (const each of document.querySelectorAll("details")) each.open = true;
  if (!document.querySelector("dialog").open) document.querySelector("td[data-cell] button").click();
}

/** Wait until all open interactive figures are drawn. */
async function waitForCharts() {
  const boxes = [...document.querySelectorAll(".chart-box:not([hidden])")];
  for (let waited = 0; waited < 300 && boxes.some((box) => !box.dataset.ready); waited++)
    await new Promise((done) => setTimeout(done, 100));
  return boxes.map((box) => [box.dataset.ready, box.querySelectorAll(".main-svg").length > 0]);
}

const nameOf = (element) => `${element.tagName}.${element.className} ${element.textContent.trim().slice(0, 40)}`;

/** Return everything that reaches out of the window or of its box, and scrolled regions that no keyboard reaches. */
function leaks() {
  openAll();
  const found = [];
  const { scrollWidth } = document.documentElement;
  if (scrollWidth > innerWidth) found.push(`the page is ${scrollWidth} wide`);
  for (const element of document.body.querySelectorAll("*")) {
    const style = getComputedStyle(element), box = element.getBoundingClientRect();
    if (!box.width || style.visibility === "hidden" || element.closest("[hidden], .unseen, .skip")) continue;
    const isWide = element.scrollWidth > element.clientWidth + 1;
    const region = element.closest(".scroll, pre, svg, .chart-box");
    if (!region || region === element) {
      if (box.right > innerWidth + 1 || box.left < -1) found.push(`out of the window: ${nameOf(element)}`);
      const isBox = !["inline", "contents"].includes(style.display) && !element.matches("img, select");
      if (isBox && isWide && style.overflowX === "visible") found.push(`out of its box: ${nameOf(element)}`);
    }
    if (element.matches("button") && isWide) found.push(`cut off: ${nameOf(element)}`);
    if (element.matches(".scroll, pre") && isWide && element.tabIndex !== 0) found.push(`unreachable: ${nameOf(element)}`);
    const label = element.getAttribute("aria-labelledby");
    if (element.matches("[role=region]") && !document.getElementById(label)?.textContent)
      found.push(`without a name: ${nameOf(element)}`);
  }
  return found;
}

/** Return the number of texts, and those whose contrast with what is behind them is below 4.5. */
function poorTexts() {
  openAll();
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const rgba = (colour) => {
    if (!known.has(colour)) {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
      known.set(colour, [...canvas.getImageData(0, 0, 1, 1).data]);
    }
    return known.get(colour);
  };
  const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  const luminance = (colour) => {
    const [red, green, blue] = rgba(colour).map((part) => linear(part / 255));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const background = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if (rgba(colour)[3] === 255) return colour;
    }
    return "white";
  };
  const poor = new Set();
  let count = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.getBoundingClientRect().width) continue;
    if (element.closest("script, .unseen, .skip, option, [hidden], :disabled")) continue;
    const both = [luminance(getComputedStyle(element).color), luminance(background(element))];
    const ratio = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
    count += 1;
    if (ratio < 4.5) poor.add(`${ratio.toFixed(2)}: ${nameOf(element)}`);
  }
  return [count, [...poor]];
}

/** Return the pixels of an inch on paper of each figure, and whether the window is wide, where figures shrink to their box. */
function figureSizes() {
  openAll();
  return [...document.querySelectorAll("figure.picture img")].map((image) => {
    const inches = Number(image.style.getPropertyValue("--inches"));
    return [image.getBoundingClientRect().width / inches, innerWidth > 640];
  });
}

/** Return the pixels between captions and the buttons of interactive figures under them. */
function buttonGaps() {
  return [...document.querySelectorAll("figure.picture .chart button")].map((button) => {
    const caption = button.closest("figure").querySelector("figcaption");
    return button.getBoundingClientRect().top - caption.getBoundingClientRect().bottom;
  });
}
