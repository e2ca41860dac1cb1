"""One line of English for what pydantic found: the key as the scene spells it, what is allowed."""

from __future__ import annotations

from pydantic import ValidationError


def one_line(error: ValidationError, skip: frozenset[str] = frozenset()) -> str:
    """Say the first thing that is wrong, and how many more there are.

    Parameters
    ----------
    error
        What pydantic raised.
    skip
        Parts of a location that are the models' own and no key of the user's.
    """
    first = error.errors(include_url=False)[0]
    key = ""
    for part in first["loc"]:
        if isinstance(part, int):
            key += f"[{part}]"
        elif part not in skip:
            key += f".{part}" if key else part
    kind, context = first["type"], first.get("ctx", {})
    if kind == "extra_forbidden":
        text = f"{key} is not a key of a scene; mind its spelling"
    elif kind == "missing":
        text = f"{key} is missing"
    elif kind == "union_tag_invalid":
        at = f"{key}.kind" if key else "kind"
        text = f"{at} {context['tag']!r} is not known; it must be one of {context['expected_tags']}"
    elif kind == "union_tag_not_found":
        text = f"{key}.kind is missing" if key else "kind is missing"
    elif kind == "value_error":
        text = f"{key}: {context['error']}" if key else str(context["error"])
    else:
        message = first["msg"][0].lower() + first["msg"][1:]
        text = f"{key} is {first['input']!r}, but {message.replace('input should', 'it should')}"
    more = error.error_count() - 1
    return text + (f" (and {more} more)" if more else "")
