// Learn: images dropped in, captions, the plan, then the loss curve and previews while it runs.

import { ask, bytes, duration, h, labelled, segment, sentence } from "./dom.js";
import { cancel, queued } from "./jobs.js";
import { promptField } from "./prompts.js";
import { jobs, known, on, over } from "./state.js";

const NS = "http://www.w3.org/2000/svg";
const [WIDE, HIGH] = [600, 160];

export function showLearn(section) {
  const name = h("input", { required: true, maxLength: 64, placeholder: "rex" });
  const noun = h("input", { placeholder: "auto", title: "what the captions or the name say" });
  const kind = h("select", {}, h("option", { value: "" }, "an object"), h("option", { value: "style" }, "a style"));
  const steps = h("input", { type: "number", min: 1, placeholder: "auto" });
  const seed = h("input", { type: "number", min: 0, placeholder: "0" });
  const preview = promptField({ rows: 1, placeholder: "a photo of a <rex> on the beach" });
  const every = h("input", { type: "number", min: 1, placeholder: "100" });
  const folders = h("datalist", { id: "folders" });
  name.setAttribute("list", "folders");
  const images = h("div", { className: "uploads" });
  const picker = h("input", { type: "file", accept: "image/png,image/jpeg,image/webp,.txt", multiple: true, hidden: true, onchange: () => upload(picker.files) });
  const drop = h("button", {
    type: "button", className: "drop", onclick: () => picker.click(),
    ondragover: (event) => { event.preventDefault(); drop.classList.add("over"); },
    ondragleave: () => drop.classList.remove("over"),
    ondrop: (event) => { event.preventDefault(); drop.classList.remove("over"); upload(event.dataTransfer.files); },
  }, "Drop 3 to 7 images here, or choose files", h("small", {}, "PNG, JPEG or WEBP; NAME.txt is the caption of NAME.png, NAME-mask.png its mask"));
  const resume = h("button", { type: "button", hidden: true, onclick: () => start("learn", { ...folder().unfinished, resume: true }) }, "Resume");
  const restart = h("button", { type: "button", hidden: true, onclick: () => start("learn", { restart: true }) }, "Begin again");
  const begin = h("button", { className: "main" }, "Learn");
  const run = panel();
  let there = [];

  const key = () => name.value.trim().toLowerCase();
  const folder = () => there.find((one) => one.name === key());
  async function list() {
    there = await ask("GET", "uploads");
    folders.replaceChildren(...there.map((one) => h("option", { value: one.name })));
    show();
  }
  function show() {
    const { name: own, images: kept = [], unfinished } = folder() ?? {};
    const busy = [...jobs.values()].some((job) => job.kind === "learn" && !over(job) && job.asked.folder === key());
    resume.hidden = restart.hidden = !unfinished || busy;
    begin.textContent = known.concepts.some((one) => one.name.toLowerCase() === key()) ? "Learn a new version" : "Learn";
    images.replaceChildren(...kept.map((one) => picture(own, one)));
  }
  function picture(own, { name: file, caption, mask }) {
    const place = `uploads/${segment(own)}/${segment(file)}`;
    const crop = h("i", { className: "crop", hidden: true });
    const shown = h("img", { src: `api/${place}`, alt: file, loading: "lazy", onload: placed });
    const whole = h("div", {}, shown,
      mask && h("img", { className: "mask", src: `api/uploads/${segment(own)}/${segment(mask)}`, alt: `mask of ${file}` }), crop);
    /** Shows all of the image in its square, and the part of it that is learned, where a plan has said at which size. */
    function placed() {
      const [wide, high] = [shown.naturalWidth, shown.naturalHeight];
      whole.style.width = `${(100 * wide) / Math.max(wide, high)}%`;
      const size = run.placed[file];
      crop.hidden = !size;
      if (!size) return;
      const scale = Math.min(wide / size[0], high / size[1]);
      const [across, down] = [(size[0] * scale) / wide, (size[1] * scale) / high];
      Object.assign(crop.style, {
        left: `${50 * (1 - across)}%`, top: `${50 * (1 - down)}%`, width: `${100 * across}%`, height: `${100 * down}%`,
      });
      crop.title = `learned at ${size.join(" × ")} pixels`;
    }
    const text = h("textarea", { value: caption, rows: 2, placeholder: "caption: from the template", "aria-label": `Caption of ${file}`,
      onchange: () => ask("PUT", place, { caption: text.value }) });
    return h("figure", {}, h("div", { className: "frame" }, whole), text,
      h("button", { type: "button", "aria-label": `Take ${file} out`, title: "take out", onclick: async () => { await ask("DELETE", place); list(); } }, "×"));
  }
  async function upload(files) {
    if (!name.reportValidity()) return;
    const form = new FormData();
    for (const file of files) form.append("files", file);
    picker.value = "";
    await ask("POST", `uploads/${segment(key())}`, form).finally(list);
  }
  async function start(what, extra = {}) {
    if (!name.reportValidity()) return;
    const options = {};
    if (steps.value) options.steps = Number(steps.value);
    if (seed.value) options.seed = Number(seed.value);
    const update = known.concepts.some((one) => one.name.toLowerCase() === key());
    const asked = {
      name: name.value.trim(), noun: noun.value, style: kind.value === "style", update, options,
      preview: preview.field.value, every: Number(every.value || 100), ...extra,
    };
    run.follow(queued(await ask("POST", what, { asked })), asked);
  }

  name.oninput = show;
  on("concepts", show);
  on("job", (job) => {
    if (!["learn", "plan"].includes(job.kind)) return;
    if (!run.job || job.id >= run.job.id) run.follow(job);
    if (over(job)) list();
    else if (!resume.hidden) show();
  });
  addEventListener("turned", ({ detail }) => detail === "learn" && list());
  section.append(
    h("h2", {}, "Learn"),
    h("div", { className: "columns two" },
      h("form", { onsubmit: (event) => { event.preventDefault(); start("learn"); } },
        h("div", { className: "row" }, labelled("Name", name), labelled("Class noun", noun), labelled("Kind", kind)),
        folders, drop, picker, images,
        h("div", { className: "row" }, labelled("Steps", steps), labelled("Seed", seed), labelled("Steps between previews", every)),
        labelled("Preview prompt", preview.element),
        h("div", { className: "buttons" },
          h("button", { type: "button", onclick: () => start("plan") }, "Plan"), begin, resume, restart)),
      run.element),
  );
}

/** The training that goes on, or what it would take. */
function panel() {
  const title = h("h3", {}, "Training");
  const state = h("p", { className: "quiet" }, "Nothing is learned yet: drop images in, look at the plan, then learn.");
  const bar = h("progress", { hidden: true });
  const raw = document.createElementNS(NS, "polyline");
  const smooth = document.createElementNS(NS, "polyline");
  raw.setAttribute("class", "raw");
  const curve = document.createElementNS(NS, "svg");
  curve.setAttribute("viewBox", `0 0 ${WIDE} ${HIGH}`);
  curve.setAttribute("role", "img");
  curve.append(raw, smooth);
  const loss = h("p", { className: "quiet" });
  const chart = h("div", { className: "curve", hidden: true }, curve, loss);
  const shots = h("div", { className: "images" });
  const plan = h("dl");
  const notes = h("ul", { className: "notes" });
  const stop = h("button", { type: "button", hidden: true, onclick: () => cancel(shown.job) }, "Stop");
  const element = h("div", { className: "run", "aria-live": "off" }, title, state, bar, chart, stop, plan, shots, notes);
  let looked = 0;

  function draw({ losses, done, total }) {
    chart.hidden = losses.length < 2;
    if (chart.hidden) return;
    const first = done - losses.length;
    const top = Math.max(...losses) * 1.05;
    let mean = losses[0];
    const means = losses.map((value, index) => (mean += Math.max(0.1, 1 / (index + 1)) * (value - mean)));
    const line = (values) => values.map((value, index) => (
      `${(((first + index + 1) / Math.max(total, 2)) * WIDE).toFixed(1)},${(HIGH - (value / top) * HIGH).toFixed(1)}`)).join(" ");
    raw.setAttribute("points", line(losses));
    smooth.setAttribute("points", line(means));
    curve.setAttribute("aria-label", `Loss over ${losses.length} steps, now ${mean.toFixed(4)}`);
    loss.textContent = `loss ${mean.toFixed(4)}, mean of the last steps`;
  }

  async function previews(job) {
    if (job.kind !== "learn" || (Date.now() - looked < 700 && !over(job))) return;
    looked = Date.now();
    const found = await ask("GET", `jobs/${job.id}/previews`);
    for (const [folder, file] of found.slice(shots.children.length)) {
      const source = `api/previews/${segment(folder)}/${segment(file)}`;
      const step = Number(file.match(/(\d+)\.png$/)[1]);
      shots.append(h("figure", {}, h("img", { src: source, alt: `preview at step ${step}` }), h("figcaption", {}, `step ${step}`)));
    }
  }

  const shown = {
    element, job: null, placed: {},
    follow(job) {
      if (shown.job?.id !== job.id) { shots.replaceChildren(); plan.replaceChildren(); shown.placed = {}; }
      shown.job = jobs.get(job.id) ?? job;
      job = shown.job;
      title.textContent = `${job.kind === "plan" ? "Plan" : "Training"}: ${job.title}`;
      element.dataset.state = job.state;
      state.textContent = told(job);
      state.className = job.state === "failed" ? "bad" : "quiet";
      bar.hidden = stop.hidden = over(job);
      if (job.total) Object.assign(bar, { max: job.total, value: job.done });
      notes.replaceChildren(...[...new Set(job.notes)].map((note) => h("li", {}, note)));
      draw(job);
      if (job.kind === "plan" && job.result) {
        plan.replaceChildren(...planned(job.result));
        shown.placed = job.result.placed;
      }
      previews(job);
    },
  };
  return shown;
}

function told(job) {
  if (job.error) return sentence(job.error);
  if (job.state === "done" && job.kind === "learn") return `<${job.result.concept}> is learned, version ${job.result.version}`;
  if (job.state === "running" && job.total) return `step ${job.done} of ${job.total}${job.label === "stopping" ? ", stopping" : ""}`;
  return { waiting: "waiting", running: job.kind === "plan" ? "three steps are tried" : "starting", done: "This is what it would take." }[job.state] ?? job.state;
}

function planned(plan) {
  const rows = [
    ["Time", `about ${duration(plan.seconds)} for ${plan.steps} steps of ${plan.batch} on ${plan.device}`],
    ["Memory", bytes(plan.memory)],
    ["Images", `${plan.images}, at ${plan.sizes.map((size) => size.join(" × ")).join(", ")} pixels`],
    ["Method", `${plan.method}, beside ${plan.older} older concepts`],
    ["Trained", `${plan.parameters.toLocaleString("en")} parameters in ${plan.sites} layers`],
    ...plan.captions.map((caption, index) => [index ? "" : "Captions", caption]),
  ];
  return rows.flatMap(([key, value]) => [h("dt", {}, key), h("dd", {}, value)]);
}
