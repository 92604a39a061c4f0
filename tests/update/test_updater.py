"""The package `ostinato` itself, and `ostinato new`."""

from helpers.template import ROOT

from ostinato import __main__


def test_new(source, tmp_path, ostinato):
    result = ostinato("new", str(source), str(tmp_path / "made"), "--defaults", "--to", "0.1.0")
    assert result.code == 0
    assert (tmp_path / "made" / "my_project" / "engine" / "loop.py").exists()


def test_the_updater_is_a_package_of_its_own():
    """What uvx installs: without torch, and without the template's tests."""
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["project"]["scripts"] == {"ostinato": "ostinato.__main__:main"}
    assert settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["ostinato"]
    assert not any(name.startswith("torch") for name in settings["project"]["dependencies"])


def test_a_new_project_from_nowhere_is_refused_in_a_sentence(tmp_path, capsys):
    assert __main__.main(["new", str(tmp_path / "nowhere"), str(tmp_path / "project"), "--defaults"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "nowhere" in said[0]
