"""Keys as they look, put together here so that no file of the project holds one."""

import hashlib

HEX = hashlib.sha1(b"a key that opens nothing").hexdigest()
NEW = "wandb_v1_" + "Zx9_" * 19 + "Q"
KEYS = {
    "W&B, forty hexadecimal digits": HEX,
    "W&B, new": NEW,
    "W&B, a server of one's own": "local-" + HEX,
    "Hugging Face": "hf_" + "AbCdE" * 7,
    "AWS": "AKIA" + "Q1W2E3R4T5Y6U7I8",
    "AWS secret": "aws_secret_access_key=" + "Ab1/" * 10,
    "GitHub": "ghp_" + "a1B2c3" * 6,
}
