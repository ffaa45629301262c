// Interactive figures by plotly.js, which is unpacked and run when a reader first asks for one.

const charts = readData("charts-data");
const drawn = []; // the boxes with a figure, which follow the theme

let plotlyReady = null;

/** Unpack plotly.js and run it, once. The policy of the page allows its text by its hash. */
function loadPlotly() {
  plotlyReady ??= (async () => {
    const packed = Uint8Array.from(atob(byId("plotly").textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = make("script", { textContent: await new Response(stream).text() });
    document.head.append(script);
    if (!window.Plotly) throw new Error("this browser did not run plotly.js");
    return window.Plotly;
  })();
  return plotlyReady;
}

const COLOURS = {
  light: ["#004488", "#bb5566", "#a77a14", "#2f7d4f", "#7b4fa3", "#3a8fb7", "#8a4b14", "#5c636b", "#d1495b", "#00798c", "#6a994e", "#3d348b"],
  dark: ["#93bdec", "#f08fa0", "#e3bd5a", "#7fd39b", "#c9a6ea", "#7fcbe6", "#dda27a", "#a8afb7", "#ff9aa8", "#5fd0df", "#b5d99a", "#b3adf5"],
};

/** Return the colour of the n-th line, from those of the theme. */
function colour(place) {
  const list = COLOURS[theme.isDark ? "dark" : "light"];
  return list[place % list.length];
}

/** Return the layout that all figures share. */
function layoutOf(more) {
  const style = getComputedStyle(document.documentElement);
  const [paper, ink, rule] = ["--paper", "--ink", "--rule"].map((name) => style.getPropertyValue(name).trim());
  const axis = { gridcolor: rule, linecolor: rule, zerolinecolor: rule, automargin: true };
  return {
    paper_bgcolor: paper,
    plot_bgcolor: paper,
    font: { color: ink, size: 12, family: getComputedStyle(document.body).fontFamily },
    margin: { l: 56, r: 16, t: 36, b: 48 },
    hoverlabel: { bgcolor: paper, bordercolor: rule, font: { color: ink }, namelength: -1 },
    // Below, because the buttons are above.
    legend: { orientation: "h", x: 0, y: 0, yref: "container", yanchor: "bottom" },
    ...more,
    xaxis: { ...axis, ...more.xaxis },
    yaxis: { ...axis, ...more.yaxis },
  };
}

const shorten = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}\u2026` : text);
// Plotly reads some tags in its texts, so that those of the data are shown as they are.
const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const SHOWN_LABELS = 40;
const BUTTONS = [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]]; // others of plotly.js send data away

/** Scores of all configurations, the best by validation on top. */
function scoresFigure() {
  const data = charts.scores, { labels } = data, most = innerWidth < 640 ? 18 : 46;
  const rows = labels.map((_, place) => place);
  const hover = labels.map((label, place) => `${plain(label)}<br>${plain(data.streams[place])}<br>${data.select} ${data.validation[place] ?? "\u2013"}${place === data.baseline ? "<br>baseline" : ""}`);
  const traces = data.scores.map((score, place) => ({
    type: "scatter", mode: "markers", name: score.name, x: score.mean, y: rows.map((row) => row + 0.16 * place), text: hover,
    hovertemplate: "%{text}<br><b>%{x:.3f}</b>", marker: { color: colour(place), size: 7, symbol: ["circle", "square", "diamond"][place % 3] },
    error_x: {
      type: "data", symmetric: false, thickness: 1, width: 0, color: colour(place),
      array: score.high.map((end, row) => (end === null ? 0 : end - score.mean[row])),
      arrayminus: score.low.map((end, row) => (end === null ? 0 : score.mean[row] - end)),
    },
  }));
  const few = labels.length <= SHOWN_LABELS;
  const ticks = few ? { tickvals: rows, ticktext: labels.map((label) => plain(shorten(label, most))) } : { title: { text: `rank by ${data.select}` } };
  const height = few ? 140 + 28 * labels.length : 640;
  // A dashed line for each score of the baseline.
  const shapes = data.scores.map((score, place) => ({
    type: "line", yref: "paper", y0: 0, y1: 1, x0: score.mean[data.baseline], x1: score.mean[data.baseline], layer: "below",
    line: { color: colour(place), width: 1, dash: "dash" },
  }));
  const range = [labels.length - 0.4, -0.6];
  return { traces, layout: layoutOf({ height, shapes, xaxis: { title: { text: "test score" } }, yaxis: { range, ...ticks } }) };
}

/** Curves over epochs; the menu chooses the score. Each configuration is one entry of the legend. */
function trainingFigure(key) {
  const traces = [];
  charts.training.configurations.forEach((item, place) => {
    item.runs.forEach((run, index) => {
      const epochs = run[key].map((_, epoch) => epoch + 1);
      traces.push({
        type: "scatter", mode: "lines", name: plain(shorten(item.label, 60)), legendgroup: String(place), showlegend: index === 0,
        x: epochs, y: run[key], line: { color: colour(place), width: 1.3 }, opacity: 0.85,
        hovertemplate: `${plain(item.label)}, run ${plain(run.name)}<br>epoch %{x}: <b>%{y:.3f}</b><extra></extra>`,
      });
      traces.push({
        type: "scatter", mode: "markers", legendgroup: String(place), showlegend: false, x: [run.best], y: [run[key][run.best - 1]],
        marker: { color: colour(place), size: 7, symbol: "circle-open" },
        hovertemplate: `${plain(item.label)}, run ${plain(run.name)}<br>kept epoch %{x}: <b>%{y:.3f}</b><extra></extra>`,
      });
    });
  });
  const name = charts.training.keys.find((each) => each.key === key).name;
  return { traces, layout: layoutOf({ height: 520, hovermode: "closest", xaxis: { title: { text: "epoch" } }, yaxis: { title: { text: name } } }) };
}

/** Bars of each class, column or label; the menu chooses the score. */
function partsFigure(key) {
  const { labels, configurations, scores, part, baseline } = charts.parts;
  const traces = configurations.map((item, place) => {
    const low = item.low[key], high = item.high[key];
    const ends = (list, sign) => item[key].map((mean, row) => (mean === null || !list || list[row] === null ? 0 : sign * (list[row] - mean)));
    return {
      type: "bar", name: plain(shorten(item.label, 60)), x: labels.map(plain), y: item[key], marker: { color: colour(place) },
      visible: place < 3 || item.label === baseline ? true : "legendonly",
      error_y: low ? { type: "data", symmetric: false, array: ends(high, 1), arrayminus: ends(low, -1), thickness: 1, width: 0, color: layoutOf({}).font.color } : undefined,
      hovertemplate: `${plain(item.label)}<br>%{x}: <b>%{y:.3f}</b><extra></extra>`,
    };
  });
  const name = scores.find((each) => each.key === key).name;
  return { traces, layout: layoutOf({ height: 480, barmode: "group", xaxis: { title: { text: part }, type: "category" }, yaxis: { title: { text: `test ${name}` } } }) };
}

const FIGURES = {
  scores: { draw: scoresFigure, options: [] },
  training: { draw: trainingFigure, options: charts.training.keys.filter(({ key }) => charts.training.configurations.some((item) => item.runs.some((run) => run[key].some((value) => value !== null)))) },
  parts: { draw: partsFigure, options: charts.parts.scores },
};

/** Add the button that opens an interactive figure beneath a static one, and closes it. */
function addChart(figure) {
  const { draw, options } = FIGURES[figure.dataset.chart];
  const caption = figure.querySelector("figcaption");
  const button = make("button", { type: "button" }, "Interactive figure");
  button.setAttribute("aria-expanded", "false");
  const bar = make("div", { className: "chart controls" }, button);
  const box = make("div", { className: "chart chart-box", hidden: true });
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", `Interactive figure. ${caption.textContent.trim()} The tables have the same numbers.`);
  const first = figure.dataset.chart === "parts" ? charts.parts.main : options[0]?.key;
  const menu = make("select", {}, ...options.map(({ key, name }) => make("option", { value: key, selected: key === first }, name)));
  const label = make("label", { hidden: true }, "Score", menu);
  if (options.length > 1) bar.append(label);
  figure.append(bar, box);
  const show = async () => {
    const Plotly = await loadPlotly();
    const { traces, layout } = draw(menu.value || undefined);
    box.style.height = `${layout.height}px`; // plotly fills the box when the window changes
    await Plotly.react(box, traces, layout, { responsive: true, displaylogo: false, modeBarButtons: BUTTONS });
    box.dataset.ready = "yes";
  };
  button.addEventListener("click", async () => {
    const opens = box.hidden;
    box.hidden = label.hidden = !opens;
    button.setAttribute("aria-expanded", String(opens));
    button.textContent = opens ? "Close the interactive figure" : "Interactive figure";
    if (!opens) return;
    try {
      await show();
    } catch (error) {
      box.textContent = `The interactive figure cannot be drawn: ${error.message}.`;
    }
  });
  menu.addEventListener("change", show);
  drawn.push({ box, show });
}

for (const figure of document.querySelectorAll("figure[data-chart]")) addChart(figure);
document.addEventListener("themechange", () => {
  for (const { box, show } of drawn) if (!box.hidden && box.dataset.ready) show();
});
