"""The package `ostinato` itself."""

from helpers.template import ROOT


def test_the_updater_is_a_package_of_its_own():
    """What uvx installs: without torch, and without the template's tests."""
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["project"]["scripts"] == {"ostinato": "ostinato.__main__:main"}
    assert settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["ostinato"]
    assert not any(name.startswith("torch") for name in settings["project"]["dependencies"])
