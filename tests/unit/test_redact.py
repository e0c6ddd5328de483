"""Secrets do not leave, whatever they are written in; and text that merely looks like it stays as it is."""

from __future__ import annotations

import json
import math
import os
import random
import re
import string
import time
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from batch_observability.redact import MASK, forget_environment, looks_secret, redact, redact_text

# Made anew for each run: nothing that looks like a secret is in the tree.
SECRET = "".join(random.choices(string.ascii_letters + string.digits, k=24))

SECRET_KEYS = [
    "password",
    "PASSWORD",
    "passwd",
    "pwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "credentials",
    "api_key",
    "apikey",
    "api-key",
    "apiKey",
    "APIKey",
    "APIkey",
    "app_key",
    "access_key",
    "private_key",
    "fernet_key",
    "dd_api_key",
    "DD_API_KEY",
    "dbPassword",
    "db.password",
    "PGPASSWORD",
    "X-Auth-Token",
    "accessToken",
    "client_secret",
    "aws_secret_access_key",
    "AIRFLOW__CORE__FERNET_KEY",
    "password2",
    "passwords",
    "secrets",
    "passcode",
    "db_pass",
    "smtp.pass",
    "AccountKey",
    "SharedAccessKey",
    "Ocp-Apim-Subscription-Key",
    "master_key",
    "consumerKey",
    "secret_key_base",
]
OTHER_KEYS = [
    "tokenizer",
    "tokenized",
    "n_tokens",
    "max_tokens",
    "passwordless",
    "secretary",
    "monkey",
    "keyboard",
    "key",
    "primary_key",
    "partition_key",
    "aggregation_key",
    "sort-key",
    "keys",
    "author",
    "passed",
    "compass",
    "token_count",
    "tokenType",
    "token_expires_at",
    "tokenUrl",
    "password_policy",
    "secret_name",
    "credentials_path",
    "secrets.backend",
    "first_pass",
    "pass",
    "dbpassed",
    "rapid_keys",
    "",
    "-",
    "häßlich",
]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Have no secrets in the environment but those of a test."""
    forget_environment()
    monkeypatch.setattr("os.environ", {})
    yield
    forget_environment()


@pytest.fixture
def setenv(monkeypatch):
    def set_all(**variables):
        monkeypatch.setattr("os.environ", variables)
        forget_environment()

    return set_all


# --- Which keys --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", SECRET_KEYS)
def test_a_key_that_says_so_looks_secret(key):
    assert looks_secret(key)


@pytest.mark.parametrize("key", OTHER_KEYS)
def test_a_key_that_merely_resembles_one_does_not(key):
    assert not looks_secret(key)


@given(st.lists(st.text("bcdfghj", min_size=1, max_size=8), max_size=3), st.sampled_from("_-."), st.integers(0, 3))
def test_a_part_makes_a_key_secret_wherever_it_stands(parts, joint, place):
    parts.insert(place, "password")
    assert looks_secret(joint.join(parts))
    assert looks_secret(joint.join(parts).upper())
    assert looks_secret("".join(part.capitalize() for part in parts))


@given(st.sampled_from(["token", "secret", "pwd", "apikey"]), st.text(string.ascii_lowercase, min_size=1, max_size=5))
def test_a_longer_word_is_another_word(word, rest):
    assume(not rest.endswith(("passwd", "password")))
    assert not looks_secret(word + rest + "q")


# --- Values behind keys ------------------------------------------------------------------------------------------

FORMS = [
    "{key}={value}",
    "{key}: {value}",
    "{key} = {value}",
    "{key}='{value}'",
    '{key}="{value}"',
    '"{key}": "{value}"',
    '"{key}":"{value}"',
    "'{key}': '{value}'",
    "'{key}': b'{value}'",
    '\\"{key}\\": \\"{value}\\"',
    "x['{key}'] = '{value}'",
    "https://host/path?{key}={value}",
    "https://host/path?a=1&{key}={value}&b=2#c",
    "connect({key}='{value}', user='bob')",
    "connect(user=bob, {key}={value})",
    "host=h {key}={value} user=bob",
    "Driver=x;{key}={value};Server=y",
    "a=1,{key}={value},b=2",
    "command --{key}={value} --other",
    "command --{key} {value} --other",
    "['command', '--{key}', '{value}', '--other']",
    "tokenizer=x?{key}={value}",
    "'--header={key}={value}'",
    "multi\nline {key}={value}\nmore",
    "'{key}' => '{value}'",
    "{key} := {value}",
    "[('user', 'bob'), ('{key}', '{value}')]",
    '["{key}", "{value}"]',
    "(b'{key}', b'{value}')",
    "<{key}>{value}</{key}>",
    "<x:{key} a='b'>{value}</x:{key}>",
    "name: {key}, value: {value}",
    '{{"name": "{key}", "value": "{value}"}}',
    '{key} = """{value}"""',
    '"{{""{key}"": ""{value}""}}"',
]
values = st.text(string.ascii_letters + string.digits + "!#$%*+-./:@^_|~", min_size=1, max_size=30)


@pytest.mark.parametrize("form", FORMS)
def test_the_value_behind_a_secret_key_is_masked_and_all_else_stays(form):
    for key in SECRET_KEYS:
        assert redact_text(form.format(key=key, value=SECRET)) == form.format(key=key, value=MASK)


@pytest.mark.parametrize("form", [form for form in FORMS if "tokenizer" not in form])
def test_the_value_behind_another_key_stays(form):
    for key in OTHER_KEYS:
        text = form.format(key=key, value="plain")
        assert redact_text(text) == text


@given(st.sampled_from(FORMS), st.sampled_from(SECRET_KEYS), values)
@settings(deadline=None, max_examples=300)
def test_no_value_survives_whatever_it_is_made_of(form, key, value):
    value = f"{SECRET[:8]}{value}{SECRET[8:16]}"
    masked = redact_text(form.format(key=key, value=value))
    assert SECRET[:8] not in masked
    assert SECRET[8:16] not in masked
    assert redact_text(masked) == masked


@given(st.dictionaries(st.sampled_from(["a", "n_tokens", "user"]), st.text(max_size=9)), st.text())
@settings(deadline=None)
def test_values_within_quotes_may_hold_anything(others, value):
    held = f"{SECRET[:8]}{value}{SECRET[8:16]}"
    document = {**others, "api_key": held, "z": "last"}
    masked = {**others, "api_key": MASK, "z": "last"}
    assert json.loads(redact_text(json.dumps(document))) == masked
    assert redact_text(repr(document)).replace('"***"', "'***'") == repr(masked)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ('{"token": ["a", "b"], "n": 1}', '{"token": ***, "n": 1}'),
        ('{"credentials": {"a": "b"}, "n": 1}', '{"credentials": ***, "n": 1}'),
        ('{"secrets": {"a": {"b": "}"}, "c": "d"}, "n": 1}', '{"secrets": ***, "n": 1}'),
        ("password=[a, [b, 'it]', c] and more", "password=***"),
        ("API key: abc", "API key: ***"),
        ("b'a: b\\r\\ntoken: abc\\r\\nHost: x'", "b'a: b\\r\\ntoken: ***\\nHost: x'"),
        ("the secret key = abc", "the secret key = ***"),
        ("primary key: abc", "primary key: abc"),
        ("  key: abc", "  key: abc"),
        ("has_token=True, password=None", "has_token=True, password=None"),
        ("secrets: 3, tokens=4", "secrets: 3, tokens=4"),
        ("('token', 'a', 'b')", "('token', 'a', 'b')"),
        ("name: token, value: 0.3", "name: token, value: 0.3"),
        ("name: bob, value: abc", "name: bob, value: abc"),
        ('cut in the middle: "password": "abc', 'cut in the middle: "password": "***'),
        ("password='it\\'s', n=1", "password='***', n=1"),
        ("token: Bearer a b", "token: *** b"),
        ("password=a,b c", "password=*** c"),
        ("(password=a)", "(password=***)"),
        ("<a href='x?token=a'>", "<a href='x?token=***'>"),
        ("password=", "password="),
        ("password:\n  next line", "password:\n  next line"),
        ("if password == other:", "if password == other:"),
        ("the password is wrong", "the password is wrong"),
        ("-- token x", "-- token x"),
        ("--token --other", "--token --other"),
    ],
)
def test_the_end_of_a_value_is_found(text, masked):
    assert redact_text(text) == masked


# --- URLs and headers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg2", "redis", "amqp", "https", "s3a"])
@pytest.mark.parametrize("user", ["", "bob", "bob%40corp", "bob.x-y"])
@given(password=values)
@settings(deadline=None, max_examples=30)
def test_the_password_of_a_url_is_masked(scheme, user, password):
    assume(not re.search(r"[/#]|\s", password))
    url = "{scheme}://{user}:{password}@db.example.com:5432/name"
    text = url.format(scheme=scheme, user=user, password=f"{SECRET[:8]}{password}")
    assert redact_text(text) == url.format(scheme=scheme, user=user, password=MASK)


@pytest.mark.parametrize("password", ["{}/x", "x@{}", "a/b@{}", "{}+/==", "a%2F{}", "x1/{}", "{}/@/{}"])
def test_a_password_that_should_have_been_quoted_does_not_show(password):
    assert SECRET not in redact_text(f"cannot reach 'db://bob:{password.replace('{}', SECRET)}@host/name'")


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com/a:b@c",
        "http://localhost:8080/users/a@b.example",
        "http://[::1]:8080/a@b",
        "ssh://git@github.com/a/b",
        "mail bob@example.com: see http://host:80 or ask eve@example.com",
        "s3://bucket/key=1/part-0.parquet",
        "12:30:00 - a@b",
        "://:",
    ],
)
def test_a_url_without_a_password_stays(text):
    assert redact_text(text) == text


def test_each_of_several_urls_is_masked():
    text = "amqp://a:{0}@h1,amqp://b:{0}@h2 redis://:{0}@h3"
    assert redact_text(text.format(SECRET)) == text.format(MASK)


@pytest.mark.parametrize("scheme", ["Bearer", "Basic", "bearer", "Token"])
@pytest.mark.parametrize(
    "form",
    [
        "Authorization: {} {}",
        "authorization={} {}",
        "curl -H 'Authorization: {} {}' x",
        '{{"Authorization": "{} {}", "a": 1}}',
        "{{'Proxy-Authorization': '{} {}'}}",
        "[('Authorization', '{} {}')]",
        "AUTHORIZATION: {} {}\r\nAccept: */*",
    ],
)
def test_an_authorization_header_keeps_its_scheme_only(form, scheme):
    assert redact_text(form.format(scheme, f"{SECRET}.-_~+/==")) == form.format(scheme, MASK)


@pytest.mark.parametrize(
    "form",
    [
        "Authorization: {}",
        "Authorization: Splunk {}",
        "{{'Authorization': b'{}'}}",
        "Bearer {}",
        "Cookie: a={}; b={}",
        "Set-Cookie: a={}; HttpOnly",
        "{{'cookie': 'a={}'}}",
        "eyJ{0}.{0}.{0}",
        "-----BEGIN PRIVATE KEY-----\n{0}\n{0}\n-----END PRIVATE KEY-----",
        "-----BEGIN EC PRIVATE KEY-----\n{0} and no end",
        "https://{}@example.com/a.git",
        "https://{}:x-oauth-basic@example.com/a.git",
        "https://example.com/a?x=1&sig={}",
        "https://example.com/a?X-Amz-Signature={}&y=2",
    ],
)
def test_credentials_are_masked_where_no_key_tells(form):
    assert SECRET not in redact_text(form.replace("{}", "{0}").format(f"a7{SECRET}"))


@pytest.mark.parametrize(
    "text",
    [
        "authorization: denied for bob",
        "Basic training",
        "the bearer of this",
        "cookie: chocolate",
        "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----",
        "signature: f(a, b)",
        "design=4",
    ],
)
def test_words_of_headers_stay_elsewhere(text):
    assert redact_text(text) == text


# --- The environment ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["DD_API_KEY", "MY_TOKEN", "AIRFLOW__API_AUTH__JWT_SECRET", "PGPASSWORD"])
def test_what_a_secret_variable_holds_is_masked_wherever_it_stands(setenv, name):
    setenv(**{name: SECRET, "HOME": "/home/bob"})
    assert redact_text(f"a{SECRET}b {SECRET} /home/bob") == f"a{MASK}b {MASK} /home/bob"


def test_variables_that_are_not_secret_or_short_are_left(setenv):
    setenv(TOKENIZERS_PARALLELISM="disabled-here", MY_TOKEN="abcdefg", PATH="/usr/bin:/usr/local/bin")
    text = "disabled-here abcdefg /usr/bin:/usr/local/bin"
    assert redact_text(text) == text


def test_a_file_that_holds_a_secret_may_be_named(setenv, tmp_path):
    setenv(PWD=str(tmp_path), DB_PASSWORD_FILE=str(tmp_path), GOOGLE_APPLICATION_CREDENTIALS=str(tmp_path))
    assert redact_text(f"cannot read {tmp_path}") == f"cannot read {tmp_path}"


def test_a_secret_that_holds_another_is_masked_whole(setenv):
    setenv(A_TOKEN=SECRET[4:16], B_TOKEN=SECRET)
    assert redact_text(f"<{SECRET}>") == f"<{MASK}>"


def test_what_comes_into_the_environment_later_is_masked_and_what_has_left_it_too(setenv, monkeypatch):
    setenv()
    assert redact_text(SECRET) == SECRET
    monkeypatch.setitem(os.environ, "MY_TOKEN", SECRET)
    assert redact_text(SECRET) == MASK
    monkeypatch.setitem(os.environ, "MY_TOKEN", SECRET[::-1])
    monkeypatch.setattr("batch_observability.redact.environment.time.monotonic", lambda: math.inf)
    assert redact_text(f"{SECRET} {SECRET[::-1]}") == f"{MASK} {MASK}"
    monkeypatch.delitem(os.environ, "MY_TOKEN")
    assert redact_text(f"{SECRET} {SECRET[::-1]}") == f"{MASK} {MASK}"
    forget_environment()
    assert redact_text(SECRET) == SECRET


# --- Any text ----------------------------------------------------------------------------------------------------

words = st.text(string.ascii_letters + string.digits + "äß .,;!?()[]{}<>'\"\\/@#$%^&*+-_|~\n\t", max_size=60)
pieces = st.sampled_from(
    [
        "password",
        "token=",
        "api_key",
        ": ",
        "=",
        "'",
        '"',
        "\\",
        "://",
        "@",
        "a",
        " ",
        ",",
        "Bearer ",
        "--",
        "[",
        "}",
        "&",
    ]
)


@given(words)
def test_text_with_no_colon_no_equals_sign_and_no_option_stays(text):
    assume("--" not in text)
    assert redact_text(text) == text


@given(st.text(string.ascii_lowercase + " :=,'\"{}/@&", max_size=80))
def test_text_with_no_word_for_a_secret_stays(text):
    assume(not looks_secret(text))
    assume(not any(looks_secret(word) for word in re.findall(r"\w+", text)))
    assume("authorization" not in text)
    assume("://" not in text)
    assert redact_text(text) == text


@given(st.lists(pieces | st.text(max_size=5), max_size=30).map("".join))
@settings(deadline=None, max_examples=300)
def test_any_text_is_survived_and_what_is_masked_stays_masked(text):
    masked = redact_text(text)
    assert redact_text(masked).count(MASK) >= masked.count(MASK)


@pytest.mark.parametrize(
    "part",
    [
        "://x:aaaa",
        "a://:",
        "a://x:y@",
        "password='",
        'password="\\',
        "token=[",
        "token={",
        "token:",
        "token =",
        "key=1 ",
        "authorization:",
        "--token ",
        "a.",
        "token=,a",
        "\\",
        "token=bearer ",
        "'",
        "token]",
        "_",
        "authorization:a",
        "cookie:",
        "cookie: a=",
        "eyJ-",
        "eyJaaaaaaaa.",
        "<a ",
        "<token>",
        "('token', '",
        '("a", "\\\\"',
        "name: token value:",
        "-----BEGIN PRIVATE KEY-----",
        "https://1",
        "&sig=",
        "{'",
        "API key ",
        "key=",
        'token:"',
        '""',
        "token=a(",
        "password '",
        "identified by '",
        "authorization: a b=c,",
        "authorization': ['a ",
        "value: a name: ",
        "&key=",
        "arn:",
        "arn:token:",
        "token: |\n ",
        "<Cookie a",
        'cookie: a="b"',
        "ghp_",
        "token=<a ",
    ],
)
def test_a_long_text_of_any_making_takes_no_time_that_grows_out_of_hand(part):
    """Ten times the text may take ten times as long, with room for a busy machine; not a hundred times."""

    def seconds(count):
        text = f"token={part * count}@"
        began = time.process_time()
        redact_text(text)
        return time.process_time() - began

    short = min(seconds(1_000) for _ in range(3))
    assert min(seconds(10_000) for _ in range(3)) < 40 * short + 0.01


def test_a_long_text_with_a_long_quote_takes_no_time_that_grows_out_of_hand():
    backslashes = "\\" * 10_000
    began = time.process_time()
    redact_text(f'token={backslashes}"{backslashes}')
    assert time.process_time() - began < 0.1


def test_a_short_text_costs_little():
    """Measured at the time of writing: 0.3 µs with nothing in it, 13 µs with a secret, where the loop takes 8."""

    def best(function, count=50):
        timings = []
        for _ in range(100):
            began = time.perf_counter()
            for _ in range(count):
                function()
            timings.append(time.perf_counter() - began)
        return min(timings)

    text = "dag.task: read 48,210 rows from s3://bucket/key=1/part.parquet in 2.5 s; token=abc"
    loop = best(lambda: sum(range(1_000)))
    # Where coverage is measured, what is ours takes twice the time.
    assert best(lambda: redact_text(text)) < 6 * loop
    assert best(lambda: redact_text("read 48210 rows from flights in 2.5 seconds")) < loop


# --- Values ------------------------------------------------------------------------------------------------------

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("abc xyz", max_size=9)
nested = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text("abc_", max_size=5) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(nested)
def test_values_without_secrets_stay_as_they_are(value):
    assert repr(redact(value)) == repr(value)


def places(value):
    yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from places(inner)


@given(nested, st.sampled_from(SECRET_KEYS), st.data())
def test_a_secret_is_masked_wherever_it_is_nested(value, key, data):
    containers = [place for place in places(value) if isinstance(place, dict | list)]
    assume(containers)
    chosen = data.draw(st.sampled_from(containers))
    hidden = {key: {"whole": [SECRET, 1]}, "url": f"db://bob:{SECRET}@host"}
    if isinstance(chosen, dict):
        chosen["hidden"] = hidden
    else:
        chosen.append(hidden)
    before = repr(value)
    masked = redact(value)
    assert SECRET not in repr(masked)
    assert repr({key: MASK, "url": f"db://bob:{MASK}@host"}) in repr(masked)
    assert repr(value) == before


def test_new_objects_are_returned():
    value = {"a": [1, {"b": (2, [3])}]}
    masked = redact(value)
    assert masked == value
    assert masked is not value
    assert masked["a"] is not value["a"]
    assert masked["a"][1]["b"][1] is not value["a"][1]["b"][1]


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        ([("X-Api-Key", "a"), ("Accept", "b")], [("X-Api-Key", MASK), ("Accept", "b")]),
        (["password", "a"], ["password", MASK]),
        (["password", "a", "b"], ["password", "a", "b"]),
        ({"name": "DB_PASSWORD", "value": "a"}, {"name": "DB_PASSWORD", "value": MASK}),
        ({"name": "token", "value": 0.3}, {"name": "token", "value": 0.3}),
        ({"name": "bob", "value": "a"}, {"name": "bob", "value": "a"}),
        ({"secrets": 3, "has_token": True, "password": None}, {"secrets": 3, "has_token": True, "password": None}),
        ({"password": 1234}, {"password": MASK}),
        ({"HTTP_COOKIE": "a", "cookies": {"a": "b"}}, {"HTTP_COOKIE": MASK, "cookies": MASK}),
    ],
)
def test_a_structure_is_masked_by_what_it_says(value, masked):
    assert redact(value) == masked


def test_headers_are_masked_whole():
    assert redact({"Authorization": SECRET, "Accept": "*/*"}) == {"Authorization": MASK, "Accept": "*/*"}


def test_keys_are_texts_too():
    assert redact({f"db://bob:{SECRET}@host": 1, (SECRET[:4], f"token={SECRET}"): 2, 3: 4}) == {
        f"db://bob:{MASK}@host": 1,
        f"('{SECRET[:4]}', 'token={MASK}')": 2,
        3: 4,
    }


def test_other_objects_become_their_redacted_text():
    path = Path("/data/x")
    assert redact([path, MappingProxyType({"token": SECRET}), f"token={SECRET}".encode()]) == [
        "/data/x",
        f"{{'token': '{MASK}'}}",
        f"b'token={MASK}'",
    ]


def test_what_holds_itself_or_is_bottomless_ends_in_the_mask():
    endless = [1]
    endless += [endless, endless]
    assert redact(endless) == [1, MASK, MASK]
    deep = SECRET
    for _ in range(10_000):
        deep = [deep]
    assert SECRET not in repr(redact(deep))
    wide = [SECRET]
    for _ in range(9):
        wide = [wide] * 1_000
    assert len(redact(wide)) == 1_000


class Unspeakable:
    """Fails at whatever it is asked for."""

    def __str__(self):
        raise RuntimeError(SECRET)

    __repr__ = __str__
    __hash__ = None


class Unreadable(dict):
    """A dict that cannot be gone through."""

    def items(self):
        raise RuntimeError(SECRET)


@pytest.mark.parametrize("value", [Unspeakable(), Unreadable(a=1)])
def test_it_never_raises(value):
    name = type(value).__name__
    assert redact(value) == f"<{name}>"
    assert redact({"a": [value]}) == {"a": [f"<{name}>"]}
