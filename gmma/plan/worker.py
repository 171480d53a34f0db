"""One compilation in a process of its own: `python -m gmma.plan.worker` with five arguments.

CONFIG TOPOLOGY NAME DUMP R: writes what is known of the program to DUMP/facts.json, and the
compiler's files beside it. R are the slots of a ragged row, 0 for static ones. Exit code 3 says
that the program does not fit.
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax

from gmma.config import config_from_json
from gmma.files import read_json
from gmma.hardware.sharding import make_mesh
from gmma.plan.programs import ProgramFacts, plan_parts, plan_programs
from gmma.plan.tpu_compiler import CODE_OUT_OF_HBM, compile_program, open_slice

FACTS = "facts.json"


def main() -> None:
    """Compile the program of that name."""
    source, topology, name, dump, slots = sys.argv[1:]
    jax.config.update("jax_platforms", "cpu")  # the compiler needs no TPU, and must take none
    config = config_from_json(read_json(Path(source)), Path(source))
    devices = list(open_slice(topology).devices)
    parts = plan_parts(config, make_mesh(config.launch.mesh, devices))
    planned = next(p for p in plan_programs(parts, int(slots) or None) if p.name == name)
    facts = {field.name: getattr(planned, field.name) for field in dataclasses.fields(ProgramFacts)}
    (Path(dump) / FACTS).write_text(json.dumps(facts))
    fits = compile_program(planned.jitted, planned.arguments, Path(dump))
    sys.exit(0 if fits else CODE_OUT_OF_HBM)


if __name__ == "__main__":
    main()
