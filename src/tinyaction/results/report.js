// The table of predictions on a report: sort, filter, show a clip, list the clips of a cell of the matrix.
// Without this file the page shows everything else. Names are put in as text, never as HTML.
"use strict";
(() => {
  const data = document.getElementById("predictions");
  if (!data) return;
  const { classes, columns, rows, strips } = JSON.parse(data.textContent);
  const byId = (id) => document.getElementById(id);
  const table = byId("clips"), body = table.tBodies[0], count = byId("clips-count"), more = byId("clips-more");
  const search = byId("clips-search"), which = byId("clips-which");
  const PAGE = 100;
  const [FILE, LABEL, PREDICTED, SCORE] = [0, 1, 2, 3];
  const LINK = columns.length;                      // the last value of a row: where the file is, or ""
  let sortBy = SCORE, ascending = false, cell = null, numShown = PAGE;

  const text = (row, column) =>
    column === LABEL || column === PREDICTED ? classes[row[column]] : String(row[column]);
  const compare = (a, b) => sortBy === SCORE ? a[SCORE] - b[SCORE]
    : text(a, sortBy).localeCompare(text(b, sortBy), undefined, { numeric: true });

  function chosen() {
    const words = search.value.toLowerCase();
    return rows.filter((row) => {
      const isRight = row[LABEL] === row[PREDICTED];
      if (which.value !== "all" && isRight !== (which.value === "right")) return false;
      if (cell && (row[LABEL] !== cell[0] || row[PREDICTED] !== cell[1])) return false;
      return !words || columns.some((_, column) => text(row, column).toLowerCase().includes(words));
    }).sort((a, b) => (ascending ? 1 : -1) * compare(a, b));
  }

  function element(tag, content, attributes = {}) {
    const node = document.createElement(tag);
    if (content) node.textContent = content;
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  }

  function clip(row) {                              // frames, and the video where the browser can reach it
    const place = element("td", "", { colspan: columns.length + 1 });
    const strip = strips[rows.indexOf(row)];
    if (strip) place.append(element("img", "", { src: strip, alt: "frames of " + row[FILE] }));
    const note = element("p", row[LINK] ? "" : "The file was not there when this page was made.");
    if (row[LINK]) {
      const video = element("video", "", { src: row[LINK], controls: "", preload: "metadata", playsinline: "" });
      video.muted = true;
      video.addEventListener("error", () => {
        video.remove();
        note.textContent = "This browser cannot play the file, or it is not at " + row[LINK];
      });
      place.append(video);
    }
    place.append(note);
    const line = element("tr", "", { class: "clip" });
    line.append(place);
    return line;
  }

  function line(row) {
    const tr = element("tr", "", { class: row[LABEL] === row[PREDICTED] ? "right" : "wrong" });
    columns.forEach((_, column) => {
      const td = element("td", column === SCORE ? row[SCORE].toFixed(3) : text(row, column));
      if (column === FILE)                          // lines break after these signs
        td.replaceChildren(...td.textContent.split(/(?<=[\/_ -])/).flatMap((part) => [part, element("wbr")]));
      tr.append(td);
    });
    const show = element("button", "show", { type: "button", "aria-expanded": "false",
                                             "aria-label": "show the clip " + row[FILE] });
    show.addEventListener("click", () => {
      const isOpen = show.getAttribute("aria-expanded") === "true";
      if (isOpen) tr.nextSibling.remove(); else tr.after(clip(row));
      show.setAttribute("aria-expanded", String(!isOpen));
      show.textContent = isOpen ? "show" : "hide";
    });
    const place = element("td");
    place.append(show);
    tr.append(place);
    return tr;
  }

  function draw() {
    const found = chosen();
    body.replaceChildren(...found.slice(0, numShown).map(line));
    more.hidden = found.length <= numShown;
    const pair = cell ? `, ${classes[cell[0]]} predicted as ${classes[cell[1]]}` : "";
    count.textContent = `${found.length} of ${rows.length} clips${pair}`;
    table.querySelectorAll("th[data-column]").forEach((th) => th.setAttribute(
      "aria-sort", Number(th.dataset.column) !== sortBy ? "none" : ascending ? "ascending" : "descending"));
  }

  const restart = () => { numShown = PAGE; draw(); };
  table.querySelectorAll("th[data-column] button").forEach((button) => button.addEventListener("click", () => {
    const column = Number(button.parentNode.dataset.column);
    ascending = column === sortBy ? !ascending : column !== SCORE;
    sortBy = column;
    restart();
  }));
  search.addEventListener("input", restart);
  which.addEventListener("change", restart);
  more.addEventListener("click", () => { numShown += PAGE; draw(); });
  byId("clips-reset").addEventListener("click", () => {
    search.value = ""; which.value = "all"; cell = null;
    restart();
  });
  document.querySelectorAll(".matrix .cell").forEach((rect) => {
    const open = () => {
      cell = [Number(rect.dataset.true), Number(rect.dataset.predicted)];
      search.value = ""; which.value = "all";
      restart();
      byId("clips-title").scrollIntoView();
      table.focus({ preventScroll: true });
    };
    rect.setAttribute("tabindex", "0");
    rect.setAttribute("role", "button");
    rect.addEventListener("click", open);
    rect.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(); }
    });
  });
  byId("clips-section").hidden = false;
  draw();
})();
