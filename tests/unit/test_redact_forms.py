"""Secrets in forms in which programs write them, and ordinary words that resemble them."""

from __future__ import annotations

import random
import string
from dataclasses import dataclass
from typing import NamedTuple

import pytest
from sqlalchemy import make_url

from batch_observability.redact import MASK, hinted, looks_secret, redact, redact_text

# Made anew for each run: nothing that looks like a secret is in the tree. One has letters only.
SECRET = "".join(random.choices(string.ascii_letters + string.digits, k=24)) + "7"
LETTERS = "aB" + "".join(random.choices(string.ascii_letters, k=22))

HIDDEN = [
    # Behind a key, as objects write themselves.
    "{{'password': ('a', '{}')}}",
    "{{'credentials': Login(user='bob', word='{}')}}",
    "password=Variable(name='x', value='{}')",
    "secrets=deque(['a', '{}'])",
    "credentials=OrderedDict([('a', OrderedDict([('b', '{}')]))])",
    "credentials=<Login bob {}>",
    "token[]={}",
    "password: |\n  {0}\n  {0}\nuser: bob",
    "password: >-\n  {0}\nuser: bob",
    # Named by what stands beside it.
    '{{"name": "DB_PASSWORD", "value": "{}"}}',
    '{{"value": "{}", "name": "DB_PASSWORD"}}',
    '{{"Name": "DB_PASSWORD", "Value": "{}"}}',
    '{{"name": "Authorization", "value": "Basic {}"}}',
    '{{"name": "Cookie", "value": "a={}"}}',
    # Headers.
    "Authorization: AWS4-HMAC-SHA256 Credential=A/b/aws4_request, SignedHeaders=host, Signature={}",
    'Authorization: Digest username="bob", realm="r", nonce="{0}", uri="/", response="{0}"',
    'Authorization: OAuth oauth_consumer_key="{0}", oauth_token="{0}", oauth_signature="{0}"',
    'Authorization: Hawk id="x", mac="{}"',
    "{{'Authorization': ['Basic {}']}}",
    "{{'Authorization': 'Splunk {}'}}",
    "Authorization: {}",
    'Cookie: sid="{}"',
    'Cookie: a=b; sid="{}"; c=d',
    "<RequestsCookieJar[<Cookie sid={} for example.com/>]>",
    # URLs.
    "smtp://bob@example.com:{}@mail.example.com",
    "db://bob:a@b/{}@host/name",
    "https://example.com/a?key={}",
    "https://example.com/a?b=c&hapikey={}",
    # Databases.
    "CREATE USER bob WITH PASSWORD '{}'",
    "CREATE USER bob IDENTIFIED BY '{}'",
    'CREATE USER bob IDENTIFIED BY "{}"',
    "SET PASSWORD FOR 'a'@'b' = '{}'",
    "cloned with ghp_{}",
    "asked sk-proj-{} for it",
    "**password**: {}",
    "`password`: `{}`",
    "-----BEGIN PGP PRIVATE KEY BLOCK-----\n{}\n-----END PGP PRIVATE KEY BLOCK-----",
]
# Without an end, or within JSON within JSON.
ESCAPED = ['{{"headers": "{{\\"Authorization\\": \\"Basic {}\\"}}"}}', "password=Variable(name='x', value='{}"]


@pytest.mark.parametrize("form", [*HIDDEN, *ESCAPED])
@pytest.mark.parametrize("secret", [SECRET, LETTERS], ids=["letters and digits", "letters"])
def test_no_secret_is_left(form, secret):
    text = form.format(secret)
    assert hinted(text)
    assert secret not in redact_text(text)


@pytest.mark.parametrize("form", HIDDEN)
def test_what_stands_around_it_is_left(form):
    text = f"before {form.format(SECRET)} after"
    # A header goes to the end of its line.
    if "\n" not in text and "Cookie:" not in text:
        assert redact_text(text).startswith("before ")
        assert redact_text(text).endswith(" after")


ORDINARY = [
    "loss per token: 0.31",
    "avg_token_logprob=-1.2",
    "pad_token_id=0, eos_token=</s>, token_ids=[1, 2, 3], token_embeddings=x",
    "next_token=none",
    "[['token', 0.3], ['age', 0.2]]",
    "password_age: 12, last_password_change: 2024-01-01",
    "Unexpected token: '}' in JSON",
    "use --password to set the password",
    "--token is required",
    "DD_API_KEY: not set",
    "password: missing",
    "PWD=/home/bob",
    "arn:aws:secretsmanager:eu-west-1:1:secret:db-7",
    "https://example.com/a?key=short",
    "postgres://host/name?contact=bob@example.com",
    "the password 'policy",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_words_stay(text):
    assert redact_text(text) == text


@pytest.mark.parametrize(
    "key",
    [
        "access_tokens", "refreshTokens", "creds", "db_pw", "dbpass", "stripe_key", "openaiKey", "AWS_KEY", "tls_key",
        "decryptionKey", "SUPABASE_ANON_KEY", "DATADOG_KEY", "JWT_KEY",
    ],
)  # fmt: skip
def test_keys_of_vendors_are_secrets(key):
    assert looks_secret(key)


class Login(NamedTuple):
    user: str
    password: str


@dataclass
class Held:
    credentials: object


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        (Login("bob", SECRET), {"user": "bob", "password": MASK}),
        ([Login("bob", SECRET)], [{"user": "bob", "password": MASK}]),
        (["run", "--password", SECRET, "--days", "3"], ["run", "--password", MASK, "--days", "3"]),
        (("run", "--api-key", SECRET), ("run", "--api-key", MASK)),
        (["run", "--password", "--days"], ["run", "--password", "--days"]),
        ({b"Authorization": b"Basic x"}, {"b'Authorization'": MASK}),
        ([(b"X-Api-Key", b"x")], [("b'X-Api-Key'", MASK)]),
        ({"Name": "DB_PASSWORD", "Value": SECRET}, {"Name": "DB_PASSWORD", "Value": MASK}),
        ({"token": 0.31, "password": 0.5}, {"token": 0.31, "password": 0.5}),
        ([["token", 0.3]], [["token", 0.3]]),
        (
            ["a", "-----BEGIN RSA PRIVATE KEY-----", SECRET, "-----END RSA PRIVATE KEY-----", "b"],
            ["a", MASK, MASK, MASK, "b"],
        ),
    ],
)
def test_a_structure_is_masked_by_what_it_says(value, masked):
    assert redact(value) == masked


def test_what_an_object_holds_is_masked_in_its_text():
    assert SECRET not in redact(Held(("a", SECRET)))


def test_the_password_of_a_url_object_is_masked():
    url = make_url(f"postgresql://bob:{SECRET}@host/name")
    assert SECRET not in repr(redact({"url": url}))
    assert redact(url)["host"] == "host"


def test_what_is_deep_is_shown_whether_or_not_there_is_a_secret():
    deep = "end"
    for _ in range(18):
        deep = {"a": deep}
    assert "end" in repr(redact({"deep": deep, "token": "x"}))
