"""Online or offline: decided from key and network, said in one line, refused when demanded."""

from __future__ import annotations

import socket

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.tracking.loggers import wandb_mode
from tests.fetch.proxy import BEHIND, Proxy, only_by


@pytest.fixture(autouse=True)
def _no_key_and_no_host(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    only_by(monkeypatch, None)


@pytest.fixture
def listening(monkeypatch):
    """A server on this machine that only accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield server


def place(listening) -> str:
    """Host and port, as the client names a server in `.netrc`."""
    return f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def closed(monkeypatch):
    """A port of this machine where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, so that nobody else opens it; not listening
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        yield


def test_with_key_and_network_it_is_online_and_nothing_is_printed(listening, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert wandb_mode("auto") == wandb_mode("online") == "online"
    assert capsys.readouterr().out == ""


def test_without_a_key_it_is_offline_and_says_why_in_one_line(listening, capsys):
    assert wandb_mode("auto") == "offline"
    output = capsys.readouterr().out
    assert "offline, because there is no key" in output
    assert "SlurmTrain.py sync" in output
    assert output.count("\n") == 1


def test_without_a_network_it_is_offline_and_says_why_in_one_line(closed, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert wandb_mode("auto") == "offline"
    output = capsys.readouterr().out
    assert "127.0.0.1 can't be reached" in output
    assert output.count("\n") == 1


def test_a_server_behind_a_proxy_is_online(monkeypatch, capsys):
    proxy = Proxy()
    try:
        only_by(monkeypatch, proxy.url)
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        for scheme in ("http", "https"):
            monkeypatch.setenv("WANDB_BASE_URL", f"{scheme}://{BEHIND}")
            assert wandb_mode("auto") == wandb_mode("online") == "online"
        assert capsys.readouterr().out == ""
        monkeypatch.setenv("WANDB_BASE_URL", "https://elsewhere.invalid")
        assert wandb_mode("auto") == "offline"
        assert "elsewhere.invalid can't be reached" in capsys.readouterr().out
    finally:
        proxy.close()


def test_online_demanded_without_a_key_is_refused(listening):
    with pytest.raises(UsageError, match=r"mode=online: there is no key.*'wandb login'") as error:
        wandb_mode("online")
    assert "\n" not in str(error.value)


def test_online_demanded_without_a_network_is_refused(closed, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    with pytest.raises(UsageError, match=r"can't be reached.*mode=offline"):
        wandb_mode("online")


def test_offline_asks_nobody(capsys, monkeypatch):
    def no_network(*arguments, **options):
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket, "create_connection", no_network)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert wandb_mode("offline") == "offline"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert wandb_mode("auto") == "offline"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("inherited", ["offline", "dryrun", "disabled"])
def test_the_environment_decides_for_auto_and_the_setting_over_it(
    listening, monkeypatch, inherited
):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_MODE", inherited)
    assert wandb_mode("auto") == "offline"
    assert wandb_mode("online") == "online"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("machine {here} login user password {key}\n", "online"),
        ("machine {here}\n  login user\n  password {key}\n", "online"),
        ("machine other login user password x\ndefault login user password {key}\n", "online"),
        ("machine api.wandb.ai login user password {key}\n", "offline"),
        ("machine {here} login user\n", "offline"),
        ("", "offline"),
        ("machine {here} login user passwrd {key}\n", "offline"),
    ],
)
def test_a_key_in_netrc_counts_when_it_is_for_this_host(listening, tmp_path, text, expected):
    file = tmp_path / "netrc"
    file.write_text(text.format(key="k" * 40, here=place(listening)))
    file.chmod(0o600)
    assert wandb_mode("auto") == expected


def test_the_home_folders_netrc_is_read_where_none_is_named(listening, tmp_path, monkeypatch):
    monkeypatch.delenv("NETRC")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert wandb_mode("auto") == "offline"
    (tmp_path / ".netrc").write_text(f"machine {place(listening)} login u password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert wandb_mode("auto") == "online"
