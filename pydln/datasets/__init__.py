"""Data: the MNIST images (`mnist`) and their second moments, which are shipped with the package (`mnist_moments`)."""

from __future__ import annotations

from pydln.datasets._mnist import MNIST, mnist
from pydln.datasets.moments import Moments, mnist_moments

__all__ = ["MNIST", "Moments", "mnist", "mnist_moments"]
