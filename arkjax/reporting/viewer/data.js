"use strict";
// Whatever is shown was written by models or by people unknown: it becomes text, never markup.

/** An element with a class, attributes and children; strings become text nodes. */
function make(tag, look, children, attributes) {
  const element = document.createElement(tag);
  if (look) element.className = look;
  for (const name in attributes) element.setAttribute(name, attributes[name]);
  for (const child of [].concat(children ?? [])) {
    if (child !== null && child !== undefined && child !== "") element.append(child);
  }
  return element;
}

const byId = (name) => document.getElementById(name);

/** Text with its control characters made visible: terminals obey them, readers must see them. */
function plain(text) {
  return String(text).replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, (sign) => {
    const code = sign.charCodeAt(0);
    if (code < 32) return String.fromCharCode(0x2400 + code);
    return code === 127 ? "\u2421" : "\ufffd";
  });
}

const number = new Intl.NumberFormat("en");
const count = (n, one, many) => `${number.format(n)} ${n === 1 ? one : many}`;
const digits = (value, most = 3) =>
  value.toLocaleString("en", { maximumFractionDigits: most, minimumFractionDigits: 0 });

function bytes(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text);
  const made = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) made[i] = raw.charCodeAt(i);
  return made;
}

/** The value in one of the page's inert elements: Base64 of gzip of JSON. */
async function unpack(name) {
  const holder = byId(name);
  if (!holder) throw new Error(`the page is cut off: ${name} is missing`);
  const stream = new Blob([bytes(holder.textContent)]).stream()
    .pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/** Remembers the latest results of a function of one key that takes long. */
function recent(most, find) {
  const kept = new Map();
  return (key) => {
    const found = kept.get(key) ?? find(key);
    kept.delete(key);
    kept.set(key, found);
    if (kept.size > most) kept.delete(kept.keys().next().value);
    return found;
  };
}
