"""The table of parameters: defaults, the way to the workers and back, and each mistake's message."""

import dataclasses

import pytest

from loadgen.load.settings import PARAMETERS, Settings, SettingsError, default_key_space

ENDPOINTS = ("127.0.0.1:2379",)


def test_defaults_are_the_documented_ones() -> None:
    settings = Settings.from_options({}, ENDPOINTS)
    assert settings == Settings(endpoints=ENDPOINTS)
    assert (settings.key_size, settings.value_size, settings.key_space) == (32, 64, 1000)


def test_settings_survive_the_way_to_a_worker() -> None:
    settings = Settings.from_options(
        {"operations": "77", "mix": "get=3,txn=0.25", "key_size": "40", "value_size": "4KiB", "timeout": "250ms",
         "seed": "9", "transport": "gateway", "read_consistency": "serializable", "warmup": "1.5", "connections": "3"},
        ENDPOINTS,
    )  # fmt: skip
    settings = dataclasses.replace(settings, prefix=b"ab1z/")
    assert Settings.from_options(settings.to_options(), ENDPOINTS) == settings
    brief = Settings.from_options({"warmup": "10us", "timeout": "1ms"}, ENDPOINTS)  # Python writes 1e-05 of that
    assert Settings.from_options(brief.to_options(), ENDPOINTS) == brief


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"operations": "0"}, "--operations must be at least 1, not 0"),
        ({"operations": "-5"}, "--operations must be at least 1, not -5"),
        ({"operations": "ten"}, "--operations: 'ten' is not a whole number"),
        ({"key_size": "11"}, "--key-size must be at least 12, not 11"),
        ({"value_size": "-1"}, "--value-size: '-1' is not a size"),
        ({"key_space": "100000000", "key_size": "12"}, "does not fit into keys of 12 bytes"),
        ({"mix": "put=0"}, "--mix: mix 'put=0' runs nothing"),
        ({"timeout": "0s"}, "--timeout must be at least 0.001"),
        ({"transport": "udp"}, "--transport takes grpc or gateway, not 'udp'"),
        ({"read_consistency": "strong"}, "--read-consistency takes linearizable or serializable"),
    ],
)
def test_mistakes_have_one_line(options: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_options(options, ENDPOINTS)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_field_of_the_web_form_means_the_default() -> None:
    empty = dict.fromkeys((parameter.name for parameter in PARAMETERS), "")
    assert Settings.from_options(empty, ENDPOINTS) == Settings(endpoints=ENDPOINTS)


def test_key_space_shrinks_for_large_values() -> None:
    assert [default_key_space(size) for size in (0, 64, 65536, 1 << 20, 1 << 27)] == [1000, 1000, 1000, 64, 1]
