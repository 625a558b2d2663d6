"""What `avel ablate` trains for tables: an order for each variant and seed, or why a variant has none."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from catalog.dataset import options_of
from catalog.errors import BadArguments
from catalog.store.reader import FeatureStore, open_store
from heads.ablation.table import Table
from heads.registry import names, spec
from heads.spec import Scalar
from heads.training.order import Order
from jobs.cli.head_settings import config_changes, settings_of
from jobs.train.run import anchored, check_data_set

# (variant's key, seed) -> what to train; variant's key -> why it is not.
Orders = dict[tuple[str, int], Order]
SkipReasons = dict[str, str]


def orders_of(args: argparse.Namespace, chosen: Mapping[str, Table]) -> tuple[Orders, SkipReasons]:
    """What to train for the tables; a variant that several rows share once.

    Raises:
        BadArguments: an option names what is not there, or does not fit these tables.
    """
    check_data_set(args.dataset)
    store = open_store(args.store)
    recipes = _recipes(args, store, chosen)
    base = _base_changes(args.set)
    orders: Orders = {}
    skipped: SkipReasons = {}
    variants = {v.key(): v for table in chosen.values() for row in table.rows if (v := row.variant) is not None}
    for key, variant in variants.items():
        recipe = recipes.get(variant.role)
        if recipe is None:
            skipped[key] = f"no features: --recipe {variant.role}=NAME"
            continue
        options: dict[str, str] = {}
        if variant.train_share != 100:
            if "train_list" not in options_of(args.dataset):
                skipped[key] = f"{args.dataset} has no reduced training lists"
                continue
            options = {"train_list": f"{variant.train_share / 100:g}"}
        trains = spec(variant.head).needs_training
        for seed in range(args.seed, args.seed + (args.seeds if trains else 1)):
            orders[key, seed] = Order(
                store=anchored(args.store),
                snapshot=store.snapshot_id,
                dataset=args.dataset,
                root=anchored(args.root),
                media=args.media and anchored(args.media),
                options=options,
                recipe=recipe,
                head=variant.head,
                modality=variant.modality,
                changes=base.get(variant.head, {}) | dict(variant.changes),
                vocabulary=args.vocabulary if spec(variant.head).needs_texts else None,
                settings=settings_of(args, variant.head, seed=seed),
                threads=args.threads,
                out=args.out / "runs" / key / f"seed-{seed}",
                overwrite=args.overwrite,
                restart=False,
            )
    return orders, skipped


def _recipes(args: argparse.Namespace, store: FeatureStore, chosen: Mapping[str, Table]) -> dict[str, str]:
    """Role to recipe, by `--recipe`; the role "" is the one recipe of the tables that compare none."""
    roles = {role for table in chosen.values() for role in table.roles()}
    held = sorted(store.recipes())
    found: dict[str, str] = {}
    for text in args.recipe:
        role, equals, name = text.partition("=")
        role, name = (role, name) if equals else ("", text)
        if role not in roles or role in found:
            wanted = ", ".join(sorted(role or "NAME alone" for role in roles))
            raise BadArguments(f"--recipe {text}: these tables take {wanted}, each once")
        if name not in held:
            raise BadArguments(f"--recipe: the store has no {name!r}; it has {', '.join(held) or 'none yet'}")
        found[role] = name
    if "" in roles and "" not in found:
        if len(held) != 1:
            raise BadArguments(f"--recipe is needed; the store has {', '.join(held) or 'none yet'}")
        found[""] = held[0]
    return found


def _base_changes(texts: Sequence[str]) -> dict[str, dict[str, Scalar]]:
    found: dict[str, dict[str, Scalar]] = {}
    for text in texts:
        head, dot, change = text.partition(".")
        if not dot or head not in names():
            raise BadArguments(f"--set needs HEAD.FIELD=VALUE with one of {', '.join(names())}, got {text!r}")
        found.setdefault(head, {}).update(config_changes(head, [change]))
    return found
