"""Projects: written by ``mlmodeldev init``, adopted, brought to a later version by ``update``.

source.py   the files of a new project, wherever this package lies
origin.py   where this package came from, as a line of requirements.txt
init.py     the command that writes a project
adopt.py    the command that makes an existing repository run here; adopt_*.py are its parts
update.py   the command that merges a later version into it
renames.py  settings that got another name
swap.py     several files that change together, or not at all
files/      files of a new project that the clone has none of
project/    empty; in a wheel, the clone's own trainer.py, model.py, conf/ ...
"""
