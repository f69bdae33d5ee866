"""The command ``reverb``. Needs the extra ``python-reverb[cli]``."""

from __future__ import annotations

import io
import os
import sys

__all__ = ["main"]

_EXTRA = frozenset({"aiohttp", "click", "rich", "typer"})
"""The packages that the extra installs, as import names."""


def main() -> None:
    """Run the command line, and exit with its exit code."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the parent process closed it
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the terminal's encoding may lack characters of events
    try:
        from .app import app

        app(prog_name="reverb")
    except SystemExit as end:
        cause = end.__context__
        if isinstance(cause, BrokenPipeError) and cause.__context__ is None:  # the reader of --help has closed it
            sys.exit(0)
        raise
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        print(
            f'reverb: the command line needs {package}. Install it: pip install "python-reverb[cli]"',
            file=sys.stderr,
        )
        sys.exit(2)
    except OSError as error:  # from the output, such as a full disk: commands handle all other errors
        from .process import discard_output

        discard_output()
        print(f"reverb: can't write the output: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:  # before a command handles SIGINT
        sys.exit(130)
