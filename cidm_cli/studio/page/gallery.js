// Gallery: the folder's images, newest first, each with its facts; two compared with a slider; a grid of many.

import { ask, dialog, h, image, labelled, segment, tell } from "./dom.js";
import { optionsOf } from "./draw.js";
import { queued } from "./jobs.js";
import { promptField } from "./prompts.js";
import { emit, on } from "./state.js";

export function showGallery(section) {
  const grid = h("div", { className: "grid" });
  const about = h("p", { className: "quiet" });
  const more = h("button", { type: "button", hidden: true, onclick: () => load(grid.children.length) }, "More");
  const compare = h("button", { type: "button", disabled: true, onclick: () => compared(...chosen.keys()) }, "Compare two");
  const chosen = new Map();
  const facts = new Map();

  async function load(start = 0) {
    const { count, images } = await ask("GET", `images?start=${start}`);
    if (!start) grid.replaceChildren();
    for (const one of images) facts.set(one.name, one.facts);
    grid.append(...images.map(figure));
    about.textContent = count ? `${count} images, newest first` : "No image yet: draw one.";
    more.hidden = grid.children.length >= count;
  }

  function figure({ name, facts: told }) {
    const tick = h("input", {
      type: "checkbox", checked: chosen.has(name), "aria-label": `Compare ${name}`,
      onchange: () => {
        if (tick.checked) chosen.set(name, tick);
        else chosen.delete(name);
        if (chosen.size > 2) {
          const [[oldest, box]] = chosen;
          box.checked = false;
          chosen.delete(oldest);
        }
        compare.disabled = chosen.size !== 2;
      },
    });
    return h("figure", {},
      h("button", { type: "button", className: "thumbnail", onclick: () => detail(name, told) },
        h("img", { src: image(name), alt: told?.prompt ?? name, loading: "lazy" })),
      h("figcaption", {}, tick, h("span", { title: told?.prompt ?? name }, told?.prompt ?? name),
        told && h("small", { className: "quiet" }, `seed ${told.seed}`)));
  }

  on("look", async (name) => {
    if (!facts.has(name)) await load();
    detail(name, facts.get(name));
  });
  on("images", () => { if (!section.hidden) load(); });
  addEventListener("turned", ({ detail: view }) => view === "gallery" && load());
  section.append(h("div", { className: "bar" }, h("h2", {}, "Gallery"), about, compare,
    h("button", { type: "button", onclick: () => gridOf("") }, "Draw a grid")), grid, more);
}

function detail(name, facts) {
  const rows = facts ? {
    Prompt: facts.prompt,
    "Negative prompt": facts.options.negative,
    Concepts: facts.concepts.map((one) => `<${one}>`).join(" "),
    Seed: facts.seed,
    Size: facts.options.size?.join(" × "),
    "Sampling steps": facts.options.steps,
    Sampler: facts.options.sampler,
    "Guidance scale": facts.options.guidance,
    Method: facts.method,
    Computed: `${facts.compute} on ${facts.device}`,
    Made: Object.entries(facts.tools).map((pair) => pair.join(" ")).join(", "),
  } : {};
  const open = async () => {
    emit("layout", { told: await ask("GET", `images/${segment(name)}/layout`), file: "" });
    box.close();
  };
  const again = async () => {
    await ask("POST", `images/${segment(name)}/again`);
    tell("it is drawn again: the queue in Draw shows it");
    box.close();
  };
  const box = dialog(
    name,
    h("div", { className: "detail" },
      h("img", { src: image(name), alt: facts?.prompt ?? name }),
      h("div", {},
        h("dl", {}, Object.entries(rows).filter(([, value]) => value !== "" && value != null)
          .map(([key, value]) => [h("dt", {}, key), h("dd", {}, String(value))])),
        !facts && h("p", { className: "quiet" }, "This image does not say how it was drawn."),
        h("div", { className: "buttons" },
          facts && h("button", { type: "button", className: "main", onclick: open }, "Open as layout"),
          facts && h("button", { type: "button", onclick: again }, "Draw again"),
          facts && h("button", { type: "button", onclick: () => { box.close(); gridOf(facts.prompt); } }, "Draw a grid"),
          h("button", { type: "button", onclick: () => { box.close(); emit("under", name); } }, "Draw over it"),
          h("a", { className: "button", href: image(name), download: name }, "Save a copy")))),
  );
}

/** A prompt with every concept at a strength: <dog> as <dog:0.5>. */
const at = (prompt, strength) => prompt.replace(/(?<!\\)<([^<>:]+)(:[^<>]*)?>/g, `<$1:${strength}>`);

/** Asks for a sheet of images over prompts, strengths and seeds. */
function gridOf(text) {
  const prompts = promptField({ rows: 3, required: true, value: text, placeholder: "one prompt a line" });
  const strengths = h("input", { placeholder: "1, or 0.5,1,1.5" });
  const seeds = h("input", { placeholder: "0, or 1,2,10-13" });
  const steps = h("input", { type: "number", min: 1, max: 1000, placeholder: "auto" });
  const guidance = h("input", { type: "number", min: 0, max: 100, step: 0.5, placeholder: "auto" });
  const lines = (field, by) => field.value.split(by).map((one) => one.trim()).filter(Boolean);
  const box = dialog("Draw a grid", h(
    "form", {
      className: "stacked", onsubmit: async (event) => {
        event.preventDefault();
        const some = lines(strengths, ",");
        const all = lines(prompts.field, "\n").flatMap((one) => (some.length ? some.map((by) => at(one, by)) : [one]));
        const asked = { prompts: [...new Set(all)], options: optionsOf({ seeds, steps, guidance }), grid: true };
        queued(await ask("POST", "draw", { asked }));
        tell("the grid is drawn: the queue in Draw shows it");
        box.close();
      },
    },
    labelled("Prompts", prompts.element),
    h("div", { className: "row" }, labelled("Strengths", strengths), labelled("Seeds", seeds),
      labelled("Sampling steps", steps), labelled("Guidance scale", guidance)),
    h("p", { className: "quiet" }, "A row for each prompt and strength, a column for each seed."),
    h("button", { className: "main" }, "Draw"),
  ));
}

function compared(left, right) {
  const over = h("img", { src: image(right), alt: right });
  const slider = h("input", {
    type: "range", min: 0, max: 100, value: 50, "aria-label": "How much of the left image is seen",
    oninput: () => { over.style.clipPath = `inset(0 0 0 ${slider.value}%)`; },
  });
  dialog("Compare", h("div", { className: "compare" }, h("img", { src: image(left), alt: left }), over, slider),
    h("p", { className: "names quiet" }, h("span", {}, left), h("span", {}, right)));
  slider.oninput();
}
