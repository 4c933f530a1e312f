"""Two real processes give the number of one."""

from __future__ import annotations

import socket
import sys
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mlmodeldev.alignment.fullset import FullSetCKA
from mlmodeldev.alignment.metric import CKA
from tests.alignment import oracles


def batches():
    generator = torch.Generator().manual_seed(0)
    for n in (32, 32, 20, 17, 3):
        x = torch.randn(n, 300, generator=generator) + torch.randn(n, 1, generator=generator)
        yield {"x": x, "y": x[:, :40] + torch.randn(n, 40, generator=generator)}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def rank_main(rank, port, folder):
    store = dist.TCPStore("127.0.0.1", port, 2, rank == 0, timeout=timedelta(seconds=60))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    metric = CKA(["x", "y"], permutations=39, groups=8)
    for index, batch in enumerate(batches()):
        if index % 2 == rank:
            metric.update(batch)
    whole = FullSetCKA(["x", "y"])
    corrected = [kind(["x", "y"], feature_correction=True) for kind in (CKA, FullSetCKA)]
    for index, batch in enumerate(batches()):
        if index % 2 == rank:
            for one in (whole, *corrected):
                one.update(batch)
    result = {"matrix": metric.compute(), "n": metric.total_samples, "whole": whole.compute()}
    result["corrected"] = [one.compute() for one in corrected]
    result["errors"] = metric.significance().arrays()
    torch.save(result, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_give_the_number_of_one_process(tmp_path):
    context = mp.get_context("spawn")
    port = free_port()
    ranks = [context.Process(target=rank_main, args=(r, port, str(tmp_path))) for r in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(90)
    assert [process.exitcode for process in ranks] == [0, 0], sys.stderr
    alone = CKA(["x", "y"], permutations=39, groups=8)
    corrected = [kind(["x", "y"], feature_correction=True) for kind in (CKA, FullSetCKA)]
    for batch in batches():
        for one in (alone, *corrected):
            one.update(batch)
    want = alone.compute()
    everything = [torch.cat([batch[name] for batch in batches()]).numpy() for name in ("x", "y")]
    full = oracles.cka([everything])
    for rank in (0, 1):
        got = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        assert torch.allclose(got["matrix"], want, atol=1e-12)
        assert got["n"] == 101
        for name, value in alone.significance().arrays().items():
            assert got["errors"][name] == pytest.approx(value, abs=1e-9, nan_ok=True), name
        for value, one in zip(got["corrected"], corrected, strict=True):
            assert torch.allclose(value, one.compute(), atol=1e-10)
        assert got["whole"][0, 1].item() == pytest.approx(full, abs=1e-10)
