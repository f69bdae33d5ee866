"""An application that authorises as Laravel does: what its routes, its middleware and PHP make of a request.

    async with Laravel() as laravel:
        authorizer = EndpointAuthorizer(laravel.url, token=laravel.token)

Nothing in here uses the package under test; signatures are made by hand.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qsl, quote

from aiohttp import web

PAGE = (
    "<!DOCTYPE html><html><head><title>Whoops</title></head><body>token=TOP-SECRET<br>" + 5_000 * "x" + "</body>"
)
TOKEN_ROUTE = """\
->withBroadcasting(
    __DIR__.'/../routes/channels.php',
    ['prefix' => 'api', 'middleware' => ['api', 'auth:sanctum']],
)
"""
"""What ``bootstrap/app.php`` says to have a route that takes tokens."""
USER = {"id": 7, "name": "Ann/é"}


class Laravel:
    """Listens on ``http://127.0.0.1:{port}``; a user logs in with a bearer token, or with cookies (Sanctum)."""

    def __init__(
        self, key: str = "app-key", secret: str = "app-secret", master_key: bytes = 32 * b"m", *, port: int = 0
    ) -> None:
        self.key = key
        self.secret = secret
        self.master_key = master_key
        self.token = "1|token-of-ann"
        self.user_routes = True
        """Whether ``Broadcast::userRoutes()`` is called before the start; Laravel does not by itself."""
        self.denied: set[str] = set()
        """Channels whose callback says no."""
        self.answers: deque[web.Response | Literal["drop"]] = deque()
        """What the next requests get in place of an authorisation; ``"drop"`` ends the connection."""
        self.delay = 0.0
        """Seconds that each authorisation takes."""
        self.limit: int | None = None
        """Requests that are taken until a second has passed since the first of them (``throttle``)."""
        self.asked: list[dict[str, Any]] = []
        """What PHP saw of each request: ``headers``, ``input``, ``status``."""
        self.most_at_once = 0
        self._at_once = 0
        self._window: tuple[float, int] = (0.0, 0)
        self._sessions: dict[str, dict[str, Any]] = {}
        self._port = port
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """The route of :data:`TOKEN_ROUTE`."""
        return f"{self.root}/api/broadcasting/auth"

    @property
    def stock_url(self) -> str:
        """The route that Laravel has by itself, with the middleware ``web``."""
        return f"{self.root}/broadcasting/auth"

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def channels(self) -> list[str]:
        """The channels asked for, in order."""
        return [each["input"].get("channel_name") for each in self.asked]

    async def start(self) -> None:
        application = web.Application()
        for prefix in ("", "/api"):
            application.router.add_post(f"{prefix}/broadcasting/auth", self._authorize)
            if self.user_routes:
                application.router.add_post(f"{prefix}/broadcasting/user-auth", self._authorize)
        application.router.add_get("/sanctum/csrf-cookie", self._csrf_cookie)
        application.router.add_post("/login", self._login)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Refuse connections until it is started again."""
        assert self._runner is not None
        await self._runner.cleanup()

    async def __aenter__(self) -> Laravel:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    # --- sessions ----------------------------------------------------------------------------------------------

    def _session(self, request: web.Request) -> dict[str, Any] | None:
        return self._sessions.get(request.cookies.get("laravel_session", ""))

    async def _csrf_cookie(self, request: web.Request) -> web.Response:
        response = web.Response(status=204)
        session = self._session(request)
        if session is None:
            name = secrets.token_urlsafe()
            session = self._sessions[name] = {"user": None}
            response.set_cookie("laravel_session", name, httponly=True)
        session["csrf"] = secrets.token_urlsafe() + "=="
        response.set_cookie("XSRF-TOKEN", quote(session["csrf"], safe=""))
        return response

    async def _login(self, request: web.Request) -> web.Response:
        session = self._session(request)
        if session is None or request.headers.get("X-XSRF-TOKEN") != session["csrf"]:
            return web.Response(status=419, text=PAGE, content_type="text/html")
        session["user"] = USER
        return web.Response(status=204)

    def forget_csrf_tokens(self) -> None:
        """As when sessions were regenerated."""
        for session in self._sessions.values():
            session["csrf"] = "another"

    # --- authorising -------------------------------------------------------------------------------------------

    async def _authorize(self, request: web.Request) -> web.Response:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        fields = _php_input(request.headers.get("Content-Type", ""), await request.read())
        seen: dict[str, Any] = {"headers": dict(request.headers), "input": fields, "path": request.path}
        self.asked.append(seen)
        try:
            await asyncio.sleep(self.delay)
            planned = self.answers.popleft() if self.answers else None
            if planned == "drop":
                assert request.transport is not None
                request.transport.abort()
                planned = web.Response()
            answer = planned or self._throttle() or self._answer(request, fields)
        finally:
            self._at_once -= 1
        seen["status"] = answer.status
        return answer

    def _throttle(self) -> web.Response | None:
        if self.limit is None:
            return None
        now = asyncio.get_running_loop().time()
        since, count = self._window
        self._window = (since, count + 1) if now < since + 1 else (now, 1)
        if self._window[1] <= self.limit:
            return None
        return web.Response(status=429, text=PAGE, content_type="text/html", headers={"Retry-After": "1"})

    def _answer(self, request: web.Request, fields: Mapping[str, Any]) -> web.Response:
        wants_json = "json" in request.headers.get("Accept", "")
        session, is_stateful = self._session(request), request.headers.get("Origin") == self.root
        user = None if session is None else session["user"]
        if request.path.startswith("/broadcasting/"):  # exempt from CSRF, and without a guard for tokens
            if user is None:
                return _error(403, wants_json, "")
        else:
            if is_stateful and (session is None or request.headers.get("X-XSRF-TOKEN") != session["csrf"]):
                return _error(419, wants_json, "CSRF token mismatch.")
            user = user if is_stateful else None
            if request.headers.get("Authorization") == f"Bearer {self.token}":
                user = USER
            if user is None:
                if wants_json:
                    return _error(401, True, "Unauthenticated.")
                return web.Response(status=302, headers={"Location": "/login?token=TOP-SECRET"})
        socket_id = fields.get("socket_id", "")
        if request.path.endswith("user-auth"):
            data = _json_encode({"id": str(user["id"]), "user_info": {"name": user["name"]}})
            return _json({"auth": self._sign(f"{socket_id}::user::{data}"), "user_data": data})
        name = fields.get("channel_name")
        if not isinstance(name, str) or name in self.denied or not name.startswith(("private-", "presence-")):
            return _error(403, wants_json, "This action is unauthorized.")
        answer: dict[str, Any] = {}
        signed = f"{socket_id}:{name}"
        if name.startswith("presence-"):
            answer["channel_data"] = _json_encode(
                {"user_id": str(user["id"]), "user_info": {"name": user["name"]}}
            )
            signed += ":" + answer["channel_data"]
        if name.startswith("private-encrypted-"):
            answer["shared_secret"] = base64.b64encode(self.shared_secret(name)).decode()
        return _json({"auth": self._sign(signed), **answer})

    def shared_secret(self, channel: str) -> bytes:
        return hashlib.sha256(channel.encode() + self.master_key).digest()

    def _sign(self, text: str) -> str:
        return f"{self.key}:{hmac.new(self.secret.encode(), text.encode(), hashlib.sha256).hexdigest()}"


def _php_input(content_type: str, body: bytes) -> dict[str, Any]:
    """``request()->all()``: PHP fills ``$_POST`` from forms only, and Laravel reads JSON by itself."""
    if content_type.startswith("application/x-www-form-urlencoded"):
        return dict(parse_qsl(body.decode(), keep_blank_values=True))
    if "json" in content_type:
        fields = json.loads(body)
        return fields if isinstance(fields, dict) else {}
    return {}


def _json_encode(value: Any) -> str:
    return json.dumps(value, separators=(",", ":")).replace("/", "\\/")


def _json(value: Any) -> web.Response:
    return web.Response(text=_json_encode(value), content_type="application/json")


def _error(status: int, as_json: bool, message: str) -> web.Response:
    if as_json:
        body = json.dumps({"message": message, "trace": ["TOP-SECRET"]})
        return web.Response(status=status, text=body, content_type="application/json")
    return web.Response(status=status, text=PAGE, content_type="text/html")
