// Drawing over an image: a style for all of it, or an object in a box.

import { ask, dialog, h, labelled, segment } from "./dom.js";
import { queued } from "./jobs.js";
import { promptField } from "./prompts.js";
import { known } from "./state.js";

/** Asks how an image of the folder is to be drawn over; `box` is a region's, in shares. `started` is told the job. */
export function drawOver(name, box, started) {
  const concept = h("select", { required: true }, known.concepts.filter((one) => one.style || box).map((one) => (
    h("option", { value: one.name }, `<${one.name}>, ${one.style ? "a style for the whole image" : "into the selected box"}`))));
  const prompt = promptField({ rows: 1, placeholder: "auto" });
  const strength = h("input", { type: "number", min: 0, max: 1, step: 0.05, placeholder: "auto" });

  async function draw(event) {
    event.preventDefault();
    const style = known.concepts.find((one) => one.name === concept.value).style;
    const asked = {
      concept: concept.value, prompt: prompt.field.value, box: style ? null : box.join(","),
      options: strength.value ? { strength: Number(strength.value) } : {},
    };
    started(queued(await ask("POST", `images/${segment(name)}/${style ? "stylize" : "edit"}`, { asked })));
    element.close();
  }

  const element = dialog("Draw over the image", h(
    "form", { className: "stacked", onsubmit: draw },
    labelled("Concept", concept),
    !box && h("p", { className: "quiet" }, "To draw an object, select the region that is its place."),
    labelled("Prompt", prompt.element), labelled("Strength", strength, "how much is drawn anew, from 0 to 1"),
    h("button", { className: "main" }, "Draw"),
  ));
}
