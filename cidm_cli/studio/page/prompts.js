// A prompt's field: after "<" the learned concepts are offered, by mouse and by keyboard.

import { h } from "./dom.js";
import { known } from "./state.js";

export function promptField(props) {
  const list = h("ul", { className: "offers", role: "listbox", hidden: true });
  const field = h("textarea", {
    rows: 2, spellcheck: false, "aria-autocomplete": "list", ...props,
    oninput: (event) => { offer(); props.oninput?.(event); },
    onkeydown: key,
    onblur: () => { list.hidden = true; },
  });
  let at = 0;

  function begun() {
    return field.value.slice(0, field.selectionStart).match(/<([\p{L}\p{N}_-]*)$/u);
  }

  function offer() {
    const found = begun();
    const names = found ? known.concepts.filter(({ name }) => name.toLowerCase().startsWith(found[1].toLowerCase())) : [];
    list.hidden = !names.length;
    at = 0;
    list.replaceChildren(...names.slice(0, 8).map(({ name, noun }, number) => h(
      "li", {
        role: "option", "aria-selected": String(number === 0),
        onpointerdown: (event) => { event.preventDefault(); take(name); },
      }, `<${name}>`, h("small", {}, noun),
    )));
  }

  function key(event) {
    if (list.hidden) return;
    const count = list.children.length;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      at = (at + (event.key === "ArrowDown" ? 1 : count - 1)) % count;
      [...list.children].forEach((item, number) => item.setAttribute("aria-selected", String(number === at)));
    } else if (event.key === "Enter" || event.key === "Tab") {
      take(list.children[at].firstChild.textContent.slice(1, -1));
    } else if (event.key === "Escape") {
      list.hidden = true;
    } else {
      return;
    }
    event.preventDefault();
  }

  function take(name) {
    const start = field.selectionStart - begun()[0].length;
    const rest = field.value.slice(field.selectionStart).replace(/^>/, "");
    field.value = `${field.value.slice(0, start)}<${name}>${rest}`;
    field.selectionStart = field.selectionEnd = start + name.length + 2;
    list.hidden = true;
    props.oninput?.({ target: field });
  }

  return { element: h("div", { className: "prompt" }, field, list), field };
}
