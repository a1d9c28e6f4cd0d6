"""Stochastic gradients: minibatches, online learning, noisy labels."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import reference_noise
from ensembles import KERNELS, RECORDS, starts
from scipy import stats

import pydln as dln
from pydln._base import backend
from pydln.simulate import noise as noise_module
from pydln.simulate.balanced import coordinates as balanced

# widths: both sides narrow, deep and shallow, one layer, odd numbers, more than a register block
WIDTHS = ((3, 2), (2, 5), (4, 4, 4), (5, 7, 2), (2, 6, 5), (9, 3, 4, 13), (17, 20, 11))
STEPS = 7


def task_of(widths, *, whiten=True, normalize="mean", count=23, seed=0):
    rng = np.random.default_rng((seed, *widths))
    x = rng.normal(size=(count, widths[0])) * np.linspace(0.5, 1.5, widths[0])
    y = x @ rng.normal(size=(widths[0], widths[-1])) / widths[0] + 0.2 * rng.normal(size=(count, widths[-1]))
    if normalize == "sum":
        x, y = x / np.sqrt(count), y / np.sqrt(count)
    return dln.Task.from_data(x, y, whiten=whiten, normalize=normalize, keep_samples=True, X_test=x[:5], Y_test=y[:5])


def root_of(task):
    values, vectors = np.linalg.eigh(task.sigma_xx)
    return (vectors * np.sqrt(values)) @ vectors.T


def specified(noise, task, member):
    """The covariances that each step of a member sees, by the specification."""
    key = {"seed": noise.seed, "member": noise.first + member}

    def own(value):
        return float(np.ravel(value)[member if np.ndim(value) else 0])

    def at(step):
        if isinstance(noise, dln.Minibatch):
            total = 1 if task.normalize == "mean" else task.samples
            how = {"replace": noise.replace, "label_noise": own(noise.label_noise), "total": total}
            return reference_noise.minibatch(*task.data, noise.size, step=step, **key, **how)
        if isinstance(noise, dln.Online):
            std = np.sqrt(2 * task.floor / task.n_out) if noise.label_noise is None else own(noise.label_noise)
            return reference_noise.online(root_of(task), task.optimum, noise.size, step=step, label_noise=std, **key)
        scale = own(noise.std) / (np.sqrt(noise.samples or task.samples) if task.normalize == "mean" else 1)
        return reference_noise.noisy_labels(task.sigma_xx, task.sigma_yx, root_of(task), scale, step=step, **key)

    return at


def run(task, weights, noise, **more):
    kwargs = {"lr": 0.05, "steps": STEPS, "record_every": 1, "record": RECORDS} | more
    return dln.gradient_descent(task, weights, noise=noise, **kwargs)


def check(task, weights, noise, result, batch, tolerance, **rates):
    for member in range(batch):
        one = task if task.batch is None else task[member]
        expected = reference.descent(
            [w[member if weights.batch > 1 else 0] for w in weights.layers],
            sigma_xx=one.sigma_xx,
            sigma_yx=one.sigma_yx,
            trace_yy=one.trace_yy,
            U=one.modes.U,
            V=one.modes.V,
            lr=0.05,
            steps=STEPS,
            at=range(STEPS + 1),
            test=(one.test.sigma_xx, one.test.sigma_yx, one.test.trace_yy),
            noise=specified(noise, one, member),
            **rates,
        )
        for name in RECORDS:
            got, wanted = getattr(result, name), expected.records[name]
            for a, b in zip(*((got, wanted) if name == "weights" else ([got], [wanted])), strict=True):
                size = max(1.0, np.abs(b).max(initial=0))
                np.testing.assert_allclose(a[member], b, rtol=0, atol=tolerance * size, err_msg=name)
        for a, b in zip(result.final.layers, expected.layers, strict=True):
            np.testing.assert_allclose(a[member], b, rtol=0, atol=tolerance * max(1.0, np.abs(b).max()))


NOISES = {
    "drawn": dln.Minibatch(5, seed=3),
    "one sample": dln.Minibatch(1, seed=2**64 - 1, first=11),
    "shuffled": dln.Minibatch(7, seed=3, replace=False),
    "shuffled, noisy": dln.Minibatch(9, seed=4, replace=False, label_noise=[0.0, 0.3, 0.1]),
    "online": dln.Online(seed=5),
    "online, noisy": dln.Online(6, seed=5, label_noise=[0.5, 0.0, 0.1]),
    "labels": dln.LabelNoise(0.7, seed=6),
    "labels, own": dln.LabelNoise([0.7, 0.0, 0.2], seed=6, samples=4, first=3),
}


class TestRandomNumbers:
    def test_the_generator_is_philox(self):
        """Answers published with Random123 (Salmon et al. 2011)."""
        full = 0xFFFFFFFF
        assert reference_noise.philox((0,) * 4, (0,) * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
        assert reference_noise.philox((full,) * 4, (full,) * 2) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
        pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)
        assert reference_noise.philox(*pi) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]

    def test_normal_numbers_are_normal(self):
        """The label noise of one layer at a zero start, read off the first step."""
        task = dln.Task.from_covariances(None, np.zeros((50, 40)), 0.0, normalize="sum")
        start = dln.Weights([np.zeros((60, 50, 40))])
        z = run(task, start, dln.LabelNoise(1.0, seed=1), lr=1.0, steps=1, record=()).final.layers[0]
        assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
        assert abs(np.mean(z**4) - 3) < 5 * np.sqrt(96 / z.size)
        flat = z.reshape(60, -1)
        correlation = np.corrcoef(flat)[np.triu_indices(60, 1)]
        assert np.abs(correlation).max() < 6 / np.sqrt(flat.shape[1])  # members are independent
        cosines, sines = flat[:, ::2].ravel(), flat[:, 1::2].ravel()  # of one block each
        assert abs(np.corrcoef(cosines, sines)[0, 1]) < 5 / np.sqrt(cosines.size)

    def test_normal_numbers_are_those_of_the_formula(self):
        task = dln.Task.from_covariances(None, np.zeros((7, 9)), 0.0, normalize="sum")
        start = dln.Weights([np.zeros((1, 7, 9))])
        for isa in backend.available_isas():
            with backend.forced(isa=isa):
                z = run(task, start, dln.LabelNoise(1.0, seed=9, first=5), lr=1.0, steps=1, record=()).final
            expected = reference_noise.normals(9, 5, 0, reference_noise.LABELS, 63).reshape(7, 9)
            np.testing.assert_allclose(z.layers[0][0], expected, rtol=1e-14, atol=1e-15)


class TestAgainstTheSpecification:
    @pytest.mark.parametrize(("isa", "layout"), KERNELS)
    @pytest.mark.parametrize("widths", WIDTHS, ids=str)
    @pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
    def test_every_kernel(self, noise, widths, isa, layout):
        for whiten, normalize in ((True, "mean"), (False, "sum"), (False, "mean")):
            task = task_of(widths, whiten=whiten, normalize=normalize)
            for dtype, tolerance in ((np.float64, 2e-13), (np.float32, 1e-4)):
                weights = starts(widths, 3, dtype=dtype)
                with backend.forced(isa=isa, layout=layout):
                    result = run(task, weights, noise)
                check(task, weights, noise, result, 3, tolerance)

    @pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
    def test_tasks_of_their_own_and_momentum(self, noise):
        widths = (5, 7, 2)
        tasks = dln.Task.stack([task_of(widths, whiten=False, seed=seed) for seed in range(3)])
        weights = starts(widths)
        for layout in ("interleaved", "rows"):
            with backend.forced(layout=layout):
                result = run(tasks, weights, noise, momentum=0.5, weight_decay=0.1)
            check(tasks, weights, noise, result, 3, 2e-13, momentum=0.5, weight_decay=0.1)

    @pytest.mark.parametrize("widths", [(3, 4, 2), (2, 3, 4)], ids=str)
    @pytest.mark.parametrize("size", [129, 256, 301])
    @pytest.mark.parametrize("kind", ["drawn", "shuffled", "online"])
    def test_many_samples_come_in_pieces(self, kind, size, widths):
        task = task_of(widths, count=2 * size + 1, whiten=False)
        noise = {
            "drawn": dln.Minibatch(size, seed=4, label_noise=0.3),
            "shuffled": dln.Minibatch(size, seed=4, replace=False),
            "online": dln.Online(size, seed=4, label_noise=0.3),
        }[kind]
        for layout in ("interleaved", "rows"):
            for dtype, tolerance in ((np.float64, 2e-13), (np.float32, 1e-4)):
                weights = starts(widths, 3, dtype=dtype)
                with backend.forced(layout=layout):
                    result = run(task, weights, noise)
                check(task, weights, noise, result, 3, tolerance)

    def test_late_steps(self):
        """Passes over few samples, and more records than the first steps have."""
        widths, noise = (4, 4, 4), dln.Minibatch(3, seed=1, replace=False)
        task = task_of(widths, count=8)
        result = run(task, starts(widths), noise, steps=40, record="loss")
        w = [w[0] for w in starts(widths).layers]
        for step in range(40):
            slopes = reference.gradient(w, *specified(noise, task, 0)(step))
            w = [a - 0.05 * g for a, g in zip(w, slopes, strict=True)]
        for a, b in zip(result.final.layers, w, strict=True):
            np.testing.assert_allclose(a[0], b, rtol=0, atol=1e-13)


class TestTheorems:
    def test_a_minibatch_of_all_samples_is_the_full_batch(self):
        widths = (5, 7, 2)
        for normalize in ("mean", "sum"):
            task = task_of(widths, whiten=False, normalize=normalize)
            noise = dln.Minibatch(task.samples, replace=False)
            a, b = run(task, starts(widths), noise, steps=50), run(task, starts(widths), None, steps=50)
            np.testing.assert_allclose(a.product, b.product, rtol=0, atol=1e-12)

    def test_a_pass_takes_every_sample_once(self):
        count, size = 12, 3
        noise = dln.Minibatch(size, seed=8, replace=False)
        for epoch in range(3):
            steps = range(epoch * 4, epoch * 4 + 4)
            taken = [i for s in steps for i in reference_noise.chosen(8, 0, s, size, count, replace=False)]
            assert sorted(taken) == list(range(count))
        # One-hot samples show in the kernel which were taken: each moves its own column of a single layer.
        task = dln.Task.from_data(np.eye(count), np.ones((count, 1)), normalize="sum", keep_samples=True)
        moved = run(task, dln.Weights([np.zeros((1, 1, count))]), noise, lr=1e-3, steps=4, record=()).final.layers[0]
        np.testing.assert_allclose(moved, 1e-3 * count / size, rtol=1e-14)

    def test_no_noise_on_labels_is_the_full_batch_bit_for_bit(self):
        task = task_of((5, 7, 2), whiten=False)
        a, b = (run(task, starts((5, 7, 2)), n) for n in (dln.LabelNoise(0.0), None))
        assert np.array_equal(a.product, b.product)

    def test_label_noise_comes_to_rest_at_the_known_variance(self):
        """W <- (1 - lr) W + lr (s + σ z): variance lr σ² / (2 - lr)."""
        task = dln.Task.from_covariances(None, [[1.0]], 1.0, normalize="sum")
        start = dln.Weights([np.ones((20000, 1, 1))])
        end = run(task, start, dln.LabelNoise(0.5, seed=2), lr=0.3, steps=60, record=()).final.layers[0].ravel()
        expected = 0.3 * 0.25 / 1.7
        assert abs(end.mean() - 1) < 5 * np.sqrt(expected / end.size)
        assert abs(end.var() / expected - 1) < 5 * np.sqrt(2 / end.size)

    def test_online_learning_has_the_moments_of_the_task(self):
        """The mean of the first step over many members is the step of the full batch."""
        task = task_of((3, 2), whiten=False)
        members = 40000
        start = dln.Weights([np.broadcast_to(starts((3, 2)).layers[0], (members, 2, 3)).copy()])
        moved = run(task, start, dln.Online(2, seed=3), lr=1.0, steps=1, record=()).final.layers[0]
        full = run(task, starts((3, 2)), None, lr=1.0, steps=1, record=()).final.layers[0]
        error = moved.std(axis=0) / np.sqrt(members)
        assert np.all(np.abs(moved.mean(axis=0) - full[0]) < 5 * error)

    @pytest.mark.parametrize("kind", ["drawn", "shuffled, noisy", "online, noisy", "labels, own"])
    def test_a_member_does_not_depend_on_its_company(self, kind):
        widths, noise = (9, 3, 4, 13), NOISES[kind]
        task = task_of(widths, whiten=False)
        batch, std = 19, np.linspace(0.0, 0.4, 19)
        name = "std" if isinstance(noise, dln.LabelNoise) else "label_noise"
        of = {k: getattr(noise, k) for k in ("seed", "size", "replace", "samples") if hasattr(noise, k)}
        weights = starts(widths, batch)
        whole = run(task, weights, type(noise)(**of, **{name: std}), n_threads=2)
        for layout in ("interleaved", "rows"):
            with backend.forced(layout=layout):
                threads = [run(task, weights, type(noise)(**of, **{name: std}), n_threads=n) for n in (1, 3)]
            for other in threads:
                assert all(np.array_equal(a, b) for a, b in zip(whole.final.layers, other.final.layers, strict=True))
        for member in (0, 7, 18):
            one = dln.Weights([w[member : member + 1] for w in weights.layers])
            alone = run(task, one, type(noise)(**of, **{name: std[member]}, first=member))
            for a, b in zip(whole.final.layers, alone.final.layers, strict=True):
                assert np.array_equal(a[member], b[0])

    def test_a_longer_run_begins_like_a_shorter_one(self):
        task, weights = task_of((4, 4, 4)), starts((4, 4, 4), 5)
        short, long = (run(task, weights, dln.Online(3), steps=steps, record="weights") for steps in (20, 90))
        for a, b in zip(short.weights, long.weights, strict=True):
            assert np.array_equal(a, b[:, : a.shape[1]])


class TestWrongArguments:
    @pytest.mark.parametrize(
        ("noise", "message"),
        [
            (0.1, "noise: expected pydln.Minibatch, pydln.Online, pydln.LabelNoise or None, got float"),
            (dln.Minibatch(0), "noise.size: expected an integer >= 1, got 0"),
            (dln.Minibatch(2, seed=-1), "noise.seed: expected an integer >= 0"),
            (dln.Minibatch(2, seed=2**64), "noise.seed: expected an integer <= 18446744073709551615"),
            (dln.Minibatch(2, first=2**32 - 1), "noise.first: expected at most 2.32 members"),
            (dln.Minibatch(2.5), "noise.size: expected an integer, got 2.5"),
            (dln.Minibatch(24, replace=False), "noise.size: expected at most the task's 23 samples"),
            (dln.Minibatch(2, replace=1), "noise.replace: expected True or False, got 1"),
            (dln.Minibatch(2, label_noise=-1), "noise.label_noise: expected"),
            (dln.Minibatch(2, label_noise=[0, 1, 2]), "noise: expected 1 or 2 members"),
            (dln.Online(label_noise=np.nan), "noise.label_noise: expected"),
            (dln.LabelNoise("much"), "noise.std: expected"),
            (dln.LabelNoise(1.0, samples=0), "noise.samples: expected an integer >= 1, got 0"),
        ],
    )
    def test_name_what_is_wrong(self, noise, message):
        with pytest.raises((TypeError, ValueError), match=message):
            run(task_of((4, 4, 4)), starts((4, 4, 4), 2), noise)

    def test_samples_that_were_not_kept(self):
        task = dln.Task.from_spectrum([1.0], 4, 4)
        with pytest.raises(ValueError, match=r"expected a task that keeps its samples .*keep_samples=True"):
            run(task, starts((4, 4, 4)), dln.Minibatch(2))
        with pytest.raises(ValueError, match=r"noise\.samples: expected the number of samples"):
            run(task, starts((4, 4, 4)), dln.LabelNoise(0.1))

    def test_reductions_by_name(self):
        with pytest.raises(ValueError, match=r"reduce: expected auto or none with noise, got width"):
            run(task_of((4, 4, 4)), starts((4, 4, 4)), dln.Online(), reduce="width")

    def test_kept_samples_are_copies_that_cannot_change(self):
        x, y = np.eye(3), np.ones((3, 1))
        task = dln.Task.from_data(x, y, keep_samples=True)
        x[0, 0] = 7
        assert task.data.X[0, 0] == 1
        assert not task.data.X.flags.writeable
        assert dln.Task.from_data(x, y).data is None


def test_the_trajectory_says_what_noise_there_was():
    result = run(task_of((4, 4, 4)), starts((4, 4, 4), 2), dln.Minibatch(5, seed=3, label_noise=[0.0, 0.1]))
    assert result.settings["noise"] == "Minibatch"
    assert result.settings["noise.seed"] == 3
    assert result.settings["noise.size"] == 5
    np.testing.assert_array_equal(result.settings["noise.label_noise"], [0.0, 0.1])
    assert result.settings["reduce"] == "none"


def inputs_of_unlike_units(span, seed=0, copies=True):
    """Samples of inputs whose units span 1 … `span`, one of them there twice, and targets that every input explains."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((50, 4)) @ rng.standard_normal((4, 4))
    unit = np.geomspace(1, span, 4)
    Y = X @ rng.standard_normal((4, 2))
    X = X * unit
    return (np.hstack([X, X[:, 1:2]]) if copies else X), Y


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("span", [1, 1e-4, 1e-8, 1e-10])
def test_every_input_counts_in_its_own_unit(span, copies):
    """Noise has the moments of the task: label by label of Σ_yy, root by root of Σ_xx, however unlike the units are."""
    X, Y = inputs_of_unlike_units(span, copies=copies)
    single = dln.Task.from_data(X, Y)
    xx, yx = single.sigma_xx, single.sigma_yx
    unit = np.sqrt(np.diag(xx))
    batched = dln.Task.stack([single, dln.Task.from_data(X[::-1] * 2, Y)])
    for task in (single, batched):
        arrays = noise_module.check(dln.Online(4), task, np.dtype("f8")).arrays
        labels, root = (a if a.ndim == 2 else a[0] for a in (arrays["labels"], arrays["root"]))
        assert np.allclose(labels @ labels.T, Y.T @ Y / len(Y), rtol=1e-12)
        near = 1e-14 / span  # what rounding of the largest leaves of the least
        assert np.abs((root @ root - xx) / unit / unit[:, None]).max() < 10 * near
        assert np.abs((labels @ root - yx) / unit).max() < 10 * near * np.abs(yx / unit).max()
        learned, basis = balanced.learned_by(task)
        basis, variances, own = basis[0], learned.variances[0], learned.sigma_yx[0]
        assert np.abs(((basis * variances) @ basis.T - xx) / unit / unit[:, None]).max() < 10 * near
        assert np.abs((own @ basis.T - yx) / unit).max() < 10 * near * np.abs(yx / unit).max()
        assert np.count_nonzero(variances) == 4
