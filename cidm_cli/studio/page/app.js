// The page: five views, one shown at a time by the address's hash.

import { follow, on, refreshConcepts } from "./state.js";
import { showConcepts } from "./concepts.js";
import { showLayout } from "./layout.js";
import { showDraw } from "./draw.js";
import { showGallery } from "./gallery.js";
import { showLearn } from "./learn.js";
import { Told } from "./dom.js";

const WORKER = {
  starting: "loading the base …", ready: "ready", busy: "working", gone: "the studio does not answer",
};

function turn() {
  const wanted = location.hash.slice(1) || "concepts";
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== wanted;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${wanted}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  dispatchEvent(new CustomEvent("turned", { detail: wanted }));
}

const views = { concepts: showConcepts, layout: showLayout, draw: showDraw, gallery: showGallery, learn: showLearn };
for (const [name, show] of Object.entries(views)) show(document.getElementById(name));
const worker = document.querySelector("#worker");
on("worker", (state) => {
  worker.textContent = WORKER[state];
  worker.dataset.state = state;
});
addEventListener("unhandledrejection", (event) => event.reason instanceof Told && event.preventDefault());
addEventListener("hashchange", turn);
turn();
follow();
refreshConcepts();
