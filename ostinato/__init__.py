"""Updates a project to a newer version of the template, checked: `ostinato update`. See docs/updates.md."""
