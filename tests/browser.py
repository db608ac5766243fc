"""Drives a headless Chromium over a pipe, by its DevTools protocol: no driver, no package, no network.

with Browser(find_browser(), folder) as browser:
    browser.open(path)
    assert browser.run("document.title") == "..."
"""

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
    "--remote-debugging-pipe",
)
PATIENCE = 120  # seconds for one answer; the machine may be busy


def find_browser() -> str | None:
    """The path of a Chromium, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), None)


class Browser:
    """One browser with one page."""

    def __init__(self, program: str, folder: Path) -> None:
        self.problems: list[str] = []  # what the page wrote to the console as an error, and what its policy refused
        self.requests: list[str] = []  # addresses the page asked for
        to_browser, self.output = os.pipe()
        self.input, from_browser = os.pipe()
        started = f"exec {program} {' '.join(FLAGS)} --user-data-dir='{folder}' 3<&{to_browser} 4>&{from_browser}"
        self.process = subprocess.Popen(
            ["bash", "-c", started],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.buffer, self.number, self.session = b"", 0, ""
        target = self.ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        self.session = self.ask("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable", {})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.session = ""
        self.ask("Browser.close", {})
        self.process.wait(PATIENCE)
        os.close(self.input)
        os.close(self.output)

    def _message(self) -> dict:
        """The next message; messages end in a zero byte."""
        while b"\0" not in self.buffer:
            found = os.read(self.input, 2**20)
            if not found:
                raise RuntimeError("the browser has gone")
            self.buffer += found
        first, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(first)

    def _notice(self, message: dict) -> None:
        method, told = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(told["exceptionDetails"])[:500])
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.problems.append(told["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"][:80])

    def ask(self, method: str, parameters: dict) -> dict:
        """Sends a command and waits for its answer."""
        self.number += 1
        command = {"id": self.number, "method": method, "params": parameters}
        command |= {"sessionId": self.session} if self.session else {}
        os.write(self.output, json.dumps(command).encode() + b"\0")
        while (answer := self._message()).get("id") != self.number:
            self._notice(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def run(self, script: str) -> object:
        """The value of an expression in the page; a promise is waited for."""
        asked = {"expression": script, "awaitPromise": True, "returnByValue": True, "userGesture": True}
        answer = self.ask("Runtime.evaluate", asked)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"])[:1000])
        return answer["result"].get("value")

    def open(self, path: Path) -> None:
        """Loads a file and waits until it is complete."""
        self.ask("Page.navigate", {"url": path.resolve().as_uri()})
        end = time.monotonic() + PATIENCE
        while self.run("document.readyState + location.protocol") != "completefile:":
            if time.monotonic() > end:
                raise RuntimeError(f"{path} did not load in {PATIENCE} s")
            time.sleep(0.05)

    def look(self, width: int, height: int, scheme: str = "light") -> None:
        """The size of the window in CSS pixels, and the colours the reader's system prefers."""
        is_phone = width < 600
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone}
        self.ask("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("Emulation.setEmulatedMedia", {"features": features})

    def picture(self, path: Path, whole: bool = False) -> None:
        """A PNG of what is in the window, or of the whole page."""
        answer = self.ask("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})
        path.write_bytes(base64.b64decode(answer["data"]))
