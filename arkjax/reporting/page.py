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
  --line: #d5dbe1; --right: #00684c; --wrong: #b04000; --bar: #0072b2; --link: #005a8f;
  --shade: #1b1f2466; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebee; --soft: #a3adb8; --paper: #14171b;
  --card: #1d2228; --line: #39424c; --right: #4fd1a9; --wrong: #ff9b66; --bar: #56b4e9;
  --link: #7cc4f0; --shade: #e8ebee66; } }
"""

STYLE = """
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0 .75rem; text-wrap: balance; }
h2 { font-size: 1.25rem; margin: 0 0 .5rem; } h3 { font-size: 1.05rem; margin: 1.5rem 0 .25rem; }
h4 { font-size: .95rem; margin: 1rem 0 .4rem; color: var(--soft); }
p { margin: .5rem 0; max-width: 46rem; } a { color: var(--link); text-underline-offset: .15em; }
:focus-visible { outline: .15rem solid var(--link); outline-offset: .15rem; }
section { border-top: 1px solid var(--line); margin-top: 2.5rem; padding-top: 1.5rem; }
.warning { border-left: .3rem solid var(--wrong); padding: .5rem .9rem; background: var(--card); }
.lead { font-size: 1.12rem; } .soft, figcaption, caption { color: var(--soft); font-size: .9rem; }
.finding { border-left: .3rem solid var(--bar); padding-left: .9rem; margin: .75rem 0; }
nav ol { columns: 14rem; column-gap: 1.5rem; padding-left: 1.4rem; margin: .25rem 0 0;
  max-width: none; } nav li { break-inside: avoid; padding: .3rem 0; line-height: 1.3; }
nav { background: var(--card); border-radius: .5rem; padding: .75rem .9rem; margin-top: 1.25rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .6rem;
  margin: 1.25rem 0 .5rem; padding: 0; list-style: none; }
.facts li { background: var(--card); border-radius: .5rem; padding: .7rem .85rem; }
.facts b { display: block; font-size: 1.6rem; line-height: 1.2;
  font-variant-numeric: tabular-nums; } .facts span { display: block; }
.wide { overflow-x: auto; margin: .75rem 0;
  /* A shadow at the side where there is more; what covers it moves with the table. */
  background: linear-gradient(to right, var(--paper) 40%, transparent) 0 0 / 3rem 100% local,
    linear-gradient(to left, var(--paper) 40%, transparent) 100% 0 / 3rem 100% local,
    linear-gradient(to right, var(--shade), transparent) 0 0 / 1.1rem 100% scroll,
    linear-gradient(to left, var(--shade), transparent) 100% 0 / 1.1rem 100% scroll;
  background-repeat: no-repeat; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; overflow-wrap: normal; }
caption { text-align: left; padding-bottom: .4rem; caption-side: top; }
caption span { position: sticky; left: 0; display: inline-block;
  max-width: min(46rem, calc(100vw - 2rem)); }
th, td { text-align: left; padding: .38rem .7rem .38rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
thead th { vertical-align: bottom; font-weight: 600; } tbody th { font-weight: 500; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; padding: .38rem .5rem; }
td.n { white-space: nowrap; } td.says { min-width: 13rem; } .paper { font-style: italic; }
td.n small { display: block; color: var(--soft); }
td.bar { background: linear-gradient(var(--bar), var(--bar)) no-repeat 0 100% / var(--w) .28rem; }
code { font: .88em ui-monospace, monospace; }
.name { min-width: 8rem; } .name code { color: var(--soft); display: block; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr));
  gap: 1rem 2rem; align-items: start; }
figure { margin: .75rem 0; max-width: 29rem; min-width: 0; } figcaption { margin-top: .4rem; }
figure svg { width: 100%; height: auto; display: block; } svg text { font-family: inherit; }
.debate { border: 1px solid var(--line); border-radius: .6rem; padding: 1rem; margin: 1rem 0; }
.debate h3 { margin-top: 0; }
.calls { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(15rem, 100%), 1fr));
  gap: .6rem; }
.call { background: var(--card); border-radius: .4rem; padding: .6rem .75rem; border-left: .25rem
  solid var(--line); } .call.right { border-color: var(--right); }
.call.wrong { border-color: var(--wrong); } .call .id { display: block; margin-top: .35rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .35rem 0 0; font: .88rem/1.45
  ui-monospace, monospace; }
.mark { color: var(--wrong); font-weight: 600; } .mark.right { color: var(--right); }
summary { cursor: pointer; font-weight: 600; padding: .5rem 0; }
ul { padding-left: 1.2rem; max-width: 46rem; } ul.facts { max-width: none; }
@media (max-width: 40rem) { body { padding: 1rem 1rem 3rem; } h1 { font-size: 1.4rem; }
  .debate { padding: .75rem; } section { margin-top: 2rem; padding-top: 1.25rem; } }
@media print { @page { margin: 15mm; } :root { color-scheme: light; --ink: #000; --soft: #444;
    --paper: #fff; --card: #f2f2f2; --line: #bbb; --right: #00573f; --wrong: #963600;
    --bar: #0072b2; --link: #000; }
  body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; }
  h2, h3, h4, summary, caption { break-after: avoid; } p { orphans: 3; widows: 3; }
  .figures { grid-template-columns: 1fr 1fr; } figure { max-width: 8.5cm; }
  .debate { border: 0; padding: 0; } .call, figure, tr, .facts li { break-inside: avoid; }
  .wide { overflow: visible; background: none; } thead { display: table-header-group; }
  table { font-size: 7.5pt; } td.says { min-width: 0; }
  th, td, td.n, th.n, .name { white-space: normal; min-width: 0;
    padding: .2rem .3rem .2rem 0; overflow-wrap: anywhere; }
  thead th, thead th.n, td.n, td.n small { overflow-wrap: normal; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  details:not([open]) > summary::after { content: " (folded: open it before printing)"; } }
@supports selector(::details-content) { @media print {
  details::details-content { display: block; content-visibility: visible; block-size: auto; }
  details:not([open]) > summary::after { content: none; } } }
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


def section(ident: str, title: str, body: str) -> str:
    """A part of a page under a heading, to which a link can lead; "" where there is no body.

    Args:
      ident: of letters and hyphens, one of its kind on the page.
      title: text, escaped here.
      body: HTML.
    """
    if not body:
        return ""
    return (
        f'<section id="{ident}" aria-labelledby="{ident}-title">\n'
        f'<h2 id="{ident}-title">{esc(title)}</h2>\n{body}\n</section>'
    )


def folded(summary: str, body: str, opened: bool = False) -> str:
    """What is shown when asked for, and always in print; `summary` is escaped here."""
    return f"<details{' open' * opened}><summary>{esc(summary)}</summary>{body}</details>"


def figure(svg: str, caption: str) -> str:
    """A picture with what to read in it; `caption` is escaped here."""
    return f"<figure>{svg}<figcaption>{esc(caption)}</figcaption></figure>"


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
    number = ' class="n"'
    columns = "".join(
        f'<th scope="col"{number if at in numbers else ""}>{esc(name)}</th>'
        for at, name in enumerate(head)
    )
    lines = []
    for first, *rest in rows:
        cells = [cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in rest]
        lines.append(f'<tr><th scope="row" class="name">{first}</th>{"".join(cells)}</tr>')
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{esc(caption)}"><table>'
        f"<caption><span>{esc(caption)}</span></caption>"
        f"<thead><tr>{columns}</tr></thead>\n<tbody>\n"
        + "\n".join(lines)
        + "\n</tbody></table></div>"
    )
