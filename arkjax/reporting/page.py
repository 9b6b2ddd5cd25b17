"""The shell of every page that ArkJAX writes: nothing loaded, light and dark, no foreign script."""

import html
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

# Nothing may be fetched and no script may run, whatever a model has written into the page.
CSP = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)

PALETTE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --paper: #fff; --card: #f5f7f9;
  --line: #d5dbe1; --right: #00684c; --wrong: #b04000; --bar: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebee; --soft: #a3adb8; --paper: #14171b;
  --card: #1d2228; --line: #39424c; --right: #4fd1a9; --wrong: #ff9b66; --bar: #56b4e9; } }
"""

STYLE = """
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.2rem; margin: 2.75rem 0 .5rem; }
h3 { font-size: 1rem; margin: 0 0 .25rem; } p { margin: .5rem 0; max-width: 46rem; }
.warning { border-left: .3rem solid var(--wrong); padding: .5rem .9rem; background: var(--card); }
.lead { font-size: 1.12rem; } .soft, figcaption, caption { color: var(--soft); font-size: .9rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .75rem;
  margin: 1.25rem 0; padding: 0; list-style: none; }
.facts li { background: var(--card); border-radius: .5rem; padding: .75rem .9rem; }
.facts b { display: block; font-size: 1.7rem; line-height: 1.2;
  font-variant-numeric: tabular-nums; } .facts span { display: block; }
.wide { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; overflow-wrap: normal; }
caption { text-align: left; padding-bottom: .4rem; caption-side: top; }
th, td { text-align: left; padding: .38rem .7rem .38rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
thead th { vertical-align: bottom; font-weight: 600; } tbody th { font-weight: 500; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; padding: .38rem .5rem; }
td.n { white-space: nowrap; }
td.n small { display: block; color: var(--soft); }
td.bar { background: linear-gradient(var(--bar), var(--bar)) no-repeat 0 100% / var(--w) .28rem; }
code { font: .88em ui-monospace, monospace; }
.name { white-space: nowrap; } .name code { color: var(--soft); display: block; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(21rem, 100%), 1fr));
  gap: 1.5rem; } figure { margin: .75rem 0; max-width: 40rem; } figcaption { margin-top: .4rem; }
figure svg { width: 100%; height: auto; display: block; } svg text { font-family: inherit; }
.debate { border: 1px solid var(--line); border-radius: .6rem; padding: 1rem; margin: 1rem 0; }
.debate h4 { margin: 1rem 0 .4rem; font-size: .9rem; color: var(--soft); }
.calls { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(15rem, 100%), 1fr));
  gap: .6rem; }
.call { background: var(--card); border-radius: .4rem; padding: .6rem .75rem; border-left: .25rem
  solid var(--line); } .call.right { border-color: var(--right); }
.call.wrong { border-color: var(--wrong); }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .35rem 0 0; font: .88rem/1.45
  ui-monospace, monospace; }
.mark { color: var(--wrong); font-weight: 600; } .mark.right { color: var(--right); }
summary { cursor: pointer; font-weight: 600; padding: .4rem 0; }
ul { padding-left: 1.2rem; max-width: 46rem; } ul.facts { max-width: none; }
@media print { body { max-width: none; padding: 0; } .debate, figure, tr { break-inside: avoid; }
  .wide { overflow: visible; } }
"""


def esc(value: Any) -> str:
    """Any value as text that is safe in HTML, between tags and within quoted attributes.

    Control characters go too: browsers do not show them, and some are not allowed in HTML.
    """
    return html.escape(re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", "�", str(value)))


def head(title: str, policy: str = CSP, style: str = PALETTE + STYLE) -> str:
    """A document up to the end of its head.

    Args:
      title: text, escaped here.
      policy: what the page may do, as a Content-Security-Policy.
      style: CSS.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{esc(title)}</title>\n<style>{style}</style>\n</head>\n"
    )


def page(title: str, body: str) -> str:
    """A whole document around `body`, which must be HTML already."""
    return f"{head(title)}<body>\n{body}\n</body>\n</html>\n"


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[int]
) -> str:
    """A table of ready HTML cells: the first cell of a row heads it.

    Args:
      caption: text, escaped here.
      head: texts of the columns, escaped here.
      rows: cells that are HTML; a cell that starts with "<td" or "<th" stands as it is.
      numbers: the columns whose heads are set to the right, as their cells are.
    """
    columns = "".join(
        f'<th scope="col" class="{"n" if at in numbers else ""}">{esc(name)}</th>'
        for at, name in enumerate(head)
    )
    lines = []
    for first, *rest in rows:
        cells = [cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in rest]
        lines.append(f'<tr><th scope="row" class="name">{first}</th>{"".join(cells)}</tr>')
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{esc(caption)}"><table>'
        f"<caption>{esc(caption)}</caption>"
        f"<thead><tr>{columns}</tr></thead>\n<tbody>\n"
        + "\n".join(lines)
        + "\n</tbody></table></div>"
    )
