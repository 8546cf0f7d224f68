"""The review page in browsers of its own: contrast, width, and no further request."""

import functools
import http.server
import threading
from pathlib import Path

import pytest

from deepssim_jax.jobs.review_page import page
from tests.jobs import browser
from tests.jobs.review_session import NAMES, Session, rate_three, shown

# WCAG 2.2, relative luminance and contrast ratio, of every element with text of its own.
CONTRAST = """
    const numbers = (text) => text.match(/[0-9.]+/g).map(Number);
    const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const light = (c) => {
      const [r, g, b] = c.slice(0, 3).map((v) => linear(v / 255));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (x) => {
      for (; x; x = x.parentElement) {
        const c = numbers(getComputedStyle(x).backgroundColor);
        if (c.length < 4 || c[3] > 0) return c;
      }
      return [255, 255, 255];
    };
    const own = (x) => [...x.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const shown = (x) => x.offsetParent && !x.disabled && !x.matches("option, script, style");
    return [...document.querySelectorAll("body *")].filter((x) => own(x) && shown(x)).map((x) => {
      const [a, b] = [light(numbers(getComputedStyle(x).color)), light(behind(x))];
      return [x.tagName + "#" + x.id, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    });
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    content = page(shown(6), key="key-open", names=NAMES, blind=False)
    (folder / "open.html").write_bytes(content)
    return folder


@pytest.mark.parametrize("dark", [False, True])
def test_contrast_is_aa_and_800_pixels_are_wide_enough(
    root: Path, tmp_path: Path, dark: bool
) -> None:
    with browser.opened(tmp_path, width=800, dark=dark) as driver:
        session = Session(driver, root / "open.html")
        session.do("document.querySelector('details').open = true")
        rate_three(session)
        paper = session.do("return getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") is not dark
        found = session.do(CONTRAST)
        assert len(found) > 20 and [x for x in found if x[1] < 4.5] == []
        assert session.do("return document.documentElement.scrollWidth <= window.innerWidth")
        assert session.errors() == []


def test_the_page_asks_for_nothing(root: Path, tmp_path: Path) -> None:
    """Served, so that every further request would be seen."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    browser.chromium()
    with browser.loopback():
        serving = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Handler, directory=str(root))
        )
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        try:
            with browser.opened(tmp_path) as driver:
                driver.get(f"http://127.0.0.1:{serving.server_address[1]}/open.html")
                session = Session.__new__(Session)
                session.driver = driver
                session.wait("return document.body.dataset.drawn")
                rate_three(session)
        finally:
            serving.shutdown()
            serving.server_close()
    assert [path for path in asked if path != "/favicon.ico"] == ["/open.html"]
