// What all views share: the concepts, and the jobs as the server tells them.

import { ask } from "./dom.js";

export const bus = new EventTarget();
export const jobs = new Map();
export const known = { concepts: [], removed: [], base: "", kind: "" };

export const on = (name, hear) => bus.addEventListener(name, (event) => hear(event.detail));
export const emit = (name, detail) => bus.dispatchEvent(new CustomEvent(name, { detail }));
export const over = (job) => !["waiting", "running"].includes(job.state);

export async function refreshConcepts() {
  Object.assign(known, await ask("GET", "concepts"));
  emit("concepts");
}

/** Follows the server: the worker's state, and every job that changes. A lost connection is taken up again. */
export function follow() {
  const source = new EventSource("api/events");
  source.onopen = () => jobs.clear();
  source.onmessage = ({ data }) => {
    const { worker, jobs: changed } = JSON.parse(data);
    emit("worker", worker);
    for (const job of changed) {
      const before = jobs.get(job.id);
      job.losses = [...(before?.losses ?? []).slice(0, job.from), ...job.losses];
      jobs.set(job.id, job);
      emit("job", job);
      const finished = over(job) && (!before || !over(before));
      if (finished && before && job.kind === "learn" && job.state === "done") refreshConcepts();
      if (job.images.length > (before?.images.length ?? job.images.length)) emit("images");
    }
  };
  source.onerror = () => emit("worker", "gone");
}
