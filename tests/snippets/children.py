"""Start a child that ignores signals and one that closes its output, write their ids, and wait."""

import subprocess
import sys
import time
from pathlib import Path

DEAF = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (2, 15)]; time.sleep(60)"
SILENT = "import os, time; [os.close(n) for n in (0, 1, 2)]; time.sleep(60)"
children = [subprocess.Popen([sys.executable, "-c", text]) for text in (DEAF, SILENT)]
Path("children").write_text(" ".join(str(child.pid) for child in children))
time.sleep(60)
