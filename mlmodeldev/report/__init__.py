"""One page on a sweep: a single HTML file that opens without a network.

Example::

    python slurm/SlurmTrain.py report --sweep sweep/config.yaml     # runs/digits/report.html

`content` gathers what the trials' folders say, `page` puts it into the HTML, whose scripts draw it.
"""
