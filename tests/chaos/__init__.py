"""Many small trials on a test cluster, while a seeded monkey breaks things: none lost or doubled.

python -m tests.chaos --seed 7 --minutes 3          # make chaos SEED=7 MINUTES=10
"""
