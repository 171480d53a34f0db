"""Run a notebook as it stands.

    python docs/site/run_notebook.py docs/tree.ipynb            leaves the file as it is
    python docs/site/run_notebook.py docs/tree.ipynb --keep     keeps what the cells print and draw

An error of a cell ends this with its traceback.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

# Over TCP the kernel warns that others on the machine could read along.
LOCAL = Config({"KernelManager": {"transport": "ipc"}})


def run_notebook(path: Path, *, keep: bool) -> None:
    """Run all cells in the notebook's folder, without a limit of time."""
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(path.parent)}}
    NotebookClient(
        notebook, timeout=None, startup_timeout=600, resources=place, config=LOCAL
    ).execute()
    if keep:
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # the times of each cell
        nbformat.write(notebook, path)


if __name__ == "__main__":
    run_notebook(Path(sys.argv[1]), keep="--keep" in sys.argv[2:])
