// Asks for the page anew every two seconds and takes over what is in it, a section at a time: but not
// one in which somebody has pointed at something, and what was opened stays open.
"use strict";
(() => {
  const EVERY_MS = 2000, PATIENCE_MS = 10000;
  let paused = false, failing = null;
  const bar = document.createElement("p");
  bar.className = "live";
  const said = document.createElement("span");
  said.setAttribute("role", "status");
  const button = document.createElement("button");
  button.type = "button";
  button.addEventListener("click", () => { paused = !paused; show(); });
  bar.append(button, " ", said);
  document.querySelector("header").append(bar);

  function show(problem) {
    button.textContent = paused ? "Go on" : "Pause";
    const word = problem ?? (paused ? "Paused." : "Moves every two seconds.");
    if (said.textContent !== word) said.textContent = word;
    bar.classList.toggle("problem", problem !== undefined);
  }

  function renew(old, fresh) {
    if (old.querySelector("figure[data-held]") || old.contains(document.activeElement)
      && document.activeElement.closest(".scroll")) return;
    const opened = [...old.querySelectorAll("details")].map((one) => one.open);
    const scrolled = [...old.querySelectorAll(".scroll")].map((one) => [one.scrollLeft, one.scrollTop]);
    const focused = [...old.querySelectorAll("summary, button, a")].indexOf(document.activeElement);
    old.replaceChildren(...fresh.childNodes);
    old.querySelectorAll("details").forEach((one, at) => { one.open = opened[at] ?? false; });
    old.dispatchEvent(new Event("renewed", { bubbles: true }));
    old.querySelectorAll(".scroll").forEach((one, at) => {
      [one.scrollLeft, one.scrollTop] = scrolled[at] ?? [0, 0];
    });
    if (focused >= 0) old.querySelectorAll("summary, button, a")[focused]?.focus({ preventScroll: true });
  }

  function take(page) {
    const main = document.querySelector("main"), there = new Map();
    for (const section of main.querySelectorAll(":scope > section")) there.set(section.id, section);
    let before = null;
    for (const fresh of page.querySelectorAll("main > section")) {
      let section = there.get(fresh.id);
      there.delete(fresh.id);
      if (section) renew(section, fresh);
      else {
        section = document.importNode(fresh, true);
        if (before) before.after(section); else main.prepend(section);
        section.dispatchEvent(new Event("renewed", { bubbles: true }));
      }
      before = section;
    }
    there.forEach((section) => section.remove());
    const list = page.querySelector("header dl"), nav = page.querySelector("nav");
    if (list) document.querySelector("header dl")?.replaceWith(document.importNode(list, true));
    const shown = document.querySelector("nav");
    if (nav && !shown.contains(document.activeElement)) shown.replaceWith(document.importNode(nav, true));
  }

  async function ask() {
    if (!paused && !document.hidden) {
      try {
        const answer = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
        if (!answer.ok) throw new Error(`it answered ${answer.status}`);
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        if (!paused) take(page);
        failing = null;
        show();
        document.documentElement.dataset.renewed = Number(document.documentElement.dataset.renewed ?? 0) + 1;
      } catch (error) {
        failing ??= new Date().toLocaleTimeString();
        show(`No answer from the host since ${failing}: ${error.message}.`);
      }
    }
    setTimeout(ask, EVERY_MS);
  }

  show();
  setTimeout(ask, EVERY_MS);
})();
