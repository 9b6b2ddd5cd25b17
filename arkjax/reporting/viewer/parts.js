// One play: the columns of its list, and its debates, part by part.

const SEARCH_MEMORY = 200e6; // characters of searched text that are kept
const AHEAD = 4; // parts that are unpacked side by side

class Play {
  constructor(facts) {
    this.facts = facts;
    this.columns = null;
    this.starts = [];
    let start = 0;
    for (const [debates] of facts.parts) {
      this.starts.push(start);
      start += debates;
    }
    this.size = start;
    this.words = recent(6, (part) => unpack(`d${facts.parts[part][1]}`));
    this.figures = recent(6, (part) => unpack(`d${facts.parts[part][2]}`));
    this.searched = new Map();
    this.kept = 0;
  }

  async open() {
    this.columns ??= await unpack(`d${this.facts.index}`);
    return this;
  }

  /** The part that holds a debate. */
  part(at) {
    let low = 0;
    let high = this.starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.starts[middle] <= at) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  row(at) {
    const row = {};
    for (const name in this.columns) {
      const column = this.columns[name];
      row[name] = Array.isArray(column) ? column[at] : column.words[column.codes[at]];
    }
    return row;
  }

  async debate(at) {
    const part = this.part(at);
    const [words, figures] = await Promise.all([this.words(part), this.figures(part)]);
    const place = at - this.starts[part];
    const [question, texts] = words[place];
    const debate = figures.debates[place];
    const calls = debate.calls.map((call, i) => ({
      ...call,
      text: texts[i],
      sampling: figures.sampling[call.sampling],
      model: figures.model[call.model],
    }));
    return { ...debate, calls, question, row: this.row(at) };
  }

  /** What is searched in the debates of a part, in small letters. */
  async haystacks(part) {
    const kept = this.searched.get(part);
    if (kept) return kept;
    // Not by way of `words`: a search through everything must not push out what is being read.
    const words = await unpack(`d${this.facts.parts[part][1]}`);
    const ids = this.columns.id;
    const made = words.map(([question, texts], i) =>
      `${ids[this.starts[part] + i]}\n${question}\n${texts.join("\n")}`.toLowerCase());
    const size = made.reduce((sum, text) => sum + text.length, 0);
    if (this.kept + size <= SEARCH_MEMORY) {
      this.kept += size;
      this.searched.set(part, made);
    }
    return made;
  }

  /** Marks [N] of the debates that say something; null if `stale()` before the end. */
  async search(text, stale, tell) {
    const wanted = text.toLowerCase();
    const marks = new Uint8Array(this.size);
    let told = performance.now();
    const underWay = [];
    for (let part = 0; part < this.starts.length; part++) {
      while (underWay.length < AHEAD && part + underWay.length < this.starts.length) {
        underWay.push(this.haystacks(part + underWay.length));
      }
      const haystacks = await underWay.shift();
      if (stale()) return null;
      const start = this.starts[part];
      haystacks.forEach((hay, i) => {
        if (hay.includes(wanted)) marks[start + i] = 1;
      });
      if (performance.now() - told > 100) {
        tell(part / this.starts.length);
        await new Promise((go) => setTimeout(go));
        told = performance.now();
      }
    }
    return stale() ? null : marks;
  }
}

const VERDICTS = { right: true, wrong: false, unknown: null };
const ORDERS = {
  corrected: ["corrected", -1], misled: ["misled", -1], failures: ["failures", -1],
  long: ["tokens", -1], short: ["tokens", 1], calls: ["calls", -1],
};

/** The debates [n] that pass the filters, in the order wished for. */
function choose(columns, size, filters, marks) {
  const { right, corrected, misled } = columns;
  const verdict = VERDICTS[filters.right];
  const codes = ["domain", "part"]
    .filter((name) => filters[name] !== "")
    .map((name) => [columns[name].codes, columns[name].words.indexOf(filters[name])]);
  const found = [];
  for (let i = 0; i < size; i++) {
    if (marks && !marks[i]) continue;
    if (verdict !== undefined && right[i] !== verdict) continue;
    if (filters.corrected && !corrected[i]) continue;
    if (filters.misled && !misled[i]) continue;
    if (codes.every(([of, code]) => of[i] === code)) found.push(i);
  }
  const order = ORDERS[filters.order];
  if (order) {
    const [name, sign] = order;
    const column = columns[name];
    found.sort((a, b) => sign * (column[a] - column[b]) || a - b);
  }
  return found;
}
