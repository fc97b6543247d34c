"""Queries for models. Each query is a function that takes a connection and runs one or two statements."""

from sqlalchemy import Connection, bindparam, insert, select, true
from sqlalchemy import delete as delete_from

from gradwire_proto.v1.model_service_pb2 import Model
from gradwire_server.store import tensor_queries
from gradwire_server.store.paging import Page, PagedTable, rows_of_page
from gradwire_server.store.tables import model_labels, model_tensors, models

_INSERT_MODEL = insert(models).values(model_id=bindparam("model_id"), message=bindparam("message"))
_MODEL = select(models.c.message).where(models.c.model_id == bindparam("model_id"))

_PAGED = PagedTable(models, {"name": models.c.model_id}, model_labels, true())


def insert_model(connection: Connection, model_id: str, model: Model) -> None:
    """Add a model and its labels."""
    values = {"model_id": model_id, "message": model.SerializeToString()}
    result = connection.execute(_INSERT_MODEL, values)
    assert result.inserted_primary_key is not None
    model_key = result.inserted_primary_key[0]
    tensor_queries.insert_references(connection, model_tensors, model_key, [model.weights.sha256])
    labels = [{"owner": model_key, "key": key, "value": value} for key, value in model.labels.items()]
    if labels:
        connection.execute(insert(model_labels), labels)


def find_model(connection: Connection, model_id: str) -> Model | None:
    """Return the model with this ID, or None."""
    serialized = connection.scalars(_MODEL, {"model_id": model_id}).first()
    return None if serialized is None else Model.FromString(serialized)


def list_models(connection: Connection, page: Page) -> tuple[list[Model], str]:
    """Return a page of models and the token of the next page."""
    rows, token = rows_of_page(connection, _PAGED, page)
    return [Model.FromString(row.message) for row in rows], token


def delete_model(connection: Connection, model_id: str) -> bool:
    """Delete a model. Returns whether the model existed."""
    model_key = connection.scalar(select(models.c.id).where(models.c.model_id == model_id))
    if model_key is None:
        return False
    for table in (model_labels, model_tensors):
        connection.execute(delete_from(table).where(table.c.owner == model_key))
    connection.execute(delete_from(models).where(models.c.id == model_key))
    return True
