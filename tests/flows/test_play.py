"""`dadc play` before it serves."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from flows.play import check_address, play


def test_a_taken_port_is_said_before_an_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"cannot listen on 127.0.0.1:{port} \(.+\); choose another --port"):
            play(tmp_path, port)
    assert capsys.readouterr().out == ""
    check_address("127.0.0.1", port)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cannot listen on 192\.0\.2\.1:7860"):
        check_address("192.0.2.1", 7860)
