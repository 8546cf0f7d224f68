"""Review pages of noise, and a browser's session of one."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepssim_jax.jobs.review_page import Shown
from deepssim_jax.jobs.review_pictures import PairView, Plane

Keys = pytest.importorskip(
    "selenium.webdriver.common.keys", reason="selenium is not installed"
).Keys
HOSTILE = (
    "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
)
NAMES = ("synthetic", "real")


def plane(seed: int, *, name: str = "", slices: int = 1, side: int = 128) -> Plane:
    """Noise, the moving picture darker than the fixed one by 40."""
    fixed = np.random.default_rng(seed).integers(60, 200, (slices, side, side)).astype(np.uint8)
    return Plane(name, fixed, fixed - 40)


def shown(count: int, **how: int) -> list[Shown]:
    points = np.array([[0.25, 0.25], [0.5, 0.75]])
    return [
        Shown(
            f"{i:012x}",
            PairView((plane(i, **how),), points, points),
            facts=(
                ("synthetic", HOSTILE if i == 1 else f"s{i}.png"),
                ("verified score", f"{i / count:.3f}"),
            ),
            margin=i / count - 0.5,
        )
        for i in range(count)
    ]


class Session:
    """One opened page, from nothing kept."""

    def __init__(self, driver: Any, path: Path):
        self.driver = driver
        driver.get(path.as_uri())
        driver.execute_script("localStorage.clear()")
        self.reload()

    def reload(self) -> None:
        self.driver.refresh()
        self.wait("return document.body.dataset.drawn")

    def press(self, key: str) -> None:
        self.driver.find_element("tag name", "body").send_keys(key)

    def do(self, script: str, *given: object) -> Any:
        return self.driver.execute_script(script, *given)

    def name(self, reader: str) -> None:
        """Puts this name in the place of the reader's, as typing does."""
        field = self.at("reader")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(Keys.DELETE, reader, Keys.TAB)

    def at(self, name: str) -> Any:
        return self.driver.find_element("id", name)

    @property
    def status(self) -> str:
        return self.at("status").text

    def wait(self, script: str, *, seconds: float = 10) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := self.do(script):
                return found
            time.sleep(0.02)
        raise AssertionError(f"did not come true: {script}")

    def pixel(self, canvas: str, y: int = 256, x: int = 256) -> int:
        # By a copy: reading the page's own canvas would make the browser complain in its console.
        return self.do(
            """
            const copy = document.createElement("canvas");
            copy.width = copy.height = 1;
            const context = copy.getContext("2d", {willReadFrequently: true});
            const from = document.getElementById(arguments[0]);
            context.drawImage(from, arguments[2], arguments[1], 1, 1, 0, 0, 1, 1);
            return context.getImageData(0, 0, 1, 1).data[0];
            """,
            canvas,
            y,
            x,
        )

    def set(self, name: str, value: object, *, event: str = "input") -> None:
        self.do(
            """
            const control = document.getElementById(arguments[0]);
            control.value = arguments[1];
            control.dispatchEvent(new Event(arguments[2]));
            """,
            name,
            str(value),
            event,
        )

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]


def saved(path: Path) -> Path:
    """A file that the browser downloads, once it is there."""
    end = time.monotonic() + 10
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.05)
    return path


def rate_three(session: Session) -> None:
    for key in "123":
        session.press(key)
