"""Words on the command line that cannot be used: one sentence each, with what to do instead."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from cyclopts import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    Token,
    UnknownOptionError,
    UnusedCliTokensError,
    convert,
)

_KINDS = {int: ("a whole number", "3"), float: ("a number", "1.5"), bool: ("yes or no", "yes")}


def exactly(kind: type, tokens: Sequence[Token]) -> object:
    """As cyclopts converts words, but that it would round 2.5 where a whole number is wanted.

    Raises:
        CoercionError: a fraction.
    """
    for token in tokens if kind is int else ():
        if "." in token.value:
            raise CoercionError(token=token, target_type=int)
    return convert(kind, tokens)


def sentence(error: CycloptsError) -> str:
    """``error`` in one sentence that names the word, the rule and the remedy."""
    command = " ".join(["flythrough", *(error.command_chain or ())])
    see = f"see `{command} --help`"
    if isinstance(error, UnknownOptionError):
        return _unknown_option(error, command, see)
    if isinstance(error, CoercionError) and error.token is not None:
        kind = _KINDS.get(error.target_type) if error.target_type is not None else None
        if kind is not None:
            name = error.token.keyword or (error.argument.name if error.argument else "The value")
            like = f"write it like {name} {kind[1]}"
            return f"{name} {error.token.value} is not {kind[0]}; {like}, or {see}."
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return _missing(error, command, see)
    if isinstance(error, RepeatArgumentError):
        return f"{error.token.keyword} was given more than once; keep one of them."
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        words = ", ".join(repr(word) for word in error.unused_tokens)
        return f"`{command}` has no place for {words}; quote values that hold spaces, or {see}."
    text = " ".join(str(error).split()).rstrip(".")
    text = re.sub(r"\. (Did you mean|Choose from|Available)", lambda m: f"; {m[1].lower()}", text)
    return f"{text.partition('?')[0]}?" if "did you mean" in text else f"{text}; {see}."


def _unknown_option(error: UnknownOptionError, command: str, see: str) -> str:
    given = (error.token.keyword or error.token.value).partition("=")[0]
    names = [name for argument in error.argument_collection for name in argument.names]
    near = get_close_matches(given, names, n=1, cutoff=0.7) if given.startswith("--") else []
    remedy = f"did you mean {near[0]}?" if near else f"{see}."
    return f"`{command}` has no option {given}; {remedy}"


def _missing(error: MissingArgumentError, command: str, see: str) -> str:
    argument = error.argument
    assert argument is not None
    given = error.keyword or next((t.keyword for t in argument.tokens if t.keyword), None)
    if given is not None:
        return f"{given} lacks its value; write one after it, or {see}."
    if not argument.name.startswith("-"):
        return f"`{command}` lacks {argument.name.upper()}; add it after the command, or {see}."
    names = " or ".join(sorted(argument.names, key=len))
    example = " OUT.mp4" if argument.name == "--output" and command.endswith("generate") else ""
    example = f"{argument.name}{example or ' VALUE'}"
    return f"`{command}` needs {names}, which was not given; add {example}, or {see}."
