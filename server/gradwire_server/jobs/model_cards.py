"""Collects what a model card describes: the model, its job and the curves of the job."""

from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version

from gradwire_engine.spec.messages import classification_report_of, epoch_of
from gradwire_server.errors import JobNotFoundError, NoClassCountsError
from gradwire_server.jobs.queries import JobQueries
from gradwire_server.models.card import card
from gradwire_server.models.registry import ModelRegistry
from gradwire_server.principal import Principal
from gradwire_server.threads import in_thread

# More epochs do not change the curves, which are 40 characters wide.
_EPOCHS = 500


@dataclass(frozen=True)
class ModelCards:
    """Describes models as Markdown."""

    queries: JobQueries
    models: ModelRegistry

    async def get(self, principal: Principal, model_name: str) -> str:
        """Return the card of a model, or raise ModelNotFoundError. If its job was deleted, the card has less."""
        model = await self.models.get(principal, model_name)
        try:
            job = (await self.queries.get(principal, model.job)).job
            events, _ = await self.queries.sample_epochs(principal, model.job, 0, 0, _EPOCHS)
        except JobNotFoundError:
            job, events = None, []
        report = None
        with suppress(NoClassCountsError):
            report = classification_report_of(await self.models.class_counts(principal, model_name))
        epochs = [epoch_of(event.epoch) for event in events]
        return await in_thread(card, model, job, epochs, version("gradwire"), report)
