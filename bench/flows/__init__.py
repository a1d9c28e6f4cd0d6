"""Solvers of gradient flow, one file each: ``LABEL`` and ``prepare(case, method, rtol)``.

What `prepare` returns takes the number of trajectories, of the case's, and returns what is saved of them. A peer is
written as somebody who knows it well would write it.
"""
