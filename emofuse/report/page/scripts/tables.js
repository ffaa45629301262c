// Sorting, filtering and paging of tables. A short table keeps its rows, which are moved and hidden. Of a long table the
// rows of one page at a time are drawn from its JSON.

const PAGE_SIZES = [25, 50, 100, 250];
const FILTER_FROM = 16; // shorter tables can be read at a glance

/** Return the number that a cell begins with; null for texts and undefined numbers. */
function numberOf(text) {
  const match = /^([<>])?\s*([+\u2212-]?[\d,]*\.?\d+(?:e[+-]?\d+)?)/i.exec(text.trim());
  if (!match) return null;
  const value = Number(match[2].replace(/,/g, "").replace("\u2212", "-"));
  return Number.isNaN(value) ? null : match[1] === "<" ? value - 1e-9 : value;
}

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/** Compare two texts of a column: numbers by value, texts as a dictionary does, undefined values last. */
function compareTexts(a, b, isNumeric, direction) {
  const undefinedA = a === "\u2013" || a === "", undefinedB = b === "\u2013" || b === "";
  if (undefinedA || undefinedB) return undefinedA - undefinedB;
  return direction * (isNumeric ? numberOf(a) - numberOf(b) : collator.compare(a, b));
}

class SortedTable {
  constructor(figure) {
    this.figure = figure;
    this.table = figure.querySelector("table");
    this.body = this.table.tBodies[0];
    this.heads = [...this.table.tHead.rows[0].cells];
    this.aligns = this.heads.map((head) => (head.classList.contains("left") ? "left" : "right"));
    const data = figure.querySelector("script.rows");
    this.isLong = data !== null;
    this.rows = this.isLong
      ? JSON.parse(data.textContent).map((cells) => ({ cells, texts: cells.map((cell) => (typeof cell === "string" ? cell : cell[0])) }))
      : [...this.body.rows].map((row) => ({ row, texts: [...row.cells].map((cell) => cell.textContent.trim()) }));
    for (const row of this.rows) row.all = row.texts.join("\n").toLowerCase();
    // The row of sums stays at the end.
    this.last = figure.classList.contains("total") ? this.rows.pop() : null;
    this.isNumeric = this.heads.map((_, column) => {
      const texts = this.rows.map((row) => row.texts[column]).filter((text) => text !== "\u2013" && text !== "");
      return texts.length > 0 && texts.every((text) => numberOf(text) !== null) && this.aligns[column] === "right";
    });
    this.shown = this.rows;
    this.page = 0;
    this.size = 25;
    this.sorted = { column: -1, direction: 0 };
    this.filters = new Map();
    this.words = [];
    if (this.rows.length > 2) this.heads.forEach((head, column) => this.addSort(head, column));
    if (this.rows.length >= FILTER_FROM) this.addControls();
    if (this.isLong) this.addPages();
    if (this.isLong) this.draw();
  }

  addSort(head, column) {
    const button = make("button", { type: "button", className: "sort" });
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const first = this.isNumeric[column] ? -1 : 1; // the largest number first, and names from A
      const direction = this.sorted.column === column ? -this.sorted.direction : first;
      this.sorted = { column, direction };
      for (const other of this.heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      this.update();
    });
  }

  addControls() {
    const controls = make("div", { className: "controls" });
    const search = make("input", { type: "search", autocomplete: "off", spellcheck: false });
    search.addEventListener("input", () => {
      this.words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      this.update();
    });
    controls.append(make("label", {}, "Find in all columns", search));
    for (const name of (this.table.dataset.filters || "").split("|").filter(Boolean)) {
      const column = this.heads.findIndex((head) => head.textContent.trim() === name);
      if (column >= 0) this.addMenu(controls, name, column);
    }
    this.matching = make("p", { className: "matching" });
    this.matching.setAttribute("role", "status");
    this.figure.querySelector(".scroll").before(controls, this.matching);
    this.say();
  }

  /** Add the menu of the values of a column. A cell with several streams has each of them as a value. */
  addMenu(controls, name, column) {
    const isList = name === "Streams";
    const partsOf = (text) => (isList ? text.split(", ") : [text]);
    const values = [...new Set(this.rows.flatMap((row) => partsOf(row.texts[column])))].sort(collator.compare);
    if (values.length < 2) return;
    const menu = make("select", {}, make("option", { value: "" }, "all"));
    menu.append(...values.map((value, place) => make("option", { value: String(place + 1) }, value)));
    menu.addEventListener("change", () => {
      const value = values[Number(menu.value) - 1];
      if (value === undefined) this.filters.delete(column);
      else this.filters.set(column, (row) => partsOf(row.texts[column]).includes(value));
      this.update();
    });
    controls.append(make("label", {}, isList ? "Has stream" : name, menu));
  }

  addPages() {
    const pages = make("div", { className: "pages" });
    const go = (text, step) => {
      const button = make("button", { type: "button" }, text);
      button.addEventListener("click", () => {
        this.page += step;
        this.draw();
      });
      return button;
    };
    this.before = go("Previous rows", -1);
    this.after = go("Next rows", 1);
    this.place = make("span", {});
    const menu = make("select", {}, ...PAGE_SIZES.map((size) => make("option", { selected: size === this.size }, String(size))));
    menu.addEventListener("change", () => {
      this.size = Number(menu.value);
      this.page = 0;
      this.draw();
    });
    pages.append(this.before, this.place, this.after, make("label", {}, "Rows on a page ", menu));
    this.figure.querySelector(".scroll").after(pages);
  }

  update() {
    const tests = [...this.filters.values()];
    this.shown = this.rows.filter((row) => this.words.every((word) => row.all.includes(word)) && tests.every((test) => test(row)));
    const { column, direction } = this.sorted;
    if (column >= 0) {
      const isNumeric = this.isNumeric[column];
      this.shown.sort((a, b) => compareTexts(a.texts[column], b.texts[column], isNumeric, direction));
    }
    this.page = 0;
    this.draw();
    this.say();
  }

  say() {
    if (!this.matching) return;
    const all = this.rows.length.toLocaleString("en"), matching = this.shown.length;
    this.matching.textContent = matching === this.rows.length ? `All ${all} rows.` : `${matching.toLocaleString("en")} of ${all} rows match.`;
  }

  draw() {
    if (!this.isLong) {
      const rows = this.shown.map((row) => row.row);
      this.body.replaceChildren(...rows, ...(this.last ? [this.last.row] : []));
      return;
    }
    const first = this.page * this.size, end = Math.min(first + this.size, this.shown.length);
    this.body.replaceChildren(...this.shown.slice(first, end).map((row) => this.drawRow(row)));
    this.place.textContent = this.shown.length ? `${(first + 1).toLocaleString("en")}\u2013${end.toLocaleString("en")} of ${this.shown.length.toLocaleString("en")}` : "no row";
    this.before.disabled = this.page === 0;
    this.after.disabled = end >= this.shown.length;
  }

  drawRow({ cells }) {
    const row = document.createElement("tr");
    cells.forEach((cell, column) => {
      const [text, spread, interval, best, mark] = typeof cell === "string" ? [cell] : cell;
      const element = make(column ? "td" : "th", { className: this.aligns[column] });
      if (!column) element.scope = "row";
      element.append(best ? make("strong", {}, text) : text);
      if (mark) element.append(make("span", { className: "mark" }, mark));
      if (spread) element.append(make("span", { className: "sd" }, ` \u00b1 ${spread}`));
      if (interval) element.append(make("span", { className: "sd" }, ` [${interval}]`));
      row.append(element);
    });
    return row;
  }
}

for (const figure of document.querySelectorAll("figure.table:not(.matrix)")) new SortedTable(figure);
