"""A real JupyterLab in headless Chromium, for tests and for looking at notebooks.

with jupyter_page() as (page, url):
    open_notebook(page, url, "05_demo.ipynb")
    run_all(page)
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from hand_lib import ROOT

CHROMIUM = next(
    (p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--use-gl=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
]


SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": '{"windowingMode": "none"}',  # all cells in the page
    "@jupyterlab/apputils-extension/notification": '{"fetchNews": "false"}',
}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def jupyter_page(folder=None, width: int = 1500, height: int = 1000):
    """Yield a playwright page and the server's address; everything ends with the block."""
    from playwright.sync_api import sync_playwright

    port, token = _free_port(), secrets.token_hex(8)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}",
               f"--IdentityProvider.token={token}", "--allow-root",
               f"--notebook-dir={folder or ROOT / 'notebooks'}",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
               "--LabApp.expose_app_in_browser=True"]  # fmt: skip
    settings = Path(tempfile.mkdtemp(prefix="lab-settings-"))
    for plugin, text in SETTINGS.items():
        path = settings / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'notebooks'}",  # what they import, also copies
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
    }
    server = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/api?token={token}", timeout=2)
                break
            time.sleep(0.25)
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page(viewport={"width": width, "height": height})
            page.on("dialog", lambda dialog: dialog.accept())  # leave without saving
            page.goto(f"{url}/lab?token={token}&reset")
            page.wait_for_selector(".jp-Launcher, .jp-NotebookPanel", timeout=60_000)
            yield page, url
            browser.close()
    finally:
        server.terminate()
        server.wait(20)
        shutil.rmtree(settings, ignore_errors=True)


def open_notebook(page, url: str, name: str) -> None:
    """Show a notebook and wait until its kernel answers."""
    page.goto(f"{url}/lab/tree/{name}?reset")  # and nothing else
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    kernel = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"
    page.wait_for_function(  # cells sent to a kernel that is still connecting are lost
        f"{kernel}?.connectionStatus == 'connected' && {kernel}.status == 'idle'", timeout=60_000
    )


def run_all(page, seconds: int = 120) -> None:
    """Run every cell as the menu does and wait for the last; a cell that fails is an error here."""
    page.evaluate(
        """() => {
            window.ran = false;
            const ran = () => { window.ran = true; };
            jupyterapp.commands.execute("notebook:run-all-cells").then(ran, ran);
        }"""
    )
    failed = page.locator('[data-mime-type="application/vnd.jupyter.error"]')
    deadline = time.time() + seconds
    while not page.evaluate("window.ran"):
        if time.time() > deadline:
            texts = page.locator(".jp-CodeCell .jp-InputArea-prompt").all_inner_texts()
            raise TimeoutError(f"the notebook had not run after {seconds} s; cells: {texts}")
        page.wait_for_timeout(150)
    if failed.count():
        raise RuntimeError(f"a cell failed: {failed.first.inner_text()[-800:]}")


def figure_in(page, selector: str, seconds: int = 120):
    """The first Plotly figure of a kind, drawn and in view.

    Each live figure brings five megabytes of JavaScript through the kernel's channel, which a busy
    core reads for a long while after the cell's number has appeared; hence the patience.
    selector: CSS of the figure by what it holds or is held by; not by what it is drawn near, which
    changes with the width of the page.
    """
    figure = page.locator(selector).first
    deadline = time.time() + seconds
    while time.time() < deadline:
        if figure.count() and figure.is_visible():
            figure.scroll_into_view_if_needed()
            settle(page, figure)
            return figure
        page.wait_for_timeout(200)
    said = page.locator(".jp-OutputArea-output").all_inner_texts()
    raise TimeoutError(f"no {selector} after {seconds} s; outputs: {said[-3:]}")


def settle(page, figure, seconds: int = 15) -> None:
    """Wait until a figure stays where it is and looks the same twice in a row."""
    deadline, last = time.time() + seconds, None
    while time.time() < deadline:
        now = (figure.bounding_box(), figure.screenshot())
        if now == last:
            return
        last = now
        page.wait_for_timeout(300)


def scroll_to(page, selector: str) -> None:
    """Bring the first match into view inside the notebook."""
    page.locator(selector).first.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
