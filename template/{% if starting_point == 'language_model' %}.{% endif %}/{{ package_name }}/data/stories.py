"""Small stories written by a grammar: text to learn from, without a download."""

from collections.abc import Sequence

import numpy as np

from .text import Text

NAMES = [
    "Anna",
    "Ben",
    "Clara",
    "Dan",
    "Emma",
    "Finn",
    "Greta",
    "Hugo",
    "Ida",
    "Jonas",
    "Kira",
    "Leo",
    "Mona",
    "Nils",
    "Olga",
    "Paul",
]
ANIMALS = [
    "ant",
    "bear",
    "cat",
    "dog",
    "eel",
    "fox",
    "goat",
    "hen",
    "ibis",
    "jay",
    "koala",
    "lamb",
    "mole",
    "newt",
    "owl",
    "pony",
]
THINGS = [
    "apple",
    "ball",
    "cup",
    "drum",
    "egg",
    "flute",
    "glove",
    "hat",
    "jar",
    "kite",
    "lamp",
    "map",
    "nut",
    "pen",
    "ring",
    "sock",
]
COLOURS = ["black", "blue", "brown", "green", "grey", "pink", "red", "white"]
PLACES = ["barn", "cave", "field", "hill", "lake", "pond", "river", "wood"]

FIRST = "{name} the {animal} had a {colour} {thing}."
MIDDLE = (
    "{name} took it to the {place}.",
    "A {other} came and saw the {thing}.",
    "At the {place} {name} lost it.",
    "Then {name} the {animal} slept.",
)
LAST = "So the {colour} {thing} went to {friend}."


class Stories(Text):
    """`size` stories of three to five sentences. Who and what a story tells of comes back in it:
    a model that looks back knows these words, and only has to guess the others."""

    def __init__(self, size: int, context: int, pad_to: int) -> None:
        draw = np.random.Generator(np.random.PCG64(0))  # not the run's seed: always the same text
        super().__init__([write(draw) for _ in range(size)], context, pad_to)


def write(draw: np.random.Generator) -> bytes:
    def choose(options: Sequence[str]) -> str:
        return options[int(draw.integers(len(options)))]

    words = {
        "name": choose(NAMES),
        "animal": choose(ANIMALS),
        "colour": choose(COLOURS),
        "thing": choose(THINGS),
    }
    sentences = [FIRST.format(**words)]
    for _ in range(draw.integers(1, 4)):
        chosen = {"place": choose(PLACES), "other": choose(ANIMALS)}
        sentences.append(choose(MIDDLE).format(**words, **chosen))
    sentences.append(LAST.format(**words, friend=choose(NAMES)))
    return " ".join(sentences).encode()
