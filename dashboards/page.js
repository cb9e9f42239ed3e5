"use strict";
// Brings the page up to date every few seconds. What the reader opened, scrolled to or selected stays as it is.
(() => {
  const PERIOD_MS = 5000;
  const stale = document.getElementById("stale");
  let timer;

  const all = (selector) => [...document.querySelectorAll(selector)];

  function focusedPlace() {
    const place = document.activeElement;
    if (place.id) return `#${place.id}`;
    if (place.matches("summary")) return `#${place.parentElement.id} > summary`;
    return place.matches("a[href]") ? `a[href="${place.getAttribute("href")}"]` : null;
  }

  function swap(fresh) {
    const opened = all("details[open]").map((details) => details.id);
    const scrolled = all(".scroll").map((box) => [box.id, box.scrollLeft, box.scrollTop]);
    const focused = focusedPlace();
    const [x, y] = [scrollX, scrollY];
    for (const id of opened) fresh.getElementById(id)?.setAttribute("open", "");
    for (const part of ["header", "main"]) {
      document.querySelector(part).replaceWith(document.adoptNode(fresh.querySelector(part)));
    }
    document.title = fresh.title;
    for (const [id, left, top] of scrolled) {
      const box = document.getElementById(id);
      if (box) [box.scrollLeft, box.scrollTop] = [left, top];
    }
    if (focused) document.querySelector(focused)?.focus({ preventScroll: true });
    scrollTo({ left: x, top: y, behavior: "instant" });
  }

  async function refresh() {
    clearTimeout(timer);
    if (!document.hidden && getSelection().isCollapsed) {
      try {
        const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(2 * PERIOD_MS) });
        if (!answer.ok) throw new Error(`status ${answer.status}`);
        swap(new DOMParser().parseFromString(await answer.text(), "text/html"));
        stale.hidden = true;
      } catch (error) {
        const since = document.querySelector("header time")?.textContent ?? "some time ago";
        stale.textContent = `Telltale does not answer (${error.message}). What you see is from ${since}.`;
        stale.hidden = false;
      }
    }
    clearTimeout(timer);
    timer = setTimeout(refresh, PERIOD_MS);
  }

  document.addEventListener("visibilitychange", () => document.hidden || refresh());
  timer = setTimeout(refresh, PERIOD_MS);
})();
