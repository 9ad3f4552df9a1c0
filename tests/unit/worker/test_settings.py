from pathlib import Path

import pytest

from node.worker.settings import SettingsError, parse_duration, read_settings


def test_in_a_container_with_a_door_it_listens_on_all_addresses_and_confirms_every_commit():
    settings = read_settings({"NODE_DOOR": "/run/fleet/agent.sock", "NODE_RPO": "0"})
    assert (settings.host, settings.port, settings.confirms) == ("0.0.0.0", 8080, True)  # noqa: S104  it is compared, not bound
    assert settings.data == Path("/data")
    assert settings.app == Path("/app")


def test_on_a_laptop_it_stays_on_loopback_and_confirms_nothing():
    settings = read_settings({"NODE_DATA": "/tmp/x"})
    assert (settings.host, settings.door, settings.confirms) == ("127.0.0.1", None, False)


def test_with_an_rpo_of_a_second_there_is_a_door_but_no_confirmation():
    settings = read_settings({"NODE_DOOR": "/run/fleet/agent.sock", "NODE_RPO": "1s"})
    assert not settings.confirms
    assert settings.rpo_s == 1.0


def test_an_rpo_of_zero_without_a_door_is_refused_because_nobody_could_confirm():
    with pytest.raises(SettingsError, match="NODE_DOOR"):
        read_settings({"NODE_RPO": "0"})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("500ms", 0.5), ("1.5s", 1.5), ("1s", 1), ("5m", 300), ("12h", 43200), ("7d", 604800)],
)
def test_durations_are_read(text, seconds):
    assert parse_duration("NODE_RPO", text) == seconds


@pytest.mark.parametrize("text", ["", "1", "-1s", "1 s", "s", "1w", "٣s", "99999999999s"])
def test_a_wrong_duration_is_refused_by_the_name_of_its_variable(text):
    with pytest.raises(SettingsError, match="NODE_RPO"):
        parse_duration("NODE_RPO", text)


@pytest.mark.parametrize("port", ["x", "65536", "-1", "80 ", "8e3"])
def test_a_wrong_port_is_refused_by_name(port):
    with pytest.raises(SettingsError, match="NODE_PORT"):
        read_settings({"NODE_PORT": port})
