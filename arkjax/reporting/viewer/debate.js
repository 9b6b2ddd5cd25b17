// A debate as a transcript.

const MOST_TOKENS = 3000; // of a message, each in an element of its own
const MOST_CHARACTERS = 20000; // of a message, at first
const MOST_MESSAGES = 200; // at first
const TINTS = [0.05, 0.2, 0.7, 1.6, 3, 6]; // nats

const KINDS = {
  corrected: "put right by", misled: "misled by", moved: "moved by", adopted: "took over from",
};
const ALONE = {
  corrected: "put itself right", misled: "went wrong by itself", moved: "changed its answer",
  adopted: "", invented: "",
};
// Of messages that read others, none of which states the new answer.
const AFTER = {
  ...ALONE, corrected: "right after reading others", misled: "went wrong after reading others",
};

class Transcript {
  constructor(box, scale, ways) {
    this.box = box;
    this.scale = scale;
    this.messages = [];
    this.tinted = false;
    this.ways = ways;
    this.box.addEventListener("mouseover", (event) => this.point(event.target));
    this.box.addEventListener("focusin", (event) => this.point(event.target));
    this.box.addEventListener("mouseleave", () => this.relate(this.focused()));
  }

  empty(text) {
    this.debate = null;
    this.messages = [];
    this.box.replaceChildren(make("p", "empty", text));
  }

  show(debate, facts) {
    this.debate = debate;
    this.related = null;
    this.agents = Object.keys(debate.agents);
    this.messages = [];
    this.readers = debate.calls.map(() => []);
    debate.calls.forEach((call, i) => {
      for (const parent of call.parents) if (this.readers[parent]) this.readers[parent].push(i);
    });
    this.turns = new Map(debate.turns.map((turn) => [turn.at, turn]));
    const map = drawMap(debate.calls, this.agents, (i) => this.jump(i));
    this.box.replaceChildren(
      this.opening(facts),
      make("div", "overview", [map && make("div", "mapbox", map), this.legend(facts)]),
      this.tools(),
    );
    this.rounds(0);
    this.box.scrollTop = 0;
  }

  // --- above the messages ------------------------------------------------------------------------

  opening(facts) {
    const { row, question } = this.debate;
    const where = [facts.split, facts.label, row.id, row.domain, row.part].filter(Boolean);
    let verdict = "The final answer is not recorded.";
    if (row.answer !== null) verdict = `The answer is ${plain(row.answer)}`;
    else if (row.known) verdict = "There is no answer";
    const gold = row.gold === null ? "" : `the right answer is ${plain(row.gold)}`;
    return make("header", "opening", [
      this.ways,
      make("p", "kicker", plain(where.join(" · "))),
      make("pre", "question", plain(question) || "The question is not recorded.", { dir: "auto" }),
      make("h2", "verdict", [
        sign(row.right), ` ${verdict}`, gold && make("span", "soft", ` ${gold}`),
      ]),
    ]);
  }

  legend(facts) {
    const { calls, cost, agents } = this.debate;
    const lines = this.agents.map((name, place) => {
      const own = calls.filter((call) => call.agent === name);
      const stated = own.filter((call) => call.correct !== null);
      const right = stated.filter((call) => call.correct).length;
      return make("li", agentClass(place), [
        this.speaker(name),
        make("span", "soft", stated.length ? `${right} of ${stated.length} right` : ""),
        ...credits(agents[name], this.alone(own)),
      ]);
    });
    const prefill = cost.prefill_tokens;
    const actions = cost.actions ? [count(cost.actions, "action", "actions")] : [];
    const costs = [
      [count(cost.calls, "call", "calls"), ...actions],
      [`${number.format(cost.generated_tokens)} tokens generated`],
      [`${number.format(cost.prompt_tokens)} in prompts`, `${number.format(prefill)} computed`],
      [`${digits(cost.seconds)} s`],
    ];
    const failures = this.debate.row.failures;
    if (failures) costs.push([`${count(failures, "answer", "answers")} could not be read`]);
    return make("div", "legend", [
      make("ul", "agents", lines, { "aria-label": "Agents" }),
      make("p", "costs soft", costs.map((parts) => parts.join(", ")).join(" · ")),
      make("p", "soft", facts.credited ? "Credit as recorded with the training data." : ""),
    ]);
  }

  tools() {
    const switched = make("button", "quiet", ["Tint tokens ", make("kbd", "", "t")], {
      type: "button", id: "tint", "aria-pressed": this.tinted,
    });
    switched.addEventListener("click", () => this.tint(!this.tinted));
    const scale = make("span", "scale soft", [
      "likely ", ...TINTS.map((_, i) => make("i", `p${i + 1}`)), " unlikely",
    ], { "aria-hidden": "true" });
    const made = make("div", "tools", [switched, scale]);
    this.box.classList.toggle("tinted", this.tinted);
    return made;
  }

  tint(on) {
    this.tinted = on;
    this.box.classList.toggle("tinted", on);
    byId("tint")?.setAttribute("aria-pressed", on);
  }

  speaker(name) {
    const place = this.agents.indexOf(name);
    return make("span", `speaker ${agentClass(place)}`, [
      make("span", "mark", agentMark(place), { "aria-hidden": "true" }), plain(name),
    ]);
  }

  // --- the messages ------------------------------------------------------------------------------

  /** Add messages from `start` on, under the headings of their rounds. */
  rounds(start) {
    const { calls } = this.debate;
    const end = Math.min(calls.length, start + MOST_MESSAGES);
    const brief = calls.every((call) => call.text.length < 300);
    let open = null;
    for (let i = start; i < end; i++) {
      const call = calls[i];
      const heading = `${call.round + 1}. ${plain(call.stage)}`;
      if (!open || open.heading !== heading) {
        const box = make("div", brief ? "messages brief" : "messages");
        const section = make("section", "round", [make("h3", "", heading), box], {
          "aria-label": `Round ${heading}`,
        });
        this.box.append(section);
        open = { heading, box };
      }
      open.box.append(this.message(call, i));
    }
    if (end < calls.length) {
      const all = count(calls.length, "message", "messages");
      const more = make("button", "more", `Show more of ${all}`);
      more.addEventListener("click", () => {
        more.remove();
        this.rounds(end);
        this.messages[end]?.focus();
      });
      this.box.append(more);
    }
  }

  message(call, i) {
    const look = ["message", agentClass(this.agents.indexOf(call.agent))];
    if (call.action) look.push("action");
    const text = make("div", "text", [], { dir: "auto" });
    this.write(text, call, MOST_CHARACTERS);
    const made = make("article", look.join(" "), [
      this.title(call, i), text, this.links(call, i), this.foot(call),
    ], { tabindex: 0, id: `message-${i}`, "data-call": i });
    made.setAttribute("aria-label", `${plain(call.agent)}, ${this.spoken(call)}`);
    this.messages[i] = made;
    return made;
  }

  spoken(call) {
    if (call.action) return "a tool's action";
    if (call.correct === null) return "states no answer";
    const answer = call.parsed.answer;
    return `${SAID.get(call.correct)}${answer === undefined ? "" : `: ${plain(answer)}`}`;
  }

  title(call, i) {
    const parts = [this.speaker(call.agent)];
    if (call.action) parts.push(make("span", "badge", `⚙ ${plain(call.model)}`));
    if (call.sample) parts.push(make("span", "soft", `sample ${call.sample + 1}`));
    if (call.step) parts.push(make("span", "soft", `step ${call.step + 1}`));
    if (call.correct !== null) {
      const answer = call.parsed.answer;
      parts.push(make("span", "answer", [
        sign(call.correct), " ", answer === undefined ? "no answer" : plain(answer),
      ], { dir: "auto" }));
    }
    if (!call.parse_ok && !call.action) parts.push(make("span", "badge bad", "could not be read"));
    const turn = this.turns.get(i);
    const credit = { ...call.credit };
    if (turn) {
      const words = turn.sources.length ? KINDS[turn.kind] : this.without(turn, call);
      if (words) delete credit.own;
      if (words) {
        const sources = turn.sources.map((source) => this.link(source));
        parts.push(make("span", `turn ${turn.kind}`, [words, ...sources]));
      }
    }
    return make("header", "", [...parts, ...credits(credit, this.alone([call]))]);
  }

  /** How an author came by an answer that no message states which it had read. */
  without(turn, call) {
    const read = this.others(call);
    const words = (read.length ? AFTER : ALONE)[turn.kind];
    const wrong = read.every((other) => other && !other.correct);
    return turn.kind === "corrected" && read.length && wrong
      ? `${words}, none of whom was right` : words;
  }

  /** The messages of others that a message had read; null for one that is not in this record. */
  others(call) {
    return call.parents.map((parent) => this.debate.calls[parent] ?? null)
      .filter((other) => other === null || (other.agent !== call.agent && !other.action));
  }

  /** Whether an agent had a right answer of its own, and had read nobody before. */
  alone(own) {
    return own.some((call) => call.credit.own && !this.others(call).length);
  }

  /** A button that goes to another message. */
  link(i) {
    const call = this.debate.calls[i];
    const made = make("button", "link", this.speaker(call.agent), {
      type: "button", "data-jump": i,
      "aria-label": `${plain(call.agent)}, round ${call.round + 1}`,
    });
    made.addEventListener("click", () => this.jump(i));
    return made;
  }

  links(call, i) {
    const here = call.parents.filter((parent) => typeof parent === "number");
    const lines = [["read", here], ["read by", this.readers[i]]];
    const outside = call.parents.length - here.length;
    const missing = `and ${count(outside, "message", "messages")} not in this record`;
    return make("div", "links", [
      ...lines.filter(([, of]) => of.length).map(([name, of]) =>
        make("span", "", [make("span", "soft", name), ...of.map((other) => this.link(other))])),
      outside ? make("span", "soft", missing) : "",
    ]);
  }

  foot(call) {
    const short = [count(call.generated, "token", "tokens"), plain(call.finish)];
    if (call.sampling.temperature !== undefined) {
      short.push(call.sampling.temperature ? `temperature ${call.sampling.temperature}` : "greedy");
    }
    if (call.logprobs.length) {
      const known = call.logprobs.filter((step) => step !== null);
      const sum = known.reduce((a, b) => a + b, 0) / this.scale;
      short.push(`log p ${digits(sum, 2)}`);
    }
    const details = make("details", "soft", make("summary", "", short.join(" · ")));
    details.addEventListener("toggle", () => {
      if (details.open && details.children.length === 1) details.append(this.facts(call));
    });
    return details;
  }

  facts(call) {
    const computed = number.format(call.prompt - call.cached);
    const facts = {
      "call": call.id, "model": call.model, "seed": call.seed, "sample": call.sample,
      "step": call.step, "finish reason": call.finish,
      "prompt tokens": `${number.format(call.prompt)}, ${computed} computed`,
      "shared prefix": number.format(call.prefix),
      "generated tokens": number.format(call.generated), "seconds": call.seconds,
      ...Object.fromEntries(Object.entries(call.sampling).map(([k, v]) => [k, JSON.stringify(v)])),
      ...Object.fromEntries(Object.entries(call.parsed).map(([k, v]) => [`read: ${k}`, v])),
    };
    return make("dl", "facts", Object.entries(facts).flatMap(([name, value]) =>
      [make("dt", "", plain(name)), make("dd", "", plain(value))]));
  }

  // --- words and tokens --------------------------------------------------------------------------

  write(box, call, most) {
    const parts = [];
    const tokens = call.lengths ?? [];
    let at = 0;
    let i = 0;
    for (; i < tokens.length && i < MOST_TOKENS && at < most; i++) {
      parts.push(this.token(call.text.slice(at, at + tokens[i]), i, call));
      at += tokens[i];
    }
    const end = Math.min(call.text.length, Math.max(most, at));
    if (at < end) parts.push(plain(call.text.slice(at, end)));
    if (end < call.text.length) {
      const more = make("button", "more", `Show all ${number.format(call.text.length)} characters`);
      more.addEventListener("click", () => this.write(box, call, Infinity));
      parts.push(more);
    } else if (i === tokens.length) {
      const after = call.after ?? (call.ids ?? []).slice(0, MOST_TOKENS).map((id) => `#${id}`);
      after.forEach((piece, k) => {
        if (piece) parts.push(this.token(piece, tokens.length + k, call, "after"));
      });
    }
    box.replaceChildren(...parts);
  }

  token(text, i, call, look = "") {
    const made = make("span", look, plain(text), { "data-token": i });
    const steps = call.logprobs[i];
    if (steps !== undefined && steps !== null) {
      const tint = TINTS.filter((limit) => -steps / this.scale >= limit).length;
      made.classList.add(`p${tint}`);
    }
    return made;
  }

  /** What is known about one token, for the tip. */
  describe(span) {
    const call = this.debate.calls[Number(span.closest("[data-call]").dataset.call)];
    const i = Number(span.dataset.token);
    const line = (name, steps) => {
      if (steps === undefined || steps === null) {
        return [make("dt", "", name), make("dd", "", "not recorded")];
      }
      const value = steps / this.scale;
      const percent = 100 * Math.exp(value);
      const share = percent < 0.1 && percent > 0 ? "< 0.1" : percent.toFixed(1);
      return [make("dt", "", name), make("dd", "", `${value.toFixed(3)} nats, ${share}%`)];
    };
    const others = call.top?.[i] ?? [];
    return make("dl", "", [
      ...line(visible(span.textContent), call.logprobs[i]),
      ...(others.length ? [make("dt", "soft", "most probable"), make("dd")] : []),
      ...others.flatMap(([text, steps]) => line(visible(plain(text)), steps)),
    ]);
  }

  // --- links -------------------------------------------------------------------------------------

  focused() {
    return document.activeElement?.closest?.(".message[data-call]") ?? null;
  }

  point(target) {
    const over = target.closest?.(".message[data-call], .node[data-call]");
    if (over) this.relate(over);
  }

  /** Show what a message has read and who has read it. */
  relate(element) {
    if (element === this.related) return;
    this.related = element;
    const i = element ? Number(element.dataset.call) : -1;
    const call = this.debate?.calls[i];
    this.messages.forEach((message, k) => {
      message.classList.toggle("source", Boolean(call && k !== i && call.parents.includes(k)));
      message.classList.toggle("reader", Boolean(call && k !== i && this.readers[i].includes(k)));
    });
    for (const path of this.box.querySelectorAll(".map path")) {
      path.classList.toggle("in", Number(path.dataset.to) === i);
      path.classList.toggle("out", Number(path.dataset.from) === i);
    }
    for (const node of this.box.querySelectorAll(".map .node")) {
      node.classList.toggle("here", Number(node.dataset.call) === i);
    }
  }

  jump(i) {
    while (!this.messages[i]) {
      const more = this.box.querySelector(":scope > .more");
      if (!more) return;
      more.click();
    }
    this.messages[i].focus({ preventScroll: true });
    this.messages[i].scrollIntoView({ block: "nearest" });
  }

  step(by) {
    const here = this.focused();
    const at = here ? Number(here.dataset.call) + by : by > 0 ? 0 : this.messages.length - 1;
    if (at >= 0 && at < (this.debate?.calls.length ?? 0)) this.jump(at);
  }
}

/** A token's text with its spaces and line ends to be seen. */
function visible(text) {
  return text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "(no text)";
}

/** What a message or an agent contributed, as small words; `alone`: it had read nobody. */
function credits(credit, alone) {
  const words = [];
  if (credit.first) words.push(["first", "stated the team's final answer first"]);
  if (credit.own && alone) words.push(["alone", "right without having read anybody"]);
  else if (credit.own) {
    words.push(["worked out", "right, though no message that it had read states the answer"]);
  }
  const { corrected, misled } = credit;
  if (corrected) words.push([`corrected ${digits(corrected, 2)}`, "others put right", "good"]);
  if (misled) words.push([`misled ${digits(misled, 2)}`, "others led away", "bad"]);
  if (credit.influence !== undefined) {
    words.push([`influence ${digits(credit.influence)}`, "nats on its readers' right messages"]);
  }
  if (credit.shapley !== undefined) {
    const error = credit.shapley_error ? ` ± ${digits(credit.shapley_error)}` : "";
    words.push([`Shapley ${digits(credit.shapley)}${error}`, "share of the team's gain, in nats"]);
  }
  return words.map(([text, title, look]) => make("span", `badge ${look ?? ""}`, text, { title }));
}
