// A job as a card: how far it is, what it looks like, what came of it.

import { ask, duration, h, image, sentence, tell } from "./dom.js";
import { emit, over } from "./state.js";

const KINDS = {
  draw: "draw", again: "draw again", stylize: "stylize", edit: "edit", plan: "plan", learn: "learn", export: "export",
};
const STATES = { waiting: "waiting", running: "running", done: "done", stopped: "stopped", failed: "failed" };

export const cancel = (job) => ask("DELETE", `jobs/${job.id}`);

/** A card that `update` brings up to date. */
export function jobCard(job) {
  const state = h("span", { className: "state" });
  const label = h("small");
  const bar = h("progress");
  const look = h("img", { className: "look", alt: "preview while denoising", hidden: true });
  const shown = h("div", { className: "images" });
  const notes = h("ul", { className: "notes" });
  const error = h("p", { className: "bad", hidden: true });
  const stop = h("button", { type: "button", onclick: () => cancel(job) }, job.kind === "learn" ? "Stop" : "Cancel");
  const card = h(
    "article", { className: "job", "data-job": job.id, "aria-label": `${KINDS[job.kind]}: ${job.title}` },
    h("header", {}, h("strong", {}, KINDS[job.kind]), h("span", { className: "title" }, job.title), state, stop),
    bar, label, look, shown, error, notes,
  );

  function update(now) {
    job = now;
    state.textContent = STATES[now.state];
    card.dataset.state = now.state;
    stop.hidden = over(now);
    bar.hidden = now.state !== "running";
    if (now.total) Object.assign(bar, { max: now.total, value: now.done });
    label.textContent = now.state === "running" && now.total ? `${now.label}: ${now.done} of ${now.total}` : told(now);
    look.hidden = !now.look;
    if (now.look) look.src = now.look;
    for (const name of now.images.slice(shown.children.length)) shown.append(thumbnail(name));
    error.hidden = !now.error || now.state === "stopped";
    error.textContent = now.error ? sentence(now.error) : "";
    notes.replaceChildren(...[...new Set(now.notes)].map((note) => h("li", {}, note)));
  }

  update(job);
  return { element: card, update };
}

/** What came of a job, in a line. */
function told(job) {
  const { result } = job;
  if (job.state === "stopped") return job.error?.message && job.kind === "learn" ? sentence(job.error) : "";
  if (!result || job.state !== "done") return "";
  if (job.kind === "again") return result.same ? "the same image, byte for byte" : "a different image, kept beside it";
  if (job.kind === "learn") return `<${result.concept}> is learned, version ${result.version}`;
  if (job.kind === "plan") return `${result.steps} steps, about ${duration(result.seconds)}`;
  if (job.kind === "export") return `exports/${result.folder}`;
  return "";
}

export function thumbnail(name) {
  return h(
    "button", { type: "button", className: "thumbnail", title: name, onclick: () => emit("look", name) },
    h("img", { src: image(name), alt: name, loading: "lazy" }),
  );
}

/** Tells of a job that was put into the queue. */
export function queued(job) {
  if (job.state === "waiting") tell("waiting for the job before it");
  return job;
}
