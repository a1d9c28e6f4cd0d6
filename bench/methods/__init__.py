"""One file per way to train an ensemble; adding a peer is adding a file and its name in bench_descent.py.

A file has ``LABEL``, its name in the table, and ``prepare(workload, **options)``, which returns ``train(steps)``: that
starts from ``workload.start``, does so many steps, and returns the losses (batch, 1 + steps / RECORD_EVERY), or None,
and the final layers. Everything that happens once (compilation, the choice of a block size) happens in ``prepare``.
A package that is not installed shows as the ModuleNotFoundError of its import at the top.

Peers propagate from the narrow side, as `narrow.py` turns the problem.
"""
