"""
Keys that say that their value is a secret, and those that merely resemble them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise

# A part of a key, which is joined by _ - . or camelCase, or two parts side by side.
_WORDS = frozenset({
    "password", "passwords", "passwd", "passphrase", "passcode", "pwd", "secret", "secrets", "token", "credential",
    "credentials", "creds", "apikey", "apikeys", "appkey", "accesskey", "privatekey", "secretkey", "accountkey",
    "accesstoken", "authtoken", "clientsecret", "dbpass", "userpass", "hapikey", "passwort",
})  # fmt: skip
_KEYS_OF = (
    "api", "app", "application", "access", "account", "private", "encryption", "fernet", "signing", "ssh", "auth",
    "client", "consumer", "hmac", "license", "licence", "master", "secret", "session", "shared", "storage",
    "subscription", "decryption", "aes", "rsa", "ssl", "tls", "jwt", "anon", "aws", "azure", "gcp", "datadog", "dd",
    "github", "openai", "anthropic", "stripe", "slack", "sendgrid", "twilio",
)  # fmt: skip
_TOKENS_OF = ("access", "refresh", "auth", "api", "bearer", "session")
_PASSES_OF = ("db", "database", "user", "admin", "root", "smtp", "mail", "ftp", "ldap", "proxy", "redis", "mysql", "pg")
_PAIRS = frozenset(
    {(kind, noun) for kind in _KEYS_OF for noun in ("key", "keys")}
    | {(kind, noun) for kind in _PASSES_OF for noun in ("pass", "pw")}
    | {(kind, "tokens") for kind in _TOKENS_OF}
)
# Words of language models, and of pages: `pad_token`, `next_token`.
_NO_SECRETS = frozenset(
    (kind, "token") for kind in ("eos", "bos", "pad", "unk", "sep", "cls", "mask", "special", "next", "stop", "per")
) | {("token", "id"), ("token", "ids")}
# `PGPASSWORD`; no other word ends so.
_ENDINGS = ("password", "passwd")
# What is said about a secret is none: `token_count=512`, `secret_name=db`.
_ABOUT = frozenset({
    "count", "counts", "length", "limit", "size", "type", "types", "ttl", "expiry", "expires", "expired", "expiration",
    "at", "in", "name", "names", "file", "path", "url", "uri", "endpoint", "arn", "policy", "manager", "backend",
    "store", "provider", "status", "valid", "required", "enabled", "rotation", "rotated", "usage", "used", "budget",
    "column", "columns", "field", "fields", "index", "scope", "scopes", "version", "format", "age", "change", "changed",
    "updated", "embedding", "embeddings", "logprob", "logprobs", "loss", "prob", "probs", "score", "scores", "mean",
    "ratio", "rate", "importance",
})  # fmt: skip
# Headers, whose values are secrets, and say so in a way of their own.
HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie", "cookies"})
# One of these is in every key that looks like a secret: looked for first, because most texts have none.
STEM = re.compile("pass|pw|secret|token|cred|key")
MAX_KEY = 200
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def names_secret(key: str) -> bool:
    """Whether a key says that its value is a secret, or is the name of such a header."""
    return looks_secret(key[-MAX_KEY:]) or key.lower().removeprefix("http_").replace("_", "-") in HEADERS


@lru_cache(4096)
def looks_secret(key: str) -> bool:
    """Whether a key says that its value is a secret: `DD_API_KEY`, `dbPassword`; not `tokenizer`, `n_tokens`."""
    lower = key.lower()
    parts = [part.lower() for part in _PART.findall(key)]
    if not parts or not STEM.search(lower) or parts[-1] in _ABOUT:
        return False
    pairs = set(pairwise(parts))
    if not pairs.isdisjoint(_NO_SECRETS):
        return False
    words = {*parts, *re.split(r"[^a-z]+", lower)}
    return (
        not _WORDS.isdisjoint(words) or any(word.endswith(_ENDINGS) for word in words) or not pairs.isdisjoint(_PAIRS)
    )
