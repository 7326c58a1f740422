# SPDX-License-Identifier: Apache-2.0
"""The chat room's page, in Chromium: two windows of one room, and one of another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from harness import ASGI_CARRIERS, SLOW, Server, wait_until
from selenium import webdriver
from selenium.webdriver.common.by import By

CHAT = Path(__file__).resolve().parents[2] / "examples" / "chat" / "chat.py"


class Window:
    def __init__(self, browser: webdriver.Chrome, url: str) -> None:
        browser.switch_to.new_window("window")
        self._browser = browser
        self._handle = browser.current_window_handle
        browser.get(url)
        self.wait("is here")

    def _enter(self) -> None:
        self._browser.switch_to.window(self._handle)

    @property
    def text(self) -> str:
        self._enter()
        return self._browser.find_element(By.ID, "log").text

    def wait(self, text: str) -> None:
        wait_until(lambda: text in self.text, 20 * SLOW, f"the window never showed {text!r}")

    def say(self, text: str) -> None:
        self._enter()
        self._browser.find_element(By.ID, "text").send_keys(text)
        self._browser.find_element(By.TAG_NAME, "button").click()

    def close(self) -> None:
        self._enter()
        self._browser.close()


@pytest.mark.parametrize("kind", ASGI_CARRIERS)
def test_chat(kind: str, serve: Callable[..., Server], browser: webdriver.Chrome) -> None:
    server = serve(*ASGI_CARRIERS[kind], CHAT, fibers=kind == "fibers")
    one = Window(browser, f"{server.url}/")
    two = Window(browser, f"{server.url}/")
    other = Window(browser, f"{server.url}/other")
    one.say("Grüße <b>from</b> the first")
    two.wait(": Grüße <b>from</b> the first")
    two.say("and from the second")
    one.wait(": and from the second")
    one.wait(": Grüße")  # what oneself says is shown as well
    two.close()
    one.wait("has left")
    assert "second" not in other.text
    assert "first" not in other.text
    browser.switch_to.window(one._handle)
    assert not [entry for entry in browser.get_log("browser") if "favicon" not in entry["message"]]
    server.stop()
    one.wait("closed: 1012")
