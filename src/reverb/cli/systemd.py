"""``reverb systemd``: a unit file for a program that listens."""

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

# The program may be one that uses a Raspberry Pi's camera and pins, so PrivateDevices is for the reader to choose,
# and ProtectClock, which closes the devices, too. MemoryDenyWriteExecute breaks libraries with callbacks from C,
# and ProcSubset=pid os.getloadavg().
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
# client.listen(), which is in reverb.run() too, tells systemd when it is
# connected, and that it is alive. For a program without, write Type=simple and
# take out the next two lines.
Type=notify
NotifyAccess=main
WatchdogSec=60
User={user}
WorkingDirectory={directory}
# REVERB_APP_KEY, REVERB_APP_SECRET, REVERB_HOST …; the user's own: chmod 600
EnvironmentFile={directory}/.env
# Lets what the program prints arrive in the journal at once.
Environment=PYTHONUNBUFFERED=1
ExecStart={command}
# The client reconnects by itself. This is for a server that is not there yet
# when the machine starts, and for the watchdog.
Restart=always
RestartSec=10

# It can write in its own directory, and in a /tmp of its own.
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths="{directory}"
PrivateTmp=yes
UMask=0077
# It gets no more rights than it has. If it calls sudo, all of this has to go,
# down to [Install].
NoNewPrivileges=yes
CapabilityBoundingSet=
RestrictSUIDSGID=yes
# It needs the network, and little else of the kernel.
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
# Better still, where it uses no camera, pins, or serial port:
#PrivateDevices=yes
#ProtectClock=yes

[Install]
WantedBy=multi-user.target
"""


def systemd(
    command: Annotated[
        str | None,
        typer.Option(
            "--exec", metavar="COMMAND", help="What is run, as in ExecStart=. By default this Python, listener.py."
        ),
    ] = None,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="The unit's name, without .service.")
    ] = "reverb-client",
    description: Annotated[
        str, typer.Option(metavar="TEXT", help="What systemctl calls it.")
    ] = "Listens to Laravel Reverb",
    user: Annotated[str | None, typer.Option(metavar="USER", help="Who runs it. By default you.")] = None,
    directory: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY", help="Where it is run, with the settings in the file .env there. By default here."
        ),
    ] = None,
) -> None:
    """Print a systemd unit for a program that listens.

    In the program's directory, as its user:
    `reverb systemd | sudo tee /etc/systemd/system/reverb-client.service`.
    The unit says in comments what can be changed. It is of `Type=notify` with a watchdog: `client.listen()`
    tells systemd when it is connected, and that it is alive; a program that hangs is started again.
    """
    where = str((directory or Path()).absolute())
    if not re.fullmatch(r"[\w:.-]+", name, re.ASCII):
        raise fail(f"--name {name!r} can't be a unit's name: only letters, digits, :._-", ExitCode.USAGE)
    given = {"--exec": command, "--description": description, "--user": user, "--directory": where}
    for option, text in given.items():
        if text is not None and (not text.strip() or not text.isprintable()):
            raise fail(f"{option} {text!r} must be one line that is not empty", ExitCode.USAGE)
    if any(character in where for character in "\"'\\"):
        raise fail(f"--directory {where} has a quote or a backslash in it", ExitCode.USAGE)
    unit = _UNIT.format(
        name=name,
        description=_literally(description),
        user=user or getpass.getuser(),
        directory=_literally(where),
        command=f'"{_literally(sys.executable)}" listener.py' if command is None else _findable(command),
    )
    print_lines(unit.splitlines())


def _literally(text: str) -> str:
    """Write a text so that systemd finds no specifiers in it."""
    return text.replace("%", "%%")


def _findable(command: str) -> str:
    """Make the program's path absolute: systemd looks for it neither in the directory nor in a PATH of yours."""
    program, _, arguments = command.strip().partition(" ")
    if not program.startswith(("/", '"', "'", "@", "-", ":", "+", "!")):
        found = shutil.which(program)
        if found is None:
            raise fail(f"--exec {program} is not found; write the whole path", ExitCode.USAGE)
        program = _literally(str(Path(found).absolute()))
    return f"{program} {arguments}".rstrip()
