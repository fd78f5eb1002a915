// Elements, requests, and what is told in passing.

/** An element: properties, listeners (onclick), attributes (aria-label), and children. Text is never markup. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name in element && !name.includes("-")) element[name] = value;
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

/** An error that whoever looks at the page has seen already. */
export class Told extends Error {}

/** Asks the server; its errors are told, and thrown. */
export async function ask(method, path, body) {
  const form = body instanceof FormData;
  const answer = await fetch(`api/${path}`, {
    method,
    headers: form || body === undefined ? {} : { "Content-Type": "application/json" },
    body: form ? body : body === undefined ? undefined : JSON.stringify(body),
  }).catch(() => {
    tell("the studio does not answer: is it still running?", true);
    throw new Told("no answer");
  });
  const found = await answer.json().catch(() => ({ message: `the server failed (${answer.status})` }));
  if (answer.ok) return found;
  tell(sentence(found), true);
  throw new Told(found.message);
}

export const sentence = ({ message, hint }) => (hint ? `${message}; ${hint}` : message);

/** A line at the foot of the page for a while. */
export function tell(text, bad = false) {
  const line = h("p", { className: bad ? "bad" : "", textContent: text, onclick: () => line.remove() });
  document.querySelector("#toasts").append(line);
  setTimeout(() => line.remove(), bad ? 12000 : 5000);
}

export const segment = encodeURIComponent;
export const image = (name) => `api/images/${segment(name)}`;
export const article = (noun) => (/^[aeiou]/i.test(noun) ? "an" : "a");

export function bytes(count) {
  if (count == null) return "weights missing";
  const unit = count >= 2 ** 30 ? ["GB", 2 ** 30] : count >= 2 ** 20 ? ["MB", 2 ** 20] : ["kB", 2 ** 10];
  return `${(count / unit[1]).toFixed(count < 10 * unit[1] ? 1 : 0)} ${unit[0]}`;
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** A labelled control. */
export function labelled(text, control, hint = "") {
  const field = control.matches("input, select, textarea") ? control : control.querySelector("input, select, textarea");
  field.setAttribute("aria-label", text);
  return h("label", {}, h("span", { title: hint }, text), control);
}

/** A dialog with a head and a way out; Escape closes it. */
export function dialog(title, ...children) {
  const close = () => element.close();
  const element = h(
    "dialog", { onclose: () => element.remove(), onclick: (event) => { if (event.target === element) close(); } },
    h("header", {}, h("h2", {}, title), h("button", { type: "button", onclick: close }, "Close")),
    ...children,
  );
  document.body.append(element);
  element.showModal();
  return element;
}
