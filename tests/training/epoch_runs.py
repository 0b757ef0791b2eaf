"""Runs of a linear layer on five numbers a row, which note what happened to them; for tests of plans and epochs."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from configs import common
from data_pipelines.draws import Draw
from data_pipelines.places import Paths
from data_pipelines.sources import ArraySource, RowSource
from jaxvpr.objectives.objective import Embed, Objective, Plan
from jaxvpr.parallel import hosts
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.training import logs, loop, plans
from jaxvpr.training.recipe import Recipe

PLAN, EPOCH, ROWS = 2, 6, 20
MODEL = nn.Dense(3)


class Run:
    """A run in parts. It notes what happened: plans made, variables validated, states before each step.

    Its plans ask for what the model makes of the rows (`mines`), or go by their number and memory alone. Rows are read
    from a file, or lie on the devices as a `table` of that type.
    """

    def __init__(self, folder, monkeypatch, values=None, generations=(), mesh=None, mines=True, period=PLAN,
                 table=None, **keys):  # fmt: skip
        self.folder, self.monkeypatch, self.values = folder, monkeypatch, values
        self.plans, self.seen, self.validated, self.inherited, self.before = [], [], [], [], {}
        self.generations, self.clock, self.mines, self.period = generations, 0.0, mines, period
        self.table, self.calls = table, []
        self.mesh = mesh or make_mesh(devices=jax.devices()[:2])
        folder.mkdir()
        np.save(folder / "rows.npy", np.random.default_rng(0).normal(size=(ROWS, 5)).astype(np.float32))
        config = common.base().unlock()
        config.epochs, config.steps_per_epoch, config.batch = 2, EPOCH, 4
        config.optimizer = config.optimizer_extra = common.optimizer("adam", 1e-2)
        config.val_data = {"val": common.data("at_names", "nowhere")}
        config.update_from_flattened_dict(keys)
        self.config = config.lock()

    def objective(self):
        def init(key, dim):
            return {"head": jax.random.normal(key, (1, dim))}, {"old": MODEL.init(key, jnp.zeros((1, 5)))["params"]}

        def plan(index, rng, memory, embed):
            chosen = np.arange(ROWS) if self.mines else (np.arange(8) + memory.get("made", 0)) % ROWS
            if self.mines:
                self.seen.append(embed.rows(chosen))
                chosen = np.argsort(self.seen[-1][:, 0])[:8]  # so that a plan depends on the model of the moment
            self.plans.append(index)
            self.clock += 5.0
            rows = rng.choice(chosen, (self.period, self.config.batch))
            return Plan({"source": Draw.of_steps(rows)}), {"made": memory.get("made", np.int64(0)) + np.int64(1)}

        def embed(params, stats, aux, batch, key):
            old = MODEL.apply({"params": aux["old"]}, batch["descriptor"])
            return {"new": MODEL.apply({"params": params}, batch["descriptor"]), "old": old}, stats

        def loss(extra, aux, outputs, batches, at):
            z, old = outputs["source"].values()
            value = jnp.square(z @ extra["head"] - 1).mean() + jnp.square(z - jax.lax.stop_gradient(old)).mean()
            return value, aux, {"epoch_of_loss": at.epoch.astype(jnp.float32)}

        def inherited(aux, variables):
            self.inherited.append(copied(variables["params"]))
            return {"old": variables["params"]}

        return Objective(
            ("source",), self.period, plan, loss, embed, init,
            new_generation=lambda index: index in self.generations, inherited=inherited,
        )  # fmt: skip

    def validate(self, variables, extra):
        self.validated.append(copied(variables))
        done = sum("val/R@1" in record for record in logs.read(self.folder))
        value = self.values[done] if self.values else float(done)
        return {"val/R@1": 50.0, "val/R@5": value, "zoo/R@5": 100.0 - value}

    def train(self, leaves_at=99):
        """One part of the run, up to a step."""

        class Told(hosts.StopRequest):
            def __call__(self, step):
                return step >= leaves_at

        make_step = loop.make_step

        def watched(*args, **kwargs):
            step = make_step(*args, **kwargs)

            def run(state, batches, turn, *tables):
                self.calls.append(np.size(turn.number))
                self.before[int(np.min(turn.number))] = copied(state._replace(key=jax.random.key_data(state.key)))
                return step(state, batches, turn, *tables)

            run.lower = step.lower
            return run

        def embed(variables):
            params = copied(variables)
            return Embed(
                lambda rows: np.asarray(MODEL.apply(params, source.read(Draw.of(rows), 0, 0, "")["descriptor"])), None
            )

        source = ArraySource(str(self.folder / "rows.npy"))
        rows, tables = source, {}
        if self.table:
            rows = RowSource(Paths.of(f"{row}.jpg" for row in range(ROWS)), np.zeros(ROWS, bool))
            tables = {"source": {"descriptor": np.load(source.file).astype(self.table)}}
        recipe = Recipe(
            MODEL, self.objective(), {"source": rows}, np.zeros((1, 5), np.float32), lambda v: v, embed,
            self.validate, Paths.of([]), tables=tables,
        )  # fmt: skip
        with self.monkeypatch.context() as patched, jax.numpy_rank_promotion("allow"):
            patched.setattr(loop.hosts, "StopRequest", Told)
            patched.setattr(loop, "make_step", watched)
            for module in (loop, plans):
                patched.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.clock))
            return loop.train(self.config, self.folder, recipe, self.mesh)

    def log(self):
        return (self.folder / "log.jsonl").read_bytes()

    def steps(self):
        return sorted(int(path.name) for path in (self.folder / "checkpoints").iterdir() if path.name.isdigit())


def copied(tree):
    """On the host, and not a view of memory that a step takes over."""
    return jax.tree.map(np.array, jax.device_get(tree))


def assert_same(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(one, other)


def differ(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return any(not np.array_equal(a, b) for a, b in pairs)
