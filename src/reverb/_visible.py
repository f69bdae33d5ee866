"""Makes text from other sources safe for messages and logs: visible, harmless, and limited in length."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

_MOST = 200
"""Maximum number of characters that are shown."""
_JOINERS = "\u200c\u200d"
"""Characters that are not printable, but part of words and emoji."""


def visible(text: str, most: int | None = _MOST) -> str:
    """Write characters that are not printable as escapes, and cut the text after ``most`` characters (None: don't
    cut).

    Control characters could control a terminal or begin a new line of the log. Characters that change the
    direction of writing could show another text. Text in any language stays unchanged.
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
    """Return a name in quotes, as ``repr()`` writes it, cut as by :func:`visible`."""
    return repr(name if len(name) <= _MOST else f"{name[:_MOST]}…")


def event_fields(event: str, channel: str | None) -> dict[str, str | None]:
    """Return the extra fields of a log record about an event."""
    return {"reverb_channel": None if channel is None else visible(channel), "reverb_event": visible(event)}


def bare(url: str) -> str:
    """Return a URL that may be shown: without user, password, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
