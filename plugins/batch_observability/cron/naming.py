"""
What a job is called if nobody says it: after the program that it runs, as a person would call it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import PurePosixPath

_MAX_NAME = 80
_NOBODY = "job"
# What ends a command and begins another; a pipe's later commands only read what the first one says.
_ENDS = frozenset({"&&", "||", ";", "&", "|", "|&", "(", ")", "{", "}", ";;"})
_REDIRECTION = re.compile(r"\d*[<>]{1,3}[&|]?")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=.*", re.DOTALL)
# They prepare or look; what they prepare for follows.
_PREPARES = (
    "cd test [ [[ sleep echo printf export set unset umask ulimit source . mkdir true false : date eval fi for done "
    "case esac wait exit trap pushd popd type which"
)
_KEYWORDS = ("!", "if", "then", "else", "elif", "while", "until", "do", "command")
# They run the program that follows, and have options of which these take a value.
_RUNS = {
    "env": "u C S",
    "exec": "a",
    "nice": "n",
    "ionice": "c n p",
    "nohup": "",
    "setsid": "",
    "time": "f o",
    "timeout": "k s",
    "flock": "w E",
    "sudo": "u g C h p",
    "su": "s g",
    "chronic": "",
    "chrt": "",
    "stdbuf": "i o e",
    "taskset": "c p",
    "unbuffer": "",
    "cronic": "",
    "systemd-cat": "t p",
    "xargs": "n P I",
    "runuser": "u g",
}
# Of these the first word that is no option is theirs, and no program.
_TAKES_ONE = frozenset({"timeout", "flock", "taskset"})
_INTERPRETERS = re.compile(r"(?:python|pypy|perl|ruby|php|node|Rscript|bash|sh|dash|zsh|ksh|java|lua|julia|deno)[\d.]*")
_OPTIONS_WITH_VALUES = frozenset({"-W", "-X", "-cp", "-classpath", "-I", "-r", "-d", "-o"})


def _name_of(words: list[str]) -> str:
    """Return what a command is called, "" if it only prepares another."""
    words = _program(words)
    if not words:
        return ""
    program = PurePosixPath(words[0]).name
    if _INTERPRETERS.fullmatch(program):
        return _of_script(words[1:]) or _named(program)
    if program == "run-parts":
        folders = [word for word in words[1:] if not word.startswith("-")]
        return _named(PurePosixPath(folders[0]).name if folders else program)
    return _named(PurePosixPath(program).stem)


def name_of_script(script: str) -> str:
    """
    Return what a shell's script is called, after its first program that does something.

    `cd /x && python score.py` is `score`, `python -m a.b` is `a.b`, `flock -n /lock /x/run.sh` is `run`.
    """
    try:
        lexer = shlex.shlex(script, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        lexer.commenters = ""
        words = list(lexer)
    except ValueError:  # a quote is open
        words = script.split()
    names = (_name_of(command) for command in _commands(words))
    return next((name for name in names if name), _NOBODY)


def _commands(words: Iterable[str]) -> list[list[str]]:
    commands: list[list[str]] = [[]]
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in _ENDS or (word and set(word) <= set("&|;()")):
            commands.append([])
        elif _REDIRECTION.fullmatch(word):
            skip = True
        else:
            commands[-1].append(word)
    return commands


def _program(words: list[str]) -> list[str]:
    """Return the words from the program that does the work; none if there is none."""
    while words:
        first = PurePosixPath(words[0]).name
        if words[0] in _PREPARES.split() or words[:2] == ["command", "-v"]:
            return []
        if _ASSIGNMENT.fullmatch(words[0]) or words[0] in _KEYWORDS:
            words = words[1:]
        elif first in _RUNS:
            words = _after_options(first, words[1:])
        else:
            return words
    return []


def _after_options(runner: str, words: list[str]) -> list[str]:
    with_value = _RUNS[runner].split()
    left = 1 if runner in _TAKES_ONE else 0
    while words:
        if words[0] == "-c" and runner in ("flock", "su", "runuser"):
            return ["sh", *words]
        if words[0].startswith("-") and len(words[0]) > 1:
            words = words[2:] if words[0][1:] in with_value else words[1:]
        elif left:
            words, left = words[1:], left - 1
        else:
            break
    return words


def _of_script(words: list[str]) -> str:
    """Return what an interpreter runs, "" if it is no file."""
    while words and words[0].startswith("-") and len(words[0]) > 1:
        if words[0] == "-m" and len(words) > 1:
            return _named(words[1])
        if words[0] == "-jar" and len(words) > 1:
            break
        if words[0] == "-c":
            return name_of_script(words[1]) if len(words) > 1 and " " in words[1] else ""
        words = words[2:] if words[0] in _OPTIONS_WITH_VALUES else words[1:]
    words = [word for word in words if not word.startswith("-")]
    return _named(PurePosixPath(words[0]).stem) if words else ""


def _named(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.\-]+", "-", text)[:_MAX_NAME].strip("-._")
