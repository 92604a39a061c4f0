"""The starting point `language_model` with your own text and tokens."""

import importlib
import re
import sys

import numpy as np
import pytest
import torch
from helpers.starting_points import point_fixture

TINY = ("model.width=16", "model.depth=1", "batch_size=4", "epochs=1", "max_steps=4")
point = point_fixture("language_model", *TINY)


@pytest.fixture
def text(point, monkeypatch):
    """The project's module data.text."""
    monkeypatch.syspath_prepend(str(point.project.parent))
    name = point.project.name
    yield importlib.import_module(f"{name}.digits.data.text")
    for key in [key for key in sys.modules if key.split(".")[0] == name]:
        del sys.modules[key]


def test_documents_are_split_whole(text, tmp_path):
    """No piece of a document of validation is in training, and none comes twice."""
    documents = [f"{number:03} " + "x" * (10 + 17 * number % 400) for number in range(60)]
    (tmp_path / "a.txt").write_text("\n\n".join([*documents, *documents[:20]]))
    data = text.TextFiles(str(tmp_path), 32, 16)
    seen = {name: b"".join(data.split(name).texts) for name in ("train", "val", "test")}
    for document in documents:
        assert sum(document.encode()[:4] in own for own in seen.values()) == 1
        assert sum(document.encode() in own for own in seen.values()) == 1
    assert sum(map(len, seen.values())) == sum(map(len, documents))
    assert text.TextFiles(str(tmp_path), 32, 16).split("val").texts == data.split("val").texts


def test_a_long_text_is_split_by_position(text, tmp_path):
    whole = " ".join(map(str, range(3000)))
    (tmp_path / "a.txt").write_text(whole)
    data = text.TextFiles(str(tmp_path / "a.txt"), 64, 16)
    parts = [b"".join(data.split(name).texts) for name in ("train", "val", "test")]
    assert b"".join(parts) == whole.encode()
    assert [round(10 * len(part) / len(whole)) for part in parts] == [8, 1, 1]


def test_every_usual_encoding_is_read(text, tmp_path):
    for number, encoding in enumerate(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"]):
        mark = "\ufeff" if encoding == "utf-16-be" else ""
        (tmp_path / f"{number}.TXT").write_bytes(f"{mark}Zwölf Bären {number}\r\nhier".encode(encoding))
        assert text.read_text(str(tmp_path / f"{number}.TXT")) == f"Zwölf Bären {number}\nhier".encode()
    (tmp_path / "old.txt").write_bytes(b"of an\rold\r\rMac")
    assert text.read_text(str(tmp_path / "old.txt")) == b"of an\nold\n\nMac"
    (tmp_path / "x.txt").write_bytes("no mark".encode("utf-16-le"))
    with pytest.raises(Exception, match=r"x\.txt holds zero bytes"):
        text.read_text(str(tmp_path / "x.txt"))
    (tmp_path / "y.txt").write_bytes(b"caf\xe9")
    assert text.read_text(str(tmp_path / "y.txt")) == b"caf\xe9"


def test_linked_folders_and_odd_names(text, tmp_path):
    (tmp_path / "elsewhere/ü \udcff").mkdir(parents=True)
    (tmp_path / "elsewhere/ü \udcff/a.TXT").write_text("\n\n".join(f"line {number}" for number in range(20)))
    (tmp_path / "root/.hidden").mkdir(parents=True)
    (tmp_path / "root/.hidden/b.txt").write_text("hidden")
    (tmp_path / "root/link").symlink_to(tmp_path / "elsewhere")
    data = text.TextFiles(str(tmp_path / "root"), 32, 16)
    assert sum(len(data.split(name)) for name in ("train", "val", "test")) == 20


def test_a_run_needs_no_text_and_knows_its_own(text, tmp_path):
    """Text is read when a split is asked for. Its fingerprint is of the content, wherever it lies."""
    documents = [f"document {number}" for number in range(30)]
    (tmp_path / "a").mkdir()
    (tmp_path / "a/a.txt").write_text("\n\n".join(documents))
    data = text.TextFiles(str(tmp_path / "a"), 32, 16)
    known = data.fingerprint()
    (tmp_path / "a").rename(tmp_path / "b")
    data = text.TextFiles(str(tmp_path / "a"), 32, 16)
    assert data.info == {"vocabulary": 256, "context": 32}
    assert [part.shape for part in data.made_up()] == [(2, 32), (2, 32)]
    assert len(data.files([__file__])) == 1
    with pytest.raises(Exception, match=r"has no \.txt file below it"):
        data.split("val")
    assert text.TextFiles(str(tmp_path / "b"), 32, 16).fingerprint() == known
    (tmp_path / "b/a.txt").write_text("\n\n".join(["Document 0", *documents[1:]]))
    assert text.TextFiles(str(tmp_path / "b"), 32, 16).fingerprint() != known


@pytest.fixture
def tokenizer(tmp_path):
    """A tokenizer.json of words."""
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: number for number, word in enumerate(["[UNK]", "a", "b", "c", "d"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


@pytest.mark.parametrize("with_tokenizer", [False, True])
def test_files_of_tokens(point, tmp_path, request, with_tokenizer):
    """Each window of the files is a sample, whose targets are its next tokens."""
    for name, count in (("train", 1000), ("val", 200)):
        (np.arange(count) % 5).astype(np.uint16).tofile(tmp_path / f"{name}.bin")
    options = ["data=tokens", f"data.root={tmp_path}", "data.context=16", f"name=tokens{with_tokenizer}"]
    if with_tokenizer:
        options.append(f"data.tokenizer={request.getfixturevalue('tokenizer')}")
    done = point.train(*TINY[:3], "epochs=8", "lr=0.01", *options)
    assert done.code == 0, done.out
    log = (point.run(f"tokens{with_tokenizer}") / "train.log").read_text()
    assert "62 training and 12 validation samples" in log
    (tmp_path / "prompt.txt").write_text("a b c d\n")
    away = tmp_path.rename(tmp_path.with_name(f"{tmp_path.name}-away"))  # only the run is left
    run = point.run(f"tokens{with_tokenizer}")
    done = point.tool("export", run, "--format", "safetensors")
    assert done.code == 0, done.out
    done = point.tool("predict", run, away / "prompt.txt")
    away.rename(tmp_path)
    if with_tokenizer:
        assert done.code == 0, done.out
        assert len(done.out.splitlines()[1].split(",", 1)[1].split()) <= 12
    else:
        assert (done.code, done.out.count("\n")) == (2, 1)
        assert "data.tokenizer" in done.last
    refused = point.train(*TINY, *options[:3], "data.vocabulary=3")
    assert refused.code == 2
    assert "Raise data.vocabulary" in refused.last


@pytest.fixture
def tokens(text):
    """The project's module data.tokens."""
    return importlib.import_module(text.__name__.replace(".text", ".tokens"))


def test_the_vocabulary_is_that_of_all_files(tokens, tmp_path, monkeypatch):
    """A token that only validation has needs a row in the table of the model, too. `~` is the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, most in (("train", 5), ("val", 9), ("test", 7)):
        (np.arange(100) % (most + 1)).astype(np.uint16).tofile(tmp_path / f"{name}.bin")
    data = tokens.TokenFiles("~", 16, None, None)
    assert data.info["vocabulary"] == 10
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [6, 6, 6]
    assert max(int(data.split("val")[place].inputs.max()) for place in range(6)) == 9
    (tmp_path / "test.bin").unlink()
    assert tokens.TokenFiles("~", 16, None, None).split("test") is None


def test_numbers_of_32_bits_are_named(tokens, tmp_path):
    """Read as 16 bits, every second token would be 0."""
    draw = np.random.default_rng(0)
    for most in (500, 100_000):
        for name in ("train", "val"):
            draw.integers(most, size=300).astype(np.uint32).tofile(tmp_path / f"{name}.bin")
        with pytest.raises(Exception, match=r"train\.bin holds numbers of 32 bits"):
            tokens.TokenFiles(str(tmp_path), 16, None, None)


def test_the_tokenizer_is_read_once(tokens, tokenizer, tmp_path, monkeypatch):
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text("a b " * (number + 1))
    read, load = [], tokens.load_tokenizer
    monkeypatch.setattr(tokens, "load_tokenizer", lambda text: read.append(text) or load(text))
    prompts = tokens.TokenPrompts([str(tmp_path / f"{n}.txt") for n in range(5)], tokenizer.read_text(), 16)
    assert [prompts[n].inputs.tolist() for n in range(5)] == [[1, 2] * (n + 1) for n in range(5)]
    assert len(read) == 1


def test_batches_are_padded_on_the_right(text, tokens):
    samples = [text.Document(torch.arange(1, n + 1), torch.arange(2, n + 2)) for n in (3, 5)]
    inputs, targets = text.padded(samples, 4)
    assert inputs.tolist() == [[1, 2, 3, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 0, 0, 0]]
    assert targets.tolist() == [[2, 3, 4, *[-100] * 5], [2, 3, 4, 5, 6, *[-100] * 3]]
    assert tokens.padded(samples).inputs.shape == (2, 5)


@pytest.fixture
def saved(text, tmp_path):
    """`saved(train=[…], validation=[…])`: a folder that `save_to_disk` wrote, and its data."""
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    datasets.disable_progress_bars()
    module = importlib.import_module(text.__name__.replace("data.text", "data.huggingface"))

    def saved(options=(), **splits):
        tables = {
            name: datasets.Dataset.from_dict({"n": [*map(str, range(len(own)))], "text": own})
            for name, own in splits.items()
        }
        datasets.DatasetDict(tables).save_to_disk(tmp_path / "d")
        return module.HuggingFace(
            **{
                "path": str(tmp_path / "d"),
                "config": None,
                "text": "text",
                "context": 64,
                "pad_to": 16,
                **dict(options),
            }
        )

    return saved


NAMES = [f"document {number}" for number in range(40)]


def held(data, name: str) -> list[str]:
    return [bytes(own).decode() for own in data.split(name).texts]


def test_texts_of_hugging_face(saved):
    """Empty rows, repeated documents and those of validation are left out of training."""
    data = saved(train=[*NAMES, "", None, "document 1"])
    assert [len(held(data, name)) for name in ("train", "val", "test")] == [32, 4, 4]
    assert sorted(own for name in ("train", "val", "test") for own in held(data, name)) == sorted(NAMES)
    data = saved(train=NAMES, validation=["document 3", "new"])
    assert held(data, "train") == [name for name in NAMES if name != "document 3"]
    assert held(data, "val") == ["document 3", "new"]
    assert data.split("test") is None
    data = saved(train=NAMES, test=["document 3", "new"])
    assert [len(held(data, name)) for name in ("train", "val", "test")] == [36, 3, 2]
    assert sorted(held(data, "train") + held(data, "val")) == sorted(name for name in NAMES if name != "document 3")


@pytest.mark.parametrize("splits", [{}, {"validation": ["a", "b"]}, {"validation": ["a", "b"], "test": ["c"]}])
def test_folds_of_texts_of_hugging_face(saved, splits):
    folds = [saved({"folds": 3, "fold": fold}, train=NAMES, **splits) for fold in range(3)]
    parts = [held(data, "val") for data in folds]
    everything = sorted(own for part in parts for own in part)
    assert len(everything) == len(set(everything)) == (36 if not splits else 42)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for data, part in zip(folds, parts, strict=True):
        assert sorted(held(data, "train") + part) == everything


def test_texts_that_cannot_be_read_are_refused(saved, tmp_path):
    for options, said in (
        ({"text": "body"}, "has no column 'body', but n, text. Set data.text=NAME."),
        ({"streaming": True}, "The order of a stream cannot be repeated."),
        ({"path": str(tmp_path)}, "was not written by save_to_disk"),
    ):
        with pytest.raises(Exception, match=re.escape(said)):
            saved(options, train=NAMES).split("train")
    with pytest.raises(Exception, match="has texts with zero bytes"):
        saved(train=[*NAMES, "a\0b"]).split("train")


def test_a_run_on_texts_of_hugging_face(point, saved, tmp_path):
    saved(train=NAMES)
    done = point.train(*TINY, "data=huggingface", f"data.path={tmp_path}/d", "data.context=64", "name=face")
    assert done.code == 0, done.out
