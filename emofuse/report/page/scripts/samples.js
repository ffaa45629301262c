// Cells of confusion matrices that open their samples.

const samples = readData("samples-data");
const dialog = byId("cell");

/** Return the card of one sample: its picture, label, answer and the answers of single streams. */
function sampleCard([sample, times, tested, confidence], predicted) {
  const { classes, ids, pictures, streams, votes } = samples;
  const truth = samples.true[sample];
  const card = make("li", { className: "card" });
  if (pictures[sample]) {
    const alt = `Sample ${ids[sample]}, labelled ${classes[truth]}`;
    card.append(make("img", { src: `data:image/webp;base64,${pictures[sample]}`, alt }));
  }
  card.append(make("div", { className: "name" }, ids[sample]));
  card.append(make("div", {}, "Label: ", make("b", {}, classes[truth])));
  const answer = make("div", { className: truth === predicted ? "right-answer" : "wrong-answer" }, "Answer: ", make("b", {}, classes[predicted]));
  answer.append(make("span", { className: "sd" }, ` ${confidence.toFixed(2)}`));
  card.append(answer);
  if (tested > 1) card.append(make("div", { className: "name" }, `in ${times} of ${tested} runs`));
  const known = streams.map((stream, place) => [stream, votes[sample][place]]).filter(([, vote]) => vote >= 0);
  if (known.length) {
    const list = make("ul", { className: "votes" });
    list.setAttribute("aria-label", "Answers of single streams");
    list.append(...known.map(([stream, vote]) => make("li", {}, `${stream}: ${classes[vote]}${vote === truth ? "\u00a0\u2713" : ""}`)));
    card.append(list);
  }
  return card;
}

function openCell(configuration, key, count) {
  const [truth, predicted] = key.split(",").map(Number);
  const listed = samples.cells[configuration][key];
  const { classes } = samples;
  byId("cell-title").textContent = `Label ${classes[truth]}, answer ${classes[predicted]}`;
  const answers = listed.reduce((sum, [, times]) => sum + times, 0);
  const sentences = [`${configuration} answered ${classes[predicted]} ${count} times to samples labelled ${classes[truth]}.`];
  const what = listed.length === 1 ? "The sample is shown" : `${listed.length} samples are shown`;
  sentences.push(`${what}${answers < Number(count.replace(/,/g, "")) ? ", those with the largest probability of this answer" : ""}, with the probability of the answer.`);
  if (samples.note && listed.some(([sample]) => !samples.pictures[sample])) sentences.push(samples.note);
  if (!samples.streams.length) sentences.push("No configuration has a single stream, so the answers of single streams are not known.");
  byId("cell-text").textContent = sentences.join(" ");
  byId("cell-cards").replaceChildren(...listed.map((one) => sampleCard(one, predicted)));
  dialog.showModal();
  dialog.scrollTop = 0;
}

if (samples) {
  for (const table of document.querySelectorAll("table.confusion")) {
    const { configuration } = table.dataset;
    const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
    for (const cell of table.querySelectorAll("td[data-cell]")) {
      const count = cell.querySelector(".count").textContent;
      const button = make("button", { type: "button" }, ...cell.childNodes);
      const truth = cell.parentElement.cells[0].textContent.trim();
      button.setAttribute("aria-label", `${count} of label ${truth} answered ${heads[cell.cellIndex]}: show samples`);
      button.addEventListener("click", () => openCell(configuration, cell.dataset.cell, count));
      cell.append(button);
    }
  }
  byId("cell-close").addEventListener("click", () => dialog.close());
  // A click beside the dialog closes it; Escape does so by itself.
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
}
