"""A sandbox for untrusted Python: is what a model wrote right, and can it do no harm?

    worker ── client ══ server ── supervisor ┬─ checker      holds the tests and the verdict
                        (clean,   (new name- └─ submission   runs the model's code alone
                         bare)     spaces)

The tests never run beside the code they test. The checker executes them; a name that only the
submission defines is a proxy, and calling it sends the arguments over a pipe and gets plain data
back. So a submission that patches `assert`, `exit` or the runner, prints a verdict, overrides
`__eq__`, or searches its own memory finds nothing to forge: a test passes if the values it asked
for are right, compared where the submission has no hand.

Over the channel go plain data and numbers of objects. The checker uses for its peer what a test
handed over and nothing else: it calls functions and classes of the tests, and asks instances of the
tests' classes for public attributes and operators. Classes made there, Python's own `type` or
`eval`, and frames that are no messages of ours get nowhere (`tests/rewards/hostile_channel.py`). An
assertion that failed stays failed, whatever a submission swallows.

What remains: a test that asks an *object* of the submission to judge itself (`a == b` between two
of its own objects, a method that returns True) believes it; so does a test that judges with a
function it leaves to the submission to define.

It needs Linux 5.12, unprivileged user namespaces and x86-64 (whose calls the seccomp filter names);
`client.Sandbox` says what is missing elsewhere.

Only the standard library is imported here, and only relatively, so that the server loads these
files without loading gmma.
"""
