"""Throw-away certificates for TLS on this machine."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificates:
    server: ssl.SSLContext
    """For a server on 127.0.0.1 or localhost."""
    client: ssl.SSLContext
    """For a client that trusts that server, and no other."""
    ca_file: Path
    """The authority's certificate. This file and the others are PEM."""
    certificate_file: Path
    key_file: Path


def make_certificates(
    directory: Path, *names: str, days: tuple[int, int] = (-1, 30), whole_chain: bool = False
) -> Certificates:
    """Make a new authority and a server certificate, and write their files into ``directory``.

    The certificate is for ``names``, or for this machine, and valid from and until so many days from now. With
    ``whole_chain`` the server sends the authority's along.
    """
    ca_file, certificate_file, key_file = (directory / name for name in ("ca.pem", "server.pem", "server.key"))
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(ca_file))
    since, until = (datetime.now(timezone.utc) + timedelta(days=each) for each in days)
    issued = authority.issue_cert(*names or ("127.0.0.1", "localhost"), not_before=since, not_after=until)
    issued.private_key_pem.write_to_path(str(key_file))
    chain = [*issued.cert_chain_pems, *([authority.cert_pem] if whole_chain else [])]
    certificate_file.write_bytes(b"".join(blob.bytes() for blob in chain))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate_file, key_file)
    client = ssl.create_default_context(cafile=str(ca_file))
    return Certificates(server, client, ca_file, certificate_file, key_file)
