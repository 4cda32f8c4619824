"""A real browser with a page open in it, for tests of what readers see."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

webdriver = pytest.importorskip("selenium.webdriver")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
NEEDED = pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="there is no Chromium with its driver here")

SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)
PATIENCE = 30


class Reader:
    """A browser, and what tests ask of the page that is open in it."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = BROWSER
        for switch in (*SWITCHES, f"--user-data-dir={profile}"):
            options.add_argument(switch)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(executable_path=DRIVER)
        self.driver = webdriver.Chrome(options=options, service=service)

    def command(self, name: str, **arguments: Any) -> Any:
        """A command of the developer tools' protocol."""
        return self.driver.execute_cdp_cmd(name, arguments)

    def run(self, script: str, *arguments: Any) -> Any:
        """What ``return script`` returns inside the page."""
        return self.driver.execute_script(f"return {script}", *arguments)

    def until(self, script: str) -> Any:
        """Wait until ``script`` is true inside the page."""
        deadline = time.monotonic() + PATIENCE
        while not (value := self.run(script)):
            assert time.monotonic() < deadline, f"waited for: {script}"
            time.sleep(0.03)
        return value

    def open(self, page: Path, *, scheme: str = "light", width: int = 1280) -> None:
        """Open the page in a colour scheme and width, and wait for its figures."""
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self.driver.get(page.as_uri())
        self.until("document.documentElement.dataset.figures === 'drawn'")

    def complaints(self) -> list[Any]:
        """What the browser wrote to its console since the last time."""
        return list(self.driver.get_log("browser"))

    def hover(self, element: str) -> str:
        """Move the pointer onto the first element that a selector finds, and give the label that appears."""
        self.run(f"document.querySelector({element!r}).scrollIntoView({{block: 'center', behavior: 'instant'}})")
        box = self.run(f"document.querySelector({element!r}).getBoundingClientRect().toJSON()")
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for step in (3, 0):
            self.command("Input.dispatchMouseEvent", type="mouseMoved", x=x + step, y=y)
        label = "document.querySelector('.hoverlayer .hovertext')"
        self.until(label)
        return str(self.run(f"{label}.textContent"))

    def wider_than(self, width: int) -> list[str]:
        """The elements, outside boxes that scroll, that reach beyond the screen."""
        wider = (
            "[...document.querySelectorAll('main *:not(.box *):not(svg *)')]"
            f".filter((element) => element.getBoundingClientRect().right > {width} + 1)"
            ".map((element) => element.outerHTML.slice(0, 80))"
        )
        return list(self.run(wider))
