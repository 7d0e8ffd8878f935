// Keeps a part of the page live: the server renders it, and this swaps it in. The page works without it.
"use strict";

for (const part of document.querySelectorAll("[data-live]")) {
  const feed = new EventSource(part.dataset.live);
  let shown = null;
  feed.addEventListener("part", (event) => {
    // Nobody loses what they have selected, opened or reached by keyboard.
    if (!getSelection().isCollapsed || event.data === shown) return;
    shown = event.data;
    const open = new Set([...part.querySelectorAll("details[open]")].map((details) => details.id));
    const reached = part.contains(document.activeElement) ? document.activeElement.id : "";
    part.innerHTML = event.data;
    for (const details of part.querySelectorAll("details")) details.open = open.has(details.id);
    if (reached) document.getElementById(reached)?.focus({ preventScroll: true });
    // A screen reader says the verdict when it changes, and nothing once a second.
    const verdict = part.querySelector("[data-say]")?.dataset.say ?? "";
    const said = document.getElementById("said");
    if (said && said.dataset.of !== verdict) {
      if (said.dataset.of !== undefined) said.textContent = verdict;
      said.dataset.of = verdict;
    }
  });
  const state = document.getElementById("live-state");
  feed.addEventListener("open", () => { if (state) state.textContent = state.dataset.on; });
  feed.addEventListener("error", () => { if (state) state.textContent = state.dataset.lost; });
  addEventListener("pagehide", () => feed.close());
}

// Times in the words of the reader's own clock, where the pointer rests.
for (const time of document.querySelectorAll("time[datetime]")) {
  time.title = new Date(time.dateTime).toLocaleString(document.documentElement.lang);
}
