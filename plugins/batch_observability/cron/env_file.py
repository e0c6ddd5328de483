"""
Files of environment variables: `KEY=VALUE` lines, as systemd's EnvironmentFile and `docker --env-file` have them.

Nothing in them is run or looked up: a `$` is a `$`.
"""

from __future__ import annotations

import os
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batch_observability.config import ConfigError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_QUOTED = re.compile(r"""'([^']*)'|"((?:[^"\\]|\\.)*)\"""", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_REST = re.compile(r"\s*(#.*)?")
_COMMENT = re.compile(r"(^|\s)#.*")


def read_env_file(path: str) -> dict[str, str]:
    r"""
    Return the variables of a file, in its order.

    A value may stand in single quotes (all is as it stands) or double ones (a backslash takes the next character as it
    stands, and `\n` is a new line). Without quotes it ends before ` #`. `export` before a name, empty lines and
    comments are passed over.

    Raises:
        ConfigError: naming the file, the line and the remedy. It repeats no value: that may be a password.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            text = file.read()
    except OSError as error:
        raise _mistake(f"--env-file {path}: {error.strerror}; name a file that can be read") from None
    variables = {}
    for number, line in enumerate(os.fsdecode(text).split("\n"), 1):
        content = line.strip()
        if not content or content.startswith("#"):
            continue
        try:
            name, value = _variable(content)
        except ValueError as error:
            raise _mistake(f"--env-file {path}, line {number}: {error}") from None
        variables[name] = value
    return variables


def _mistake(text: str) -> ConfigError:
    # To load it takes longer than to read the file.
    from batch_observability.config import ConfigError

    return ConfigError(text)


def _variable(line: str) -> tuple[str, str]:
    name, equals, rest = re.sub(r"^export\s+", "", line).partition("=")
    name = name.rstrip()
    if not equals:
        raise ValueError("no = in it; write KEY=VALUE")
    if not _NAME.fullmatch(name):
        raise ValueError("what is before = is no name of a variable; write letters, digits and _, no digit first")
    rest = rest.strip()
    if "\0" in rest:
        raise ValueError("a NUL in the value; leave it out")
    if rest[:1] not in ("'", '"'):
        return name, _COMMENT.sub("", rest).rstrip()
    quoted = _QUOTED.match(rest)
    if not quoted:
        raise ValueError("a quote that nothing closes on this line; close it")
    if not _REST.fullmatch(rest, quoted.end()):
        raise ValueError("something after the closing quote; put all of the value in one pair of quotes")
    if quoted[1] is not None:
        return name, quoted[1]
    return name, _ESCAPED.sub(lambda match: "\n" if match[1] == "n" else match[1], quoted[2])
