// A small picture of the debate: a line for each agent, a column for each time of speaking, and an
// arc from every message to those that read it.

const MOST_NODES = 120;
const MARKS = "●■▲◆★✚⬟⬢";
const COLOURS = 7;
const SVG = "http://www.w3.org/2000/svg";

const agentClass = (place) => `a${place % COLOURS}`;
const agentMark = (place) => MARKS[place % MARKS.length];

function draw(tag, attributes, children = []) {
  const element = document.createElementNS(SVG, tag);
  for (const name in attributes) element.setAttribute(name, attributes[name]);
  element.append(...children);
  return element;
}

/** The picture, or null where nobody heard anybody or there is too much to draw. */
function drawMap(calls, agents, jump) {
  const heard = calls.some((call) => call.parents.some((parent) => typeof parent === "number"));
  if (!heard || calls.length > MOST_NODES) return null;
  const wide = 46, high = 30, left = 8, top = 15;
  const columns = new Map();
  const taken = new Map();
  const where = calls.map((call) => {
    const spoken = `${call.round}/${call.agent}`;
    const again = taken.get(spoken) ?? 0;
    taken.set(spoken, again + 1);
    const key = call.round * 1e4 + again;
    columns.set(key, 0);
    return { key, line: agents.indexOf(call.agent) };
  });
  [...columns.keys()].sort((a, b) => a - b).forEach((key, i) => columns.set(key, i));
  const at = where.map(({ key, line }) => [left + 12 + columns.get(key) * wide, top + line * high]);
  const picture = draw("svg", {
    width: left * 2 + 24 + (columns.size - 1) * wide, height: top * 2 + (agents.length - 1) * high,
    class: "map", "aria-hidden": "true",
  });
  calls.forEach((call, i) => {
    for (const parent of call.parents) {
      if (typeof parent !== "number") continue;
      const [x1, y1] = at[parent];
      const [x2, y2] = at[i];
      const bend = Math.max(14, (x2 - x1) / 2);
      const d = `M${x1 + 10},${y1}C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2 - 10},${y2}`;
      picture.append(draw("path", { d, "data-from": parent, "data-to": i }));
    }
  });
  calls.forEach((call, i) => {
    const [x, y] = at[i];
    const verdict = call.action ? "⚙" : SIGNS.get(call.correct);
    const label = draw("text", { x, y: y + 4 }, [verdict]);
    const node = draw("g", {
      class: `node ${agentClass(agents.indexOf(call.agent))}`, "data-call": i,
    }, [draw("circle", { cx: x, cy: y, r: 10 }), label]);
    node.addEventListener("click", () => jump(i));
    picture.append(node);
  });
  return picture;
}
