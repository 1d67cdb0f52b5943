"""Rounds that run by themselves."""
