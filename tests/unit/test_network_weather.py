"""The weather from a file that changes, and from a message; the settings of `locate` about it."""

import logging
from pathlib import Path

import pytest

from node.errors import SettingsError
from node.network.locate_settings import load_locator
from node.network.medium import Weather
from node.network.weather import WeatherFile, read_weather, weather_site


@pytest.mark.parametrize(
    "text",
    [
        "temperature_c = 21.5\nwind_m_s = 3\nwind_from_deg = 270.0\n",
        "[weather]\ntemperature_c = 21.5\nwind_m_s = 3\nwind_from_deg = 270.0\n",
        '{"temperature_c": 21.5, "wind_m_s": 3, "wind_from_deg": 270, "station": "KPIT"}',
    ],
)
def test_a_file_gives_three_figures_as_toml_or_json(tmp_path: Path, text: str) -> None:
    path = tmp_path / "weather"
    path.write_text(text, "utf-8")
    assert WeatherFile(path).weather == Weather(21.5, 3.0, 270.0)


def test_a_file_is_read_again_when_it_changes_and_a_spoilt_one_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "weather.toml"
    path.write_text("temperature_c = 20.0\n", "utf-8")
    file = WeatherFile(path)
    assert not file.renewed()
    path.write_text("temperature_c = 4.25\n", "utf-8")
    assert file.renewed()
    assert file.weather == Weather(temperature_c=4.25)
    with caplog.at_level(logging.WARNING):
        path.write_text('temperature_c = "warm"\n', "utf-8")
        assert [file.renewed() for _ in range(3)] == [False] * 3
        path.unlink()
        assert [file.renewed() for _ in range(3)] == [False] * 3
    assert [record.message.count("the weather before it stands") for record in caplog.records] == [
        1,
        1,
    ]
    assert file.weather == Weather(temperature_c=4.25)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "Expecting value"),
        (b"[]", "not a JSON object"),
        (b'{"temperature_c": 400}', "temperature_c: input should be less"),
        (b'{"temperature_c": "20"}', "temperature_c: input should be a valid number"),
        (b'{"wind_m_s": -1}', "wind_m_s"),
        (b'{"wind_m_s": NaN}', "NaN"),
        (b'{"wind_m_s": 1e999}', "wind_m_s"),
        (b" " * 5000, "longer"),
        (b"\xff", "utf-8"),
    ],
)
def test_what_is_no_weather_is_refused(payload: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_weather(payload)


def test_the_topic_names_the_site() -> None:
    assert weather_site("gunfire/v1/riverside/weather") == "riverside"
    assert weather_site("gunfire/v1/riverside/roof-1/weather") is None
    assert weather_site("gunfire/v1//weather") is None


def test_settings_are_read_with_the_line_of_each_fault(tmp_path: Path) -> None:
    path = tmp_path / "locate.toml"
    path.write_text(
        "[locate]\nreach_m = 1500.0\n\n[weather]\ntemperature_c = 12.0\n\n"
        '[inputs]\noldest_s = 300.0\n\n[mqtt]\nurl = "mqtt://broker"\n',
        "utf-8",
    )
    settings = load_locator(path).settings
    assert settings.locate.reach_m == 1500
    assert settings.weather.weather == Weather(temperature_c=12.0)
    assert settings.mqtt.url == "mqtt://broker"
    path.write_text("[locate]\nreach = 1\n\n[inputs]\nahead_s = -1\n", "utf-8")
    with pytest.raises(SettingsError) as caught:
        load_locator(path)
    assert str(caught.value).splitlines() == [
        f"{path}, line 2: locate.reach: no such setting; did you mean reach_m?",
        f"{path}, line 5: inputs.ahead_s = -1: input should be greater than or equal to 0",
    ]


def test_without_a_file_the_broker_is_the_nodes_own() -> None:
    environment = {"GUNFIRE_NODE__MQTT__URL": "mqtt://elsewhere:1884"}
    assert load_locator(None, environment).settings.mqtt.url == "mqtt://elsewhere:1884"
