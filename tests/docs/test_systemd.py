"""docs/guides/systemd.md: systemd takes the unit of a device, and its settings are ours."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reverb import ReverbConfig
from reverb.cli.app import app
from tests.docs.pages import Page

TEXT = Page("docs/guides/systemd.md").text
SETTINGS, DROP_IN = re.findall(r"^```ini\n(.*?)^```", TEXT, re.M | re.S)


def test_the_settings_of_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text(SETTINGS)
    config = ReverbConfig.from_env()
    assert (config.app_secret, config.max_pending_bytes) == (None, 1 << 20)
    assert config.auth_endpoint is not None
    assert config.auth_token is not None


def test_the_unit_of_a_device(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not there")
    arguments = ["systemd", "--name", "iot-device", "--exec", f"{sys.executable} iot_device.py"]
    unit = CliRunner().invoke(app, arguments).output
    (tmp_path / "iot-device.service").write_text(unit)
    (tmp_path / "iot-device.service.d").mkdir()
    (tmp_path / "iot-device.service.d/device.conf").write_text(DROP_IN)
    done = subprocess.run(
        ["systemd-analyze", "--man=no", "verify", tmp_path / "iot-device.service"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
