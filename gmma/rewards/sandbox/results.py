"""The possible verdicts on a submission."""

PASSED = "passed"  # every test passed
FAILED = "failed"  # some test did not, or the code raised, or wrote more than it may
TIMED_OUT = "timed out"
OUT_OF_MEMORY = "out of memory"
CRASHED = "crashed"  # its process ended before its tests did
RUNNER_ERROR = "runner error"  # not the submission's fault: never a model's zero
