"""Learning dynamics, integrated: one file for each verb, and what they share."""
