"""Say what killed processes left in the folders FOLDER/0, FOLDER/1, …."""

import json
import sys
from pathlib import Path

from digits.engine import paths
from digits.engine.run import checkpoint, names

seen = {"unusable": 0, "torn": 0, "lost": 0, "strays": 0, "left": []}
for folder in Path(sys.argv[1]).iterdir():
    saved = int((folder / "saved").read_text())
    (folder / "saved").unlink()
    strays = set(folder.iterdir()) - set(folder.glob("step-*.pt")) - {folder / "best.pt"}
    seen["strays"] += bool(strays)
    paths.delete_temporary_files(folder)
    listed = names.newest_first(folder)
    seen["left"] += [p.name for p in set(folder.iterdir()) - {*listed, folder / "best.pt"}]
    steps = {}
    for path in [*listed, *folder.glob("best.pt")]:
        try:
            state = checkpoint.load(path)
        except names.Unusable:
            seen["unusable"] += 1
            continue
        steps[path.name] = state["step"]
        whole = all((layer == state["step"]).all() for layer in state["model"].values())
        named = path.name in ("best.pt", names.path_of(folder, state["step"]).name)
        seen["torn"] += not (whole and named)
    best = steps.pop("best.pt", 0)
    seen["lost"] += max(steps.values(), default=0) < saved or best < saved - saved % 2
print(json.dumps(seen))
