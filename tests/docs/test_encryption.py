"""docs/guides/encryption.md: its code runs."""

from __future__ import annotations

import asyncio
import json

from reverb import ReverbClient
from reverb.crypto import derive_shared_secret, encrypt
from reverb.server import ReverbServer
from tests.docs.commands import check_commands
from tests.docs.pages import Block, Fragment, Page
from tests.integration.servers import Target
from tests.test_dispatch import Recorder

PAGE = Page("docs/guides/encryption.md")
block_of = PAGE.block_of
NAME = "private-encrypted-payments"
EVENT = "App\\Events\\PaymentReceived"


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


def sealed() -> str:
    return encrypt('{"amount":5}', derive_shared_secret(NAME, b"master key of the application!!!"))


@block_of("Encrypted channels")
def test_the_extra(block: Block) -> None:
    check_commands(block)


@block_of("Encrypted channels 2")
async def test_decrypting(block: Block, server: ReverbServer, target: Target) -> None:
    received = Recorder()
    fragment = Fragment(block, ReverbClient=ReverbClient, on_payment=received)
    running = asyncio.ensure_future(fragment.run())
    await server.wait_for_subscription(NAME)
    await target.publish(NAME, EVENT, sealed())
    assert await received.wait_for(1) == [(EVENT, {"amount": 5}, NAME)]
    await fragment.names["client"].disconnect()
    await running


@block_of("Get the encrypted data")
async def test_without_decrypting(block: Block, client: ReverbClient, target: Target) -> None:
    received, text = Recorder(), sealed()
    await Fragment(block, client=client, on_sealed=received).run()
    await target.publish(NAME, EVENT, text)
    data = json.loads(text)
    assert await received.wait_for(1) == [(EVENT, data, NAME)]
    assert data.keys() == {"nonce", "ciphertext"}
