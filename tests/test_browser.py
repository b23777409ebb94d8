"""The two notebooks with panels, in a real JupyterLab in headless Chromium.

They ask for it: BROWSER_TESTS=1 make test. A page that is slow to draw can still time them out.
"""

import importlib.util
import json
import os

import numpy as np
import pytest
from browser import CHROMIUM, jupyter_page, open_notebook, run_all
from PIL import Image

from hand_lib import ROOT

pytestmark = pytest.mark.skipif(
    not os.environ.get("BROWSER_TESTS")
    or CHROMIUM is None
    or importlib.util.find_spec("playwright") is None,
    reason="needs BROWSER_TESTS=1, Chromium and playwright (apt install chromium)",
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on cleared copies of the notebooks."""
    folder = tmp_path_factory.mktemp("notebooks")
    for name in ("01_data_exploration", "05_demo"):
        book = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())
        for cell in (cell for cell in book["cells"] if cell["cell_type"] == "code"):
            cell |= {"execution_count": None, "outputs": []}  # a number then means: it ran here
        (folder / f"{name}.ipynb").write_text(json.dumps(book))
    with jupyter_page(folder) as (page, url):
        yield page, url


def coloured(path) -> float:
    """Share of a screenshot's pixels that are clearly coloured."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return float((np.ptp(pixels, axis=2) > 30).mean())


def test_the_demo_takes_a_box_a_side_and_an_upload(lab, tmp_path):
    page, url = lab
    open_notebook(page, url, "05_demo.ipynb")
    run_all(page, seconds=240)
    picture = page.locator(".js-plotly-plot:has(image)").first
    picture.wait_for(timeout=30_000)
    picture.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)
    overlay = page.locator("img.widget-image").first
    before = overlay.get_attribute("src")
    place = picture.bounding_box()
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    page.mouse.move(x - 60, y - 70)
    page.mouse.down()
    page.mouse.move(x, y, steps=4)
    page.mouse.move(x + 60, y + 80, steps=4)
    page.mouse.up()
    _changes(page, overlay, before)
    before = overlay.get_attribute("src")
    page.locator('.widget-toggle-button:has-text("left")').first.click()
    _changes(page, overlay, before)
    before = overlay.get_attribute("src")
    photo = tmp_path / "mine.png"
    Image.new("RGB", (320, 240), (180, 140, 120)).save(photo)
    with page.expect_file_chooser() as chooser:
        page.locator('button:has-text("upload")').first.click()
    chooser.value.set_files(str(photo))
    _changes(page, overlay, before)
    shot = tmp_path / "demo.png"
    page.screenshot(path=shot)
    assert coloured(shot) > 0.01
    assert page.locator('a[download="hand.glb"]').count() >= 1


def _changes(page, image, before, seconds: int = 20):
    for _ in range(seconds * 5):
        if image.get_attribute("src") != before:
            return
        page.wait_for_timeout(200)
    raise AssertionError("the overlay did not change")


def test_the_hand_explorer_follows_a_slider(lab, tmp_path):
    page, url = lab
    open_notebook(page, url, "01_data_exploration.ipynb")
    run_all(page, seconds=300)
    page.locator('.widget-dropdown:has-text("gesture")').first.scroll_into_view_if_needed()
    page.wait_for_timeout(1500)
    figure = page.locator(".js-plotly-plot:near(.widget-tab)").first
    before, after = tmp_path / "before.png", tmp_path / "after.png"
    figure.screenshot(path=before)
    page.locator('.widget-dropdown:has-text("gesture") select').first.select_option("fist")
    page.wait_for_timeout(1500)
    figure.screenshot(path=after)
    one, other = (np.asarray(Image.open(p).convert("L")).astype(int) for p in (before, after))
    assert coloured(before) > 0.02 and (np.abs(one - other) > 40).mean() > 0.01
