"""Paged attention behind one small interface."""
