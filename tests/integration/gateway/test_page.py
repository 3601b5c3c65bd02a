"""The pages as people use them: a real Chromium before a real exchange, at desktop and phone widths.

The screenshots go into the test's temporary folder; look at them when something about the page changes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from gateway.app import every_route
from gateway.errors import public_errors
from tests.harness.exchange import Exchange, User

PATIENCE_S = 20.0
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars"),
)


class Page:
    """What a person does with the page, and sees."""

    def __init__(self, browser: webdriver.Chrome) -> None:
        self.browser = browser

    def find(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return str(self.find(selector).text)

    def rows(self, name: str) -> int:
        return len(self.browser.find_elements(By.CSS_SELECTOR, f"#{name} > *"))

    def wait(self, holds: Callable[[], object]) -> None:
        WebDriverWait(self.browser, PATIENCE_S, poll_frequency=0.05).until(lambda _: holds())

    def press(self, selector: str) -> None:
        """Scroll to it first, as a person would."""
        element = self.find(selector)
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        self.browser.execute_script("arguments[0].click()", element)

    def fill(self, name: str, text: str) -> None:
        field = self.find(f"input[name={name}]")
        field.clear()
        field.send_keys(text)

    def place(self, **fields: str) -> None:
        for name, text in fields.items():
            self.fill(name, text)
        self.press("#submit")

    def complaints(self) -> list[str]:
        """What the console has to say; refused requests are told there too, which is not the page's fault."""
        told: list[dict[str, str]] = self.browser.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in told if entry["level"] == "SEVERE"]

    def is_as_wide_as_its_window(self) -> bool:
        widths = self.browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        return bool(widths[0] <= widths[1])


@contextmanager
def open_browser(folder: Path, width: int, height: int) -> Iterator[webdriver.Chrome]:
    """A Chromium with a window of this size, whose profile is in the folder."""
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={folder}/profile", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.binary_location = "/usr/bin/chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    try:
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        yield browser
    finally:
        browser.quit()


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, exchange: Exchange, tmp_path: Path) -> Iterator[Page]:
    with open_browser(tmp_path, *request.param) as browser:
        browser.get(exchange.base_url)
        opened = Page(browser)
        opened.wait(lambda: opened.text("#connection") == "Live")
        yield opened
        browser.save_screenshot(str(tmp_path / "end.png"))


@pytest.fixture(scope="module")
def maker(exchange: Exchange) -> User:
    """Somebody with orders on both sides, and a trade behind them."""
    user = exchange.join()
    for n in range(8):
        for side, price in (("BUY", 60_000 - 10 * n), ("SELL", 60_010 + 10 * n)):
            order(exchange, user, side, str(price), "0.5")
    order(exchange, exchange.join(), "BUY", "60010", "0.1")
    return user


def order(exchange: Exchange, user: User, side: str, price: str, quantity: str) -> None:
    body = {"symbol": "BTC-USD", "side": side, "type": "LIMIT", "price": price, "quantity": quantity}
    answer = exchange.http.post("/api/v1/orders", json=body, headers=user.headers)
    assert answer.status_code == 202, answer.text


def test_a_visitor_watches_joins_trades_and_cancels(
    page: Page, maker: User, exchange: Exchange, tmp_path: Path
) -> None:
    page.wait(lambda: page.text("#bids .price") == "60,000.00")
    page.wait(lambda: page.rows("trades") >= 1)
    page.wait(lambda: page.text("#ticker-last") == "60,010.00")
    assert page.is_as_wide_as_its_window()
    page.browser.save_screenshot(str(tmp_path / "visitor.png"))

    page.press("#join")
    page.wait(lambda: page.rows("balances") == 3)
    assert "1,000,000" in page.text("#balances")

    page.place(price="59000.5", quantity="0.25")
    page.wait(lambda: "open" in page.text("#orders"))
    assert "59,000.50" in page.text("#orders")
    page.wait(lambda: "985,249.875" in page.text("#balances"))  # Held: 14,750.125.
    page.browser.save_screenshot(str(tmp_path / "order.png"))
    page.press("#orders button")
    page.wait(lambda: page.rows("orders") == 0)
    page.wait(lambda: "985,249.875" not in page.text("#balances"))

    page.press("input[name=type][value=MARKET]")
    page.place(quantity="0.02")
    page.wait(lambda: "100.01996" in page.text("#balances"))
    page.press("#tab-fills")
    page.wait(lambda: "taker" in page.text("#fills"))
    assert page.is_as_wide_as_its_window()
    page.browser.save_screenshot(str(tmp_path / "fills.png"))
    assert page.complaints() == []


def test_what_the_exchange_refuses_is_said_at_the_field(page: Page, maker: User) -> None:
    page.press("#join")
    page.wait(lambda: page.rows("balances") == 3)
    page.place(price="59000.505", quantity="0.25")
    page.wait(lambda: "0.01" in page.text("#price-error"))
    page.place(price="59000.50", quantity="900")
    page.wait(lambda: "available" in page.text("#order-message"))
    page.place(price="59000.50", quantity="")
    page.wait(lambda: page.text("#quantity-error") != "")
    assert page.rows("orders") == 0


def test_the_other_market_and_a_level_picked_from_the_book(page: Page, maker: User) -> None:
    page.press("#markets [data-name='ETH-USD']")
    page.wait(lambda: page.text("#quantity-unit") == "ETH")
    page.wait(lambda: page.text("#bids .price") == "")
    page.press("#markets [data-name='BTC-USD']")
    page.wait(lambda: page.text("#bids .price") == "60,000.00")
    page.press("#bids button")
    assert page.find("#price").get_attribute("value") == "60000.00"
    for interval in ("5m", "1d", "1m"):
        page.press(f"#intervals [data-name='{interval}']")
    assert page.complaints() == []


def test_the_page_comes_back_after_the_gateway_does(page: Page, maker: User, exchange: Exchange) -> None:
    page.press("#join")
    page.wait(lambda: page.rows("balances") == 3)
    exchange.kill("gateway")
    page.wait(lambda: page.text("#connection") != "Live")
    exchange.start("gateway")
    page.wait(lambda: page.text("#connection") == "Live")
    exchange.wait_ready()
    page.place(price="58000", quantity="0.1")
    page.wait(lambda: "open" in page.text("#orders"))
    page.press("#cancel-all")
    page.wait(lambda: page.rows("orders") == 0)


@pytest.fixture(params=[(1440, 1000), (390, 844)], ids=["wide", "narrow"])
def docs(request: pytest.FixtureRequest, exchange: Exchange, tmp_path: Path) -> Iterator[Page]:
    """The page of the API."""
    with open_browser(tmp_path, *request.param) as browser:
        browser.get(f"{exchange.base_url}/docs")
        opened = Page(browser)
        opened.wait(lambda: browser.execute_script("return document.documentElement.dataset.ready"))
        yield opened
        browser.save_screenshot(str(tmp_path / "end.png"))


def test_all_of_the_api_can_be_read(docs: Page, exchange: Exchange) -> None:
    routes = [route for route in every_route() if route.documented]
    shown = [element.get_attribute("id") for element in docs.all(".route")]
    assert sorted(map(str, shown)) == sorted(route.operation for route in routes)
    codes = {element.text for element in docs.all("#errors td code")}
    assert codes >= {error.code for error in public_errors()}
    channels = docs.text("#channels")
    assert "depth:BTC-USD" in channels
    assert "balances" in channels
    assert f'curl -s "{exchange.base_url}/api/v1/orderbook?symbol=BTC-USD"' in docs.text("#orderbook pre")
    assert docs.is_as_wide_as_its_window()
    assert docs.complaints() == []


def test_an_example_can_be_copied_and_a_code_be_looked_up(docs: Page) -> None:
    docs.press("#place .copy")
    docs.wait(lambda: docs.text("#place .copy") in ("Copied", "Selected"))
    docs.press("#place summary")
    assert "A multiple of tick_size" in docs.text("#place details")
    docs.press('#place a[href="#error-INSUFFICIENT_FUNDS"]')
    assert docs.browser.current_url.endswith("#error-INSUFFICIENT_FUNDS")
    assert docs.complaints() == []
