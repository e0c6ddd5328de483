"""The statements that claim promises, each made once in a process; names of parameters as in `statements`."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from batch_observability.ledger.tables import tables

if TYPE_CHECKING:
    from sqlalchemy import Insert, Select, Update

    from batch_observability.ledger.dialect import PostgreSQL, SQLite


class PromiseStatements:
    """The statements in a dialect."""

    def __init__(self, dialect: SQLite | PostgreSQL) -> None:
        self._dialect = dialect

    @cached_property
    def claimed(self) -> Select[Any]:
        """Who claimed a cause, and when it was broken."""
        from sqlalchemy import bindparam, select

        promises = tables().promises
        found = select(promises.c.at_risk_token, promises.c.breached_token, promises.c.breached_ns)
        return found.where(promises.c.key == bindparam("of_key"))

    @cached_property
    def claim(self) -> Insert:
        """Insert a cause, unless it is known or its episode is open."""
        insert: Insert = self._dialect.insert(tables().promises).on_conflict_do_nothing()
        return insert

    @cached_property
    def break_promise(self) -> Update:
        """Say that a cause is broken that was at risk, unless somebody has or its episode is open."""
        from sqlalchemy import bindparam, exists

        promises, other = tables().promises, tables().promises.alias("other")
        # Who saw the risk, when, and what is said in the end, stays.
        kept = {"key", "at_risk_ns", "at_risk_token", "recovered_ns", "recovered_token"}
        news = {column.name: bindparam(column.name) for column in promises.c if column.name not in kept}
        is_open = exists().where(other.c.episode == bindparam("episode"))
        mine = (promises.c.key == bindparam("of_key")) & promises.c.breached_ns.is_(None)
        return promises.update().where(mine, ~is_open).values(news)

    @cached_property
    def episode(self) -> Select[Any]:
        """Whether an episode is open."""
        from sqlalchemy import bindparam, select

        promises = tables().promises
        return select(promises.c.key).where(promises.c.episode == bindparam("of_episode"))

    @cached_property
    def kept(self) -> Select[Any]:
        """Whether a run of a slot has kept an objective; of any number of clears if none is given."""
        from sqlalchemy import bindparam, func, select

        runs = tables().runs
        names = ("dag_id", "dag_run_id", "task_id", "map_index")
        same = [runs.c[name] == bindparam(f"of_{name}") for name in names]
        cleared = runs.c.clear_number == func.coalesce(
            bindparam("of_clear_number", type_=runs.c.clear_number.type), runs.c.clear_number
        )
        return select(runs.c.run_id).where(*same, cleared, runs.c.kept.bitwise_and(bindparam("of_bit")) != 0).limit(1)

    @cached_property
    def recover(self) -> Update:
        """Close what is open of an objective and was broken before, and a cause."""
        from sqlalchemy import bindparam, text

        from batch_observability.ledger.tables import IS_OPEN

        promises = tables().promises
        before = (promises.c.breached_ns < bindparam("of_before_ns")) | (promises.c.key == bindparam("of_key"))
        resource = bindparam("of_resource", type_=promises.c.resource.type)
        concerned = (
            promises.c.model_name == bindparam("of_model"),
            promises.c.objective == bindparam("of_objective"),
            (resource == "") | (promises.c.resource == resource),
            text(IS_OPEN),
            before,
        )
        news = {"recovered_ns": bindparam("new_ns"), "recovered_token": bindparam("new_token"), "episode": None}
        return promises.update().where(*concerned).values(news)

    @cached_property
    def recovered(self) -> Select[Any]:
        """Whether something of an objective was closed with a token."""
        from sqlalchemy import bindparam, select

        promises = tables().promises
        return (
            select(promises.c.key)
            .where(promises.c.model_name == bindparam("of_model"), promises.c.objective == bindparam("of_objective"))
            .where(promises.c.recovered_token == bindparam("of_token"))
            .limit(1)
        )

    @cached_property
    def margin(self) -> Update:
        """Say what was left in the end."""
        from sqlalchemy import bindparam

        promises = tables().promises
        return promises.update().where(promises.c.key == bindparam("of_key")).values(margin_s=bindparam("new_margin_s"))
