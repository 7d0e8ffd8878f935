// Keeps a part of the page live: the server renders it, and this swaps it in. The page works without it.
"use strict";

for (const part of document.querySelectorAll("[data-live]")) {
  const feed = new EventSource(part.dataset.live);
  let shown = null;
  feed.addEventListener("part", (event) => {
    // Nobody loses the place where they read, select or type.
    const busy = part.contains(document.activeElement) || !getSelection().isCollapsed;
    if (busy || event.data === shown) return;
    shown = event.data;
    const open = new Set([...part.querySelectorAll("details[open]")].map((details) => details.id));
    part.innerHTML = event.data;
    for (const details of part.querySelectorAll("details")) details.open = open.has(details.id);
  });
  const state = document.getElementById("live-state");
  feed.addEventListener("open", () => { if (state) state.textContent = state.dataset.live; });
  feed.addEventListener("error", () => { if (state) state.textContent = state.dataset.lost; });
  addEventListener("pagehide", () => feed.close());
}

// Times in the words of the reader's own clock, where the pointer rests.
for (const time of document.querySelectorAll("time[datetime]")) {
  time.title = new Date(time.dateTime).toLocaleString(document.documentElement.lang);
}
