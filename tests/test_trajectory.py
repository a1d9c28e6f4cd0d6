"""Trajectory: the object that simulations and exact solutions share, and its files."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import tracemalloc
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pydln.errors import FileDamaged, MissingExtra, NotRecorded
from pydln.quantities import QUANTITIES, Sizes
from pydln.trajectory.status import Status
from pydln.trajectory.trajectory import Trajectory
from pydln.weights import Weights

WIDTHS = (4, 3, 5, 2)


def make(batch: int = 3, times: int = 6, *, per_member: bool = False, **changes: Any) -> Trajectory:
    """A trajectory with everything in it; member 1 diverges after half the times."""
    rng = np.random.default_rng(1)
    shapes = list(pairwise(WIDTHS))
    steps = np.arange(times) * 10
    lr = np.linspace(0.01, 0.03, batch)
    records: dict[str, Any] = {
        name: rng.random((batch, times, *one.shape(Sizes(WIDTHS, 2)))) for name, one in QUANTITIES.items()
    }
    records |= {"weights": tuple(rng.normal(size=(batch, times, n, m)) for m, n in shapes)}
    records |= {"own": rng.random((batch, times, 2, 3))}
    status = np.zeros(batch, np.int64)
    stopped_step = np.full(batch, steps[-1] if times else 0)
    if batch > 1 and times > 1:
        status[1] = Status.DIVERGED
        stopped_step[1] = steps[times // 2 - 1]
        for value in records.values():
            for array in value if isinstance(value, tuple) else (value,):
                array[1, times // 2 :] = np.nan
    arguments: dict[str, Any] = {
        "t": lr[:, None] * steps if per_member else 0.01 * steps,
        "steps": steps,
        "records": records,
        "status": status,
        "stopped_step": stopped_step,
        "stopped_time": 0.5 * stopped_step,
        "rejected": np.arange(batch),
        "final": Weights([rng.normal(size=(batch, n, m)) for m, n in shapes]) if batch else None,
        "settings": {
            "lr": lr if per_member else 0.01,
            "depth": np.int64(3),
            "widths": WIDTHS,
            "normalize": "mean",
            "momentum": 0.5,
            "throw": True,
            "nothing": None,
            "stop": {"loss": [0.1, None], "steady": np.float64(1e-3)},
        },
        "source": "gradient_descent",
    }
    return Trajectory(**(arguments | changes))


def exact(batch: int = 2, times: int = 5) -> Trajectory:
    return Trajectory(
        t=np.linspace(0, 3, times),
        steps=None,
        records={"loss": np.ones((batch, times)), "strengths": np.ones((batch, times, 2))},
        status=np.zeros(batch),
        stopped_step=np.full(batch, -1),
        stopped_time=np.full(batch, -1),
        source="exact:scalar_mode",
    )


def assert_same(one: Trajectory, other: Trajectory) -> None:
    np.testing.assert_array_equal(one.t, other.t)
    np.testing.assert_array_equal(one.status, other.status)
    for name in ("stopped_time", "stopped_step", "integrator_steps", "rejected"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (one.steps is None) == (other.steps is None)
    if one.steps is not None:
        np.testing.assert_array_equal(one.steps, other.steps)
    assert one.names == other.names
    assert one.source == other.source
    for name in one.names:
        a, b = getattr(one, name), getattr(other, name)
        assert type(a) is type(b)
        for x, y in zip(a, b, strict=True) if isinstance(a, tuple) else [(a, b)]:
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)
    assert (one.final is None) == (other.final is None)
    if one.final is not None and other.final is not None:
        for x, y in zip(one.final.layers, other.final.layers, strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)
    assert list(one.settings) == list(other.settings)
    for key, value in one.settings.items():
        assert type(value) is type(other.settings[key])
        np.testing.assert_equal(value, other.settings[key])


def test_status_numbers_are_the_kernels() -> None:
    assert {s.name: int(s) for s in Status} == {
        "COMPLETED": 0,
        "REACHED_LOSS": 1,
        "REACHED_STRENGTH": 2,
        "STEADY": 3,
        "DIVERGED": 4,
        "INTERRUPTED": 5,
        "STEP_LIMIT": 6,
        "STIFF": 7,
    }
    assert all(status.meaning for status in Status)


def test_attributes() -> None:
    run = make()
    assert run.batch == len(run) == 3
    assert run.names == (*QUANTITIES, "own")
    assert run.own.shape == (3, 6, 2, 3)
    assert run.loss.shape == (3, 6)
    assert run.weights[0].shape == (3, 6, 3, 4)
    assert run.settings["widths"] == list(WIDTHS)
    assert type(run.settings["depth"]) is int
    with pytest.raises(ValueError, match="read-only"):
        run.loss[0] = 0


def test_not_recorded_names_the_argument() -> None:
    run = exact()
    with pytest.raises(
        NotRecorded,
        match=r"drift was not recorded \(only loss, strengths\): run again with .*\('loss', 'strengths', 'drift'\)",
    ):
        _ = run.drift
    assert not hasattr(run, "drift")
    assert hasattr(run, "loss")
    with pytest.raises(AttributeError, match="no attribute 'lose'") as caught:
        _ = run.lose
    assert not isinstance(caught.value, NotRecorded)


def test_dir_lists_what_is_there() -> None:
    names = dir(exact())
    assert "loss" in names
    assert "summary" in names
    assert "t" in names
    assert "drift" not in names
    assert "weights" not in names


@pytest.mark.parametrize("per_member", [False, True])
def test_indexing_keeps_the_batch_axis(per_member: bool) -> None:
    run = make(per_member=per_member)
    for index, members in [(1, [1]), (-1, [2]), (slice(1, 3), [1, 2]), (run.status == Status.COMPLETED, [0, 2])]:
        part = run[index]
        assert len(part) == len(members)
        np.testing.assert_array_equal(part.loss, run.loss[members])
        np.testing.assert_array_equal(part.weights[1], run.weights[1][members])
        np.testing.assert_array_equal(part.stopped_step, run.stopped_step[members])
        assert part.final is not None
        assert run.final is not None
        np.testing.assert_array_equal(part.final.layers[0], run.final.layers[0][members])
        if per_member:
            np.testing.assert_array_equal(part.t, run.t[members])
            np.testing.assert_array_equal(part.settings["lr"], run.settings["lr"][members])
        else:
            np.testing.assert_array_equal(part.t, run.t)
            assert part.settings["lr"] == 0.01
        assert part.settings["widths"] == list(WIDTHS)
    with pytest.raises(IndexError, match="index: expected a member among 3, got 3"):
        run[3]
    assert len(run[run.status == Status.STEADY]) == 0
    assert [len(one) for one in run] == [1, 1, 1]


def test_a_setting_as_long_as_the_batch_stays_whole_unless_it_is_an_array() -> None:
    run = make(batch=4)
    assert len(run.settings["widths"]) == run.batch
    assert run[0].settings["widths"] == list(WIDTHS)


def test_nobody_changes_a_trajectory_by_pickling_it() -> None:
    run = make(per_member=True)
    other = pickle.loads(pickle.dumps(run))
    assert_same(run, other)
    assert not other.loss.flags.writeable


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"status": np.zeros((3, 1))}, ValueError, r"status: expected \(batch,\), got \(3, 1\)"),
        ({"status": [0, 9, 0]}, ValueError, "status: expected values of Status, 0 ... 7, got 9"),
        ({"stopped_time": [1, 2]}, ValueError, r"stopped_time: expected \(3,\), got \(2,\)"),
        ({"stopped_step": [1, 2]}, ValueError, r"stopped_step: expected \(3,\), got \(2,\)"),
        ({"t": np.zeros((2, 6))}, ValueError, r"t: expected \(time,\) or \(3, time\), got \(2, 6\)"),
        ({"steps": np.arange(5)}, ValueError, r"steps: expected \(6,\), got \(5,\)"),
        ({"records": {"loss": np.zeros((3, 5))}}, ValueError, r"records\['loss'\]: expected \(3, 6\), got \(3, 5\)"),
        (
            {"records": {"strengths": np.zeros((3, 6))}},
            ValueError,
            r"records\['strengths'\]: expected \(3, 6, mode\), got \(3, 6\)",
        ),
        (
            {"records": {"weights": [np.zeros((3, 6, 2))]}},
            ValueError,
            r"records\['weights'\]\[0\]: expected \(3, 6, n_out, n_in\), got \(3, 6, 2\)",
        ),
        ({"records": {"l-s": np.zeros((3, 6))}}, ValueError, "records: expected names of quantities, .* got 'l-s'"),
        ({"records": {"batch": np.zeros((3, 6))}}, ValueError, "records: expected names of .* got 'batch'"),
        ({"records": {"own": np.zeros((3, 5))}}, ValueError, r"records\['own'\]: expected \(3, 6\), got \(3, 5\)"),
        ({"final": Weights([np.ones((2, 2))])}, ValueError, "final: expected Weights of 3 members, got Weights"),
        ({"source": 3}, TypeError, "source: expected text, got 3"),
        (
            {"settings": {"lr": np.zeros(2)}},
            ValueError,
            r"settings\['lr'\]: expected an array of numbers, one per member",
        ),
        ({"settings": {3: 4}}, TypeError, "settings: expected names as keys, got 3"),
        ({"settings": {"f": {"g": [1, {2}]}}}, TypeError, r"settings\['f'\]\['g'\]\[1\]: expected text, .* got set"),
    ],
)
def test_wrong_arguments(changes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(**changes)


def test_summary_counts_and_skips_what_is_not_there() -> None:
    run = make()
    text = run.summary()
    rows = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    assert rows["completed"][1:] == ["2", "50", "50", "50"]
    assert rows["diverged"][1:] == ["1", "20", "20", "20"]
    last = [run.loss[0, -1], run.loss[1, 2], run.loss[2, -1]]  # the diverged member's last finite entry
    assert rows["last loss"][2:] == [f"{v:.6g}" for v in (min(last), np.median(last), max(last))]
    assert "lr = 0.01" in text
    assert "gradient_descent: 3 members" in text
    assert "no attribute" not in text
    assert "nan" not in text


@pytest.mark.parametrize(
    "run", [make(batch=1, times=1), make(times=0), make()[np.zeros(3, bool)], exact(), make(records={})]
)
def test_summary_and_reprs_of_degenerate_trajectories(run: Trajectory) -> None:
    assert run.summary()
    assert repr(run)
    assert "<table>" in run._repr_html_()


def test_members_that_recorded_nothing_are_left_out_of_the_summary() -> None:
    loss = np.array([[np.nan, np.nan], [2.0, 1.0]])
    run = Trajectory(
        t=[0, 1],
        steps=[0, 1],
        records={"loss": loss},
        status=[4, 0],
        stopped_step=[0, 1],
        stopped_time=[0, 1],
        source="gradient_descent",
    )
    assert "last loss" in run.summary()
    row = next(line for line in run.summary().splitlines() if line.startswith("last loss"))
    assert row.split()[2:] == ["1", "1", "1"]


def test_output_of_a_huge_batch_stays_small() -> None:
    batch, modes = 20_000, 300
    run = Trajectory(
        t=np.zeros((batch, 2)),
        steps=[0, 1],
        records={"loss": np.ones((batch, 2)), "strengths": np.ones((batch, 2, modes))},
        status=np.arange(batch) % 6,
        stopped_step=np.ones(batch),
        stopped_time=np.ones(batch),
        settings={"lr": np.ones(batch), "note": "x" * 10_000, **{f"key{i}": i for i in range(500)}},
        source="gradient_descent",
    )
    assert len(run.summary()) < 4000
    assert len(repr(run)) < 400
    assert len(run._repr_html_()) < 8000


def test_html_is_escaped() -> None:
    page = make(settings={"name": "<script>"})._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("per_member", [False, True])
def test_save_and_load_change_nothing(tmp_path: Path, per_member: bool) -> None:
    run = make(per_member=per_member)
    written = run.save(tmp_path / "run")
    assert written == tmp_path / "run.npz"
    assert_same(run, Trajectory.load(tmp_path / "run"))
    assert_same(run, Trajectory.load(str(written)))
    assert os.listdir(tmp_path) == ["run.npz"]
    loaded = Trajectory.load(written)
    assert not loaded.loss.flags.writeable


def test_save_and_load_an_exact_solution(tmp_path: Path) -> None:
    run = exact()
    loaded = Trajectory.load(run.save(tmp_path / "theory.v2"))
    assert (tmp_path / "theory.v2.npz").exists()
    assert loaded.steps is None
    assert loaded.final is None
    assert_same(run, loaded)


def test_save_and_load_an_empty_selection(tmp_path: Path) -> None:
    run = make(per_member=True)[np.zeros(3, bool)]
    assert_same(run, Trajectory.load(run.save(tmp_path / "none.npz")))


def test_float32_records_stay_float32(tmp_path: Path) -> None:
    run = Trajectory(
        t=[0.0],
        steps=[0],
        records={"loss": np.ones((1, 1), np.float32)},
        status=[0],
        stopped_step=[0],
        stopped_time=[0],
        source="x",
    )
    assert Trajectory.load(run.save(tmp_path / "x.npz")).loss.dtype == np.float32


def test_load_a_renamed_file(tmp_path: Path) -> None:
    make().save(tmp_path / "run.npz").rename(tmp_path / "run.bak")
    assert_same(make(), Trajectory.load(tmp_path / "run.bak"))


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make().save(tmp_path / "run.npz")
    before = path.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        exact().save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.npz"]


def test_absent_files_and_directories(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.npz|nothing"):
        Trajectory.load(tmp_path / "nothing.npz")
    with pytest.raises(FileNotFoundError, match=r"path: expected an existing directory to write into, got .*absent"):
        make().save(tmp_path / "absent" / "run.npz")
    with pytest.raises(ValueError, match="path: expected a file name, got ''"):
        make().save("")


def rewrite(path: Path, changes: dict[str, Any], drop: tuple[str, ...] = ()) -> None:
    """Write the npz again, its checksums sound, with other contents; `header` is merged into the header."""
    with np.load(path) as entries:
        arrays = {name: entries[name] for name in entries.files if name not in drop}
    header = json.loads(str(arrays["header"])) if "header" in arrays else {}
    if "header" in changes:
        changes = changes | {"header": np.array(json.dumps(header | changes["header"]))}
    np.savez(path, **(arrays | changes))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.write_bytes(b""), "got an empty file"),
        (lambda p: p.write_bytes(np.random.default_rng(0).bytes(5000)), "got a file of another kind"),
        (lambda p: p.write_bytes(pickle.dumps([1, 2])), "got a file of another kind"),
        (lambda p: p.write_bytes(p.read_bytes()[:-100]), "got a damaged file"),
        (lambda p: p.write_bytes(p.read_bytes()[:30]), "got a damaged file"),
        (lambda p: np.savez(p, a=np.ones(3)), "got an npz file of another kind"),
        (lambda p: rewrite(p, {}, drop=("header",)), "got an npz file of another kind"),
        (lambda p: rewrite(p, {"header": {"format": "other"}}), "got an npz file of another kind"),
        (lambda p: rewrite(p, {"header": {"version": 99}}), "format version 99, and this version of pydln reads 2"),
        (lambda p: rewrite(p, {}, drop=("record/loss", "t")), r"got a damaged file \(without t, record/loss\)"),
        (lambda p: rewrite(p, {"status": np.zeros(2)}), r"got a damaged file \(stopped_time: expected \(2,\)"),
        (lambda p: rewrite(p, {"t": np.array([{}], object)}), r"got a damaged file \(t\.npy holds Python objects"),
    ],
)
def test_damaged_files(tmp_path: Path, spoil: Any, message: str) -> None:
    path = make().save(tmp_path / "run.npz")
    spoil(path)
    with pytest.raises(FileDamaged, match=message) as caught:
        Trajectory.load(path)
    text = str(caught.value)
    assert "run.npz: expected a trajectory saved by pydln, got" in text
    assert "\n" not in text


def test_damage_anywhere_is_found_or_harmless(tmp_path: Path) -> None:
    run = make(times=2)
    path = run.save(tmp_path / "run.npz")
    good = path.read_bytes()
    rng = np.random.default_rng(3)
    refused = 0
    for place in rng.integers(len(good), size=150):
        spoiled = bytearray(good)
        spoiled[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(spoiled))
        try:
            loaded = Trajectory.load(path)
        except FileDamaged:
            refused += 1
        else:
            assert_same(run, loaded)  # dates and such inside the zip
    assert refused > 75
    for length in range(0, len(good), max(1, len(good) // 60)):
        path.write_bytes(good[:length])
        with pytest.raises(FileDamaged):
            Trajectory.load(path)


def test_a_damaged_npy_header_is_found(tmp_path: Path) -> None:
    """float64 misread as float32 has the right shape and ends before the checksum is due: NumPy says nothing."""
    path = make(records={"loss": np.ones((3, 6))}).save(tmp_path / "run.npz")
    good = path.read_bytes()
    start = good.index(b"record/loss.npy")
    path.write_bytes(good[:start] + good[start:].replace(b"'<f8'", b"'<f4'", 1))
    with pytest.raises(FileDamaged, match=r"the checksum of record/loss\.npy does not match"):
        Trajectory.load(path)


def forge(path: Path, name: str, header: dict[str, Any], *, content: bytes = b"", compress: bool = False) -> None:
    """Put an entry with this npy header in the place of another; its checksum is right, its size what it is."""
    with zipfile.ZipFile(path) as archive:
        there = {entry: archive.read(entry) for entry in archive.namelist()}
    written = io.BytesIO()
    np.lib.format.write_array_header_1_0(written, {"fortran_order": False, **header})
    there[f"{name}.npy"] = written.getvalue() + content
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        for entry, data in there.items():
            archive.writestr(entry, data)


PETABYTES = 2**47


@pytest.mark.parametrize("name", ["t", "header", "record/loss", "final/0", "status"])
@pytest.mark.parametrize(
    ("header", "content"),
    [
        ({"descr": "<f8", "shape": (PETABYTES,)}, b""),
        ({"descr": "<f8", "shape": (PETABYTES, PETABYTES, PETABYTES)}, b"12345678"),
        ({"descr": f"<U{2**29}", "shape": ()}, b""),
        ({"descr": "<U0", "shape": (PETABYTES,)}, b""),
        ({"descr": "|V0", "shape": (PETABYTES,)}, b""),
        ({"descr": "<f8", "shape": (-1,)}, b""),
        ({"descr": "<f8", "shape": (-1, -1)}, b"12345678"),
        ({"descr": [("a", "<f8", (2**20, 2**20))], "shape": (2**10,)}, b""),
        ({"descr": "|O", "shape": (1,)}, pickle.dumps([1])),
        ({"descr": "|S8", "shape": (1,)}, b"12345678"),
        ({"descr": "<c16", "shape": (1,)}, bytes(16)),
    ],
)
def test_entries_that_claim_what_they_are_not(
    tmp_path: Path, name: str, header: dict[str, Any], content: bytes
) -> None:
    path = make().save(tmp_path / "run.npz")
    forge(path, name, header, content=content)
    assert_refused_at_once(path)


def test_a_small_file_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    path = make().save(tmp_path / "run.npz")
    forge(path, "record/loss", {"descr": "<f8", "shape": (3, 2**22)}, content=bytes(3 * 2**25), compress=True)
    assert path.stat().st_size < 200_000
    assert_refused_at_once(path)


def test_entries_that_share_their_bytes(tmp_path: Path) -> None:
    """As many names for the same bytes as fit into a directory."""
    path = make(records={"loss": np.ones((3, 6))}).save(tmp_path / "run.npz")
    with zipfile.ZipFile(path, "a") as archive:
        large = archive.getinfo("record/loss.npy")
        for k in range(20):
            twin = zipfile.ZipInfo(f"record/{k}.npy")
            for field in ("header_offset", "CRC", "compress_size", "file_size", "compress_type"):
                setattr(twin, field, getattr(large, field))
            archive.filelist.append(twin)
        archive._didModify = True  # type: ignore[attr-defined]
    assert_refused_at_once(path)


def test_headers_of_thousands_of_brackets(tmp_path: Path) -> None:
    path = make().save(tmp_path / "run.npz")
    for text in ("(" * 9000, "[" * 60000, "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "1," * 9000 + ")}"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("header.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())
        assert_refused_at_once(path)
    rewrite(path := make().save(tmp_path / "other.npz"), {"header": {"source": "x"}})
    with np.load(path) as entries:
        arrays = dict(entries)
    np.savez(path, **(arrays | {"header": np.array("[" * 100_000)}))
    assert_refused_at_once(path)


def assert_refused_at_once(path: Path) -> None:
    """As damaged, in one sentence, and in little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(FileDamaged, match="expected a trajectory saved by pydln, got ") as caught:
            Trajectory.load(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shapes", [[(3, 3, 4), (3, 5, 4)], [(3, 3, 4), (2, 5, 3)], [(3, 4)], [(3, 3, 4, 1)]])
def test_final_weights_that_are_no_layers(tmp_path: Path, shapes: list[tuple[int, ...]]) -> None:
    path = make(final=None).save(tmp_path / "run.npz")
    arrays = {f"final/{k}": np.ones(shape) for k, shape in enumerate(shapes)}
    with np.load(path) as entries:
        there = json.loads(str(entries["header"]))["entries"]
    rewrite(path, {**arrays, "header": {"entries": [*there, *arrays]}})
    with pytest.raises(FileDamaged, match="its final weights are no layers"):
        Trajectory.load(path)


def test_numbers_in_the_other_byte_order(tmp_path: Path) -> None:
    run = make()
    path = run.save(tmp_path / "run.npz")
    with np.load(path) as entries:
        swapped = {
            name: entries[name].astype(entries[name].dtype.newbyteorder()) for name in ("final/0", "t", "status")
        }
    rewrite(path, swapped)
    assert_same(run, Trajectory.load(path))


def test_files_hold_no_pickles(tmp_path: Path) -> None:
    with zipfile.ZipFile(make(per_member=True).save(tmp_path / "run.npz")) as archive:
        for name in archive.namelist():
            np.load(io.BytesIO(archive.read(name)), allow_pickle=False)


@pytest.mark.parametrize("per_member", [False, True])
def test_to_xarray(tmp_path: Path, per_member: bool) -> None:
    xarray = pytest.importorskip("xarray")
    run = make(per_member=per_member)
    data = run.to_xarray()
    at = "time" if per_member else "t"
    assert data.loss.dims == data.test_loss.dims == ("batch", at)
    assert data.strengths.dims == ("batch", at, "mode")
    assert data["product"].dims == ("batch", at, "out", "in_")
    assert data.layer_norms.dims == ("batch", at, "layer")
    assert list(data.layer) == [1, 2, 3]
    assert data.drift.dims == ("batch", at, "interface")
    assert data.W_1.dims == ("batch", at, "unit_1", "in_")
    assert data.W_3.dims == ("batch", at, "out", "unit_2")
    assert data.t.dims == (("batch", "time") if per_member else ("t",))
    assert data.t.attrs["units"] == "tau"
    np.testing.assert_array_equal(data.steps, run.steps)
    np.testing.assert_array_equal(data.status, run.status)
    np.testing.assert_array_equal(data["product"], run.product)
    assert data.attrs["source"] == "gradient_descent"
    assert data.attrs["widths"] == list(WIDTHS)
    assert data.attrs["throw"] == 1
    assert json.loads(data.attrs["stop"]) == run.settings["stop"]
    if per_member:
        assert data.lr.dims == ("batch",)
    else:
        assert data.attrs["lr"] == 0.01
        wanted = run.loss[:, np.abs(run.t - 1.01 * run.t[2]).argmin()]
        np.testing.assert_array_equal(data.loss.sel(t=1.01 * run.t[2], method="nearest"), wanted)

    # SciPy's writer is the strictest of xarray's: what it takes, netCDF 4 and zarr take too.
    pytest.importorskip("scipy")
    data.to_netcdf(tmp_path / "run.nc", engine="scipy")
    with xarray.open_dataset(tmp_path / "run.nc", engine="scipy") as back:
        np.testing.assert_array_equal(back.loss, run.loss)
        assert back.attrs["normalize"] == "mean"


def test_to_xarray_of_one_layer_and_of_theory() -> None:
    pytest.importorskip("xarray")
    data = exact().to_xarray()
    assert "steps" not in data.coords
    assert set(data.data_vars) == {"loss", "strengths"}
    one = Trajectory(
        t=[0.0],
        steps=[0],
        records={"weights": [np.zeros((1, 1, 3, 2))]},
        status=[0],
        stopped_step=[0],
        stopped_time=[0],
        settings={"steps": 7, "batch": 1},
        source="gradient_descent",
    ).to_xarray()
    assert one.W_1.dims == ("batch", "t", "out", "in_")
    assert one.attrs["setting_steps"] == 7
    assert list(one.steps) == [0]


def test_to_xarray_without_xarray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(MissingExtra, match=r"Trajectory.to_xarray needs xarray: pip install 'pydln\[data\]'"):
        make().to_xarray()


def test_the_summary_says_who_recorded_nothing() -> None:
    loss = np.array([[np.nan, np.nan], [2.0, 1.0]])
    run = Trajectory(
        t=[5, 9],
        steps=[5, 9],
        records={"loss": loss},
        status=[1, 0],
        stopped_step=[3, 9],
        stopped_time=[3, 9],
        source="gradient_descent",
    )
    said = "1 member stopped before the first recorded step"
    assert said in run.summary()
    assert said in run._repr_html_()
    assert "there are none to show" in run[0].summary()
    assert "before the first" not in run[1].summary()


def test_save_wants_a_file_name(tmp_path: Path) -> None:
    for path in (f"{tmp_path}/", tmp_path, f"{tmp_path}/new/"):
        with pytest.raises(ValueError, match="path: expected a file name, got the directory "):
            make().save(path)
    assert list(tmp_path.iterdir()) == []
    assert not tmp_path.with_name(tmp_path.name + ".npz").exists()


@pytest.mark.parametrize("name", ["t", "steps", "status", "stopped_time", "stopped_step", "rejected"])
def test_text_is_no_array(name: str) -> None:
    with pytest.raises(TypeError, match=f"^{name}: expected an array of numbers, got 'a'$"):
        make(**{name: "a"})


def test_records_of_text() -> None:
    with pytest.raises(TypeError, match=r"^records\['loss'\]: expected an array of numbers, got \[\['a'\]\]$"):
        make(records={"loss": [["a"]]})
