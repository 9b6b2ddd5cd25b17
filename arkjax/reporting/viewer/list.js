// The list of debates. Only the lines in view are in the page, however many there are.

const SIGNS = new Map([[true, "✓"], [false, "✗"], [null, "–"]]);
const SAID = new Map([[true, "right"], [false, "wrong"], [null, "not known"]]);
const MOST_PIXELS = 8e6; // browsers cannot make an element of any height

function sign(verdict) {
  const made = make("span", `sign ${SAID.get(verdict).replace(" ", "-")}`, SIGNS.get(verdict));
  made.setAttribute("aria-label", SAID.get(verdict));
  made.setAttribute("role", "img");
  return made;
}

class List {
  constructor(pick) {
    this.box = byId("list");
    this.space = byId("space");
    this.rows = byId("rows");
    this.found = [];
    this.selected = -1;
    this.play = null;
    this.pick = pick;
    this.box.addEventListener("scroll", () => this.draw(), { passive: true });
    this.rows.addEventListener("click", (event) => {
      const row = event.target.closest("[data-place]");
      if (row) this.select(Number(row.dataset.place), true);
    });
    new ResizeObserver(() => this.resize()).observe(this.box);
  }

  show(play, found, keep) {
    this.play = play;
    this.found = found;
    this.selected = found.indexOf(keep);
    this.box.scrollTop = 0;
    this.resize();
    if (this.selected >= 0) this.reveal();
  }

  resize() {
    // A line's height is a matter of style and of the reader's font size.
    const probe = make("div", "line", "x");
    this.rows.append(probe);
    this.height = Math.max(20, probe.getBoundingClientRect().height);
    probe.remove();
    this.space.style.height = `${Math.min(this.found.length * this.height, MOST_PIXELS)}px`;
    this.draw();
  }

  /** How many lines one pixel of scrolling moves the list. */
  get rate() {
    const all = this.found.length * this.height;
    const view = this.box.clientHeight;
    if (all <= MOST_PIXELS) return 1 / this.height;
    return (all - view) / (MOST_PIXELS - view) / this.height;
  }

  draw() {
    if (!this.play) return;
    const top = this.box.scrollTop;
    const first = Math.max(0, Math.floor(top * this.rate) - 4);
    const view = Math.ceil(this.box.clientHeight / this.height);
    const last = Math.min(this.found.length, first + view + 9);
    const lines = [];
    for (let place = first; place < last; place++) lines.push(this.line(place));
    this.rows.replaceChildren(...lines);
    const ahead = top * this.rate - first;
    this.rows.style.transform = `translateY(${Math.round(top - ahead * this.height)}px)`;
    const active = this.selected >= first && this.selected < last;
    if (active) this.box.setAttribute("aria-activedescendant", `line-${this.selected}`);
    else this.box.removeAttribute("aria-activedescendant");
  }

  line(place) {
    const row = this.play.row(this.found[place]);
    const facts = [row.id, row.domain, row.part].filter(Boolean).join(" · ");
    const badges = [];
    if (row.corrected) badges.push(make("span", "badge good", `${row.corrected} corrected`));
    if (row.misled) badges.push(make("span", "badge bad", `${row.misled} misled`));
    if (row.failures) badges.push(make("span", "badge", `${row.failures} unread`));
    const title = plain(row.question || row.id);
    const line = make("div", "line", [
      sign(row.right),
      make("span", "title", title, { dir: "auto" }),
      make("span", "under", [make("span", "facts", plain(facts)), ...badges]),
    ], {
      role: "option", id: `line-${place}`, "data-place": place,
      "aria-selected": place === this.selected,
      "aria-setsize": this.found.length, "aria-posinset": place + 1,
    });
    return line;
  }

  select(place, clicked = false) {
    if (!this.found.length) return;
    this.selected = Math.max(0, Math.min(place, this.found.length - 1));
    this.reveal();
    this.draw();
    this.pick(this.found[this.selected], clicked);
  }

  move(by) {
    this.select(this.selected < 0 ? 0 : this.selected + by);
  }

  get page() {
    return Math.max(1, Math.floor(this.box.clientHeight / this.height) - 1);
  }

  reveal() {
    const lines = this.box.clientHeight / this.height;
    const top = this.box.scrollTop * this.rate;
    if (this.selected < top) this.box.scrollTop = this.selected / this.rate;
    else if (this.selected + 1 > top + lines) {
      this.box.scrollTop = (this.selected + 1 - lines) / this.rate;
    }
  }
}
