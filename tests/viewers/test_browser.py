"""Panels of two notebooks in a real JupyterLab in headless Chromium, with real clicks.

They run wherever Chromium and playwright are installed. Cells that a panel does not need are left
out: nbval runs those.
"""

import base64
import importlib.util
import json

import numpy as np
import pytest
from browser import CHROMIUM, figure_in, jupyter_page, open_notebook, run_all, settle
from PIL import Image

from hand_lib import ROOT

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="needs Chromium (apt install chromium) and playwright",
)

NEEDED = {
    "01_data_exploration": ("import numpy", "model = HandModel", "hand_explorer(model)"),
    "00_start_here": ("demo_panel(pre",),
}
"""Beginnings or parts of the cells that lead to each panel; the parameters come always."""


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory):
    """A folder of copies of the notebooks, cleared and cut to what the panels need."""
    folder = tmp_path_factory.mktemp("notebooks")
    for name, parts in NEEDED.items():
        book = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())
        kept = []
        for cell in (cell for cell in book["cells"] if cell["cell_type"] == "code"):
            source = "".join(cell["source"])
            if "parameters" in cell["metadata"]["tags"] or any(part in source for part in parts):
                fresh = {"source": source, "execution_count": None, "outputs": [], "metadata": {}}
                kept.append(cell | fresh)  # nothing hidden: their numbers tell that they have run
        assert len(kept) == len(parts) + 1, f"cells of {name} have changed"
        book["cells"] = kept
        (folder / f"{name}.ipynb").write_text(json.dumps(book))
    return folder


@pytest.fixture
def lab(notebooks):
    """JupyterLab on those notebooks, a new one for each test: kernels of others take their time."""
    with jupyter_page(notebooks) as (page, url):
        yield page, url


def coloured(path) -> float:
    """Share of a screenshot's pixels that are clearly coloured."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return float((np.ptp(pixels, axis=2) > 30).mean())


def test_the_demo_takes_a_box_a_side_a_wipe_and_an_upload_and_saves(lab, tmp_path):
    page, url = lab
    open_notebook(page, url, "00_start_here.ipynb")
    run_all(page, seconds=240)
    picture = figure_in(page, ".js-plotly-plot:has(image)")

    def changes(act, seconds: int = 60):
        """Do something; then what lies over the photograph must become another."""
        before = picture.locator("image").first.get_attribute("href")
        act()
        for _ in range(seconds * 5):
            if picture.locator("image").first.get_attribute("href") != before:
                return
            page.wait_for_timeout(200)
        raise AssertionError("the picture did not change")

    def drag():
        place = picture.bounding_box()
        x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
        page.mouse.move(x - 60, y - 70)
        page.mouse.down()
        page.mouse.move(x, y, steps=4)
        page.mouse.move(x + 60, y + 80, steps=4)
        page.mouse.up()

    def press(word):
        page.locator(f'.widget-toggle-button:has-text("{word}")').first.click()

    changes(drag)
    left = page.locator('.widget-toggle-button:has-text("left")').first
    changes(lambda: press("right" if "mod-active" in left.get_attribute("class") else "left"))
    page.wait_for_function("!document.body.innerText.includes('working ...')")
    changes(lambda: press("both"))
    pick = page.locator('.widget-dropdown:has-text("picture") select').first
    changes(lambda: pick.select_option("hand_3"))
    page.locator('.widget-slider:has-text("wipe") .noUi-handle').first.focus()
    changes(lambda: page.keyboard.press("PageUp"))
    page.wait_for_function("!document.body.innerText.includes('working ...')")
    scene = figure_in(page, ".js-plotly-plot:has(.gl-container canvas)")
    front, aside = tmp_path / "front.png", tmp_path / "aside.png"
    scene.screenshot(path=front)
    press("side")
    page.wait_for_timeout(1500)
    scene.screenshot(path=aside)
    assert _apart(front, aside) > 0.01
    photos = [tmp_path / "mine.png", tmp_path / "another.png"]
    for photo in photos:
        Image.open(ROOT / "data" / "examples" / "hand_6.jpg").save(photo)
    with page.expect_file_chooser() as chooser:
        page.locator('button:has-text("upload")').first.click()
    changes(lambda: chooser.value.set_files([str(photo) for photo in photos]))
    assert pick.input_value() == "mine.png" and "another.png" in pick.inner_text()
    dropped = page.evaluate_handle(
        """text => {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
            return data;
        }""",
        base64.b64encode(photos[0].read_bytes()).decode(),
    )
    changes(lambda: picture.dispatch_event("drop", {"dataTransfer": dropped}))
    assert pick.input_value() == "dropped.png"
    page.locator(':text("nobody knows the camera")').first.wait_for(timeout=30_000)
    shot = tmp_path / "demo.png"
    page.screenshot(path=shot)
    assert coloured(shot) > 0.01
    page.locator('a[download="hand.ply"]').first.scroll_into_view_if_needed()
    for kind in ("ply", "obj", "glb", "json", "png"):
        with page.expect_download() as saved:
            page.locator(f'a[download="hand.{kind}"]').first.click()
        assert saved.value.path().stat().st_size > 1000


def _apart(one, other) -> float:
    """Share of pixels that differ clearly between two screenshots."""
    one, other = (np.asarray(Image.open(p).convert("L")).astype(int) for p in (one, other))
    return float((np.abs(one - other) > 40).mean())


def test_the_hand_explorer_follows_a_gesture_and_a_slider(lab, tmp_path):
    page, url = lab
    open_notebook(page, url, "01_data_exploration.ipynb")
    run_all(page, seconds=240)
    scene = figure_in(page, ".jupyter-widgets .js-plotly-plot:has(.gl-container canvas)")
    settle(page, scene)
    before, fist, bent = (tmp_path / f"{name}.png" for name in ("before", "fist", "bent"))
    scene.screenshot(path=before)
    assert coloured(before) > 0.02
    page.locator('.widget-dropdown:has-text("gesture") select').first.select_option("fist")
    _redraws(page, scene, before, fist, 0.01)
    settle(page, scene)
    scene.screenshot(path=fist)
    page.locator(".widget-tab .noUi-handle:visible").first.focus()
    for _ in range(12):
        page.keyboard.press("PageDown")
    _redraws(page, scene, fist, bent, 0.001)


def _redraws(page, scene, before, after, share, seconds: int = 30):
    for _ in range(2 * seconds):
        scene.screenshot(path=after)
        if _apart(before, after) > share:
            return
        page.wait_for_timeout(500)
    raise AssertionError("the hand did not move")
