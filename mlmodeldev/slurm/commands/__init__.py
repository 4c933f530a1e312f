"""The sub-commands of ``slurm/SlurmTrain.py``, listed in `mlmodeldev.slurm.command_line`.

A module has, for each of its sub-commands::

    NAME_HELP = "one line for --help"

    def add_NAME_options(parser): ...   # its own; the shared ones: sweep_state.add_sweep_options
    def run_NAME(args) -> int: ...      # the exit status; bad input raises UsageError

Heavy imports stay inside of functions: ``--help`` imports all of them.
"""
