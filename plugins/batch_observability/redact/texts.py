"""
Secrets in texts: in URLs, in headers, behind keys, and what environment variables hold.
"""

from __future__ import annotations

import re

from batch_observability.redact.environment import literals
from batch_observability.redact.keys import MAX_KEY, STEM, looks_secret, names_secret

MASK = "***"
# Characters between a value and the name that says what it is.
_BESIDE = 20

# A password may hold what should have been quoted: `@`, or, unless it looks like a port and a path, `/`.
_URL = re.compile(
    r"""(?<=[a-zA-Z0-9])(://[^\s/?\#:'"\[]*:)(?:(?!\d+[/?\#])(?:(?!://)[^\s?'"]){1,300}|[^\s/?\#'"]+)(?=@)"""
)
# A token in the place of a user: `https://<token>@github.com`.
_URL_TOKEN = re.compile(r"""(?:(?<=http://)|(?<=https://))(?=[^\s/?\#:@'"]*\d)[^\s/?\#:@'"]{20,}(?=@|:\*\*\*@)""")
_SIGNATURE = re.compile(r"""([?&](?:x-amz-|x-goog-)?sig(?:nature)?=)[^\s&\#'"]+""", re.IGNORECASE)
_HEADER = r"""\\*["']?\s*[:=,]\s*[\[(]?\s*[bB]?\\*["']?"""
_AUTHORIZATION = re.compile(
    rf"""(authorization{_HEADER}(?:bearer|basic|token|negotiate|apikey)[ \t]+)[^\s"'\\,;]+""", re.IGNORECASE
)
# Digest, OAuth, AWS4-HMAC-SHA256 and their like: `a="b", c=d`.
_PARAMETER = r"""[\w-]{1,40}=(?:\\*"[^"\r\n\\]{0,2000}\\*"|[^\s,;"'\\]{1,2000})"""
_PARAMETERS = re.compile(
    rf"""(authorization{_HEADER}[a-z][\w-]{{0,30}}[ \t]+){_PARAMETER}(?:[ \t]*,[ \t]*{_PARAMETER}){{0,20}}""",
    re.IGNORECASE,
)
# Of a scheme that is not known, or of none: what is too long for a word, and has a digit or a capital within.
_CREDENTIALS = re.compile(
    rf"""
    (authorization{_HEADER}(?:[a-z][\w-]{{0,30}}[ \t]+)?)
    (?=[^\s"'\\,;]{{0,300}}(?:\d|(?-i:[a-z][A-Z])))[^\s"'\\,;]{{16,}}""",
    re.IGNORECASE | re.VERBOSE,
)
# As a dict is written: what is between the quotes is the header's.
_QUOTED_HEADER = re.compile(
    r"""(authorization\\*["']\s*[:,]\s*[\[(]?\s*[bB]?(\\*["'])[a-z][\w-]{0,30}[ \t]+)(?:(?!\2)[^\r\n]){1,4000}(?=\2)""",
    re.IGNORECASE,
)
_COOKIE = re.compile(
    rf"""(cookie{_HEADER})[\w.!#$%&*+^`|~-]{{1,100}}=(?:[^\r\n"'\\]|\\?"[\w.!#$%&*+/^`|~=-]{{1,4000}}\\?")*""",
    re.IGNORECASE,
)
_COOKIE_OBJECT = re.compile(r"(<Cookie )[^\s>=]{1,100}=[^\s>]*")
_SQL_PASSWORD = re.compile(
    r"""(\b(?:password(?:\s+for\s+\S{1,200}\s*=)?|identified\s+by)\s+(["']))(?:(?!\2).|\2\2)*+(?=\2)""", re.IGNORECASE
)
_BEARER = re.compile(r"(\bbearer[ \t]+)(?=[\w.~+/-]{0,300}\d)[\w.~+/-]{16,}=*", re.IGNORECASE)
# What GitHub, GitLab, Slack, OpenAI, Anthropic, Stripe and AWS give out.
_VENDORS = ("ghp_", "github_pat_", "glpat-", "xoxb-", "xoxp-", "sk-proj-", "sk-ant-", "sk_live_", "akia")
_OF_VENDOR = re.compile(rf"(?<![\w-])(?:{'|'.join(_VENDORS)})[\w-]{{16,}}", re.IGNORECASE)
_JWT = re.compile(r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*")
_PEM = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|\Z)", re.DOTALL
)
_KEY_BEGINS, _KEY_ENDS = (re.compile(rf"-----{word} [A-Z ]*PRIVATE KEY") for word in ("BEGIN", "END"))
# One whose end never comes: what follows is none of it.
_MOST_KEY_LINES = 200
_ELEMENT = re.compile(r"(<(?:[\w.-]+:)?([\w.-]+)(?:\s[^<>]*)?>)[^<]+(?=</)")
# `('x-api-key', '...')`: one of the pairs that a dict may be written as.
_PAIR = re.compile(
    r"""([(\[]\s*+[bBuU]?(\\*+["'])([\w.-]++)\2\s*+,\s*+[bBuU]?(\\*+["']))"""
    r"""(?:(?!\4)(?:\\.|[^\\]))*+(?=\4\s*[)\]])""",
    re.DOTALL,
)
_AFTER_NAME = (
    _AUTHORIZATION, _PARAMETERS, _QUOTED_HEADER, _CREDENTIALS, _COOKIE, _COOKIE_OBJECT, _BEARER, _SIGNATURE
)  # fmt: skip
# In a text that was lowered: what the above need, and what a key needs.
_HINTS = (
    "authorization", "cookie", "bearer", "eyj", "sig=", "signature=", "private key", "identified by",
    *_VENDORS,
)  # fmt: skip
_STEMS = ("pass", "pw", "secret", "token", "cred", "key")

# A key begins where a word does: every other place is passed by at the cost of one look back. The second is an option
# of a command, whose value is the next word.
_KEY = re.compile(
    r"""
    (?<![\w.-])(?:
      ([\w.-]++)(?:\[\])?(?:\\*["'`]|\*){0,3}+\\*\]?[ \t]*+(?: := | => | [:=](?!=) )[ \t]*+
      | --([\w.-]++)(?:["'],)?[ \t]++(?![-:=])
    )""",
    re.VERBOSE,
)
# Within quotes (escaped ones too: JSON within JSON, and doubled ones: JSON within CSV), or bare: up to white space, or
# what may end a value where it is followed by white space, its like, or another key.
_VALUE = re.compile(
    r"""
    (?P<open>[bBrRuUfF]{0,2}(?P<quote>(?P<one>\\{0,15}["'])(?:(?P=one){2}|(?P=one)(?=[^\s,;:)\]}"'\\]))?))
      (?:(?!(?P=quote))(?:\\.|[^\\]|\\\Z))*+(?P<close>(?P=quote)|\Z)
    | <[^<>"']{1,300}>
    | (?i:(?:bearer|basic)[ \t]++)?
      (?: [^\s&,;)\]}>"'\\] | [&,;)\]}>"'\\](?![\s&,;)\]}>"'\\]|\Z|[\w.-]{1,100}["']?[=:]) )++
    """,
    re.VERBOSE | re.DOTALL,
)
_LONG_VALUE = re.compile(r"""=[^\s&\#'"]{20}""")
_ARN = re.compile(r"\barn:[\w:-]*:\Z")
_WORD_BEFORE = re.compile(r"([\w.-]+) \Z")
_BRACKET = re.compile(r"""(\\{0,15}["'])(?:(?!\1)(?:\\.|[^\\]))*+\1|[\[{(]|[\]})]""", re.DOTALL)
# A list, a dict, a tuple, or an object that is written as it is made: `Login(user='bob', password='x')`.
_OPENS = re.compile(r"(?:[A-Za-z_][\w.]{0,100})?\(|[\[{]")
# What follows as lines of their own, as YAML has it: `password: |`.
_BLOCK = re.compile(r"[|>][+-]?\d?[ \t]*\n(?:[ \t]+[^\n]*(?:\n|\Z))+")
# What no secret is, but what is said of one: `DD_API_KEY: not set`, `use --password to set it`.
_NONE = re.compile(
    r"""(?:None|null|True|False|true|false|not|is|to|for|and|or|has|was|must|missing|unset|required|expired|invalid|denied
    |wrong|empty)(?![^\s,;)\]}>&])
    | (?:\\*["'])?[^\w\s"'\\]{1,2}(?:\\*["'])?(?!\S)""",
    re.VERBOSE,
)
_NUMBER = re.compile(r"-?\d{1,9}(?:\.\d*)?(?![^\s,;)\]}>&])")
_FLOAT = re.compile(r"-?\d{1,9}\.\d{0,20}(?:e[+-]?\d{1,3})?(?![^\s,;)\]}>&])")
_FOLDER = re.compile(r"(?:OLD)?PWD")


def redact_text(text: str) -> str:
    """
    Return a text with its secrets masked.

    Masked are passwords and tokens in URLs, credentials in headers and JSON Web Tokens, private keys, values behind
    keys that look like secrets (`key=value`, `key: value`, `--key value`, quoted or not), and the values of environment
    variables with such names.
    """
    for literal in literals():
        if literal in text:
            text = text.replace(literal, MASK)
    if "://" in text and "@" in text:
        text = _URL_TOKEN.sub(MASK, _URL.sub(rf"\1{MASK}", text))
    lower = text.lower()
    of_header = _any_in(_HINTS, lower)
    if of_header:
        text = _OF_VENDOR.sub(MASK, _JWT.sub(MASK, _PEM.sub(MASK, text)))
        for pattern in _AFTER_NAME:
            text = pattern.sub(rf"\1{MASK}", text)
    return _values_masked(text) if of_header or _any_in(_STEMS, lower) else text


def hinted(text: str) -> bool:
    """
    Whether `redact` or `redact_text` may find something in a text, or in what a rendered JSON line holds.

    Quick, and sometimes wrong: it says yes where there is nothing; never no where there is something.
    """
    if "://" in text and "@" in text:
        return True
    for literal in literals():
        if literal in text:
            return True
    lower = text.lower()
    return _any_in(_HINTS, lower) or (_any_in(_STEMS, lower) and _holds_key(text, lower))


class PrivateKeyLines:
    """Knows which of some texts, given one after the other, are lines of a private key."""

    def __init__(self) -> None:
        self._left = 0

    def holds(self, line: str) -> bool:
        """Say whether this one is, or holds one; to be asked of each."""
        if "PRIVATE KEY" not in line:
            self._left -= self._left > 0
            return self._left > 0
        self._left = 0 if _KEY_ENDS.search(line) else _MOST_KEY_LINES if _KEY_BEGINS.search(line) else self._left
        return True


def _any_in(hints: tuple[str, ...], text: str) -> bool:
    for hint in hints:  # noqa: SIM110 - a generator takes twice the time
        if hint in text:
            return True
    return False


def _holds_key(text: str, lower: str) -> bool:
    if len(text) != len(lower):
        return True
    for stem in STEM.finditer(lower):
        begin, end = stem.span()
        first, last = max(begin - MAX_KEY, 0), min(end + MAX_KEY, len(text))
        while begin > first and _in_key(text[begin - 1]):
            begin -= 1
        while end < last and _in_key(text[end]):
            end += 1
        # JSON may have escaped a letter of it.
        if end - begin > MAX_KEY or text[begin - 1 : begin + 1] == "\\u" or _says_secret(text, begin, text[begin:end]):
            return True
    return False


def _in_key(character: str) -> bool:
    return character.isalnum() or character in "_.-"


def _says_secret(text: str, begin: int, key: str) -> bool:
    """Whether a key that begins at a place of a text looks like a secret's, with what stands before it."""
    before, after = text[max(begin - 20, 0) : begin], text[begin + len(key) : begin + len(key) + 2]
    last = before[-1:]
    if (last == "/" and after == ": ") or (last == ":" and _ARN.search(text, max(begin - 200, 0), begin)):
        # What a system says of a file: `/etc/passwd: Permission denied`; and `arn:aws:secretsmanager:eu:1:secret:x`.
        return False
    if looks_secret(key[-MAX_KEY:]):
        return True
    if before.endswith("\\") and key[0] in "nrt":
        # A line that begins with it, in a text whose line ends are escaped.
        return looks_secret(key[1:][-MAX_KEY:])
    if last in {"?", "&"}:
        # Of an interface that wants a key in the address.
        return key.lower() == "key" and _LONG_VALUE.match(text, begin + len(key)) is not None
    # `API key: ...`
    word = _WORD_BEFORE.search(before) if key.lower() in {"key", "keys"} else None
    return word is not None and looks_secret(f"{word[1]}_{key}")


def _values_masked(text: str) -> str:
    text = _SQL_PASSWORD.sub(rf"\1{MASK}", text)
    text = _PAIR.sub(lambda pair: pair[1] + MASK if looks_secret(pair[3][-MAX_KEY:]) else pair[0], text)
    if "</" in text:
        text = _ELEMENT.sub(lambda element: element[1] + MASK if looks_secret(element[2]) else element[0], text)
    pieces: list[str] = []
    done = place = 0
    named = False
    # Of the last `value: x`, which is a secret if `name: DB_PASSWORD` follows.
    unnamed = (0, 0)
    while key := _KEY.search(text, place):
        place = key.end()
        name = key[1] or key[2]
        # As Kubernetes has it: name: DB_PASSWORD, value: x
        if not (named and name.lower() == "value") and not _says_secret(text, key.start(key.lastindex or 0), name):
            named = name.lower() in {"name", "key"} and _value_looks_secret(text, place)
            start, end = unnamed
            unnamed = _place_of_value(text, place, name) if name.lower() == "value" else (0, 0)
            if named and done <= start < end and key.start() - end <= _BESIDE:
                pieces += (text[done:start], MASK)
                done, named = end, False
            continue
        named, unnamed = False, (0, 0)
        start, end = _place_of_value(text, place, name)
        if start < end:
            pieces += (text[done:start], MASK)
            done = end
            place = max(end, place)
    return "".join((*pieces, text[done:])) if pieces else text


def _value_looks_secret(text: str, place: int) -> bool:
    value = _VALUE.match(text, place, place + MAX_KEY)
    return value is not None and names_secret(value[0].strip("\\\"'"))


def _place_of_value(text: str, place: int, name: str) -> tuple[int, int]:
    """Return where a value begins and ends, without its quotes; nowhere if there is none to mask."""
    if opens := _OPENS.match(text, place):
        return place, _closed(text, opens.end() - 1)
    if block := _BLOCK.match(text, place):
        return place, block.end()
    # `secrets: 3` is their number; `name: token, value: 0.3` is a feature of a model, and so is `token: 0.3`.
    if _NONE.match(text, place) or _FLOAT.match(text, place):
        return place, place
    if (name[-1] in "sS" or name.lower() == "value") and _NUMBER.match(text, place):
        return place, place
    if _FOLDER.fullmatch(name) and text.startswith("/", place):
        return place, place
    value = _VALUE.match(text, place)
    if value is None:
        return place, place
    return place + len(value["open"] or ""), value.end() - len(value["close"] or "")


def _closed(text: str, place: int) -> int:
    """Return where what a bracket opens is closed; at the end of the text if it is not."""
    depth = 0
    for bracket in _BRACKET.finditer(text, place):
        depth += (bracket[0] in "[{(") - (bracket[0] in "]})")
        if depth == 0:
            return bracket.end()
    return len(text)
