"""The page of debates in a real browser, opened from the disk.

Needs Chromium and its driver, as Debian's packages chromium and chromium-driver bring them. Without
them these tests are skipped; where ARKJAX_BROWSER=1 is set, they fail instead.
"""

import dataclasses

import pytest

from arkjax.reporting.viewer.sources import find_sources
from arkjax.reporting.viewer.write import write_page
from arkjax.text.tokenizer import Tokenizer
from arkjax.trajectories.store import CallStore

from .browser import Browser, needed
from .debate_pages import TOKENIZER, debate, hostile_store, record, say, small_run

pytestmark = needed


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.driver.quit()


def page(folder, path, tokenizer=TOKENIZER, **changes):
    sources = find_sources(folder, tokenizer=tokenizer)
    plays = tuple(dataclasses.replace(play, **changes) for play in sources.plays)
    write_page(path, dataclasses.replace(sources, plays=plays))
    return path


@pytest.fixture(scope="module")
def run_page(tmp_path_factory):
    """The page of a small run of two seeds."""
    folder = tmp_path_factory.mktemp("run")
    return page(small_run(folder / "a run"), folder / "page.html")


@pytest.fixture
def opened(browser, run_page):
    browser.driver.set_window_size(1280, 900)
    browser.open(run_page)
    yield browser
    browser.check()


def test_a_debate_is_shown_with_signs_links_and_turns(opened):
    assert opened.texts(".line .sign") == ["✓", "✗", "–"]
    assert opened.text(".verdict").strip() == "✓ The answer is 3"
    assert opened.texts(".round h3") == ["1. opening", "2. talk"]
    # In the team's own order, which has bob first.
    assert opened.texts(".agents .speaker") == ["●bob", "■ann"]
    assert opened.texts(".message .answer") == ["✗ 7", "✓ 3", "✓ 3", "✓ 3"]
    assert opened.text("#message-2 .turn") == "put right by■ann"
    assert opened.texts("#message-2 .links .link") == ["■ann", "●bob"]
    assert opened.js("document.querySelectorAll('.map .node').length") == 4
    assert opened.js("document.querySelectorAll('.map path').length") == 4
    assert "4 calls" in opened.text(".costs")
    assert "could not be read" not in opened.text(".costs")


def test_who_was_right_after_reading_others_did_not_put_itself_right(browser, tmp_path):
    def talk(problem, readers_see, answers):
        """Both are wrong at first; then they answer, having read what `readers_see`."""
        first = [say(problem, name, 0, f"so {a}", a, False) for name, a in answers]
        heard = {"all": [c.call_id for c in first], "own": [first[0].call_id], "none": []}
        return [*first, say(problem, "ann", 1, "so 3", "3", True, heard[readers_see])]

    wrong = (("ann", "7"), ("bob", "8"))
    calls = [call for see in ("all", "own", "none") for call in talk(see, see, wrong)]
    browser.open(page(record(tmp_path / "store", calls), tmp_path / "page.html"))
    found = {}
    for number, problem in enumerate(("all", "none", "own")):
        browser.js(f"document.querySelectorAll('.line')[{number}].click()")
        browser.kicker(problem)
        turn = browser.text("#message-2 .turn")
        found[turn] = browser.texts(".agents .badge")
    assert found.pop("right after reading others, none of whom was right") == ["worked out"]
    assert found == {"put itself right": ["alone"]}
    browser.check()


def test_what_a_message_read_is_shown_and_can_be_reached(opened):
    opened.hover("#message-2 .text")
    assert opened.js("[...document.querySelectorAll('.source')].map((e) => e.id)") == [
        "message-0",
        "message-1",
    ]
    assert opened.js("document.querySelectorAll('.map path.in').length") == 2
    opened.hover("#message-1 .text")
    assert opened.js("[...document.querySelectorAll('.reader')].map((e) => e.id)") == [
        "message-2",
        "message-3",
    ]
    opened.driver.find_element("css selector", "#message-2 .turn .link").click()
    assert opened.focus() == "message-1"


def test_a_token_shows_its_log_probability(opened, run_page):
    tokenizer = Tokenizer(TOKENIZER)
    call = debate("p-0")[1]
    opened.hover("#message-0 [data-token]", 2)
    opened.until("!document.getElementById('tip').hidden")
    piece = tokenizer.decode(call.gen_ids[:3])[len(tokenizer.decode(call.gen_ids[:2])) :]
    assert opened.text("#tip dt") == piece.replace(" ", "␣")
    nats = float(opened.text("#tip dd").split(" nats")[0])
    assert abs(nats - call.logprobs[2]) < 0.001
    # The end token is there too, and is not taken for a part of the message.
    assert opened.text("#message-0 .after") == "</s>"
    opened.hover("h1")
    opened.until("document.getElementById('tip').hidden")


def test_tokens_can_be_tinted(opened):
    span = opened.driver.find_element("css selector", ".message .p3, .message .p4, .message .p2")
    assert span.value_of_css_property("background-color") == "rgba(0, 0, 0, 0)"
    opened.type("t")
    assert span.value_of_css_property("background-color") != "rgba(0, 0, 0, 0)"
    assert opened.js("document.getElementById('tint').getAttribute('aria-pressed')") == "true"


def test_keys_lead_everywhere(opened):
    keys = opened.keys
    assert opened.focus() == "list"
    opened.type("j")
    opened.kicker("p-1")
    opened.type(keys.ARROW_DOWN)
    opened.kicker("p-2")
    opened.type("k", keys.ARROW_UP)
    opened.kicker("p-0")
    assert opened.js("document.querySelector('[aria-selected=true]').dataset.place") == "0"
    opened.type(keys.ENTER)
    assert opened.focus() == "message-0"
    opened.type("n", "n", "p")
    assert opened.focus() == "message-1"
    opened.type(keys.ARROW_RIGHT, keys.ARROW_RIGHT)
    assert opened.js("document.querySelector('.lit').dataset.token") == "1"
    assert opened.js("document.querySelector('.lit').getAttribute('aria-describedby')") == "tip"
    opened.type("j")
    opened.kicker("p-1")
    assert opened.focus() == "debate"
    opened.type(keys.ESCAPE)
    assert opened.focus() == "list"
    opened.type("?")
    assert opened.js("document.getElementById('help').open")
    opened.type(keys.ESCAPE)
    assert not opened.js("document.getElementById('help').open")
    opened.type("/", "total jk?")
    assert opened.focus() == "search"
    opened.count("0 of 3 debates")
    opened.type(keys.ESCAPE)
    opened.count("3 debates")


def test_filters_orders_and_plays(opened):
    opened.set("right", "wrong")
    opened.count("1 of 3 debates")
    assert opened.texts(".line .facts") == ["p-1"]
    opened.set("right", "unknown")
    opened.count("1 of 3 debates")
    opened.driver.find_element("id", "reset").click()
    opened.count("3 debates")
    opened.driver.find_element("id", "misled").click()
    opened.count("1 of 3 debates")
    opened.driver.find_element("id", "corrected").click()
    opened.count("0 of 3 debates")
    opened.driver.find_element("id", "misled").click()
    opened.count("2 of 3 debates")
    opened.driver.find_element("id", "corrected").click()
    opened.type("/", "GAP 4 7 MAKES", opened.keys.ENTER)
    opened.count("3 debates")
    opened.set("order", "misled")
    opened.until("document.querySelector('.line .facts').textContent === 'p-1'")
    assert opened.js("document.querySelectorAll('#play option').length") == 3
    opened.set("play", "1")
    opened.kicker("test · base · t-0")
    opened.count("1 debate")
    opened.set("seed", "1")
    opened.kicker("train · team · p-1")


def test_the_address_leads_to_a_debate(browser, run_page):
    browser.open(run_page, "#1/sample/train/team/p-2")
    browser.kicker("p-2")
    browser.type("k")
    browser.kicker("p-1")
    browser.until("location.hash === '#1/sample/train/team/p-1'")
    browser.open(run_page, "#%/no/such/debate")
    browser.kicker("p-0")
    browser.check()


def test_on_a_phone_there_is_one_thing_at_a_time(opened):
    opened.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True},
    )
    try:
        shown = "getComputedStyle(document.querySelector(arguments[0])).display !== 'none'"
        assert opened.js(shown, ".side") and not opened.js(shown, ".debate")
        opened.driver.find_elements("css selector", ".line")[1].click()
        opened.until(shown, ".debate")
        assert not opened.js(shown, ".side")
        assert opened.js("document.documentElement.scrollWidth") <= 390
        opened.driver.find_element("css selector", ".ways button").click()
        assert opened.js(shown, ".side") and not opened.js(shown, ".debate")
    finally:
        opened.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_hostile_words_are_shown_and_do_nothing(browser, tmp_path):
    browser.open(page(hostile_store(tmp_path / "store"), tmp_path / "page.html"))
    shown = browser.text(".message .text")
    # Control characters are made visible, all else stands there word for word.
    assert "</script><script>window.ran = 1</script><!-- <img src=x onerror=" in shown
    assert "\u2028\u2029 ␛[31mred" in shown
    assert "␀" in shown and "\x1b" not in shown and "\x00" not in shown
    assert "🦊" in shown
    for element in browser.driver.find_elements("css selector", "details"):
        element.click()
    browser.type("/", "onerror", browser.keys.ENTER)
    browser.count("1 of 2 debates")
    assert not browser.js("'ran' in window")
    assert (
        browser.js("document.querySelectorAll('main img, main a, main script, main b').length") == 0
    )
    browser.type(browser.keys.ESCAPE, "/", browser.keys.BACKSPACE)
    browser.count("2 debates")
    # A megabyte is shown in part, until all of it is asked for.
    browser.type(browser.keys.ESCAPE, browser.keys.END)
    browser.kicker("q")
    assert len(browser.text(".message .text")) < 30_000
    browser.driver.find_element("css selector", ".text .more").click()
    assert browser.text(".message .text").count("a") == 1_000_000
    browser.check()


def test_nothing_could_run_even_if_it_were_markup(browser, run_page):
    browser.open(run_page)
    blocked = browser.js(
        "(() => { try { document.body.innerHTML += '<img src=x onerror=\"window.ran = 1\">'; }"
        " catch (error) { return error.name; } })()"
    )
    assert blocked == "TypeError"
    browser.js(
        "(() => { const button = document.createElement('button'); document.body.append(button);"
        " try { button.setAttribute('onclick', 'window.ran = 2'); } catch (error) {}"
        " button.click(); })()"
    )
    assert not browser.js("'ran' in window")


def test_a_page_that_is_cut_off_says_so(browser, run_page, tmp_path):
    whole = run_page.read_text()
    (tmp_path / "cut.html").write_text(whole.replace('id="d1"', 'id="lost"'))
    browser.open(run_page)
    browser.driver.get((tmp_path / "cut.html").as_uri())
    browser.until("document.getElementById('wait').textContent.includes('d1 is missing')")


def test_actions_top_tokens_and_unread_answers(browser, tmp_path):
    tokenizer = Tokenizer(TOKENIZER)
    four, seven = tokenizer.encode("4 7")
    asks = say("p", "ann", 0, "4", gen_ids=(four, 2), top_ids=(four, seven, 2, four),
               top_logprobs=(-0.5, -1.25, -0.125, -2.0))  # fmt: skip
    acts = say("p", "ann", 0, "7", model="tool:calculator/1", finish_reason="tool", step=1,
               gen_ids=(seven,), parents=[asks.call_id], parse_ok=True)  # fmt: skip
    record(tmp_path / "store", [asks, acts])
    browser.open(page(tmp_path / "store", tmp_path / "page.html"))
    assert browser.texts(".message.action header .badge") == ["⚙ tool:calculator/1"]
    assert browser.texts(".message:not(.action) .badge.bad") == ["could not be read"]
    assert "1 answer could not be read" in browser.text(".costs")
    assert browser.texts(".line .badge") == ["1 unread"]
    browser.hover("#message-0 [data-token]")
    browser.until("!document.getElementById('tip').hidden")
    assert browser.texts("#tip dd")[2:] == ["-0.500 nats, 60.7%", "-1.250 nats, 28.7%"]
    assert [text.strip("␣") for text in browser.texts("#tip dt")[2:]] == ["4", "7"]
    browser.driver.find_element("css selector", "#message-0 summary").click()
    facts = browser.until("document.querySelector('#message-0 dl.facts')?.textContent")
    assert asks.call_id in facts and "temperature0.7" in facts and "base-1" in facts
    browser.check()


def test_without_a_tokenizer_ids_stand_for_tokens(browser, tmp_path):
    record(tmp_path / "store", [say("p", "ann", 0, "4", gen_ids=(7, 2))])
    browser.open(page(tmp_path / "store", tmp_path / "page.html", tokenizer=None))
    assert browser.texts("#message-0 [data-token]") == ["#7", "#2"]
    browser.hover("#message-0 [data-token]")
    browser.until("!document.getElementById('tip').hidden")
    assert "nats" in browser.text("#tip dd")
    browser.check()


def test_a_debate_of_very_many_messages(browser, tmp_path):
    record(tmp_path / "store", [say("p", "ann", 0, "so 3", sample=i) for i in range(450)], 1000)
    browser.open(page(tmp_path / "store", tmp_path / "page.html"))
    assert browser.js("document.querySelectorAll('.message').length") == 200
    browser.driver.find_element("css selector", ".debate > .more").click()
    assert browser.js("document.querySelectorAll('.message').length") == 400
    browser.check()


def test_fifty_thousand_debates(browser, tmp_path):
    one = say("p", "ann", 0, "so 3", "3", True)
    with CallStore(tmp_path / "store", shard_calls=10_000, flush_seconds=1e9) as store:
        for i in range(50_000):
            text = f"message {i} so {i % 10}"
            parsed = {"answer": str(i % 10)}
            store.append(
                dataclasses.replace(
                    one, call_id=f"{i:032x}", problem_id=f"p-{i:05d}", text=text, parsed=parsed
                )
            )
    answers = {f"p-{i:05d}": (str(i % 10), i % 1000 != 0) for i in range(50_000)}
    browser.open(page(tmp_path / "store", tmp_path / "page.html", answers=answers))
    browser.count("50,000 debates")
    elements = "document.querySelectorAll('*').length"
    most = 1500
    assert browser.js(elements) < most
    assert browser.js("document.querySelectorAll('.line').length") < 60
    browser.type(browser.keys.END)
    browser.kicker("p-49999")
    assert "p-49999" in browser.texts(".line .facts")
    assert browser.js(elements) < most
    browser.js("document.getElementById('list').scrollTop = 25000 * 57.6")
    browser.until("[...document.querySelectorAll('.line')].some((e) => e.ariaPosInSet > 24900)")
    assert browser.js("document.querySelectorAll('.line').length") < 60
    browser.set("right", "wrong")
    browser.count("50 of 50,000 debates")
    browser.type("/", "message 4900")
    browser.count("1 of 50,000 debates")
    browser.set("right", "")
    browser.count("11 of 50,000 debates")
    browser.type(browser.keys.ENTER)
    browser.kicker("p-04900")
    browser.check()
