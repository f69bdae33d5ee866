"""Records the pictures of ``reverb console``: the page, in Chromium, with what happens in a shop.

They look as those in the repository where the fonts Inter and JetBrains Mono are installed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from playwright.async_api import Browser, Page
from tests import chromium
from tests.cli.processes import reverb

from reverb import ReverbClient
from reverb.server import App, ReverbServer

Act = Callable[[Page], Awaitable[None]]

ORDER, CHAT, PAYMENTS = "private-orders.1042", "presence-support.eu", "private-encrypted-payments"
PLACED = r"App\Events\OrderPlaced"
SHIPPED = r"App\Events\OrderShipped"
STOCK = r"App\Events\StockChanged"


def order(number: int, customer: str, city: str, status: str) -> dict[str, Any]:
    return {
        "order": {
            "id": number,
            "status": status,
            "customer": {"name": customer, "city": city},
            "items": [
                {"sku": "LAMP-7", "count": 2, "price": "49.90"},
                {"sku": "CABLE-2M", "count": 1, "price": "8.50"},
            ],
            "total": "108.30",
            "paid": True,
            "note": None,
        }
    }


async def choose_an_event(page: Page) -> None:
    await page.locator(".row.event").filter(has_text="OrderShipped").last.click()
    await page.locator(".panel .tree").wait_for()


async def see_members(page: Page) -> None:
    await page.locator(".channel").filter(has_text=CHAT).click()
    await page.locator(".members li").first.wait_for()


async def just_look(page: Page) -> None:
    """The events are what is shown first."""


class PageScreen(NamedTuple):
    name: str
    """The file is ``screens/NAME.png``."""
    theme: str
    width: int
    height: int
    act: Act


PAGES = [
    PageScreen("console-light", "light", 1280, 800, choose_an_event),
    PageScreen("console-dark", "dark", 1280, 800, see_members),
    PageScreen("console-phone", "light", 390, 844, just_look),
]


async def record(pages: Iterable[PageScreen], folder: Path, port: int, check: Callable[[str, Path], None]) -> None:
    """Take the pictures. ``check`` is called with the text that is in each, and the directory of the command."""
    path = chromium.find()
    if path is None:
        raise SystemExit(chromium.MISSING)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ReverbServer([App(id="shop", key="shop-key")], port=port))
        cast = await stack.enter_async_context(shop(server))
        browser = await stack.enter_async_context(chromium.browsing(path))
        environment = {**server.env, "REVERB_HOST": "localhost"}
        command = reverb("console", "--no-open", "--all", env=environment, cwd=folder)
        running = await stack.enter_async_context(command)
        url = (await running.out.expect(r"^http://\S+#\S+$"))[0]
        first = await open_page(browser, url, PAGES[0])
        await first.locator(".follow[aria-pressed=true]").nth(4).wait_for()
        await happen_before(server, cast)
        await server.restart(downtime=1.2)
        await first.locator(".row.gap").filter(has_text="5 channels").wait_for()
        await happen_after(server)
        await first.locator(".row.event").filter(has_text="ParcelOnItsWay").wait_for()
        for each in pages:
            page = await open_page(browser, url, each)
            await page.locator(".row").nth(10).wait_for()
            await each.act(page)
            check(await page.locator("body").inner_text(), folder)
            picture = folder / f"{each.name}.png"
            await page.screenshot(path=picture)
            print(f"wrote {picture}")


async def open_page(browser: Browser, url: str, screen: PageScreen) -> Page:
    context = await browser.new_context(
        viewport={"width": screen.width, "height": screen.height},
        color_scheme="dark" if screen.theme == "dark" else "light",
        device_scale_factor=2 if screen.width < 500 else 1.5,
        reduced_motion="reduce",
    )
    page = await context.new_page()
    await page.goto(url)
    return page


@asynccontextmanager
async def shop(server: ReverbServer) -> AsyncIterator[list[ReverbClient]]:
    """People who have the shop open."""
    async with AsyncExitStack() as stack:
        names = ["ann", "bob", "zoë", "amina", "jiří"]
        people = [await stack.enter_async_context(ReverbClient(**server.settings)) for _ in names]
        for name, client in zip(names, people, strict=True):
            await client.subscribe("news")
            await client.subscribe(CHAT, {"user_id": name, "user_info": {"name": name.title()}})
        for client in people[:3]:
            await client.subscribe("stock")
        await people[0].subscribe(ORDER)
        await people[1].subscribe("private-users.7")
        await people[2].subscribe(PAYMENTS, decrypt=False)
        yield people


async def happen_before(server: ReverbServer, people: list[ReverbClient]) -> None:
    await server.publish("news", r"App\Events\ArticlePublished", {"id": 12, "title": "Lamps for the dark season"})
    await server.publish("stock", STOCK, {"sku": "LAMP-7", "left": 41})
    await server.publish(ORDER, PLACED, order(1042, "Zoë Fischer", "Łódź", "placed"))
    await server.publish("stock", STOCK, {"sku": "LAMP-7", "left": 39})
    await server.publish(PAYMENTS, r"App\Events\PaymentSettled", {"nonce": "pZ0b", "ciphertext": "kX3v"})
    await people[0].channels[ORDER].trigger("typing", {"user": "ann", "typing": True})
    await server.publish("private-users.7", r"App\Events\CouponIssued", {"code": "AUTUMN-10", "percent": 10})
    for left in (38, 37, 33):
        await server.publish("stock", STOCK, {"sku": "CABLE-2M", "left": left})
    await server.publish("news", r"App\Events\BannerChanged", {"text": "Free delivery until Friday", "until": 17})


async def happen_after(server: ReverbServer) -> None:
    await server.publish("stock", STOCK, {"sku": "LAMP-7", "left": 37})
    await server.publish(ORDER, r"App\Events\OrderPacked", order(1042, "Zoë Fischer", "Łódź", "packed"))
    await server.publish("private-users.7", r"App\Events\InvoiceReady", {"invoice": "2026-0117", "pages": 2})
    await server.publish("news", r"App\Events\ArticlePublished", {"id": 13, "title": "How our lamps are made"})
    await server.publish(ORDER, SHIPPED, order(1042, "Zoë Fischer", "Łódź", "shipped"))
    await server.publish("stock", STOCK, {"sku": "LAMP-7", "left": 35})
    await server.publish("private-users.7", r"App\Events\ParcelOnItsWay", {"carrier": "Zoë's Vans", "parcels": 1})
