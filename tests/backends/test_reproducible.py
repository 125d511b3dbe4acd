"""An accelerator takes torch's deterministic algorithms; what has none is named, and what was set is put back."""

import warnings
from dataclasses import replace

import pytest
import torch

import alignment_checks as ac
from alignment_checks.backends import dispatch
from alignment_checks.backends.job import Job
from alignment_checks.backends.reproducible import remarks, reproducible
from alignment_checks.setups.realization import realize

ACCELERATOR, CPU = torch.device("meta"), torch.device("cpu")


def chosen():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
        torch.backends.cudnn.benchmark,
    )


@pytest.fixture
def choice():
    """Choose algorithms as a user does, and put back what was chosen."""
    before = chosen()

    def choose(mode, *, warn_only=False, fill=True, benchmark=False):
        torch.use_deterministic_algorithms(mode, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fill
        torch.backends.cudnn.benchmark = benchmark

    yield choose
    choose(before[0], warn_only=before[1], fill=before[2], benchmark=before[3])


def scattered():
    """An operation without a deterministic algorithm, on any device."""
    return torch.zeros(4).put_(torch.tensor([0, 1]), torch.ones(2))


@pytest.mark.parametrize("mode", [False, True])
@pytest.mark.parametrize("benchmark", [False, True])
def test_an_accelerator_computes_the_same_bits_each_time_and_what_was_set_is_put_back(choice, mode, benchmark):
    choice(mode, warn_only=mode, benchmark=benchmark)
    before = chosen()
    with reproducible(ACCELERATOR) as processes:
        assert chosen() == (True, True, mode, False)
        assert processes == 1
    assert chosen() == before
    with pytest.raises(KeyboardInterrupt), reproducible(ACCELERATOR):
        raise KeyboardInterrupt
    assert chosen() == before


def test_on_a_cpu_one_thread_is_enough_and_nothing_else_is_set(choice):
    choice(False, benchmark=True)
    before = chosen()
    with reproducible(CPU):
        assert chosen() == before


def test_who_wants_errors_of_what_is_not_deterministic_gets_them(choice):
    choice(True)
    with reproducible(ACCELERATOR), pytest.raises(RuntimeError, match="put_ does not have a deterministic"):
        scattered()


def test_what_is_not_deterministic_is_named_once_and_is_no_warning(blobs, monkeypatch, choice):
    choice(False)

    def train(job, device, reason, **_):
        scattered()
        scattered()
        return dispatch.loop.Record(None, None, None, "loop", reason)

    monkeypatch.setattr(dispatch.loop, "train", train)
    with reproducible(ACCELERATOR), warnings.catch_warnings(record=True) as told:
        jobs = [Job(realize(blobs, 0), (None,))]
        ((_, record),) = dispatch.trained(jobs, ACCELERATOR, "loop", planned=1)
    assert record.reason == "put_ does not have a deterministic implementation; asked for"
    assert not told


def test_what_else_warns_is_heard():
    notes = []
    with pytest.warns(UserWarning, match="^the user's own$"), remarks(notes):
        warnings.warn("the user's own", UserWarning, stacklevel=1)
    assert not notes


@pytest.mark.parametrize("backend", ["lanes", "loop"])
def test_runs_on_a_cpu_leave_the_choice_of_algorithms_to_the_user(blobs, backend, choice):
    choice(True, warn_only=True)
    seen = []

    def watched(parameters):
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        optimizer.register_step_pre_hook(lambda *_: seen.append(chosen()))
        return optimizer

    before = chosen()
    ac.run(replace(blobs, optimizer=watched), seeds=range(2), backend=backend)
    assert set(seen) == {before}


@pytest.mark.parametrize("device", [ACCELERATOR, CPU])
def test_float32_is_float32_whatever_was_set_and_that_is_put_back(device):
    operations = (torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.mkldnn.matmul)
    before = [operation.fp32_precision for operation in operations]
    assert before[0] == "tf32"  # torch's default, of which a measured loss would have three digits
    with reproducible(device):
        assert {operation.fp32_precision for operation in operations} == {"ieee"}
    assert [operation.fp32_precision for operation in operations] == before


def test_a_precision_that_follows_torchs_own_follows_it_again():
    backends = torch.backends
    kinds = (backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.conv, backends.mkldnn.rnn)
    operations = (backends.cuda.matmul, backends.mkldnn.matmul, *kinds)
    before = [operation.fp32_precision for operation in operations]
    try:
        for operation in operations:
            operation.fp32_precision = "none"
        backends.fp32_precision = "tf32"
        with reproducible(CPU):
            pass
        assert {operation.fp32_precision for operation in operations} == {"tf32"}
        backends.fp32_precision = "ieee"
        assert {operation.fp32_precision for operation in operations} == {"ieee"}
    finally:
        backends.fp32_precision = "none"
        for operation, precision in zip(operations, before, strict=True):
            operation.fp32_precision = precision


@pytest.mark.parametrize("device", [ACCELERATOR, CPU])
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_what_reads_torchs_older_flags_may_do_so_while_it_trains(device, precision):
    def flags():
        cuda, mkldnn = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
        older = torch.backends.cudnn.allow_tf32, cuda.allow_tf32, torch.get_float32_matmul_precision()
        return *older, cuda.fp32_precision, mkldnn.fp32_precision

    torch.set_float32_matmul_precision(precision)
    try:
        before = flags()
        with reproducible(device):
            assert flags() == (False, False, "highest", "ieee", "ieee")
            with torch.backends.cudnn.flags(enabled=False):  # as torch advises for second derivatives of an LSTM
                pass
        assert flags() == before
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cuda.matmul.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision = "none"


def test_flags_of_which_some_cannot_be_read_are_left_as_they_are():
    torch.backends.cuda.matmul.fp32_precision = "tf32"  # beside the older flag, which says that it is not
    try:
        with reproducible(ACCELERATOR):
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = "none"


def test_attention_on_an_accelerator_adds_up_in_a_fixed_order():
    def kernels():
        cuda = torch.backends.cuda
        return cuda.math_sdp_enabled(), cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled()

    before = kernels()
    with reproducible(ACCELERATOR):
        assert kernels() == (True, False, False)
    assert kernels() == before
