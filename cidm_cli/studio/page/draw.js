// Draw: a prompt or the open layout, seeds, and the queue.

import { ask, h, labelled } from "./dom.js";
import { jobCard, queued } from "./jobs.js";
import { layoutNow } from "./layout.js";
import { promptField } from "./prompts.js";
import { jobs, on } from "./state.js";

/** The options that fields give: numbers, and seeds as people write them, "7" or "1,2,10-13". */
export function optionsOf({ seeds, ...numbers }) {
  const options = {};
  for (const [name, field] of Object.entries(numbers)) if (field.value) options[name] = Number(field.value);
  const said = seeds.value.trim();
  if (/^\d+$/.test(said)) options.seed = Number(said);
  else if (said) options.seeds = said;
  return options;
}

export function showDraw(section) {
  const prompt = promptField({ required: true, placeholder: "a photo of a <name> on the beach" });
  const negative = promptField({ rows: 1 });
  const what = h("select", {}, h("option", { value: "prompt" }, "a prompt"), h("option", { value: "layout" }, "the open layout"));
  const seeds = h("input", { placeholder: "0, or 1,2,10-13" });
  const count = h("input", { type: "number", min: 1, max: 1000, placeholder: "1" });
  const steps = h("input", { type: "number", min: 1, max: 1000, placeholder: "auto" });
  const guidance = h("input", { type: "number", min: 0, max: 100, step: 0.5, placeholder: "auto" });
  const prompts = [labelled("Prompt", prompt.element), labelled("Negative prompt", negative.element)];
  const queue = h("div", { className: "queue" });
  const cards = new Map();
  const empty = h("p", { className: "quiet" }, "Nothing is drawn yet. The queue goes on while you edit.");

  const chosen = () => {
    for (const each of prompts) each.hidden = what.value === "layout";
    prompt.field.required = what.value === "prompt";
  };
  what.onchange = chosen;

  async function draw(event) {
    event.preventDefault();
    const options = optionsOf({ seeds, count, steps, guidance });
    const asked = { options };
    if (what.value === "layout") Object.assign(asked, { layout: layoutNow().text, name: layoutNow().name || undefined });
    else {
      asked.prompts = [prompt.field.value];
      if (negative.field.value) options.negative = negative.field.value;
    }
    queued(await ask("POST", "draw", { asked }));
  }

  on("prompt", (text) => {
    what.value = "prompt";
    chosen();
    prompt.field.value = text;
    prompt.field.focus();
  });
  on("job", (job) => {
    empty.remove();
    if (!cards.has(job.id)) {
      cards.set(job.id, jobCard(job));
      queue.prepend(cards.get(job.id).element);
    }
    cards.get(job.id).update(job);
    for (const [id, card] of cards) if (!jobs.has(id)) { card.element.remove(); cards.delete(id); }
  });

  section.append(
    h("h2", {}, "Draw"),
    h("div", { className: "columns two" },
      h("form", { onsubmit: draw }, labelled("Draw", what), prompts,
        h("div", { className: "row" }, labelled("Seeds", seeds), labelled("Images", count)),
        h("div", { className: "row" }, labelled("Sampling steps", steps), labelled("Guidance scale", guidance)),
        h("button", { className: "main" }, "Draw")),
      h("div", {}, h("h3", {}, "Queue"), empty, queue)),
  );
}
