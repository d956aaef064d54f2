"""What the tests in a browser share: a page opened at a width, what is found on it, and the wait for what they assert.

A browser works on its own time: what is read right after a click may be of before it. So a test waits for what it
asserts (`becomes`, `wait`), and where that does not come it fails with what was there instead.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def wait(browser, condition: Callable[[], Any], seconds: float = 60) -> Any:
    """What `condition` gives once it gives something; meanwhile an element may be missing, or be replaced."""
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
    from selenium.webdriver.support.wait import WebDriverWait

    passing = [IndexError, NoSuchElementException, StaleElementReferenceException]
    return WebDriverWait(browser, seconds, 0.05, passing).until(lambda _: condition())


def becomes(browser, read: Callable[[], Any], expected: Any, seconds: float = 30) -> None:
    """Assert that what `read` gives is, or soon will be, `expected`."""
    from selenium.common.exceptions import TimeoutException

    try:
        wait(browser, lambda: read() == expected, seconds)
    except TimeoutException:
        assert read() == expected


def show(browser, path: Path | str, width: int = 1280, scheme: str = "light") -> None:
    """Open a page, a file or an address, in a window of `width` pixels; the console's log starts anew."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(path.as_uri() if isinstance(path, Path) else path)


def find(browser, selector: str) -> list:
    return browser.find_elements("css selector", selector)


def press(browser, *keys: str) -> None:
    """Press keys, wherever the focus is."""
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def fits(browser) -> bool:
    """Nothing is wider than the screen."""
    return browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
