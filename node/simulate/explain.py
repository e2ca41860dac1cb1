"""One line of English for what pydantic found: the key as the scene spells it, what is allowed."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

_WORDS: Final = {
    r"input should": "it should",
    r"^(tuple|string) should": "it should",
    r"a valid tuple": "a list",
    r"a valid dictionary or instance of \w+": "a table",
    r"have timezone info": "say its zone, as 2026-01-01T00:00:00Z does",
    r"be a valid datetime": "be a time such as 2026-01-01T00:00:00Z, without quotes",
    r" after validation, not 0": "",
}


def one_line(error: ValidationError, skip: frozenset[str] = frozenset()) -> str:
    """Say the first thing that is wrong, and how many more there are.

    Parameters
    ----------
    error
        What pydantic raised.
    skip
        Parts of a location that are the models' own and no key of the user's.
    """
    found = error.errors(include_url=False)
    # A list that lost its only member to an error is not too short besides.
    inner = {problem["loc"][:i] for problem in found for i in range(len(problem["loc"]))}
    found = [p for p in found if p["type"] != "too_short" or p["loc"] not in inner]
    first = found[0]
    more = f" (and {len(found) - 1} more)" if found[1:] else ""
    return _sentence(first, _key(first["loc"], skip)) + more


def _key(location: tuple[int | str, ...], skip: frozenset[str]) -> str:
    key = ""
    for part in location:
        if isinstance(part, int):
            key += f"[{part}]"
        elif part not in skip:
            key += f".{part}" if key else part
    return key


def _sentence(problem: Any, key: str) -> str:
    context = problem.get("ctx", {})
    match problem["type"]:
        case "extra_forbidden":
            return f"{key} is not a key of a scene; mind its spelling"
        case "missing":
            return f"{key} is missing"
        case "union_tag_not_found":
            return f"{key}.kind is missing" if key else "kind is missing"
        case "union_tag_invalid":
            at = f"{key}.kind" if key else "kind"
            kinds = context["expected_tags"]
            return f"{at} {context['tag']!r} is not known; it must be one of {kinds}"
        case "value_error":
            return f"{key}: {context['error']}" if key else str(context["error"])
    given = problem["input"]
    shown = given.isoformat() if isinstance(given, datetime) else repr(given)
    message = problem["msg"][0].lower() + problem["msg"][1:]
    for pattern, words in _WORDS.items():
        message = re.sub(pattern, words, message)
    return f"{key} is {shown}, but {message}"
