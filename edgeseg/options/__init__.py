"""The options of commands and of the Python API: dataclasses that declare each of them once.

A field states its type, its limits and its help text. Python checks it when an object is made, the
command line (:mod:`edgeseg.cli.flattening`) makes an option of it, and a TOML file
(:mod:`edgeseg.cli.configuration`) has a key for it. Nothing here imports more than pydantic, since
shell completion imports all of it at each key press.
"""
