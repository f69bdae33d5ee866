"""A web server that receives webhooks over HTTP and publishes them.

    pip install "python-reverb[http]"
    export REVERB_APP_ID=… REVERB_APP_KEY=… REVERB_APP_SECRET=… REVERB_HOST=…
    PORT=8000 python webhook_relay.py

    curl http://127.0.0.1:8000/webhooks/github --json '{"ref": "main"}'

``POST /webhooks/github`` with a JSON body becomes the event ``received`` on ``private-webhooks.github``. Status
204 tells the sender that the server has accepted the event. After any other status, the sender can try again. It
ends on Ctrl-C and SIGTERM.

Security: before you open the program to the internet, put TLS in front of it and check the sender's signature.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import AsyncIterator

from aiohttp import web

from reverb import ProtocolError, ReverbAPI, ReverbError

API = web.AppKey("API", ReverbAPI)


async def open_api(app: web.Application) -> AsyncIterator[None]:
    """Make one API for all requests, which share its connections."""
    async with ReverbAPI() as app[API]:
        yield


async def relay(request: web.Request) -> web.Response:
    source = request.match_info["source"]
    try:
        payload = (await request.read()).decode()
        json.loads(payload)
    except (ValueError, RecursionError):
        return web.Response(status=400, text="The body is not JSON.\n")
    try:  # a string is published unchanged
        await request.app[API].trigger(f"private-webhooks.{source}", "received", payload)
    except ProtocolError as error:  # larger than the server accepts
        return web.Response(status=413, text=f"{error}\n")
    except ReverbError as error:
        logging.error("a webhook of %s is not published: %s", source, error)
        return web.Response(status=502, text="The message server does not take it.\n")
    return web.Response(status=204)


app = web.Application()
app.cleanup_ctx.append(open_api)
app.router.add_post("/webhooks/{source:[A-Za-z0-9_-]{1,100}}", relay)

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    web.run_app(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
