"""Readers of structure files written by other programs, independent of OpenMM."""
