"""Leave out what looks like a password or a key, because people share run folders."""

import re
from typing import Any

LEFT_OUT = "[left out: looks like a secret]"

_NAME = r"[\w-]*(?:api_?key|access_?key|private_?key|secret|token|passw(?:or)?d|credential)[\w-]*"

_FORMS = (
    # name = "value", "name": 'value'
    re.compile(rf"""(?i)({_NAME}["']?\s*[:=]\s*)(["'])(?!\2)[^"'\n]{{4,}}\2"""),
    # NAME=value without quotes: long, with letters and digits, as generated keys are
    re.compile(rf"(?i)({_NAME}\s*[:=]\s*)(?=[\w+/-]*\d)(?=[\w+/-]*[a-z])[\w+/-]{{16,}}={{0,2}}"),
    # https://user:password@host
    re.compile(r"(://[^/\s:@]+:)[^/\s@]+(?=@)"),
    # keys that services mark by their first letters
    re.compile(r"()\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_\w{30,}|github_pat_\w{30,}|glpat-[\w-]{20,})"),
    re.compile(r"()\b(?:hf_\w{30,}|sk-[\w-]{20,}|xox[abprs]-[\w-]{10,}|AIza[\w-]{35})"),
    re.compile(r"()-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----"),
)


def without_secrets(value: Any) -> tuple[Any, int]:
    """Return a text, or plain values that hold texts, without secrets, and how many were found."""
    if isinstance(value, str):
        found = 0
        for form in _FORMS:
            value, count = form.subn(rf"\g<1>{LEFT_OUT}", value)
            found += count
        return value, found
    if isinstance(value, list | tuple):
        pairs = [without_secrets(entry) for entry in value]
        return [entry for entry, _ in pairs], sum(count for _, count in pairs)
    if isinstance(value, dict):
        entries, found = without_secrets(list(value.values()))
        return dict(zip(value, entries, strict=True)), found
    return value, 0
