"""Published studies as whole programs: with pydln, as a researcher would write them, and as well as peers can.

One file each, with ``CASES``, by name, and ``PROGRAMS``, by key. A program takes a case and returns the numbers of the
figure; all are compared with tests/reference.py. `python -m studies.NAME`, from bench/, runs one by hand.
"""
