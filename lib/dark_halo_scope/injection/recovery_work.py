"""Units of injection and recovery rendered by processes of their own, and handed over in order.

Processes that render know nothing of networks: they import no torch, and pixels travel to the one that scores.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import get_context

import pyarrow as pa

from dark_halo_scope.core.errors import StorageError
from dark_halo_scope.core.manifest import Manifest
from dark_halo_scope.core.process import die_with_parent
from dark_halo_scope.injection.recovery import Rendered, render
from dark_halo_scope.injection.recovery_config import RecoverySettings
from dark_halo_scope.injection.source_config import SourceBankSettings, SourceCheckSettings
from dark_halo_scope.injection.sources import SourceBank, open_survey_bank
from dark_halo_scope.survey.cache_coadds import load_brick
from dark_halo_scope.survey.description import SurveyDescription


@dataclass(frozen=True)
class RecoveryJob:
    """What every unit needs; small, and sent to the processes that render.

    coadds, sources: manifests of the hosts' coadds and of the bank's measured galaxies.
    survey: whose file `sources` is the bank.
    idents: galaxies of the bank that may be sources; none where no rung injects images.
    settings: what is injected.
    stamp_size: pixels.
    """

    coadds: Manifest
    sources: Manifest
    survey: SurveyDescription
    idents: tuple[int, ...]
    settings: RecoverySettings
    stamp_size: int

    def bank(self) -> SourceBank | None:
        """The survey's bank with the images that this process has read; None where no rung needs it."""
        if not self.idents:
            return None
        bank = SourceCheckSettings.model_validate(self.sources.facts["settings"]).bank
        files = tuple(sorted(self.sources.facts["bank"]["files"].items()))
        return _bank_of(self.survey.model_dump_json(), bank, files)


@lru_cache(maxsize=1)
def _bank_of(survey: str, settings: SourceBankSettings, sha256: tuple[tuple[str, str], ...]) -> SourceBank:
    return open_survey_bank(SurveyDescription.model_validate_json(survey), settings, dict(sha256))


def render_unit(hosts: pa.Table, job: RecoveryJob) -> Rendered:
    """All injections of some hosts; see `recovery.render`."""
    bricks = partial(load_brick, job.coadds)
    return render(hosts, bricks, job.bank(), job.idents, job.settings, job.stamp_size)


def render_units(tables: Iterable[pa.Table], job: RecoveryJob, workers: int) -> Iterator[Rendered]:
    """Units in their order, rendered by `workers` processes ahead of whoever takes them; by this one where it is 0.

    No more than workers + 2 units are held.

    Args:
        tables: hosts of each unit.
        job: what is injected where.
        workers: processes.

    Raises:
        StorageError: a process was killed, as the system does where memory is short.
    """
    if workers < 1:
        for hosts in tables:
            yield render_unit(hosts, job)
        return
    # A fork would copy the threads' locks of a network that runs already.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=die_with_parent) as pool:
        waiting: deque[Future[Rendered]] = deque()
        try:
            for hosts in tables:
                # A slice would travel with the whole table.
                waiting.append(pool.submit(render_unit, hosts.take(pa.array(range(hosts.num_rows), pa.int64())), job))
                if len(waiting) > workers + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise StorageError(
                "A process that renders injections was killed, most likely for want of memory; lower unit_images or "
                "the number of workers and start again: finished parts are kept."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
