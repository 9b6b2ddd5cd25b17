"""A report's page in a real browser: on a phone, on a desk, in the dark, and in print.

Without Chromium and its driver these tests are skipped; where ARKJAX_BROWSER=1 is set, they fail.
"""

import base64
import io
import re

import pytest

from arkjax.reporting.report import write_report

from .browser import Browser, needed
from .test_page import CURVES, debate
from .test_report import build, outcomes

pytestmark = needed

SIZES = {"phone": (390, 844), "small phone": (360, 640), "desktop": (1440, 900)}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.driver.quit()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The page of a report with every section, and words that have no place to break."""
    report = build(
        outcomes(),
        resamples=200,
        command="arkjax run --config " + "long/" * 60,
        counts={"student_da": {"x" * 90: {"kept": 12, "dropped": 3}}},
        notes=["y" * 300],
    )
    report["quality"] = {
        "team": {name * 20: {"value": 0.5, "ci95": [0.4, 0.6], "n": 12} for name in "abcd"},
        "measures": {"a" * 20: "z" * 200},
    }
    report["published"] = {
        "title": "GSM8K", "source": "https://example.org/" + "w" * 200,
        "rows": [{"name": "v" * 120, "ours": 0.5, "paper": 0.6}],
    }  # fmt: skip
    shown = []
    for number in range(5):
        one = debate("p" * 120, [False, True, True], True)
        one |= {"why_chosen": f"It is number {number}.", "store": "seed-0/evaluate/test/team"}
        shown.append({**one, "call_ids": [f"{number}{'f' * 31}"] * 3, "problem": "q" * 400})
    folder = tmp_path_factory.mktemp("report")
    write_report(folder, report, curves=CURVES, debates=shown)
    return folder / "report.html"


def show(browser, path, size, **media):
    """Open the page in a window of this size."""
    width, height = SIZES[size]
    command = browser.driver.execute_cdp_cmd
    command(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 800},
    )
    features = [{"name": "prefers-color-scheme", "value": media.get("scheme", "light")}]
    command("Emulation.setEmulatedMedia", {"media": media.get("media", ""), "features": features})
    browser.open(path, ready="document.readyState === 'complete'")
    assert browser.js("innerWidth") == width


# How large a text of a picture is on the screen, turned or not.
PIXELS = """[...document.querySelectorAll('svg text')].map((text) => {
  const on = text.getScreenCTM();
  return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(on.a, on.b); })"""


@pytest.mark.parametrize("size", SIZES)
def test_page_fits_the_window(browser, path, size):
    show(browser, path, size)
    browser.js("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
    assert browser.js("document.scrollingElement.scrollWidth <= innerWidth")
    # What is wider scrolls within its own box.
    outside = browser.js(
        "[...document.querySelectorAll('body *')].filter((e) => !e.closest('.wide, svg') && "
        "e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 90))"
    )
    assert outside == []
    browser.check()


@pytest.mark.parametrize("size", SIZES)
def test_pictures_are_seen_and_can_be_read(browser, path, size):
    show(browser, path, size)
    sizes = browser.js(
        "[...document.querySelectorAll('svg')].map((e) => e.getBoundingClientRect())"
        ".map((box) => [box.width, box.height, box.left])"
    )
    assert len(sizes) == 12
    for width, height, left in sizes:
        assert width >= 320 and height >= 100 and left >= 0
    texts = browser.js(PIXELS)
    assert len(texts) > 100 and min(texts) >= 11 and max(texts) < 20
    # No text of a picture is cut off at its edge.
    cut = browser.js(
        "[...document.querySelectorAll('svg')].flatMap((svg) => { const box = "
        "svg.getBoundingClientRect(); return [...svg.querySelectorAll('text')].filter((t) => { "
        "const r = t.getBoundingClientRect(); return r.left < box.left - 3 || r.right > box.right "
        "+ 3 || r.top < box.top - 3 || r.bottom > box.bottom + 3; }).map((t) => "
        "[svg.querySelector('title').textContent, t.textContent]); })"
    )
    assert cut == []


@pytest.mark.parametrize("size", ["phone", "desktop"])
def test_contents_lead_to_their_sections(browser, path, size):
    show(browser, path, size)
    links = browser.js("[...document.querySelectorAll('nav a')].map((a) => a.hash)")
    assert len(links) >= 13 and links[0] == "#systems"
    for link in (links[1], links[-3]):
        browser.js(f"document.querySelector('nav a[href=\"{link}\"]').click()")
        browser.until("location.hash === arguments[0]", link)
        browser.until(
            "Math.abs(document.querySelector(location.hash).getBoundingClientRect().top) < "
            "innerHeight"
        )
    heights = browser.js(
        "[...document.querySelectorAll('nav li, summary')].map((e) => "
        "e.getBoundingClientRect().height)"
    )
    assert min(heights) >= 24  # a finger's width, as WCAG 2.5.8 has it


def test_a_table_that_goes_on_shows_it(browser, path):
    """At the side where more is to be seen lies a shadow; at the end of the table none."""

    def edges():
        box = browser.js(
            "(() => { const r = document.querySelector('#systems .wide').getBoundingClientRect(); "
            "return [r.left, r.right, r.top]; })()"
        )
        shot = Image.open(io.BytesIO(browser.driver.get_screenshot_as_png())).convert("L")
        left, right, top = (round(place) for place in box)
        # Below the caption's first line, between the texts of two rows.
        return shot.getpixel((left + 1, top + 3)), shot.getpixel((right - 2, top + 3))

    from PIL import Image

    show(browser, path, "phone", scheme="light")
    browser.js("document.querySelector('#systems .wide').scrollIntoView({block: 'start'})")
    begin = edges()
    assert begin[0] > 250 and begin[1] < 200
    browser.js("document.querySelector('#systems .wide').scrollTo(40, 0)")
    assert max(edges()) < 230
    browser.js("document.querySelector('#systems .wide').scrollTo(1e6, 0)")
    end = edges()
    assert end[0] < 200 and end[1] > 250
    show(browser, path, "desktop", scheme="light")
    browser.js("document.querySelector('#systems .wide').scrollIntoView({block: 'start'})")
    assert min(edges()) > 250


def test_colors_follow_the_scheme(browser, path):
    def seen():
        ink = "getComputedStyle(document.querySelector('svg text')).fill"
        return browser.js("getComputedStyle(document.body).backgroundColor"), browser.js(ink)

    show(browser, path, "phone", scheme="light")
    light = seen()
    show(browser, path, "phone", scheme="dark")
    dark = seen()
    assert light == ("rgb(255, 255, 255)", "rgb(27, 31, 36)")
    assert dark == ("rgb(20, 23, 27)", "rgb(232, 235, 238)")


def test_print_shows_all_and_cuts_nothing(browser, path):
    show(browser, path, "desktop", media="print", scheme="dark")
    # An A4 sheet between its margins.
    browser.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 680, "height": 1000, "deviceScaleFactor": 1, "mobile": False},
    )
    assert browser.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    hidden = browser.js(
        "[...document.querySelectorAll('details > :not(summary)')].filter((e) => "
        "e.getBoundingClientRect().height === 0).length"
    )
    folded = browser.js("document.querySelectorAll('details:not([open])').length")
    said = browser.js(
        "[...document.querySelectorAll('details:not([open]) > summary')].filter((e) => "
        "getComputedStyle(e, '::after').content.includes('folded')).length"
    )
    assert folded > 3 and (hidden == 0 or said == folded)
    clipped = browser.js(
        "[...document.querySelectorAll('.wide')].filter((e) => e.scrollWidth > e.clientWidth + 1)"
        ".map((e) => e.getAttribute('aria-label'))"
    )
    assert clipped == []
    browser.check()
    printed = browser.driver.execute_cdp_cmd(
        "Page.printToPDF", {"preferCSSPageSize": True, "printBackground": True}
    )
    pdf = base64.b64decode(printed["data"])
    assert pdf.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", pdf)) > 4
