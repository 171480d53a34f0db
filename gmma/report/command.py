"""`gmma report DIR [--output PATH]`."""

from gmma.errors import UserError
from gmma.files import RunPath, check_bucket, check_output, write_whole
from gmma.options.arguments import ReportArguments
from gmma.report.render import render_page
from gmma.report.run import run_page
from gmma.report.sweep import sweep_page
from gmma.sweep.arms import SWEEP_FILE


def report_command(given: ReportArguments) -> None:
    """Collect what the directory holds, write the page, say where it is."""
    check_bucket(given.directory)
    output = given.directory / "report.html" if given.output is None else given.output
    if given.directory.is_dir():
        check_output("output", output)
    page = report(given.directory)
    write_whole(output, page)
    print(f"{output}: {len(page.encode()) / 1e6:.2f} MB; open it in a browser")


def report(directory: RunPath) -> str:
    """Return the page of a run, or of a sweep where there is a `sweep.json`."""
    if not directory.is_dir():
        raise UserError(f"{directory} is no directory; give runs/NAME")
    is_sweep = (directory / SWEEP_FILE).exists()
    return render_page(sweep_page(directory) if is_sweep else run_page(directory))
