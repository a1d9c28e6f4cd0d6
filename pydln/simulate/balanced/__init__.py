"""Balanced networks through their product: its flow, its singular values and vectors, its layers."""
