"""The sub-commands of ``slurm/SlurmTrain.py``, a module each, listed in `slurm/command_line.py`.

A module has::

    HELP = "one line for --help"

    def arguments(parser): ...      # options of its own; the shared ones: declared.add_options
    def run(asked) -> int: ...      # the exit status; bad input raises UsageError

Heavy imports stay inside of functions: ``--help`` imports all of them.
"""
