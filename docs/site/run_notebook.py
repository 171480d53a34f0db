"""Run a notebook as it stands.

    python docs/site/run_notebook.py docs/tree.ipynb            leaves the file as it is
    python docs/site/run_notebook.py docs/tree.ipynb --keep     keeps what the cells print and draw

An error of a cell ends this with its traceback. Only `--keep` starts a kernel of Jupyter.
"""

import os
import sys
from pathlib import Path

import nbformat

MOST = 5  # outputs of a cell that are kept, the last ones: what stands before is progress


def run_cells(path: Path) -> None:
    """Run all cells in this process, in the notebook's folder, as one module.

    A kernel talks over sockets, which not every machine lets a process open.
    """
    notebook = nbformat.read(path, as_version=4)
    os.chdir(path.resolve().parent)
    names: dict = {"__name__": "__main__"}
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "code":
            exec(compile(cell.source, f"{path.name}, cell {number}", "exec"), names)


def keep_outputs(path: Path) -> None:
    """Run all cells in a kernel, without a limit of time, and write what they show."""
    from nbclient import NotebookClient
    from traitlets.config import Config

    # Over TCP the kernel warns that others on the machine could read along.
    local = Config({"KernelManager": {"transport": "ipc"}})
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(path.parent)}}
    NotebookClient(
        notebook, timeout=None, startup_timeout=600, resources=place, config=local
    ).execute()
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
    keep = "--keep" in sys.argv[2:]
    (keep_outputs if keep else run_cells)(Path(sys.argv[1]))
