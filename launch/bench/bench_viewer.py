"""How long the page of many debates takes to write, how large it is, and how fast in a browser.

    python launch/bench/bench_viewer.py RUN [--copies 50] [--play seed-0/evaluate/test/team]

Copies one recorded play of a finished run many times over, each time under other problem and call
ids and seeds, so that nothing but the words and log-probabilities repeats itself, and far apart.
The page is written by a process of its own, whose peak memory is told. With chromium, its driver
and selenium installed it is then opened from the disk; times are those of the page's own clock, of
one try. `first_search` unpacks everything, later ones find it in memory. The last line is one JSON
object.
"""

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_TIMES = """
const done = arguments[0];
const of = (name) => document.getElementById(name);
const frame = () => new Promise((go) => requestAnimationFrame(() => setTimeout(go)));
const changed = (act) => new Promise((go) => {
  const start = performance.now();
  const watch = new MutationObserver(() => {
    if (of("count").textContent.startsWith("searching")) return;
    watch.disconnect();
    go(performance.now() - start);
  });
  watch.observe(of("count"), { childList: true });
  act();
});
(async () => {
  const found = { loaded_ms: performance.getEntriesByType("navigation")[0].duration };
  found.filter_ms = await changed(() => of("corrected").click());
  await changed(() => of("corrected").click());
  // What is typed is searched for after a short rest, which is not counted.
  const search = (text) => changed(() => {
    of("search").value = text;
    of("search").dispatchEvent(new Event("input"));
  }).then((ms) => ms - 120);
  found.first_search_ms = await search("no such words");
  found.search_ms = await search("makes 3");
  await search("");
  const list = of("list");
  found.worst_frame_of_scrolling_ms = 0;
  for (let i = 0; i < 100; i++) {
    const start = performance.now();
    list.scrollTop = (i * 102947) % list.scrollHeight;
    await frame();
    found.worst_frame_of_scrolling_ms =
      Math.max(found.worst_frame_of_scrolling_ms, performance.now() - start);
  }
  found.elements = document.querySelectorAll("*").length;
  const line = () => document.querySelector(".kicker").textContent;
  const before = line();
  const start = performance.now();
  document.querySelector(".line:nth-child(8)").click();
  while (line() === before) await new Promise((go) => setTimeout(go, 1));
  found.debate_ms = performance.now() - start;
  done(found);
})();
"""


def multiply(source: Path, target: Path, copies: int) -> None:
    """Write a store with the calls of another one, many times over."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from arkjax.trajectories.schema import SCHEMA
    from arkjax.trajectories.store import CallStore

    calls = pa.concat_tables(CallStore(source).tables())
    ids, parents, problems = (
        calls.column(name).to_pylist() for name in ("call_id", "parents", "problem_id")
    )
    draw = random.Random(0)
    target.mkdir(parents=True)
    for copy in range(copies):
        new = {old: hashlib.sha256(f"{copy}/{old}".encode()).hexdigest()[:32] for old in ids}
        columns = {
            "call_id": [new[old] for old in ids],
            "parents": [[new[parent] for parent in some] for some in parents],
            "problem_id": [f"{copy:03d}-{problem}" for problem in problems],
            "seed": [draw.randrange(2**31) for _ in ids],
        }
        table = calls
        for name, values in columns.items():
            place, field = SCHEMA.get_field_index(name), SCHEMA.field(name)
            table = table.set_column(place, field, pa.array(values, field.type))
        path = target / f"calls-{copy:05d}.parquet"
        pq.write_table(table.cast(SCHEMA), path, compression="zstd")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        path.with_name(f"{path.name}.sha256").write_text(f"{digest}  {path.name}\n")


def in_browser(page: Path, profile: Path) -> dict[str, float]:
    """Times of the page in Chromium, in milliseconds."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("--headless=new", "--no-sandbox", f"--user-data-dir={profile}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.set_script_timeout(300)
        start = time.monotonic()
        driver.get(page.resolve().as_uri())
        while not driver.execute_script("return document.body.dataset.ready"):
            time.sleep(0.01)
        ready = 1000 * (time.monotonic() - start)
        return {"ready_ms": ready, **driver.execute_async_script(_TIMES)}
    finally:
        driver.quit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--copies", type=int, default=50)
    parser.add_argument("--play", default="seed-0/evaluate/test/team")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        store, page = Path(scratch, "store"), Path(scratch, "page.html")
        multiply(arguments.run / arguments.play, store, arguments.copies)
        tokenizer = arguments.run / "seed-0" / "base" / "model" / "tokenizer"
        start = time.monotonic()
        command = [sys.executable, "-m", "arkjax", "view", store, "--out", page, "--no-open"]
        subprocess.run([*command, "--tokenizer", tokenizer], check=True)
        found = {
            "write_seconds": round(time.monotonic() - start, 1),
            "peak_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
            "store_mib": round(sum(p.stat().st_size for p in store.iterdir()) / 2**20, 1),
            "page_mib": round(page.stat().st_size / 2**20, 1),
            "cores": os.cpu_count(),
        }
        try:
            times = in_browser(page, Path(scratch, "profile"))
        except ImportError:
            print("selenium is not installed: the page was not opened", file=sys.stderr)
            times = {}
    print(json.dumps({**found, **{name: round(value, 1) for name, value in times.items()}}))


if __name__ == "__main__":
    main()
