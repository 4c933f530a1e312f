"""Keys that must not be written down: recognised, refused where they are given, masked elsewhere.

Example::

    refuse_in_arguments(sys.argv[1:])      # UsageError: says where, never shows the key
    refuse_secrets(files_to_copy)          # the same for files, with the line
    clean_environment(os.environ)          # without the variables that hold keys
    mask("key: wandb_v1_...")              # "key: [W&B API key]"
"""

from mlmodeldev.secrets.environment import (
    key_is_left_out,
    open_netrc,
    secret_names,
    warn_of_keys_left_out,
    warn_of_open_netrc,
)
from mlmodeldev.secrets.patterns import (
    Match,
    clean_environment,
    find,
    guard_output,
    mask,
    masked,
    without_keys,
)
from mlmodeldev.secrets.refusal import (
    key_in_changes,
    refuse_in_arguments,
    refuse_in_text,
    refuse_in_values,
    refuse_secrets,
)

__all__ = [
    "Match",
    "clean_environment",
    "find",
    "guard_output",
    "key_in_changes",
    "key_is_left_out",
    "mask",
    "masked",
    "open_netrc",
    "refuse_in_arguments",
    "refuse_in_text",
    "refuse_in_values",
    "refuse_secrets",
    "secret_names",
    "warn_of_keys_left_out",
    "warn_of_open_netrc",
    "without_keys",
]
