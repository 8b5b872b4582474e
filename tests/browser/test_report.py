"""The report in a real browser: hover, zoom, sorting, phone, print, no errors.

Needs Debian's chromium and chromium-driver; run by .ci/run, or by hand:
python -m pytest tests/browser.
"""

import base64
import time
import warnings

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

import bayeslmm as bl

# The view of a Bokeh figure, found by what it shows.
PLOT = """const plot = (function (name) {
  for (const page of Bokeh.documents) {
    for (const root of page.roots()) {
      if (root.name.startsWith(name)) return Bokeh.index[root.id];
    }
  }
})(arguments[0]);
"""
MIDDLE = "{block: 'center', behavior: 'instant'}"


@pytest.fixture(scope="module")
def page(mice, tmp_path_factory):
    ids = mice.phenotypes.index[mice.phenotypes.cd8.notna()][:600]
    few = mice.genotypes.select(samples=ids, chrom=[1, 2, 17])
    model = bl.LMM("cd8 ~ sex", mice.phenotypes, bl.grm(few))
    return model.report(tmp_path_factory.mktemp("browser") / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1200,900",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service("/usr/bin/chromedriver"))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, page):
    browser.set_window_size(1200, 900)
    browser.get(page)
    until(lambda: browser.execute_script(f"{PLOT} return plot?.frame != null", "Manhattan"))
    return browser


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.1)


def test_no_errors_and_nothing_from_the_network(opened):
    problems = [row for row in opened.get_log("browser") if row["level"] in ("SEVERE", "WARNING")]
    assert problems == []
    loaded = opened.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert [name for name in loaded if not name.startswith(("data:", "blob:"))] == []


def best_point(driver):
    """Page coordinates of the highest point of the Manhattan plot, in view."""
    driver.execute_script(f"{PLOT} plot.el.scrollIntoView({MIDDLE})", "Manhattan")
    time.sleep(0.3)
    return driver.execute_script(
        f"""{PLOT}
        let best = [0, 0, ""];
        for (const r of plot.model.renderers) {{
          const data = r.data_source?.data;
          if (!data?.id) continue;
          for (let i = 0; i < data.y.length; i++) {{
            if (data.y[i] > best[1]) best = [data.x[i], data.y[i], data.id[i]];
          }}
        }}
        const frame = plot.frame;
        const box = plot.canvas_view.el.getBoundingClientRect();
        return [box.left + frame.x_scale.compute(best[0]), box.top + frame.y_scale.compute(best[1]),
                best[2]];""",
        "Manhattan",
    )


def test_hovering_names_the_variant(opened):
    x, y, name = best_point(opened)
    mouse(opened, "mouseMoved", x - 40, y + 60)
    mouse(opened, "mouseMoved", x, y)
    seen = """
      const found = [];
      const walk = (node) => {
        for (const el of node.querySelectorAll("*")) {
          if (el.className?.toString().includes("bk-tooltip")) found.push(el);
          if (el.shadowRoot) walk(el.shadowRoot);
        }
      };
      walk(document);
      const text = (el) => [...(el.shadowRoot ?? el).querySelectorAll("*")]
        .map((e) => e.textContent).join(" ");
      return found.map(text).join(" ");
    """
    until(lambda: name in opened.execute_script(seen))


def mouse(driver, kind, x, y, **more):
    driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **more})


def test_dragging_a_box_zooms(opened):
    x, y, _ = best_point(opened)
    width = f"{PLOT} return plot.model.x_range.end - plot.model.x_range.start"
    before = opened.execute_script(width, "Manhattan")
    held = {"button": "left", "buttons": 1}
    mouse(opened, "mousePressed", x - 60, y + 10, clickCount=1, **held)
    for step in range(1, 6):
        mouse(opened, "mouseMoved", x - 60 + 18 * step, y + 10 + 20 * step, **held)
    mouse(opened, "mouseReleased", x + 30, y + 110, clickCount=1, button="left")
    until(lambda: opened.execute_script(width, "Manhattan") < 0.5 * before)


def test_tables_sort_by_their_headers(opened):
    table = opened.find_element(By.CSS_SELECTOR, "table.sortable")
    headers = [h.text for h in table.find_elements(By.CSS_SELECTOR, "thead th")]
    column = headers.index("eaf")
    header = table.find_elements(By.CSS_SELECTOR, "thead th")[column]

    def values():
        return opened.execute_script(
            "return [...arguments[0].tBodies[0].rows]"
            ".map((row) => Number(row.cells[arguments[1]].dataset.value))",
            table,
            column,
        )

    opened.execute_script(f"arguments[0].scrollIntoView({MIDDLE})", header)
    opened.execute_script("arguments[0].click()", header)
    assert values() == sorted(values())
    opened.execute_script("arguments[0].click()", header)
    assert values() == sorted(values(), reverse=True)
    assert header.get_attribute("aria-sort") == "descending"


def test_a_phone_shows_all_of_it(browser, page):
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        browser.get(page)
        time.sleep(1)
        width = browser.execute_script("return document.documentElement.scrollWidth")
        size = browser.execute_script("return getComputedStyle(document.body).fontSize")
        too_wide = browser.execute_script(
            "return [...document.querySelectorAll('section p, section img, .bk-Figure')]"
            ".filter((el) => el.getBoundingClientRect().right > 391).length"
        )
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert width <= 391
    assert float(size.removesuffix("px")) >= 14
    assert too_wide == 0


def test_print_has_still_figures(opened):
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        shown = opened.execute_script(
            "return ['.screen-only', '.print-only', 'nav'].map((s) => "
            "[...document.querySelectorAll(s)].map((el) => getComputedStyle(el).display))"
        )
        assert set(shown[0]) == {"none"}
        assert set(shown[1]) == {"block"}
        assert set(shown[2]) == {"none"}
        printed = opened.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    pdf = base64.b64decode(printed["data"])
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") <= 20


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Reports of several kernels, two traits and the liability."""
    rng = np.random.default_rng(3)
    x = rng.integers(0, 3, size=(120, 200))
    y = (x[:, :60] - 1) @ rng.normal(size=(60, 2)) / 8 + rng.normal(size=(120, 2))
    K = bl.grm(x)
    halves = {"first half": bl.grm(x[:, :100]), "second half": bl.grm(x[:, 100:])}
    liability = bl.LiabilityLMM(y[:, 0] > 0, kernel=K)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draws = liability.sample(draws=50, tune=50, chains=4, seed=1)
    folder = tmp_path_factory.mktemp("others")
    parts = bl.PartitionedLMM(y[:, 0], kernels=halves)
    pair = bl.BivariateLMM(y, kernel=K)
    pages = [
        parts.report(folder / "parts.html", tree=parts.posterior(400, seed=1)),
        pair.report(folder / "pair.html", tree=pair.posterior(400, seed=1)),
        liability.report(folder / "liability.html", tree=draws),
    ]
    return [path.as_uri() for path in pages]


@pytest.mark.parametrize("width", [390, 1200])
def test_reports_of_other_models_fit_the_screen(browser, others, width):
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 700}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        for page in others:
            browser.get(page)
            until(lambda: browser.execute_script("return document.readyState") == "complete")
            wide = browser.execute_script("return document.documentElement.scrollWidth")
            broken = browser.execute_script(
                "return [...document.images].filter((i) => !i.complete || !i.naturalWidth).length"
            )
            problems = [row for row in browser.get_log("browser") if row["level"] == "SEVERE"]
            assert (wide <= width + 1, broken, problems) == (True, 0, []), page
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
