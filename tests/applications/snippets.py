"""The programs in docs/guides/event-loops.md, which the tests of this directory run."""

from __future__ import annotations

import re
from pathlib import Path

_TEXT = (Path(__file__).parents[2] / "docs" / "guides" / "event-loops.md").read_text(encoding="utf-8")
_BLOCKS: list[str] = re.findall(r"^```python\n(.*?)^```$", _TEXT, re.M | re.S)

PROGRAMS = {match[1]: text for text in _BLOCKS if (match := re.match(r"# (\w+\.py)\n", text))}
"""By the name of the file in their first line."""
CELLS = [text for text in _BLOCKS if text not in PROGRAMS.values()]
"""Of the notebook."""
COMMANDS: list[str] = re.findall(r"^\$ (.*)$", _TEXT, re.M)
