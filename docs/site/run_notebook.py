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
MOST = 5  # outputs of a cell that are kept, the last ones: what stands before is progress


def run_notebook(path: Path, *, keep: bool) -> None:
    """Run all cells in the notebook's folder, without a limit of time."""
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(path.parent)}}
    NotebookClient(
        notebook, timeout=None, startup_timeout=600, resources=place, config=LOCAL
    ).execute()
    if keep:
        tidy(notebook)
        nbformat.write(notebook, path)


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Leave out what is of one machine or of one moment: warnings, progress, times, versions."""
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            told = [one for one in cell.outputs if one.get("name") != "stderr"]
            cell.outputs = told[-MOST:]


if __name__ == "__main__":
    run_notebook(Path(sys.argv[1]), keep="--keep" in sys.argv[2:])
