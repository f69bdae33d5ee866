"""Text that others wrote, made fit for messages and logs: visible, harmless, bounded."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

_MOST = 200
"""Characters of a text that are shown."""
_JOINERS = "\u200c\u200d"
"""Not printable by themselves, but part of words and emoji."""


def visible(text: str, most: int | None = _MOST) -> str:
    """Write what is not printable as escapes, and cut what is longer than ``most`` characters (None: nothing).

    Control characters could steer a terminal or begin a new line of the log, and those that change the direction
    of writing show something else than there is. Text in any language stays as it is.
    """
    is_cut = most is not None and len(text) > most
    if is_cut:
        text = text[:most]
    if not text.isprintable():
        text = "".join(
            character
            if character.isprintable() or character in _JOINERS
            else character.encode("unicode_escape").decode()
            for character in text
        )
    return f"{text}…" if is_cut else text


def quoted(name: str) -> str:
    """Write a name as ``repr()`` does, no longer than :func:`visible` does."""
    return repr(name if len(name) <= _MOST else f"{name[:_MOST]}…")


def event_fields(event: str, channel: str | None) -> dict[str, str | None]:
    """What a log record about an event has beside its text."""
    return {"reverb_channel": None if channel is None else visible(channel), "reverb_event": visible(event)}


def bare(url: str) -> str:
    """A URL as it may be shown: without user, password, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
