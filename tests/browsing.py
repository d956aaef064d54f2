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


def tab_stops(browser, until: str, most: int = 40) -> list[dict[str, Any]]:
    """Press Tab until the focus is on the element whose text is `until`: of each stop its text, whether it has a frame
    that shows the focus, and whether its middle is in sight, with nothing else over it."""
    from selenium.webdriver.common.keys import Keys

    stops = []
    while len(stops) < most and (not stops or stops[-1]["text"] != until):
        press(browser, Keys.TAB)
        stops.append(
            browser.execute_script("""
                const node = document.activeElement, style = getComputedStyle(node), box = node.getBoundingClientRect();
                const over = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
                return { text: node.innerText || node.getAttribute("aria-label") || node.tagName,
                  framed: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
                  "in sight": over !== null && (node.contains(over) || over.contains(node)) };
            """)
        )
    assert stops[-1]["text"] == until, [stop["text"] for stop in stops]
    return stops


def click(browser, element) -> None:
    """Scroll an element into the middle, where nothing sticks, and click it."""
    browser.execute_script("arguments[0].scrollIntoView({ block: 'center' })", element)
    element.click()


def fits(browser) -> bool:
    """Nothing is wider than the screen."""
    return browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def faint_texts(browser) -> list[str]:
    """Texts in sight whose contrast with what lies under them is below WCAG 2.1's AA: 4.5, or 3 for large letters."""
    return browser.execute_script("""
        const parse = (colour) => {
          const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
          return [r, g, b, a];
        };
        const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a)];
        const ground = (node) => {
          if (!node) return [255, 255, 255];
          const colour = parse(getComputedStyle(node).backgroundColor);
          return colour[3] === 1 ? colour : over(colour, ground(node.parentElement));
        };
        const light = (colour) => {
          const [r, g, b] = colour.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const found = [];
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
          const node = walker.currentNode.parentElement;
          const text = walker.currentNode.data.trim();
          if (!text || !node.checkVisibility() || node.closest("script, style, noscript, :disabled")) continue;
          const style = getComputedStyle(node);
          const [under, ink] = [ground(node), over(parse(style.color), ground(node))].map(light);
          const contrast = (Math.max(under, ink) + 0.05) / (Math.min(under, ink) + 0.05);
          const size = parseFloat(style.fontSize);
          const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
          if (contrast < (large ? 3 : 4.5)) found.push(`${text.slice(0, 40)}: ${contrast.toFixed(2)}`);
        }
        return found;
    """)


def axe_faults(browser, axe: str) -> list[str]:
    """What axe-core (its source) finds on the page against WCAG 2.1 A and AA: rule, element, and what is wrong."""
    browser.execute_script(axe)
    return browser.execute_async_script("""
        const done = arguments[arguments.length - 1];
        axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] }).then(
          (found) => done(found.violations.flatMap((rule) => rule.nodes.map(
            (node) => `${rule.id}: ${node.target}: ${node.failureSummary}`))),
          (error) => done([String(error)]));
    """)
