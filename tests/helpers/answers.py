"""Valid and invalid answers to the questions, and the messages about them."""

from pathlib import Path

QUESTIONS = ["project_name", "package_name", "description", "author", "starting_point", "ci", "updates"]
NASTY = {
    "double quotes": 'say "yes"',
    "triple quotes": "'''",
    "triple double quotes": '"""',
    "backslash": "\\",
    "escapes": "a\\nb\\t\\u0041\\",
    "emoji": "fast 🚀 👩‍🔬",
    "chinese": "图像分类",
    "right to left": "\u202eabc\u202c שלום",
    "lines": "first\nsecond\n\n  third\t\n",
    "expression": "{{ 7*7 }}",
    "block": "{% raw %}",
    "comment": "{# gone #}",
    "github": "${{ github.token }}",
    "hash": "# not a comment",
    "colon": "key: value, - [x]: {y}",
    "yaml": "!!python/object &a *b | > % @ `",
    "markup": "<b>R&D</b>",
    "shell": "$(touch x); `id`",
    "number": "1e3",
    "boolean": "yes",
    "null": "null",
    "spaces": "  two  spaces  ",
    "separators": "a\u2028b\u2029c\ufeffd\uffff",
    "long": "word " * 200,
}


def files(folder: Path) -> dict[str, bytes]:
    """All files in a folder, compiled Python too."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def one_sentence(text: str) -> bool:
    return "\n" not in text and text.endswith(".") and not text.startswith((" ", "{"))
