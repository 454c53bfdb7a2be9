"""What a package-lock.json names, from npm; kept in the virtual environment."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path


def node_modules(project: Path) -> Path:
    """The folder node_modules of a project, as its lock says."""
    lock = (project / "package-lock.json").read_bytes()
    folder = Path(sys.prefix) / "npm" / hashlib.sha256(lock).hexdigest()[:16]
    if not (folder / "whole").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(project / name, folder)
        options = ["--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(["npm", "ci", *options], cwd=folder, check=True, timeout=100, capture_output=True)
        (folder / "whole").touch()
    return folder / "node_modules"
