"""The page under /ui in a real Chromium, in front of a real worker. Nothing beyond loopback can be reached here."""

import shutil

import pytest

sync_api = pytest.importorskip("playwright.sync_api")


@pytest.fixture(scope="module")
def browser():
    """One Chromium for all tests here."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium on this machine: ./tests/run installs it")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield running
        running.close()


@pytest.fixture
def page(browser):
    """An empty page; an error in its scripts fails the test."""
    errors = []
    opened = browser.new_page()
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.set_default_timeout(20_000)
    yield opened
    opened.close()
    assert errors == []


def open_page(page, worker, fragment=""):
    page.goto(f"{worker.client.base_url}/ui/{fragment}")


def test_runs_are_listed_and_searched(worker, page):
    worker.start()
    for n in range(3):
        worker.run("total", [n], id=f"sum-{n}")
        worker.until(lambda n=n: worker.get(f"/v1/runs/sum-{n}").json()["state"] == "completed")
    worker.run("approval", id="waiting")
    open_page(page, worker)
    page.wait_for_selector("text=sum-2")
    assert page.locator("tbody tr").count() == 4
    assert "signal approved" in page.locator("tr", has_text="waiting").inner_text()
    page.select_option("select[name=state]", "running")
    page.click("text=Search")
    page.wait_for_function("document.querySelectorAll('tbody tr').length === 1")
    assert page.locator("tbody").inner_text().startswith("waiting")
    page.fill("input[name=workflow]", "total")
    page.click("text=Search")
    page.wait_for_selector("text=No run matches.")


def test_a_run_shows_its_timeline_and_history_and_follows_it(worker, page):
    worker.start()
    worker.run("gated", "gate", id="one")
    open_page(page, worker, "#one")
    page.wait_for_selector("svg rect.attempt-open")
    assert page.locator("svg rect.attempt-done").count() == 1
    (worker.data / "gate").touch()
    page.wait_for_selector(".state.completed")
    assert page.locator("svg rect.attempt-done").count() == 3
    kinds = [row.split("\t")[2] for row in page.locator("tbody").inner_text().splitlines() if row.count("\t") >= 2]
    assert kinds == [event["kind"] for event in worker.history("one")]


def test_failed_attempts_and_waits_are_in_the_picture(worker, page):
    worker.start()
    worker.run("failing", id="bad")
    worker.until(lambda: worker.get("/v1/runs/bad").json()["state"] == "failed")
    open_page(page, worker, "#bad")
    page.wait_for_selector("svg rect.attempt-failed")
    assert "as asked" in page.locator("dl").inner_text()
    worker.run("approval", id="asks")
    page.fill("input[name=id]", "asks")
    page.click("text=Open")
    page.wait_for_selector("svg rect.wait")


def test_what_a_run_holds_is_shown_as_text(worker, page):
    worker.start()
    worker.run("approval", id="script")
    worker.post("/v1/runs/script/signals/approved", "<img src=x onerror=alert(1)><script>alert(2)</script>")
    worker.until(lambda: worker.get("/v1/runs/script").json()["state"] == "completed")
    open_page(page, worker, "#script")
    page.wait_for_selector(".state.completed")
    assert "<img src=x" in page.locator("dl").inner_text()
    assert page.locator("main img, main script").count() == 0


def test_an_unknown_run_says_so(worker, browser):
    worker.start()
    page = browser.new_page()  # the browser itself reports a 404 as an error
    open_page(page, worker, "#nobody")
    page.wait_for_selector("#problem:visible")
    assert "nobody" in page.locator("#problem").inner_text()
    page.close()


def test_the_page_is_served_behind_a_prefix_and_asks_nobody_else(worker):
    worker.start()
    moved = worker.get("/ui", follow_redirects=False)
    assert (moved.status_code, moved.headers["location"]) == (308, "ui/")
    page = worker.get("/ui/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert 'src="page.js"' in page.text
    for name in ("page.js", "timeline.js", "picture.js", "style.css"):
        assert worker.get(f"/ui/{name}").status_code == 200
    for path in ("/ui/nothing", "/ui/../ui.py", "/ui/%2e%2e/ui.py"):
        assert worker.get(path).status_code == 404
    assert worker.post("/ui/").status_code in (404, 405)
