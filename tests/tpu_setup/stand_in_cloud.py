"""A Google Cloud that is not there: a copy of the project, a configuration, the stand-in."""

import shlex
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
SETUP = HERE.parents[1] / "tpu_setup"
EXPERIMENT = "experiments/digits.py"
CREATE = ["compute", "tpus", "queued-resources", "create"]
DELETE = ["compute", "tpus", "queued-resources", "delete"]


class Cloud:
    """A copy of the project, a configuration, and the stand-in on PATH."""

    def __init__(self, folder):
        self.folder = folder
        self.project = folder / "project"
        self.config = {
            "TPU_NAME": "gmma-test",
            "TPU_PROJECT": "my-project",
            "ACCELERATOR_TYPE": "v5litepod-8",
            "RUN_ROOT": "gs://my-bucket/runs",
            "POLL_SECONDS": "0",
            "RETRY_SECONDS": "0",
            "WAIT_MINUTES": "60",
        }
        self.scenario = {
            "WORKERS": "1",
            "UNREACHABLE": "",
            "STATES": "WAITING_FOR_RESOURCES ACTIVE",
            "NODE": "READY",
            "REFUSAL": "",
            "BUCKETS": "my-bucket",
            "EMULATOR": "",
        }
        self.lives = ["finished"]

    def lay_out(self):
        shutil.copytree(
            SETUP, self.project / "tpu_setup", ignore=shutil.ignore_patterns("config.env")
        )
        for name in ("pyproject.toml", "README.md", "LICENSE", "gmma/types.py", EXPERIMENT):
            path = self.project / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(name)
        for program, source in (
            ("bin/gcloud", "stand_in_gcloud.sh"),
            ("worker_bin/curl", "stand_in_worker.sh"),
            ("worker_bin/python3", "stand_in_worker.sh"),
        ):
            path = self.folder / program
            path.parent.mkdir(exist_ok=True)
            path.write_text((HERE / source).read_text())
            path.chmod(0o755)

    def run(self, verb, *arguments, limit=600):
        """A verb, which has so many seconds."""
        lines = (self.project / "tpu_setup/config.example.env").read_text().splitlines()
        lines += [f"{name}={value}" for name, value in self.config.items()]
        (self.project / "tpu_setup/config.env").write_text("\n".join(lines) + "\n")
        scenario = [f"{name}={shlex.quote(value)}\n" for name, value in self.scenario.items()]
        (self.folder / "scenario").write_text("".join(scenario))
        (self.folder / "lives").write_text("\n".join(self.lives) + "\n")
        return subprocess.run(
            ["bash", str(self.project / f"tpu_setup/{verb}.sh"), *arguments],
            env={"PATH": f"{self.folder / 'bin'}:/usr/local/bin:/usr/bin:/bin",
                 "HOME": str(self.folder), "STAND_IN": str(self.folder)},
            capture_output=True, text=True, check=False, timeout=limit,
        )  # fmt: skip

    @property
    def calls(self):
        path = self.folder / "calls"
        return (
            [line.split("\x1f") for line in path.read_text().split("\n")[:-1]]
            if path.exists()
            else []
        )

    @property
    def changes(self):
        """The calls that create or delete, in order."""
        return [call[3] for call in self.calls if call[:4] in (CREATE, DELETE)]

    def count(self, start):
        return sum(call[: len(start)] == start for call in self.calls)

    def forget_calls(self):
        (self.folder / "calls").unlink(missing_ok=True)

    @property
    def left_behind(self):
        return [name for name in ("request", "workers") if (self.folder / name).exists()]

    def trainer_starts(self, worker=0):
        lines = (self.folder / f"trainer_{worker}").read_text().splitlines()
        return [line.split("|")[1:-1] for line in lines]
