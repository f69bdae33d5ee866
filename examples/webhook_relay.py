"""Takes webhooks over HTTP, and passes them on to whoever is subscribed.

    pip install python-reverb aiohttp
    export REVERB_APP_KEY=… REVERB_APP_SECRET=… REVERB_HOST=…
    PORT=8000 python webhook_relay.py

``POST /webhooks/github`` with a JSON body becomes the client event ``client-received`` on
``private-webhooks.github``, so the application has to accept client events. Each webhook gets a connection of its
own, which is simple and needs no care; with many a second, keep one client open instead. Before you open it to the
world, put TLS in front of it, and check the sender's signature. Ends on Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import logging
import os

from aiohttp import web

from reverb import ProtocolError, ReverbClient, ReverbError


async def relay(request: web.Request) -> web.Response:
    source = request.match_info["source"]
    try:
        payload = await request.json()
    except ValueError:
        return web.Response(status=400, text="The body is not JSON.\n")
    try:
        async with ReverbClient() as client:
            channel = await client.subscribe(f"private-webhooks.{source}")
            await channel.trigger("received", payload)
    except ProtocolError as error:  # larger than the server takes, or neither an object nor a list
        return web.Response(status=422, text=f"{error}\n")
    except ReverbError as error:
        logging.error("a webhook of %s is not delivered: %s", source, error)
        return web.Response(status=502, text="The message server does not take it.\n")
    return web.Response(status=204)


app = web.Application()
app.router.add_post(r"/webhooks/{source:[\w-]+}", relay)

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    web.run_app(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
