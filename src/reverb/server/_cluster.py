"""Several servers as one: Reverb with scaling, behind a load balancer."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import cast

from ._engine import Engine, Peer


class Cluster:
    """Nodes that pass events on to each other, and an address that leads to the first node that runs."""

    def __init__(
        self, nodes: Sequence[Engine], *, host: str, port: int, ssl_context: ssl.SSLContext | None
    ) -> None:
        self.name = "the server"
        self.nodes = nodes
        self.host = host
        self.port = port
        self.prefix = nodes[0].prefix
        self.is_secure = ssl_context is not None
        self.journal = nodes[0].journal
        self.loop: asyncio.AbstractEventLoop | None = None
        self._ssl_context = ssl_context
        self._server: asyncio.Server | None = None
        for of_app in zip(*(node.channels for node in nodes), strict=True):
            for node, channels in zip(nodes, of_app, strict=True):
                channels.nodes, channels.fail = of_app, node.fail

    async def start(self) -> None:
        if self._server is not None:
            raise RuntimeError("the server has been started already")
        self.loop = asyncio.get_running_loop()
        try:
            self._server = await self.loop.create_server(
                self._accept, self.host, self.port, ssl=self._ssl_context, start_serving=False
            )
            self.port = self._server.sockets[0].getsockname()[1]
            for node in self.nodes:
                await node.start()
            await self._server.start_serving()
        except BaseException:
            await self.stop()
            raise

    async def close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for node in self.nodes:
            await node.close()

    async def stop(self) -> None:
        await self.close()
        self.loop = None
        for node in self.nodes:
            await node.stop()

    def _accept(self) -> asyncio.BaseProtocol:
        return next((Peer(node) for node in self.nodes if node.is_running), _NoNode())


class _NoNode(asyncio.Protocol):
    """Closes the connection, because no node runs."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).abort()
