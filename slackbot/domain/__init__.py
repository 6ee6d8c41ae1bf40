"""Frozen values and pure functions that every layer may use."""
