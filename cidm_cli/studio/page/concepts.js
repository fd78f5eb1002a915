// Concepts: a card each, newest first.

import { article, ask, bytes, dialog, h, segment, tell } from "./dom.js";
import { emit, known, on, refreshConcepts } from "./state.js";

const EXPORTS = {
  kohya: "kohya (A1111, ComfyUI)", diffusers: "diffusers", peft: "PEFT", embedding: "embedding", bundle: "bundle (cidm)",
};

export function showConcepts(section) {
  const cards = h("div", { className: "cards" });
  const about = h("p", { className: "quiet" });
  const removed = h("details", { hidden: true });
  section.append(h("h2", {}, "Concepts"), about, cards, removed);
  on("concepts", () => {
    const count = known.concepts.length;
    about.textContent = count
      ? `${count} ${count === 1 ? "concept" : "concepts"} on the base ${known.base}. In a prompt, <name> is the concept.`
      : `No concept yet on the base ${known.base}.`;
    cards.replaceChildren(...known.concepts.map(card));
    if (!count) cards.append(h("a", { href: "#learn", className: "button" }, "Learn the first one"));
    removed.hidden = !known.removed.length;
    removed.replaceChildren(h("summary", {}, `Removed: ${known.removed.length}`), ...known.removed.map(gone));
  });
}

function gone(one) {
  return h("p", { "aria-label": `removed ${one.name}` }, `<${one.name}> · ${one.noun} · number ${one.number} `, h("button", {
    type: "button", onclick: async () => {
      await ask("POST", `concepts/${segment(one.name)}/restore`);
      tell(`<${one.name}> is back`);
      refreshConcepts();
    },
  }, "Bring back"));
}

function card(one) {
  const kind = one.style ? "style" : one.noun;
  const picture = one.image
    ? h("img", { src: `api/concepts/${segment(one.name)}/image`, alt: `<${one.name}>` })
    : h("div", { className: "no-image", "aria-hidden": "true" }, one.name.slice(0, 2));
  return h(
    "article", { className: "card", "aria-label": one.name }, picture,
    h("h3", {}, `<${one.name}>`),
    h("p", { className: "quiet" }, `${kind} · number ${one.number} · version ${one.version} · ${bytes(one.size)}`),
    h("div", { className: "buttons" },
      h("button", { type: "button", className: "main", onclick: () => draw(one) }, "Draw"),
      h("button", { type: "button", onclick: () => rename(one) }, "Rename"),
      h("button", { type: "button", onclick: () => exported(one) }, "Export"),
      h("button", { type: "button", onclick: () => remove(one) }, "Remove")),
  );
}

function draw(one) {
  const prompt = one.style ? `a <${one.name}> of a house` : `a photo of ${article(one.noun)} <${one.name}>`;
  emit("prompt", prompt);
  location.hash = "draw";
}

function rename(one) {
  const name = h("input", { value: one.name, required: true, maxLength: 64, autofocus: true, "aria-label": "New name" });
  const box = dialog(`Rename <${one.name}>`, h(
    "form", {
      onsubmit: async (event) => {
        event.preventDefault();
        await ask("PATCH", `concepts/${segment(one.name)}`, { to: name.value });
        box.close();
        refreshConcepts();
      },
    }, name, h("button", { className: "main" }, "Rename"),
  ));
  name.select();
}

function remove(one) {
  const box = dialog(
    `Remove <${one.name}>?`,
    h("p", {}, "It goes with all its versions. It can be brought back, below the cards, until cidm gc deletes its weights."),
    h("button", {
      type: "button", className: "danger", onclick: async () => {
        await ask("DELETE", `concepts/${segment(one.name)}`);
        box.close();
        tell(`removed <${one.name}>`);
        refreshConcepts();
      },
    }, "Remove"),
  );
}

function exported(one) {
  const kind = h("select", { "aria-label": "Program" }, Object.entries(EXPORTS).map(([value, text]) => h("option", { value }, text)));
  const found = h("p");
  let wanted = null;
  const box = dialog(
    `Export <${one.name}>`, kind,
    h("button", {
      type: "button", className: "main", onclick: async () => {
        found.textContent = "…";
        wanted = (await ask("POST", `concepts/${segment(one.name)}/export`, { to: kind.value })).id;
      },
    }, "Export"), found,
  );
  on("job", (job) => {
    if (!box.isConnected || job.id !== wanted) return;
    if (job.state === "failed") found.textContent = job.error.message;
    if (job.state !== "done") return;
    found.replaceChildren(...job.result.files.map((name) => h(
      "a", { href: `api/exports/${segment(job.result.folder)}/${segment(name)}`, download: name }, `${name} `,
    )));
  });
}
