"""No secret survives in a log line, whatever it is written in; and what merely resembles one stays to the byte."""

from __future__ import annotations

import itertools
import json
import random
import re
import string
import time
import traceback
from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_observability.logs.masking import Masking
from batch_observability.redact import MASK, forget_environment, hinted, redact_text


def secret(length=24):
    """Return what nobody has said before: nothing that looks like a secret is in the tree."""
    return "x7" + "".join(random.choices(string.ascii_letters + string.digits, k=length))


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Have no secrets in the environment but those of a test."""
    forget_environment()
    monkeypatch.setattr("os.environ", {})
    yield
    forget_environment()


# --- What must not survive ---------------------------------------------------------------------------------------

KEYS = [
    "password", "DB_PASSWORD", "dbPassword", "pwd", "db_pass", "secret", "client_secret", "token", "access_token",
    "api_key", "X-Api-Key", "apiKey", "aws_secret_access_key", "AccountKey", "credentials", "master_key",
]  # fmt: skip
BEHIND_KEYS = [
    "{key}={value}",
    "{key}: {value}, retrying",
    "{key} => '{value}'",
    "login with {key}='{value}' failed",
    '{{"{key}": "{value}", "user": "bob"}}',
    "{{'user': 'bob', '{key}': '{value}'}}",
    '{{"{key}": {{"a": {{"b": 1}}, "c": "{value}"}}, "n": 1}}',
    '{{\\"{key}\\": \\"{value}\\"}}',
    '{{\\\\\\"{key}\\\\\\": \\\\\\"{value}\\\\\\"}}',
    "[('user', 'bob'), ('{key}', '{value}')]",
    '["{key}", "{value}"]',
    "(b'{key}', b'{value}')",
    "GET /?a=1&{key}={value}&b=2",
    "Driver=x;Server=db;Uid=bob;{key}={value};Encrypt=yes",
    "run --user bob --{key} {value} --verbose",
    "['run', '--{key}', '{value}']",
    "<config><{key}>{value}</{key}></config>",
    "- name: {key}\n  value: {value}\n",
    "Config(user='bob', {key}='{value}', retries=3)",
    "first line\n{key}={value}\nlast line",
    "b'user: bob\\r\\n{key}: {value}\\r\\n'",
    '"""{key} = """{value}""" """',
    '"a","{{""{key}"": ""{value}""}}"',
]
ON_THEIR_OWN = [
    "postgresql://bob:{value}@db.example.com:5432/name",
    "cannot reach redis://:{value}@cache:6379/0: timeout",
    "amqp://a:{value}@h1,amqp://b:{other}@h2",
    "https://{value}@github.com/owner/name.git",
    "https://{value}:x-oauth-basic@github.com/owner/name.git",
    "git+https://bob:{value}@example.com/a.git#egg=a",
    "https://account.blob.example.com/c?sv=1&sig={value}",
    "https://bucket.example.com/o?X-Amz-Expires=60&X-Amz-Signature={value}",
    "https://example.com/callback?code=1&access_token={value}",
    "Authorization: Bearer {value}",
    "Authorization: {value}",
    "Authorization: Splunk {value}",
    "{{'Authorization': 'Bearer {value}'}}",
    "{{'Authorization': b'Basic {value}'}}",
    '{{"authorization": "Token {value}"}}',
    "[('Proxy-Authorization', 'Basic {value}')]",
    "curl -H 'Authorization: Bearer {value}' https://example.com",
    "send: b'GET / HTTP/1.1\\r\\nHost: a\\r\\nAuthorization: Bearer {value}\\r\\n\\r\\n'",
    "send: b'GET / HTTP/1.1\\r\\nX-Api-Key: {value}\\r\\n\\r\\n'",
    "Cookie: session={value}; theme=dark",
    "{{'Set-Cookie': 'session={value}; HttpOnly'}}",
    "using Bearer {value} of bob",
    "API key: {value}",
    "with secret key {{x}} access key = {value}",
    "-----BEGIN RSA PRIVATE KEY-----\n{value}\n{other}\n-----END RSA PRIVATE KEY-----",
    "eyJ{value}.eyJ{other}.{value}",
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey={value}==;EndpointSuffix=x",
    "Server=tcp:db,1433;User ID=bob;Password={value};Encrypt=True",
    "jdbc:postgresql://db/name?user=bob&password={value}",
    "mongodb+srv://bob:{value}@cluster.example.com/?retryWrites=true",
]


def raised(text):
    try:
        raise ConnectionError(text)
    except ConnectionError:
        return traceback.format_exc()


WRAPPINGS = [
    lambda text: {"event": text},
    lambda text: {"event": "x", "detail": text},
    lambda text: {"event": "x", "deep": {"a": [1, {"b": (text, 2)}]}},
    lambda text: {"event": "x", "error.stack": raised(text)},
    lambda text: {"event": f"body {json.dumps({'body': text})}"},
    lambda text: {"event": "x", "body": json.dumps({"body": json.dumps([text])})},
    lambda text: {"event": f"{[text]!r}"},
]
IN_FIELDS = [
    lambda key, value: {key: value},
    lambda key, value: {"config": {"db": [{key: {"whole": [value, 1]}}]}},
    lambda key, value: {"headers": [("Accept", "*/*"), (key, value)]},
    lambda key, value: {"header": [key, value]},
    lambda key, value: {"env": [{"name": key, "value": value}]},
    lambda key, value: {"args": ["run", f"--{key}={value}"]},
    lambda key, value: {"bytes": f"{key}={value}".encode()},
]


def planted():
    for form, key in itertools.product(BEHIND_KEYS, KEYS):
        for wrapping in random.sample(WRAPPINGS, 2):
            value = secret()
            yield [value], wrapping(form.format(key=key, value=value))
    for form, wrapping in itertools.product(ON_THEIR_OWN, WRAPPINGS):
        value, other = secret(), secret()
        yield [value, other], wrapping(form.format(value=value, other=other))
    for make, key in itertools.product(IN_FIELDS, [*KEYS, "Authorization", "Cookie", "HTTP_COOKIE"]):
        value = secret()
        if not (make is IN_FIELDS[-2] or make is IN_FIELDS[-1]) or key in KEYS:
            yield [value], {"event": "x", **make(key, value)}


def test_no_secret_survives_in_a_line():
    masking, count, survived = Masking(), 0, []
    for values, event in planted():
        count += len(values)
        line = json.dumps(event, default=str)
        # As it was rendered; as it is before; and as it may be rendered elsewhere.
        outputs = [
            masking.line(line),
            json.dumps(masking.event(event), default=str),
            masking.line(json.dumps(event, default=str, ensure_ascii=False, separators=(",", ":"))),
        ]
        if any(value in output for value in values for output in outputs):
            survived.append(line)
        assert all(isinstance(json.loads(output), dict) for output in outputs)
    assert not survived, "\n".join([f"{len(survived)} of {count}", *survived[:40]])
    assert count >= 500


def test_a_secret_of_the_environment_does_not_survive_however_it_is_quoted(monkeypatch):
    value = f'{secret()}"\\ä/{secret()}'
    monkeypatch.setattr("os.environ", {"MY_TOKEN": value})
    forget_environment()
    for text in (value, json.dumps([value]), json.dumps([value], ensure_ascii=False), f"x {value} y"):
        line = Masking().line(json.dumps({"event": text}))
        assert value[:20] not in line
        assert value[-20:] not in line


# --- What must stay ----------------------------------------------------------------------------------------------

HASH = "0123456789abcdef0123456789abcdef01234567"
LOOKALIKES = [
    "cat: /etc/passwd: Permission denied",
    "{noun} count: 512",
    "read {n} tokens in 2.5 s",
    "tokens={n}",
    "max_tokens={n}, prompt_tokens: {n}",
    "token_count={n}",
    "token_type: bearer",
    "token_expires_in={n}",
    "author=bob",
    "author: Jane Doe <jane@example.com>",
    "authorization: denied for bob",
    "the {noun} policy needs {n} characters",
    "the {noun} was changed by bob",
    "a {noun} is needed",
    "{noun}_policy=strict",
    "{noun}_path=/etc/x",
    "secret_name=db/main",
    "secrets: {n}",
    "has_{noun}=True",
    "{noun}=None",
    '{{"{noun}": null}}',
    "if {noun} == other:",
    "the keyboard: qwerty",
    "tokenizer=bert-base, vocabulary={n}",
    "tokenizer: fast",
    "primary_key=id",
    "primary key: id",
    "sort_key: created_at",
    "foreign key = user_id",
    "partition-key: {n}",
    "key=value",
    "keys: ['a', 'b']",
    "monkey: {n}",
    "passed=12, failed={n}",
    "bypass: on",
    "compass=north",
    "pass: {n}",
    "cookie: chocolate, {n}",
    "the bearer of this letter {n}",
    "Basic training: day {n}",
    "http://localhost:8080/users/a@b.example",
    "https://example.com:8443/a?page={n}",
    "http://[::1]:8080/a@b",
    "ssh://git@github.com/owner/name",
    "s3://bucket/key=1/part-{n}.parquet",
    "mail bob@example.com: see http://host:80 or ask eve@example.com",
    "mailto:bob.smith+x@example.com",
    "2026-03-29T12:30:00.123456+00:00",
    "12:30:00 - a@b",
    HASH,
    f"commit {HASH} of main",
    f"sha256:{HASH}",
    "id=0b0c7ad6-7a3c-4f5c-9e55-1f2f3a4b5c6d",
    f"dd.trace_id={HASH[:32]}",
    "columns: ['id', 'name', 'key']",
    "('key', 'value')",
    "x = keys[0]: done",
    "--author bob --n {n}",
    "<key>{n}</key>",
    "<author>bob</author>",
    "design=4, signature: f(a, b)",
    "assigned={n}",
    "KeyError: 'user'",
    "feature name: {noun}, value: 0.3",
    "postgresql://service_account_of_team_7@db/name",
    "ssh://deploy-user-of-production-1@example.com/x",
    "the {noun}, value and key: {n}",
    "::group::Token details",
    "C:\\temp\\x: {n}",
    "SELECT token_id, key FROM t WHERE n = {n}",
    "{{'n': {n}, 'sort_key': 'a', 'tokens': [1, 2]}}",
    '{{"primary_key": ["a", "b"], "author": {{"name": "bob"}}}}',
]
FIELDS = [
    {"tokens": 512, "n_tokens": 3},
    {"token_count": 512},
    {"author": "bob", "authored_by": "eve"},
    {"primary_key": "id", "sort_key": ["a", "b"]},
    {"monkey": "see", "keyboard": "qwerty"},
    {"tokenizer": {"name": "bert", "size": 3}},
    {"secrets": 3, "credentials": None},
    {"has_token": True, "password": None},
    {"name": "bob", "value": "abc"},
    {"name": "token", "value": 0.3},
    {"pair": ["key", "value"], "pairs": [["a", "b"], ["c", "d"]]},
    {"git_sha": HASH, "trace": HASH[:32]},
    {"email": "bob@example.com", "url": "https://example.com:8080/a?b=c"},
    {"cookies": 3, "when": "2026-03-29T12:30:00Z"},
]


def lookalikes():
    for form in LOOKALIKES:
        for noun, n in random.sample(list(itertools.product(["password", "token", "secret"], [7, 48210])), 4):
            yield {"event": form.format(noun=noun, n=n)}
        yield {"event": "x", "nested": {"a": [form.format(noun="password", n=3)]}}
    yield from ({"event": "x", **fields} for fields in FIELDS)


def test_what_merely_resembles_a_secret_stays_to_the_byte():
    masking, count, changed = Masking(), 0, []
    for event in lookalikes():
        count += 1
        line = json.dumps(event)
        if (told := masking.line(line)) != line:
            changed.append(f"{line} -> {told}")
        assert json.dumps(masking.event(event)) == json.dumps(event) or changed
    assert not changed, "\n".join(changed[:40])
    assert count >= 200


# --- Hints -------------------------------------------------------------------------------------------------------

pieces = st.sampled_from([
    "password", "token", "api", "key", "=", ": ", "_", "'", '"', "\\", "\n", "n", "é", "://", "@", " ",
    "abc12345678901234", "Bearer ", "Authorization", "cookie", "--", "(", ")", ",", "name", "value", "<", ">", "/", "İ",
    "camelCase", "API ",
])  # fmt: skip


@given(st.lists(pieces | st.text(max_size=4), max_size=20).map("".join), st.booleans())
@settings(deadline=None, max_examples=500)
def test_where_nothing_hints_there_is_nothing(text, ascii_only):
    """Else a secret would be passed by, because it was not looked for."""
    for nested in (text, json.dumps(text)):
        if not hinted(json.dumps({"event": nested}, ensure_ascii=ascii_only)):
            assert redact_text(nested) == nested


@given(
    st.recursive(st.text(max_size=9) | st.integers() | st.none(), lambda x: st.lists(x) | st.dictionaries(pieces, x))
)
@settings(deadline=None)
def test_where_nothing_hints_a_structure_stays(value):
    masking, event = Masking(), {"event": "x", "field": value}
    if not masking.suspects(json.dumps(event)):
        assert masking.event(event) == event


@pytest.mark.parametrize(
    "part", ["(b'token', '", "<a ", "eyJ-", "Bearer a", "Cookie: ", "sig=", "token ", "{'", "name: token value: "]
)
def test_a_long_line_of_any_making_takes_no_time_that_grows_out_of_hand(part):
    def seconds(count):
        line = json.dumps({"event": f"token={part * count}"})
        began = time.process_time()
        Masking().line(line)
        return time.process_time() - began

    short = min(seconds(1_000) for _ in range(3))
    assert min(seconds(10_000) for _ in range(3)) < 40 * short + 0.01


# --- Patterns, and what somebody else knows ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern", [r"ACC-\d+", r"^ACC-\d+", r"ACC-\d+$", r"(?<!x)ACC-\d+", r"(?i)acc-\d+", r"\bACC-\d+\b"]
)
def test_what_a_pattern_matches_is_masked(pattern):
    masking = Masking([pattern])
    for event in ({"event": "ACC-123"}, {"event": "x", "deep": {"a": ["ACC-123"]}}, {"event": "x", "ACC-123": 1}):
        assert json.loads(masking.line(json.dumps(event))) == json.loads(json.dumps(event).replace("ACC-123", MASK))
        assert masking.event(event) == json.loads(json.dumps(event).replace("ACC-123", MASK))


def test_a_pattern_sees_texts_and_not_their_quotes():
    masking = Masking([r'"b"', r"a\nb"])
    assert json.loads(masking.line(json.dumps({"event": 'say "b"', "n": "a\nb"}))) == {
        "event": f"say {MASK}",
        "n": MASK,
    }


def test_a_pattern_does_not_part_a_line_from_its_trace():
    event = {"event": "card 4000111122223333", "dd.span_id": "4000111122223333", "timestamp": "2026-01-01"}
    told = json.loads(Masking([r"\d{4,}"]).line(json.dumps(event)))
    assert told == {**event, "event": f"card {MASK}"}


def test_a_pattern_sees_numbers():
    masking = Masking([r"\d{16}"])
    event = {"event": "paid", "card": 4000111122223333, "list": [4000111122223333], "rows": 3, "share": 0.5, "ok": True}
    masked = {**event, "card": MASK, "list": [MASK]}
    assert json.loads(masking.line(json.dumps(event))) == masking.event(event) == masked


def test_what_somebody_else_knows_is_masked():
    value = f'{secret()}"{secret()}'
    masking = Masking(known=lambda text: text.replace(value, MASK))
    event = {"event": f"a {value} b", "deep": [{"c": value}], "other": "stays"}
    for told in (json.loads(masking.line(json.dumps(event))), masking.event(event)):
        assert told == {"event": f"a {MASK} b", "deep": [{"c": MASK}], "other": "stays"}


def test_nothing_is_shown_that_the_other_failed_to_mask():
    def fail(text):
        raise RuntimeError(text)

    value = secret()
    assert value not in json.dumps(Masking(known=fail).event({"event": value}))
    assert value not in Masking(known=fail).line(json.dumps({"event": value}))


@pytest.mark.parametrize("text", ["", "token=", '{"token": ', "[1]", '"password=a"', "no JSON: password=a\n"])
def test_a_line_that_is_no_object_is_a_text(text):
    assert Masking().line(text) == redact_text(text)


def test_the_end_of_a_line_stays():
    assert re.fullmatch(r'\{"token": "\*\*\*"\}\n', Masking().line(json.dumps({"token": secret()}) + "\n"))


def test_a_basic_header_is_masked():
    value = b64encode(f"bob:{secret()}".encode()).decode()
    assert value not in Masking().line(json.dumps({"event": f"Authorization: Basic {value}"}))
