// Layout: boxes, their fields and the TOML, each kept like the others; the file is the one that `cidm generate` takes.

import { ask, h, image, labelled, segment, sentence, tell } from "./dom.js";
import { canvas } from "./canvas.js";
import { queued } from "./jobs.js";
import { drawOver } from "./over.js";
import { promptField } from "./prompts.js";
import { emit, jobs, known, on, over as ended } from "./state.js";

const EMPTY = 'version = 1\n\n[base]\nprompt = "a photo of a dog and a cat on the grass"\n';

export const layoutNow = () => doc;
const doc = {
  name: "", was: null, text: EMPTY, values: { base: { prompt: "" } }, faults: [], warnings: [], size: null, saved: EMPTY,
};
let selected = -1;
let asked = 0;
let timer = null;
let newer = "";  // which of the two was changed last and not looked at yet: "values" or "text"
let drawn = null;
const history = [];
const refreshers = [];

const regions = () => doc.values.region ?? [];
const size = () => doc.values.image?.size ?? doc.size ?? [512, 512];
const pixels = () => doc.values.image?.units === "pixel";

/** A region's box as shares of the picture, and back as the layout's units have it. */
function share(box) {
  if (!box || !pixels()) return box;
  const [width, height] = size();
  return [box[0] / width, box[1] / height, box[2] / width, box[3] / height];
}
function unshare(box) {
  if (!pixels()) return box.map((edge) => Math.round(edge * 1e4) / 1e4);
  const [width, height] = size();
  return [box[0] * width, box[1] * height, box[2] * width, box[3] * height].map(Math.round);
}

/** Takes what the server says of a layout. */
function take(told) {
  doc.text = told.text;
  newer = "";
  doc.faults = told.faults;
  doc.warnings = told.warnings;
  if (told.layout) {
    doc.values = told.layout;
    doc.size = told.size;
  }
  if (selected >= regions().length) selected = regions().length - 1;
  refresh();
}

/** Has the server look at the layout a moment later: at its values where boxes or fields changed, else at its text. */
function settle(changed) {
  newer = changed;
  ++asked;  // what is under way speaks of a layout that is no more
  clearTimeout(timer);
  timer = setTimeout(looked, 150);
}

async function looked() {
  clearTimeout(timer);
  const number = ++asked;
  const layout = newer === "values" ? doc.values : null;
  const told = await ask("POST", "layouts", { text: doc.text, layout, name: doc.name || undefined });
  if (number === asked) take(told);
}

function remember() {
  const now = JSON.stringify(doc.values);
  if (history.at(-1) !== now) history.push(now);
  if (history.length > 100) history.shift();
}

/** Changes the layout's values, and all that shows them. */
function change(how, { settled = true, undoable = true } = {}) {
  if (undoable) remember();
  doc.values = structuredClone(doc.values);
  how(doc.values);
  refresh();
  if (settled) settle("values");
}

function undo() {
  if (!history.length) return;
  doc.values = JSON.parse(history.pop());
  selected = Math.min(selected, regions().length - 1);
  refresh();
  settle("values");
}

const setRegion = (index, key, value) => change((values) => put(values.region[index], key, value));
const setIn = (table, key, value) => change((values) => put((values[table] ??= {}), key, value));
function put(table, key, value) {
  if (value === "" || value == null) delete table[key];
  else table[key] = value;
}

const hear = {
  select(index) {
    if (index === selected) return;
    selected = index;
    refresh();
  },
  box(index, box, settled) {
    const first = !settled && !hear.dragging;
    hear.dragging = !settled;
    change((values) => { values.region[index].box = settled ? unshare(box) : hear.raw(box); }, { settled, undoable: first || settled });
  },
  raw: (box) => (pixels() ? unshare(box) : box),
  add(box) {
    const newest = known.concepts.find((one) => !one.style);
    const prompt = newest ? `a photo of a <${newest.name}>` : doc.values.base.prompt;
    change((values) => { (values.region ??= []).push({ prompt, box: unshare(box) }); });
    selected = regions().length - 1;
    refresh();
    view.focus(selected);
  },
  remove(index) {
    change((values) => {
      values.region.splice(index, 1);
      if (!values.region.length) delete values.region;
    });
    selected = Math.min(index, regions().length - 1);
    refresh();
    view.focus(selected);
  },
  layer(index, by) {
    const to = index + by;
    if (to < 0 || to >= regions().length) return;
    change((values) => values.region.splice(to, 0, ...values.region.splice(index, 1)));
    selected = to;
    refresh();
    view.focus(to);
  },
  edit() {
    document.querySelector("#region textarea")?.focus();
  },
};
const view = canvas(hear);

/** What a region is called on its box: the concepts it names, else its first words. */
function label({ prompt }) {
  const named = [...(prompt ?? "").matchAll(/(?<!\\)<([^<>]+)>/g)].map((match) => match[0]);
  return named.join(" ") || (prompt ?? "").split(" ").slice(0, 4).join(" ");
}

function refresh() {
  const said = [...doc.faults, ...doc.warnings];
  const warned = (index) => said.filter((one) => one.region === index).map(sentence).join("\n") || null;
  view.show(
    regions().map((region, index) => ({
      box: share(region.box), label: label(region), warned: warned(index),
      feather: region.feather && (pixels() ? region.feather / Math.min(...size()) : region.feather),
    })),
    selected, size(),
  );
  view.lay(under());
  for (const each of refreshers) each();
}

/** What lies under the boxes: what is being drawn, else what was drawn last, else an image to trace. */
function under() {
  const job = jobs.get(drawn);
  if (shownUnder.value === "laid") return laid && image(laid);
  if (shownUnder.value === "none" || !job) return "";
  return job.look || (job.images.length ? image(job.images.at(-1)) : "");
}
let laid = "";  // the image of the folder that lies under the boxes
const shownUnder = h("select", { "aria-label": "Under the boxes", onchange: chooseUnder },
  h("option", { value: "drawn" }, "the drawn image"), h("option", { value: "none" }, "nothing"),
  h("option", { value: "laid" }, "an image …"));
const picker = h("input", {
  type: "file", accept: "image/png,image/jpeg,image/webp", hidden: true, "aria-label": "Image under the boxes",
  onchange: async () => {
    const form = new FormData();
    form.append("files", picker.files[0]);
    lay((await ask("POST", "images", form)).names[0]);
  },
});
function chooseUnder() {
  if (shownUnder.value === "laid") picker.click();
  refresh();
}
function lay(name) {
  laid = name;
  shownUnder.value = "laid";
  refresh();
}

function over() {
  const name = shownUnder.value === "laid" ? laid : jobs.get(drawn)?.images.at(-1);
  if (!name) {
    tell("lay an image under the boxes, or draw one", true);
    return;
  }
  drawOver(name, share(regions()[selected]?.box), (job) => {
    drawn = job.id;
    shownUnder.value = "drawn";
    refresh();
  });
}

/** A control that shows a value of the layout unless one is typing in it. */
function bound(control, get, field = control) {
  refreshers.push(() => {
    const value = get() ?? "";
    if (document.activeElement !== field && field.value !== String(value)) field.value = value;
  });
  return control;
}

function number(name, get, set, props = {}) {
  const control = h("input", {
    type: "number", ...props, oninput: () => control.validity.badInput || set(control.value === "" ? null : Number(control.value)),
  });
  return labelled(name, bound(control, get), props.title);
}

function words(name, get, set, props = {}) {
  const { element, field } = promptField({ ...props, oninput: (event) => set(event.target.value) });
  return labelled(name, bound(element, get, field));
}

function choice(name, options, get, set) {
  const control = h("select", { onchange: () => set(control.value) }, options.map(([value, text]) => h("option", { value }, text)));
  return labelled(name, bound(control, get));
}

function pictureForm() {
  const picture = (key) => () => doc.values.image?.[key];
  const set = (key) => (value) => setIn("image", key, value);
  const side = (at) => [
    () => size()[at],
    (value) => value && setIn("image", "size", size().map((now, index) => (index === at ? value : now))),
  ];
  return h(
    "fieldset", { id: "picture" }, h("legend", {}, "Image"),
    words("Prompt", () => doc.values.base.prompt, (value) => change((values) => { values.base.prompt = value; })),
    words("Negative prompt", () => doc.values.base.negative, (value) => setIn("base", "negative", value), { rows: 1 }),
    h("div", { className: "row" },
      number("Width", ...side(0), { min: 8, max: 4096, step: 8 }), number("Height", ...side(1), { min: 8, max: 4096, step: 8 }),
      number("Seed", picture("seed"), set("seed"), { min: 0, placeholder: "0" }),
      number("Images", picture("count"), set("count"), { min: 1, max: 1000, placeholder: "1" })),
    h("div", { className: "row" },
      number("Sampling steps", picture("steps"), set("steps"), { min: 1, max: 1000, placeholder: "auto" }),
      number("Guidance scale", picture("guidance"), set("guidance"), { min: 0, max: 100, step: 0.5, placeholder: "auto" })),
    h("div", { className: "row" },
      choice("Mode", [["full", "full"], ["fast", "fast"]], () => doc.values.image?.mode ?? "full", set("mode")),
      choice("Overlap", [["average", "average"], ["priority", "later wins"]], () => doc.values.image?.overlap ?? "average", set("overlap"))),
  );
}

function regionForm() {
  const get = (key) => () => regions()[selected]?.[key];
  const set = (key) => (value) => selected >= 0 && setRegion(selected, key, value);
  const legend = h("legend");
  const notes = h("ul", { className: "notes warned" });
  const form = h(
    "fieldset", { id: "region" }, legend,
    words("Prompt", get("prompt"), (value) => selected >= 0 && change((values) => { values.region[selected].prompt = value; })),
    words("Negative prompt", get("negative"), set("negative"), { rows: 1, placeholder: "that of the image" }),
    h("div", { className: "row" },
      number("Strength", get("strength"), set("strength"), { min: 0, max: 4, step: 0.1, placeholder: "1", title: "scale of the concepts' weights" }),
      number("Feather", get("feather"), set("feather"), { min: 0, step: "any", placeholder: "0", title: "width of the soft edge" }),
      number("Seed", get("seed"), set("seed"), { min: 0, placeholder: "the image's" })),
    notes,
  );
  refreshers.push(() => {
    form.hidden = selected < 0;
    legend.textContent = `Region ${selected + 1}`;
    const said = [...doc.faults, ...doc.warnings].filter((one) => one.region === selected);
    notes.replaceChildren(...said.map((one) => h("li", {}, sentence(one))));
  });
  return form;
}

function layers() {
  const list = h("ol", { className: "layers", "aria-label": "Regions, the first lies lowest" });
  refreshers.push(() => {
    if (list.contains(document.activeElement) && list.children.length === regions().length) {
      [...list.children].forEach((row, index) => row.classList.toggle("selected", index === selected));
      return;
    }
    list.replaceChildren(...regions().map((region, index) => h(
      "li", { className: index === selected ? "selected" : "" },
      h("button", { type: "button", onclick: () => { hear.select(index); view.focus(index); } }, `${index + 1} ${label(region)}`),
      h("button", { type: "button", title: "raise", "aria-label": `Raise region ${index + 1}`, onclick: () => hear.layer(index, 1) }, "↑"),
      h("button", { type: "button", title: "lower", "aria-label": `Lower region ${index + 1}`, onclick: () => hear.layer(index, -1) }, "↓"),
      h("button", { type: "button", title: "remove", "aria-label": `Remove region ${index + 1}`, onclick: () => hear.remove(index) }, "×"),
    )));
  });
  return list;
}

function source() {
  const field = h("textarea", {
    className: "toml", spellcheck: false, "aria-label": "TOML",
    oninput: () => { remember(); doc.text = field.value; settle("text"); },
  });
  const said = h("ul", { className: "notes" });
  refreshers.push(() => {
    if (document.activeElement !== field && field.value !== doc.text) field.value = doc.text;
    said.replaceChildren(
      ...doc.faults.map((one) => h("li", { className: "bad" }, sentence(one))),
      ...doc.warnings.map((one) => h("li", { className: "warned" }, sentence(one))),
    );
  });
  return h("div", { className: "source" }, h("h3", {}, "TOML"), field, said);
}

export function showLayout(section) {
  const name = h("input", { placeholder: "name", "aria-label": "Name of the layout's file", maxLength: 100, size: 12 });
  const open = h("select", { "aria-label": "Open a layout", onchange: () => open.value && opened(open.value) });
  const begin = h("select", { "aria-label": "Begin with a template", onchange: () => begin.value && begun(begin.value) });
  const state = h("span", { className: "quiet" });
  refreshers.push(() => { state.textContent = doc.text === doc.saved ? "" : "not saved"; });

  async function list() {
    const names = await ask("GET", "layouts");
    open.replaceChildren(h("option", { value: "" }, "Open …"), ...names.map((one) => h("option", {}, one)));
  }
  async function templates() {
    const found = await ask("GET", "templates");
    begin.replaceChildren(h("option", { value: "" }, "Template …"), ...found.map((one) => h("option", { title: one.about }, one.name)));
  }
  function loaded(told, file, was) {
    remember();
    ++asked;
    selected = -1;
    drawn = null;
    Object.assign(doc, { name: file, was, saved: was ? told.text : null });
    name.value = file;
    take(told);
    open.value = begin.value = "";
  }
  async function opened(file) {
    const told = await ask("GET", `layouts/${segment(file)}`);
    loaded(told, told.name, told.was);
  }
  const begun = async (template) => loaded(await ask("GET", `templates/${segment(template)}`), "", null);

  async function save() {
    const file = name.value.trim();
    if (!file) {
      name.focus();
      tell("give the layout a name", true);
      return;
    }
    await looked();
    const was = file === doc.name ? doc.was : null;
    const text = doc.text;
    Object.assign(doc, await ask("PUT", `layouts/${segment(file)}`, { text, was }), { saved: text });
    tell(`saved ${file}.toml`);
    refresh();
    list();
  }
  async function draw() {
    await looked();
    const job = queued(await ask("POST", "draw", { asked: { layout: doc.text, name: doc.name || undefined } }));
    drawn = job.id;
    refresh();
  }

  const strip = h("div", { className: "images" });
  const bar = h("progress", { hidden: true, "aria-label": "Drawing" });
  const cancel = h("button", { type: "button", hidden: true, onclick: () => ask("DELETE", `jobs/${drawn}`) }, "Cancel");
  on("job", (job) => {
    if (job.id !== drawn) return;
    bar.hidden = cancel.hidden = ended(job);
    if (job.total) Object.assign(bar, { max: job.total, value: job.done });
    if (ended(job) && job.error && job.state === "failed") tell(sentence(job.error), true);
    strip.replaceChildren(...job.images.map((one) => h(
      "button", { type: "button", className: "thumbnail", title: one, onclick: () => emit("look", one) }, h("img", { src: image(one), alt: one }),
    )));
    refresh();
  });
  on("under", (name) => { lay(name); location.hash = "layout"; });
  on("layout", ({ told, file }) => { loaded(told, file, null); location.hash = "layout"; });

  section.append(
    h("div", { className: "bar" }, h("h2", {}, "Layout"), open, begin, name,
      h("button", { type: "button", onclick: save }, "Save"), state,
      h("button", { type: "button", onclick: undo, title: "Ctrl+Z on the image" }, "Undo"),
      h("button", { type: "button", className: "main", onclick: draw }, "Draw")),
    h("div", { className: "columns" },
      h("div", {}, view.element,
        h("div", { className: "bar" },
          h("button", { type: "button", onclick: () => hear.add([0.25, 0.25, 0.75, 0.75]) }, "Add region"),
          h("label", { className: "inline" }, h("span", {}, "Under the boxes"), shownUnder), picker,
          h("button", { type: "button", onclick: over }, "Draw over it"), bar, cancel),
        layers(), strip),
      h("form", { onsubmit: (event) => event.preventDefault() }, regionForm(), pictureForm()),
      source()),
  );
  view.element.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "z") undo();
  });
  addEventListener("turned", ({ detail }) => detail === "layout" && list());
  templates();
  list();
  settle("text");
}
