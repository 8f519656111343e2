// The timelines of a page: read a stretch, play the video from there, search, order, widen. Without this file the
// bands stand still, with a tooltip each.
"use strict";
(() => {
  const place = document.getElementById("tracks");
  const byId = (id) => document.getElementById(id);
  const search = byId("tracks-search"), order = byId("tracks-order"), zoom = byId("tracks-zoom");
  const figures = [...place.querySelectorAll("figure")];

  function play(figure, seconds) {
    const video = figure.querySelector("video"), told = figure.querySelector(".told");
    if (!video) return;
    video.hidden = false;
    video.addEventListener("error", () => {
      video.hidden = true;
      told.textContent = "This browser cannot play the file, or it is not at " + video.getAttribute("src");
    }, { once: true });
    video.currentTime = seconds;
    video.play().catch(() => {});                   // the event says why
  }

  figures.forEach((figure) => {
    const told = figure.querySelector(".told");
    figure.querySelectorAll(".seg").forEach((seg) => {
      const read = () => { told.textContent = seg.getAttribute("aria-label"); };
      seg.addEventListener("pointerenter", read);
      seg.addEventListener("focus", read);
      seg.addEventListener("click", () => play(figure, Number(seg.dataset.start)));
      seg.addEventListener("keydown", (event) => {
        const next = { ArrowRight: seg.nextElementSibling, ArrowLeft: seg.previousElementSibling,
                       Home: seg.parentNode.firstElementChild, End: seg.parentNode.lastElementChild }[event.key];
        if (next) {
          seg.tabIndex = -1; next.tabIndex = 0; next.focus();
          event.preventDefault();
        } else if (event.key === "Enter" || event.key === " ") {
          play(figure, Number(seg.dataset.start));
          event.preventDefault();
        }
      });
    });
  });

  function draw() {
    const words = search.value.toLowerCase();
    const by = { accuracy: (a, b) => a.dataset.accuracy - b.dataset.accuracy,
                 name: (a, b) => a.dataset.name.localeCompare(b.dataset.name, undefined, { numeric: true }) };
    let shown = 0;
    [...figures].sort(by[order.value]).forEach((figure) => {
      const texts = [figure.dataset.name, ...[...figure.querySelectorAll(".seg")].map((seg) => seg.textContent)];
      figure.hidden = !texts.some((text) => text.toLowerCase().includes(words));
      shown += !figure.hidden;
      place.append(figure);
    });
    byId("tracks-count").textContent = `${shown} of ${figures.length} videos`;
  }

  search.addEventListener("input", draw);
  order.addEventListener("change", draw);
  zoom.addEventListener("change", () => place.style.setProperty("--zoom", zoom.value));
  place.querySelector(".controls").hidden = false;
  draw();
})();
