"""The library's files of settings; Hydra finds them behind the project's own ``conf/``.

Those of a group that has a class in `mlmodeldev.settings.schema` are written from it, by
``python -m mlmodeldev.settings``.
"""
