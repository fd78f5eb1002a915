// Boxes over the picture: drawn, moved, resized, layered and removed, by pointer and by keyboard.

import { h } from "./dom.js";

const STEP = 1 / 50;
const LEAST = 1 / 50;
const CORNERS = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** A box moved by (x, y), all of it kept in the picture. */
export function moved([x0, y0, x1, y1], x, y) {
  const [dx, dy] = [clamp(x, -x0, 1 - x1), clamp(y, -y0, 1 - y1)];
  return [x0 + dx, y0 + dy, x1 + dx, y1 + dy];
}

/** A box with the sides that a corner's name holds moved by (x, y). */
export function resized([x0, y0, x1, y1], corner, x, y) {
  if (corner.includes("w")) x0 = clamp(x0 + x, 0, x1 - LEAST);
  if (corner.includes("e")) x1 = clamp(x1 + x, x0 + LEAST, 1);
  if (corner.includes("n")) y0 = clamp(y0 + y, 0, y1 - LEAST);
  if (corner.includes("s")) y1 = clamp(y1 + y, y0 + LEAST, 1);
  return [x0, y0, x1, y1];
}

/**
 * The picture with its boxes, in shares of width and height. `hear` is told: select(index), box(index, box, settled),
 * add(box), remove(index), layer(index, by), edit(index).
 */
export function canvas(hear) {
  const under = h("img", { alt: "", hidden: true, draggable: false });
  const element = h("div", {
    className: "canvas", role: "group", "aria-label": "Regions: draw a box with the pointer, or choose Add region",
  }, under);
  let regions = [];
  let drag = null;

  const share = (event) => {
    const area = element.getBoundingClientRect();
    return [clamp((event.clientX - area.left) / area.width, 0, 1), clamp((event.clientY - area.top) / area.height, 0, 1)];
  };

  element.onpointerdown = (event) => {
    if (event.button) return;
    const box = event.target.closest(".box");
    const [x, y] = share(event);
    element.setPointerCapture(event.pointerId);
    if (box) {
      const index = Number(box.dataset.index);
      drag = { index, from: [x, y], box: regions[index].box, corner: event.target.dataset.corner };
      hear.select(index);
      box.focus();
    } else {
      drag = { from: [x, y], fresh: place(h("div", { className: "box fresh" }), [x, y, x, y]) };
      element.append(drag.fresh);
    }
    event.preventDefault();
  };

  element.onpointermove = (event) => {
    if (!drag) return;
    const [x, y] = share(event);
    const [x0, y0] = drag.from;
    if (drag.fresh) {
      drag.drawn = [Math.min(x, x0), Math.min(y, y0), Math.max(x, x0), Math.max(y, y0)];
      place(drag.fresh, drag.drawn);
    } else if (drag.moving || Math.hypot(x - x0, y - y0) > 0.005) {
      drag.moving = true;
      const change = drag.corner ? resized(drag.box, drag.corner, x - x0, y - y0) : moved(drag.box, x - x0, y - y0);
      hear.box(drag.index, change, false);
    }
  };

  element.onpointerup = element.onpointercancel = () => {
    const { fresh, drawn, moving, index } = drag ?? {};
    drag = null;
    fresh?.remove();
    if (drawn && drawn[2] - drawn[0] >= LEAST && drawn[3] - drawn[1] >= LEAST) hear.add(drawn);
    else if (moving) hear.box(index, regions[index].box, true);
    else if (fresh) hear.select(-1);
  };

  element.onkeydown = (event) => {
    const box = event.target.closest(".box");
    if (!box) return;
    const index = Number(box.dataset.index);
    const [x, y] = (MOVES[event.key] ?? [0, 0]).map((way) => way * (event.altKey ? STEP / 10 : STEP));
    if (event.key in MOVES) {
      const now = regions[index].box;
      hear.box(index, event.shiftKey ? resized(now, "es", x, y) : moved(now, x, y), true);
    } else if (event.key === "Delete" || event.key === "Backspace") hear.remove(index);
    else if (event.key === "PageUp" || event.key === "PageDown") hear.layer(index, event.key === "PageUp" ? 1 : -1);
    else if (event.key === "Enter") hear.edit(index);
    else return;
    event.preventDefault();
  };

  /** Shows regions: [{ box, label, warned }], the selected one, and the picture's size. */
  function show(now, selected, [width, height]) {
    regions = now;
    element.style.aspectRatio = `${width} / ${height}`;
    element.style.maxWidth = `min(100%, ${(70 * width) / height}vh)`;
    const boxes = [...element.querySelectorAll(".box:not(.fresh)")];
    while (boxes.length > now.length) boxes.pop().remove();
    while (boxes.length < now.length) boxes.push(element.appendChild(made(boxes.length, () => hear)));
    now.forEach(({ box, label, warned, feather }, index) => {
      const at = boxes[index];
      at.hidden = !box;
      if (box) place(at, box);
      at.style.setProperty("--hue", (index * 67 + 210) % 360);
      at.style.setProperty("--feather", feather ? `${(feather * 100 * Math.min(width, height)) / width}cqw` : "0px");
      at.classList.toggle("selected", index === selected);
      at.classList.toggle("warned", Boolean(warned));
      at.title = warned ?? "";
      at.firstChild.textContent = `${warned ? "⚠ " : ""}${index + 1} ${label}`;
      at.setAttribute("aria-label", `Region ${index + 1}: ${label}. Arrows move, with Shift resize, Delete removes, ` +
        `Page Up and Page Down layer, Enter edits.${warned ? ` Warning: ${warned}` : ""}`);
    });
  }

  /** Shows an image under the boxes; none where it is empty. */
  function lay(source) {
    under.hidden = !source;
    if (source && under.getAttribute("src") !== source) under.src = source;
  }

  const focus = (index) => element.querySelector(`.box[data-index="${index}"]`)?.focus();
  return { element, show, lay, focus };
}

function made(index, hear) {
  return h(
    "div", { className: "box", tabIndex: 0, role: "group", "data-index": index, onfocus: () => hear().select(index) },
    h("span", { className: "name" }), CORNERS.map((corner) => h("i", { className: corner, "data-corner": corner })),
  );
}

function place(element, [x0, y0, x1, y1]) {
  const percent = (share) => `${share * 100}%`;
  Object.assign(element.style, {
    left: percent(x0), top: percent(y0), width: percent(x1 - x0), height: percent(y1 - y0),
  });
  return element;
}
