"""``reverb systemd``: print a unit file for a program that listens."""

from __future__ import annotations

import getpass
import re
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from .output import print_lines
from .process import ExitCode, fail

__all__ = ["systemd"]

# The program may use a Raspberry Pi's camera and pins. So the user chooses PrivateDevices, and ProtectClock, which
# closes devices, too. MemoryDenyWriteExecute is not here because it breaks libraries with callbacks from C, and
# ProcSubset=pid because it breaks os.getloadavg().
_UNIT = """\
# /etc/systemd/system/{name}.service
#
#   sudo systemctl daemon-reload
#   sudo systemctl enable --now {name}
#   sudo journalctl --unit {name} --follow

[Unit]
Description={description}
After=network-online.target
Wants=network-online.target

[Service]
# client.listen() and reverb.run() tell systemd when the client is connected,
# and that the program is alive. If your program calls neither, write
# Type=simple and remove the next two lines.
Type=notify
NotifyAccess=main
WatchdogSec=60
User={user}
WorkingDirectory={directory}
# The settings: REVERB_APP_KEY, REVERB_HOST and so on. Only the user may read
# this file: chmod 600
EnvironmentFile={directory}/.env
# The program's output reaches the journal at once.
Environment=PYTHONUNBUFFERED=1
ExecStart={command}
# The client reconnects by itself. systemd restarts the program if the server
# does not run yet when the machine starts, and if the program hangs.
Restart=always
RestartSec=10
# If a restart does not help because a setting is wrong (2), or the server or
# the application refuses a channel (4), let the service stop:
#RestartPreventExitStatus=2 4

# The program can write in its directory, and in a private /tmp.
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths="{directory}"
PrivateTmp=yes
UMask=0077
# The program can't get more rights. If it calls sudo, remove everything from
# here to [Install].
NoNewPrivileges=yes
CapabilityBoundingSet=
RestrictSUIDSGID=yes
# The program needs the network, and little else of the kernel.
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
LockPersonality=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RemoveIPC=yes
# If the program uses no camera, pins or serial port, add these:
#PrivateDevices=yes
#ProtectClock=yes

[Install]
WantedBy=multi-user.target
"""


def systemd(
    command: Annotated[
        str | None,
        typer.Option(
            "--exec",
            metavar="COMMAND",
            help="The command to run, as in ExecStart=. Default: listener.py with the Python that runs reverb.",
        ),
    ] = None,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="The unit's name, without .service.")
    ] = "reverb-client",
    description: Annotated[
        str, typer.Option(metavar="TEXT", help="The description that systemctl shows.")
    ] = "Listens to Laravel Reverb",
    user: Annotated[
        str | None, typer.Option(metavar="USER", help="The user that runs the program. Default: you.")
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY",
            help="The working directory. Its file .env has the settings. Default: the current directory.",
        ),
    ] = None,
) -> None:
    """Print a systemd unit for a program that listens.

    Run this in the program's directory, as the program's user:
    `reverb systemd | sudo tee /etc/systemd/system/reverb-client.service`.

    Comments in the unit say what you can change. The unit has `Type=notify` and a watchdog: `client.listen()`
    tells systemd when the client is connected, and that the program is alive. systemd restarts a program that
    hangs.
    """
    where = str((directory or Path()).absolute())
    if not re.fullmatch(r"[\w:.-]+", name, re.ASCII):
        raise fail(f"--name {name!r} is not a valid unit name: use letters, digits and :._- only", ExitCode.USAGE)
    given = {"--exec": command, "--description": description, "--user": user, "--directory": where}
    for option, text in given.items():
        if text is not None and (not text.strip() or not text.isprintable()):
            raise fail(f"{option} {text!r} must be one line that is not empty", ExitCode.USAGE)
    if any(character in where for character in "\"'\\"):
        raise fail(f"--directory {where} must not have a quotation mark or a backslash", ExitCode.USAGE)
    unit = _UNIT.format(
        name=name,
        description=_literally(description),
        user=user or getpass.getuser(),
        directory=_literally(where),
        command=f'"{_literally(sys.executable)}" listener.py' if command is None else _findable(command),
    )
    print_lines(unit.splitlines())


def _literally(text: str) -> str:
    """Escape %, so that systemd finds no specifiers in a text."""
    return text.replace("%", "%%")


def _findable(command: str) -> str:
    """Make the program's path absolute: systemd searches neither the working directory nor the user's PATH."""
    program, _, arguments = command.strip().partition(" ")
    if not program.startswith(("/", '"', "'", "@", "-", ":", "+", "!")):
        found = shutil.which(program)
        if found is None:
            raise fail(f"--exec: {program} is not found; write its full path", ExitCode.USAGE)
        program = _literally(str(Path(found).absolute()))
    return f"{program} {arguments}".rstrip()
