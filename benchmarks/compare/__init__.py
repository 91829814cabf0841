"""Side-by-side measurements against other engines, in alternating rounds of the same minutes.

Each other engine runs in a virtual environment and a process of its own and is used through its
public interface only. Nothing of theirs is imported here.
"""
