"""Secrets of the environment, of settings and of URLs are not shown; results are left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dark_halo_scope.core.redaction import PLACEHOLDER, is_secret_variable, redact, redact_values

CANARY = "canary-0123456789"


@pytest.mark.parametrize(
    "name",
    [
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "GITHUB_TOKEN",
        "DB_PASSWORD",
        "SERVICE_KEY",
        "API_KEYS",
        "my_apikey",
    ],
)
def test_these_variables_hold_secrets(name):
    assert is_secret_variable(name)
    assert redact(f"x{CANARY}y", {name: CANARY}) == f"x{PLACEHOLDER}y"


@pytest.mark.parametrize("name", ["HOME", "KEYBOARD", "MONKEY", "AWS_WEB_IDENTITY_TOKEN_FILE", "SSH_KEY_PATH"])
def test_these_variables_do_not(name):
    assert redact(CANARY, {name: CANARY}) == CANARY


def test_short_values_are_words_and_stay():
    assert redact("true 1 on", {"TOKEN": "true", "KEY": "1"}) == "true 1 on"


def test_a_secret_inside_another_leaves_no_rest():
    assert redact("abcdefgh-ijklmnop", {"A_KEY": "abcdefgh", "B_KEY": "abcdefgh-ijklmnop"}) == PLACEHOLDER


def test_each_line_of_a_key_with_many_lines_is_secret():
    key = "-----BEGIN-----\nMIIEpAIBAAKCAQEA\n-----END-----"
    assert "MIIEpAIBAAKCAQEA" not in redact("log: MIIEpAIBAAKCAQEA", {"SIGNING_KEY": key})


@pytest.mark.parametrize(
    "text",
    [
        f"https://me:{CANARY}@example.org/x",
        f"https://b.s3.amazonaws.com/k?X-Amz-Signature={CANARY}&x=1",
        f"s3://me:{CANARY}@bucket/x",
    ],
)
def test_secrets_in_urls_go_and_the_place_stays(text):
    assert CANARY not in redact(text, {})
    assert redact(text, {}).split("://")[0] == text.split("://")[0]


def test_settings_with_a_secret_name_are_hidden_and_keys_of_tables_are_not():
    values = {"api_key": "abc", "nested": [{"password": "x"}], "run_key": "0123456789abcdef", "ra_key": "10.000001"}
    assert redact_values(values, {}) == {
        "api_key": PLACEHOLDER,
        "nested": [{"password": PLACEHOLDER}],
        "run_key": "0123456789abcdef",
        "ra_key": "10.000001",
    }


def test_strings_deep_in_a_structure_are_redacted_and_numbers_stay_numbers():
    values = {"a": [CANARY, 12345678, {"b": (f"-{CANARY}-",)}]}
    assert redact_values(values, {"X_TOKEN": CANARY, "Y_TOKEN": "12345678"}) == {
        "a": [PLACEHOLDER, 12345678, {"b": [f"-{PLACEHOLDER}-"]}]
    }


@given(st.text(), st.text(min_size=8).filter(lambda text: text.strip() == text and len(text.strip()) >= 8))
def test_no_secret_survives_wherever_it_stands(text, secret):
    if secret not in PLACEHOLDER:
        assert secret not in redact(f"{text}{secret}{text}", {"MY_SECRET": secret}).replace(PLACEHOLDER, "")
