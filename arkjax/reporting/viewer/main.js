// Puts the page together: what is chosen, keys, the tip over a token.

(async () => {
  const wait = byId("wait");
  let facts;
  try {
    if (typeof DecompressionStream === "undefined") {
      throw new Error("it takes Chrome 80, Firefox 113 or Safari 16.4 to unpack it");
    }
    facts = await unpack("facts");
  } catch (error) {
    wait.textContent = `The page cannot be shown: ${error.message}`;
    wait.className = "trouble";
    return;
  }
  addEventListener("unhandledrejection", (event) => {
    wait.hidden = false;
    wait.textContent = `A part of the page cannot be read: ${event.reason?.message}`;
    wait.className = "trouble";
  });
  wait.hidden = true;
  byId("main").hidden = byId("choices").hidden = false;
  byId("name").textContent = plain(facts.name);
  document.title = `${plain(facts.name)}: debates`;
  byId("notes").replaceChildren(...facts.notes.map((note) => make("p", "soft", plain(note))));

  const plays = facts.groups.map((group) => new Play(group));
  const ways = make("nav", "ways", [
    ["← All debates", () => back()],
    ["Previous", () => list.move(-1)],
    ["Next", () => list.move(1)],
  ].map(([text, go]) => {
    const button = make("button", "", text, { type: "button" });
    button.addEventListener("click", go);
    return button;
  }), { "aria-label": "Debates" });
  const transcript = new Transcript(byId("debate"), facts.scale, ways);
  const seeds = [...new Set(plays.map((play) => play.facts.seed))];
  const unfiltered = {
    search: "", right: "", domain: "", part: "", order: "id", corrected: false, misled: false,
  };
  const input = Object.fromEntries(Object.keys(unfiltered).map((name) => [name, byId(name)]));
  let play = null;
  let shown = -1;
  let asked = 0;

  const box = byId("debate");
  const list = new List((at, clicked) => open(at, clicked));

  // --- which debates -----------------------------------------------------------------------------

  function options(select, pairs) {
    const made = pairs.map(([value, text]) => make("option", "", plain(text), { value }));
    select.replaceChildren(...made);
  }

  function offer() {
    const seed = seeds[byId("seed").value] ?? null;
    const here = plays.map((one, i) => [i, one.facts]).filter(([, f]) => f.seed === seed);
    options(byId("play"), here.map(([i, f]) => {
      const where = [f.split, f.label].filter(Boolean).join(" · ");
      return [i, `${where} (${number.format(f.debates)})`];
    }));
  }

  async function choosePlay() {
    play = plays[byId("play").value];
    shown = -1;
    await play.open();
    for (const [name, all] of [["domain", "all domains"], ["part", "all parts"]]) {
      const words = (play.columns[name]?.words ?? []).filter(Boolean);
      options(input[name], [["", all], ...words.map((word) => [word, word])]);
      input[name].parentElement.hidden = words.length < 2;
    }
    input.right.parentElement.hidden = !play.facts.answered;
    await refresh();
    if (list.found.length) list.select(0);
    else transcript.empty("No debates here.");
  }

  function filters() {
    const value = (element) => (element.type === "checkbox" ? element.checked : element.value);
    const made = Object.fromEntries(
      Object.entries(input).map(([name, element]) => [name, value(element)]));
    // A filter that does not apply to this play is not seen, and must not count.
    for (const name of ["right", "domain", "part"]) {
      if (input[name].parentElement.hidden) made[name] = "";
    }
    return made;
  }

  async function refresh() {
    const mine = ++asked;
    const here = play;
    const wished = filters();
    const text = wished.search.trim();
    const stale = () => mine !== asked;
    const tell = (share) => {
      byId("count").textContent = `searching … ${Math.round(100 * share)}%`;
    };
    const marks = text ? await here.search(text, stale, tell) : null;
    if (stale() || (text && !marks)) return;
    const found = choose(here.columns ?? {}, here.columns ? here.size : 0, wished, marks);
    list.show(here, found, shown);
    const all = count(here.size, "debate", "debates");
    const some = `${number.format(found.length)} of ${all}`;
    byId("count").textContent = found.length === here.size ? all : some;
    const filtered = Object.keys(unfiltered).some((name) => wished[name] !== unfiltered[name]);
    byId("reset").hidden = !filtered;
  }

  async function open(at, clicked) {
    shown = at;
    const here = play;
    const debate = await here.debate(at);
    if (here !== play || at !== shown) return;
    hideTip();
    const held = document.activeElement;
    const inside = box.contains(held);
    transcript.show(debate, here.facts);
    // What had the focus is gone with the debate before; the buttons above it are not.
    if (inside) (held.isConnected ? held : box).focus({ preventScroll: true });
    if (clicked) document.body.classList.add("reading");
    const { seed, stage, split, system } = here.facts;
    const place = [seed ?? "", stage, split, system, debate.row.id];
    remember(place.map(encodeURIComponent).join("/"));
  }

  /** The debate in view, as a link that can be passed on. */
  function remember(place) {
    try {
      history.replaceState(null, "", `#${place}`);
    } catch {
      // Some browsers refuse it for files: then the address stays as it is.
    }
  }

  async function arrive() {
    const [seed, stage, split, system, id] = location.hash.slice(1).split("/").map((part) => {
      try {
        return decodeURIComponent(part);
      } catch {
        return "";
      }
    });
    const at = plays.findIndex(({ facts: f }) => String(f.seed ?? "") === seed
      && f.stage === stage && f.split === split && f.system === system);
    if (at >= 0) byId("seed").value = seeds.indexOf(plays[at].facts.seed);
    offer();
    if (at >= 0) byId("play").value = at;
    await choosePlay();
    const place = at >= 0 && play.columns.id ? play.columns.id.indexOf(id) : -1;
    if (place >= 0) list.select(list.found.indexOf(place), true);
  }

  options(byId("seed"), seeds.map((seed, i) => [i, seed ?? "none"]));
  byId("seed-label").hidden = seeds.length < 2;
  byId("play").parentElement.hidden = plays.length < 2;
  byId("seed").addEventListener("change", () => { offer(); choosePlay(); });
  byId("play").addEventListener("change", choosePlay);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  let typing = 0;
  input.search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(refresh, 120);
  });
  for (const name of ["right", "domain", "part", "order", "corrected", "misled"]) {
    input[name].addEventListener("change", refresh);
  }
  byId("reset").addEventListener("click", () => {
    for (const [name, value] of Object.entries(unfiltered)) {
      if (typeof value === "boolean") input[name].checked = value;
      else input[name].value = value;
    }
    refresh();
    list.box.focus();
  });

  // --- the tip over a token ----------------------------------------------------------------------

  const tip = byId("tip");
  let lit = null;

  function hideTip() {
    tip.hidden = true;
    lit?.classList.remove("lit");
    lit?.removeAttribute("aria-describedby");
    lit = null;
  }

  function showTip(span) {
    if (span === lit) return;
    hideTip();
    lit = span;
    span.classList.add("lit");
    span.setAttribute("aria-describedby", "tip");
    tip.replaceChildren(transcript.describe(span));
    tip.hidden = false;
    const at = span.getBoundingClientRect();
    const own = tip.getBoundingClientRect();
    const left = Math.max(4, Math.min(at.left, innerWidth - own.width - 4));
    const below = at.bottom + 6;
    const top = below + own.height < innerHeight ? below : Math.max(4, at.top - own.height - 6);
    tip.style.left = `${left}px`;
    tip.style.top = `${top}px`;
  }

  box.addEventListener("mouseover", (event) => {
    const span = event.target.closest?.("[data-token]");
    if (span) showTip(span);
    else hideTip();
  });
  box.addEventListener("click", (event) => {
    // On a screen that is touched, a touch is what hovering is elsewhere.
    const span = event.target.closest?.("[data-token]");
    if (span) showTip(span);
  });
  box.addEventListener("mouseleave", hideTip);
  box.addEventListener("scroll", hideTip, { passive: true });
  box.addEventListener("focusin", (event) => {
    if (!event.target.contains(lit)) hideTip();
  });

  function stepToken(message, by) {
    const spans = [...message.querySelectorAll("[data-token]")];
    const at = spans.indexOf(lit);
    const next = at < 0 ? (by > 0 ? 0 : spans.length - 1) : at + by;
    if (spans[next]) {
      spans[next].scrollIntoView({ block: "nearest" });
      showTip(spans[next]);
    }
  }

  // --- keys --------------------------------------------------------------------------------------

  const help = byId("help");
  byId("help-button").addEventListener("click", () => help.showModal());

  function back() {
    document.body.classList.remove("reading");
    hideTip();
    list.box.focus();
  }

  function enter() {
    if (!transcript.debate) return;
    document.body.classList.add("reading");
    transcript.messages[0]?.focus({ preventScroll: true });
  }

  const keys = {
    j: () => list.move(1),
    k: () => list.move(-1),
    n: () => transcript.step(1),
    p: () => transcript.step(-1),
    t: () => transcript.tint(!transcript.tinted),
    "/": () => {
      document.body.classList.remove("reading");
      input.search.focus();
      input.search.select();
    },
    "?": () => help.showModal(),
    Escape: back,
  };
  const listKeys = {
    ArrowDown: () => list.move(1),
    ArrowUp: () => list.move(-1),
    PageDown: () => list.move(list.page),
    PageUp: () => list.move(-list.page),
    Home: () => list.select(0),
    End: () => list.select(list.found.length - 1),
    Enter: enter,
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    const target = event.target;
    let act = null;
    if (target === input.search) {
      if (event.key === "Escape") {
        act = () => {
          if (!input.search.value) return back();
          input.search.value = "";
          return refresh();
        };
      } else if (event.key === "Enter" || event.key === "ArrowDown") {
        act = async () => {
          clearTimeout(typing);
          await refresh();
          list.box.focus();
          list.select(Math.max(0, list.selected));
        };
      }
    } else if (target.matches("select")) {
      // Letters choose among its options.
      if (event.key === "Escape") act = back;
    } else {
      act = keys[event.key];
      const inList = target === list.box || target === document.body;
      if (!act && inList) act = listKeys[event.key];
      if (!act && target.matches(".message")) {
        if (event.key === "ArrowRight") act = () => stepToken(target, 1);
        if (event.key === "ArrowLeft") act = () => stepToken(target, -1);
      }
    }
    if (!act) return;
    event.preventDefault();
    act();
  });

  await arrive();
  list.box.focus({ preventScroll: true });
  document.body.dataset.ready = "yes";
})();
