"""The pages of reports in Chromium, opened from disk as a reader would."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from text2ct.reports import viewer, write_benchmark_report, write_imbalance_report
from text2ct.reports.comparison import write_comparison_report

from .conftest import make_full_result, make_summary

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt-get install chromium)")

LOCAL = ("file:", "data:", "blob:")
SOFTWARE_WEBGL = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
NO_WEBGL = ["--disable-gpu", "--disable-3d-apis"]


def _chest(k: int) -> np.ndarray:
    """(24, 20, 16) HU: a body with two lungs, the first of which shrinks from volume to volume."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in (24, 20, 16)], indexing="ij")
    hu = np.where(x**2 + y**2 < 0.9, 40.0, -1000.0)
    hu[4 * (x - 0.45) ** 2 + y**2 + z**2 < 0.5 - 0.1 * k] = -850.0
    hu[4 * (x + 0.45) ** 2 + y**2 + z**2 < 0.5] = -850.0
    return hu


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    names = ("Pleural effusion", "Atelectasis", "Emphysema")
    shown = [
        {
            "prompt": f"Report {k}.",
            "labels": [name],
            "seed": k,
            "name": f"v{k}",
            "hu": _chest(k),
            "spacing_mm": (9, 9, 9),
        }
        for k, name in enumerate(names)
    ]
    folder = tmp_path_factory.mktemp("page")
    methods = "First paragraph.\n\nSecond paragraph."
    page = write_benchmark_report(make_full_result(), folder, volumes=shown, methods=methods, rerun=["text2ct demo"])
    return page.as_uri()


@pytest.fixture(scope="module")
def playwright() -> Iterator[Any]:
    with sync_api.sync_playwright() as running:
        yield running


def _launch(playwright: Any, flags: list[str]) -> Any:
    # Chromium's own sandbox does not start for root, as in most containers.
    return playwright.chromium.launch(executable_path=CHROMIUM, args=[*flags, "--no-sandbox"])


@pytest.fixture(scope="module")
def browser(playwright: Any) -> Iterator[Any]:
    running = _launch(playwright, SOFTWARE_WEBGL)
    yield running
    running.close()


class Watched:
    """A page, and all that it should not do."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("console", lambda message: self._note(message.type in ("error", "warning"), message.text))
        self.page.on("pageerror", lambda error: self._note(True, str(error)))
        self.context.route("**/*", self._only_local)
        self.page.goto(address)

    def _note(self, bad: bool, what: str) -> None:
        if bad and "GPU stall due to ReadPixels" not in what:  # of the test's screenshots, by software WebGL
            self.wrong.append(what)

    def _only_local(self, route: Any) -> None:
        if route.request.url.startswith(LOCAL):
            route.continue_()
        else:
            self.wrong.append(f"request to {route.request.url}")
            route.abort()

    def start_viewer(self) -> None:
        self.page.locator("#viewer").scroll_into_view_if_needed()
        self.page.wait_for_selector("#viewer[data-state=ready]", timeout=30_000)

    def picture(self) -> np.ndarray:
        """What the canvas shows, ``(H, W)`` grey values."""
        self.page.wait_for_timeout(150)
        png = self.page.locator("#viewer canvas").screenshot()
        return np.asarray(Image.open(io.BytesIO(png)).convert("L"), dtype=float)

    def shows(self, part: str, text: str) -> None:
        """Wait until a part of the viewer says so."""
        sync_api.expect(self.page.locator(f"[data-part={part}]")).to_have_text(text)

    def text(self, part: str) -> str:
        return self.page.locator(f"[data-part={part}]").inner_text()


@pytest.fixture
def watched(browser: Any, address: str) -> Iterator[Watched]:
    one = Watched(browser, address, viewport={"width": 1200, "height": 900})
    yield one
    assert one.wrong == []
    one.context.close()


needs_niivue = pytest.mark.skipif(viewer.bundle() is None, reason="ipyniivue is not installed")


@needs_niivue
def test_the_viewer_draws_and_follows_the_keyboard(watched: Watched) -> None:
    watched.start_viewer()
    first = watched.picture()
    assert first.std() > 20  # not blank
    assert watched.text("status") == "volume 1 of 3, axial slice 9 of 16"
    stage = watched.page.locator("[data-part=stage]")
    stage.focus()
    watched.page.keyboard.press("ArrowUp")
    assert watched.text("status") == "volume 1 of 3, axial slice 10 of 16"
    for _ in range(20):
        watched.page.keyboard.press("ArrowUp")
    assert watched.text("status") == "volume 1 of 3, axial slice 16 of 16"
    assert np.abs(watched.picture() - first).mean() > 1
    watched.page.keyboard.press("ArrowRight")
    watched.shows("status", "volume 2 of 3, axial slice 16 of 16")
    assert watched.text("prompt") == "Report 1."
    assert watched.text("labels") == "Atelectasis"
    for _ in range(2):
        watched.page.keyboard.press("ArrowLeft")
    watched.shows("status", "volume 3 of 3, axial slice 16 of 16")
    assert watched.picture().std() > 20


@needs_niivue
def test_the_viewer_obeys_its_controls(watched: Watched) -> None:
    watched.start_viewer()
    page = watched.page
    lung = watched.picture()
    page.locator("[data-part=window]").select_option("bone")
    assert np.abs(watched.picture() - lung).mean() > 1
    page.locator("[data-part=plane]").select_option("sagittal")
    page.get_by_role("slider").fill("5")
    assert watched.text("status") == "volume 1 of 3, sagittal slice 5 of 24"
    page.get_by_role("button", name="Next volume").click()
    watched.shows("prompt", "Report 1.")
    page.locator("article button.open").nth(2).click()
    watched.shows("prompt", "Report 2.")
    assert page.locator("[data-part=volume]").input_value() == "2"


@needs_niivue
def test_a_finger_moves_the_crosshair(browser: Any, address: str) -> None:
    one = Watched(browser, address, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    one.start_viewer()
    before = one.picture()
    box = one.page.locator("#viewer canvas").bounding_box()
    finger = one.context.new_cdp_session(one.page)
    for kind, x in (("touchStart", 0.2), ("touchMove", 0.25), ("touchMove", 0.3), ("touchEnd", None)):
        points = [] if x is None else [{"x": box["x"] + x * box["width"], "y": box["y"] + 0.85 * box["height"]}]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        one.page.wait_for_timeout(50)
    assert np.abs(one.picture() - before).mean() > 0.1
    assert one.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert one.wrong == []
    one.context.close()


def test_without_webgl_the_stills_remain(playwright: Any, address: str) -> None:
    running = _launch(playwright, NO_WEBGL)
    one = Watched(running, address)
    assert one.page.evaluate("document.createElement('canvas').getContext('webgl2')") is None
    assert one.page.locator("#viewer:visible").count() == 0
    assert one.page.locator("article img:visible").count() == 3
    assert [error for error in one.wrong if "WebGL" not in error] == []
    running.close()


def _column(page: Any, table: int, column: int) -> list[str]:
    cells = page.locator("table.sortable").nth(table).locator(f"tbody tr td:nth-child({column + 1})")
    return [text or "" for text in cells.all_text_contents()]


def test_tables_sort_by_click_and_by_keyboard(watched: Watched) -> None:
    page = watched.page
    heads = page.locator("table.sortable").nth(0).locator("th")
    titles = [title.split("\n")[0] for title in heads.all_inner_texts()]
    auc = next(k for k, title in enumerate(titles) if title.startswith("macro AUC"))
    before = _column(page, 0, auc)
    heads.nth(auc).locator("button").click()
    assert heads.nth(auc).get_attribute("aria-sort") == "descending"
    assert _column(page, 0, auc) == sorted(before, reverse=True) != before
    page.keyboard.press("Enter")  # the heading has the focus now
    assert heads.nth(auc).get_attribute("aria-sort") == "ascending"
    assert _column(page, 0, auc) == sorted(before)
    heads.nth(0).locator("button").focus()
    page.keyboard.press("Space")
    assert heads.nth(0).get_attribute("aria-sort") == "ascending"
    assert heads.nth(auc).get_attribute("aria-sort") is None
    names = _column(page, 0, 0)
    assert names == sorted(names)


def test_gaps_are_last_whichever_way_a_table_sorts(watched: Watched) -> None:
    tables = watched.page.locator("table.sortable")
    index = next(k for k in range(tables.count()) if "Δ AUC" in tables.nth(k).locator("thead").inner_text())
    button = tables.nth(index).locator("th", has_text="Δ AUC").locator("button")
    for _ in range(2):
        button.click()
        assert _column(watched.page, index, 4)[-1] == "–"


def test_dark_and_light_differ(browser: Any, address: str) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        one = Watched(browser, address, color_scheme=scheme)
        colours[scheme] = one.page.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,"
            " getComputedStyle(document.querySelector('figure svg text')).fill]"
        )
        one.context.close()
    assert all(light != dark for light, dark in zip(colours["light"], colours["dark"], strict=True))


def test_a_phone_scrolls_tables_and_not_the_page(browser: Any, address: str) -> None:
    one = Watched(browser, address, viewport={"width": 390, "height": 844})
    assert one.page.evaluate("document.documentElement.scrollWidth") <= 390
    one.context.close()


def test_it_prints_light_with_stills_and_without_the_viewer(watched: Watched) -> None:
    watched.page.emulate_media(media="print", color_scheme="dark")
    assert watched.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert watched.page.locator("#viewer:visible").count() == 0
    assert watched.page.locator("article img:visible").count() == 3
    assert watched.page.locator("article .prompt:visible").count() == 3
    pdf = watched.page.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
    assert watched.page.evaluate("[...document.querySelectorAll('details')].every((part) => part.open)")


def test_methods_are_copied_whole(browser: Any, address: str) -> None:
    one = Watched(browser, address, permissions=["clipboard-read", "clipboard-write"])
    one.page.get_by_role("button", name="Copy the text").click()
    one.page.get_by_role("button", name="Copied").wait_for()
    copied = one.page.evaluate("navigator.clipboard.readText()")
    assert copied.split() == ["First", "paragraph.", "Second", "paragraph."]
    assert one.wrong == []
    one.context.close()


def test_data_can_be_saved_from_the_page(watched: Watched, address: str) -> None:
    with watched.page.expect_download() as saving:
        watched.page.get_by_role("link", name="seeds.csv").click()
    beside = Path(address.removeprefix("file://")).parent / "data" / "seeds.csv"
    assert Path(saving.value.path()).read_bytes() == beside.read_bytes()


# What reports, prompts and names of others may hold: each would set `window.hacked`, load a file or add an element.
HOSTILE = (
    "<script>window.hacked = 1</script>",
    "</script></style></title></textarea><script>window.hacked = 2</script>",
    "<img src=x onerror='window.hacked = 3'>",
    "\"'><svg onload=window.hacked=4><circle></svg>",
    "<iframe srcdoc='<script>parent.hacked = 5</script>'></iframe>",
    "--><a href='javascript:window.hacked=6' id=viewer>&lt;script&gt;window.hacked = 7&lt;/script&gt;</a><!--",
    "{{ 7 * 7 }}{% include '/etc/passwd' %}${window.hacked = 8}\u2028window.hacked = 9",
)


def _hostile_benchmark(folder: Path) -> Path:
    volumes = [
        {"prompt": text, "labels": [text], "seed": 1, "name": text, "hu": _chest(k), "spacing_mm": (9, 9, 9)}
        for k, text in enumerate(HOSTILE)
    ]
    result = make_full_result()
    result["notes"] = list(HOSTILE)
    for arm in list(result["arms"]):
        result["arms"][f"{arm}<svg onload=window.hacked=10>"] = result["arms"][arm]
    return write_benchmark_report(
        result, folder, volumes=volumes, methods=" ".join(HOSTILE), rerun=HOSTILE, limitations=HOSTILE, title=HOSTILE[1]
    )


def _hostile_comparison(folder: Path) -> Path:
    volumes = [
        {"prompt": text, "labels": ["Atelectasis"], "seed": 1, "name": text, "hu": _chest(k), "spacing_mm": (9, 9, 9)}
        for k, text in enumerate(HOSTILE)
    ]
    sets = {text: {"n_real": 1, "n_synthetic": 1} for text in HOSTILE}
    found = {"sets": sets, "prompts": 7, "against": HOSTILE[1], "notes": HOSTILE, "measures": {}, "differences": []}
    return write_comparison_report(found, folder, volumes=volumes, command=" ".join(HOSTILE))


def _hostile_imbalance(folder: Path) -> Path:
    summary = make_summary()
    summary["splits"] = {text: summary["splits"]["train"] for text in HOSTILE}
    summary["disagreeing_scans"] = list(HOSTILE)
    return write_imbalance_report(
        summary, folder, title=" ".join(HOSTILE), next_steps=[(text, text) for text in HOSTILE]
    )


@pytest.mark.parametrize(
    "write", [_hostile_benchmark, _hostile_comparison, _hostile_imbalance], ids=lambda f: f.__name__
)
def test_what_others_wrote_is_text_and_nothing_else(write: Any, browser: Any, tmp_path: Path) -> None:
    one = Watched(browser, write(tmp_path).as_uri(), viewport={"width": 1200, "height": 900})
    page = one.page
    page.on("dialog", lambda dialog: one.wrong.append(dialog.message))
    if page.locator("#viewer").count() and viewer.bundle():
        one.start_viewer()
        for k, text in enumerate(HOSTILE):  # the script that steps through volumes writes prompts too
            page.locator("[data-part=volume]").select_option(str(k))
            page.wait_for_function(
                "text => document.querySelector('[data-part=prompt]').textContent === text", arg=text
            )
    page.eval_on_selector_all("th button", "all => all.forEach((button) => button.click())")
    shown = page.locator("body").text_content().replace("\n", " ")
    assert all(text.replace("\n", " ") in shown for text in HOSTILE[1:])
    assert page.evaluate("window.hacked") is None
    assert page.locator("iframe, svg[onload], [href^=javascript], [onerror]").count() == 0
    assert page.locator("#viewer").count() <= 1
    assert one.wrong == []
    one.context.close()
