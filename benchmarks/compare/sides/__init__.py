"""One program per engine under comparison; each runs in its own environment.

These modules import the engine they drive and `protocol`, nothing else of this project, because the
project is not installed where they run (but for `ours`).
"""
