"""The figures of Saxe, McClelland & Ganguli (2013)."""

from __future__ import annotations

from pydln.reproduce.recipe import Paper

__all__ = ["PAPER"]

PAPER = Paper(
    cited="Saxe, McClelland & Ganguli (2013)",
    title="Exact solutions to the nonlinear dynamics of learning in deep linear neural networks",
    reference="arXiv:1312.6120",
    url="https://arxiv.org/abs/1312.6120",
)
