"""A real browser for tests: Chromium and its driver, as Debian's packages bring them.

Tests that need it are skipped where there is none; where ARKJAX_BROWSER=1 is set, they fail.
"""

import importlib.util
import json
import os
import shutil
import time

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
_THERE = bool(CHROMIUM and DRIVER and importlib.util.find_spec("selenium"))
needed = pytest.mark.skipif(
    not _THERE and os.environ.get("ARKJAX_BROWSER") != "1",
    reason="needs chromium, chromium-driver and selenium",
)


class Browser:
    """A headless Chromium with one page, and what it did."""

    def __init__(self, folder):
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        assert _THERE, "ARKJAX_BROWSER=1, but chromium, chromium-driver or selenium is missing"
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (
            "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
            "--no-first-run", "--window-size=1280,900", f"--user-data-dir={folder}",
        ):  # fmt: skip
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        self.driver.set_script_timeout(60)
        self.keys = Keys
        self._chain = ActionChains
        self.address = ""

    def open(self, path, place="", ready="document.body.dataset.ready === 'yes'"):
        """Open a page and wait until `ready` holds; forgets what earlier pages did."""
        self.driver.get("about:blank")
        self.driver.get_log("performance")
        self.driver.get_log("browser")
        self.address = path.resolve().as_uri()
        self.driver.get(self.address + place)
        self.until(ready)

    def js(self, text, *arguments):
        """The value of a JavaScript expression."""
        return self.driver.execute_script(f"return {text}", *arguments)

    def until(self, text, *arguments):
        """Wait until a JavaScript expression holds; returns its value."""
        end = time.monotonic() + 30
        while not (value := self.js(text, *arguments)):
            assert time.monotonic() < end, f"never: {text}\n{self.driver.get_log('browser')}"
            time.sleep(0.02)
        return value

    def type(self, *keys):
        """Press keys, wherever the focus is."""
        self._chain(self.driver).send_keys(*keys).perform()

    def hover(self, css, place=0):
        """Move the mouse over an element."""
        element = self.driver.find_elements("css selector", css)[place]
        self.js("arguments[0].scrollIntoView({block: 'center'})", element)
        self._chain(self.driver).move_to_element(element).perform()

    def text(self, css):
        """The text of the first such element."""
        return self.js("document.querySelector(arguments[0])?.textContent ?? ''", css)

    def texts(self, css):
        """The texts of all such elements."""
        return self.js(
            "[...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", css
        )

    def focus(self):
        """The id or class of the element that has the focus."""
        return self.js("document.activeElement.id || document.activeElement.className")

    def kicker(self, end):
        """Wait until the debate in view is the one whose line over the question ends so."""
        self.until(
            "(document.querySelector('.kicker')?.textContent ?? '').endsWith(arguments[0])", end
        )

    def count(self, text):
        """Wait until the list says that it holds so many debates."""
        self.until("document.getElementById('count').textContent === arguments[0]", text)

    def set(self, name, value):
        """Choose an option of a filter."""
        self.js(
            "(arguments[0].value = arguments[1], arguments[0].dispatchEvent(new Event('change')))",
            self.driver.find_element("id", name),
            value,
        )

    def check(self):
        """Nothing was asked of the network, and the console is silent."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                assert url.split("#")[0] in (self.address, "about:blank"), url
        assert self.driver.get_log("browser") == []
