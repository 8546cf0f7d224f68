"""A real browser for tests, Chromium through Selenium, on a network that ends at this machine."""

import _socket
import contextlib
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_HERE = {"127.0.0.1", "localhost", "::1"}


def chromium() -> tuple[str, str]:
    """Paths of Chromium and its driver; skips where one is missing."""
    browser = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip(
            "no browser here: install chromium and chromium-driver to test the review page in one"
        )
    pytest.importorskip("selenium", reason="selenium is not installed: pip install -e '.[test]'")
    return browser, driver


@contextlib.contextmanager
def loopback() -> Iterator[None]:
    """Selenium talks to the driver over this machine's own network, which tests otherwise close."""

    def connect(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in _HERE:
            raise AssertionError(f"a connection to {address!r}: only this machine may be reached")
        _socket.socket.connect(self, address)

    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[tuple]:
        assert host in _HERE, f"looking up {host!r}: only this machine may be reached"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", int(port)))]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect)
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield


@contextlib.contextmanager
def opened(downloads: Path, *, width: int = 1280, dark: bool = False) -> Iterator[Any]:
    """A Selenium driver of headless Chromium, which reaches no network and saves into `downloads`."""
    browser, driver = chromium()
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--window-size={width},900",
        *(("--blink-settings=preferredColorScheme=0",) if dark else ()),
    ):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with loopback():
        page = webdriver.Chrome(options=options, service=Service(driver))
        try:
            yield page
        finally:
            page.quit()
