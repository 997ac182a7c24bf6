"""The table of parameters: defaults, the way to the workers and back, and each mistake's message."""

import dataclasses
import json
import shutil
from pathlib import Path

import jsonschema
import pytest

from loadgen import schema
from loadgen.load.settings import (
    PARAMETERS,
    Settings,
    SettingsError,
    check_size,
    default_key_space,
    other_than_default,
)
from loadgen.result import document

# It was recorded before run.json had `balance`.
RUN = Path(__file__).parents[1] / "data" / "runs" / "leader-killed"
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
    """The error knows the option that it is about, which is the first one here."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_options(options, ENDPOINTS)
    assert message in str(caught.value)
    assert caught.value.option == f"--{next(iter(options)).replace('_', '-')}"
    assert "\n" not in str(caught.value)


def test_an_empty_field_of_the_web_form_means_the_default() -> None:
    empty = dict.fromkeys((parameter.name for parameter in PARAMETERS), "")
    assert Settings.from_options(empty, ENDPOINTS) == Settings(endpoints=ENDPOINTS)


def test_key_space_shrinks_for_large_values() -> None:
    assert [default_key_space(size) for size in (0, 64, 65536, 1 << 20, 1 << 27)] == [1000, 1000, 1000, 64, 1]


# Each setting with a value other than the default; of rate, stages and step one at most may be given.
OTHER = {
    "operations": "77", "mix": "get=3", "key_size": "40", "value_size": "4KiB", "key_space": "9",
    "read_consistency": "serializable", "transport": "gateway", "connections": "3", "balance": "first",
    "timeout": "250ms", "warmup": "1.5s", "rate": "500", "arrivals": "poisson", "max_in_flight": "7", "seed": "9",
    "engine": "python",
}  # fmt: skip


def test_every_setting_reaches_a_worker_and_the_documents(tmp_path: Path) -> None:
    assert {*OTHER, "stages", "step"} == {parameter.name for parameter in PARAMETERS}
    given = Settings.from_options(OTHER, ENDPOINTS)
    assert Settings.from_options(given.to_options(), ENDPOINTS) == given
    written = given.to_document()
    plain = Settings().to_document()
    same = {field for field in written if written[field] == plain[field]}
    assert same == {"stages", "step", "prefix"}, "the others are what was given"
    folder = tmp_path / "run"
    shutil.copytree(RUN, folder)
    (folder / "run.json").write_text(json.dumps(json.loads((RUN / "run.json").read_text()) | written))
    result = document.build(folder)
    assert {field: result["run"][field] for field in written} == written
    jsonschema.validate(result, schema.load("result"))
    jsonschema.validate(json.loads((folder / "run.json").read_text()), schema.load("run"))


def test_a_run_of_before_a_setting_was_written_is_read() -> None:
    run = document.build(RUN)["run"]
    assert (run["connections"], run["balance"]) == (1, None)


@pytest.mark.parametrize("options", [{"stages": "10s:500"}, {"step": "500:4000:500/10s"}])
def test_a_schedule_stays_the_text_that_it_was(options: dict[str, str]) -> None:
    settings = Settings.from_options(options, ENDPOINTS)
    assert options.items() <= settings.to_document().items()
    assert settings.to_document()["loop"] == "open"
    assert Settings.from_options(settings.to_options(), ENDPOINTS) == settings


def test_a_title_names_what_is_not_the_default() -> None:
    assert other_than_default(Settings().to_document()) == []
    assert other_than_default({}) == []
    said = other_than_default(Settings.from_options(OTHER, ENDPOINTS).to_document())
    assert said == [
        "serializable reads", "3 connections per worker and endpoint", "load balancing first", "poisson arrivals",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value_size": "2MiB"}, "--value-size: with values of 2,097,152 bytes a request has 2,097,248"),
        ({"value_size": "1572833", "mix": "put"}, "max-request-bytes=2097152"),
        ({"key_size": "600KiB"}, "--key-size: with keys of 614,400 bytes a request has 1,843,264"),
        ({"key_size": "1572801", "mix": "get"}, "--max-request-bytes"),
    ],
)
def test_what_etcd_takes_in_no_request(options: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_size(Settings.from_options(options, ()))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_what_etcd_may_take() -> None:
    """The key stands in a transaction three times, and in no request about a lease."""
    for options in ({"value_size": "1572832", "mix": "put"}, {"value_size": "1572768"}, {"key_size": "500KiB"}):
        check_size(Settings.from_options(options, ()))
    leases = dataclasses.replace(Settings.from_options({"value_size": "2MiB"}, ()), mix={"lease_grant": 1.0})
    check_size(leases)
